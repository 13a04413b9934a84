import assert from 'node:assert/strict'
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import type { Page } from 'playwright-core'
import type { Browser } from '../kit/browsers/browser.ts'
import { skipWithoutChromium } from '../kit/browsers/chromium.ts'
import { freePort } from '../kit/ports.ts'
import { startRecordingProxy } from '../kit/recording-proxy.ts'
import { startScriptedPages } from './chromium-pages.ts'
import { has, run, startProgram, whyNot } from './program.ts'
import {
  APP,
  CLIENT_ID,
  NO_PROFILE,
  NO_SIGNALS,
  PERSON,
  type ProviderKind,
  type RealProvider,
} from './provider.ts'
import { assertRefused, assertServed, assertSignedOut, ROWS, signedIn, withWrongSecret } from './rows.ts'

const INSTALL_MS = 10 * 60_000
const START_MS = 60_000
const TOKEN_SECONDS = 10
const SECRET = 'glewlwyd-client-secret-0123456789'
/** Its discovery document wants Basic for revocation, even from a client that posts its secret. */
const AUTH_METHODS = ['client_secret_post', 'client_secret_basic']
const SHARED = '/usr/share/glewlwyd'
const TABLES = '/usr/share/dbconfig-common/data/glewlwyd/install/sqlite3'

const FOR_BOTH =
  'a refresh brings all scopes of the sign-in, whatever it asks for: each API gets a token for both'

/** Glewlwyd from Debian, with SQLite; its pages are a program in the browser. */
export const glewlwyd: ProviderKind = {
  id: 'glewlwyd',
  title: 'Glewlwyd 2.7',
  section: 'Glewlwyd',
  async missing() {
    if (skipWithoutChromium) return 'needs Chromium for its pages'
    if (await has('glewlwyd', '--version')) return undefined
    const canInstall = process.getuid?.() === 0 && (await has('apt-get', '--version'))
    return canInstall ? whyNot(install) : 'needs the Debian package glewlwyd'
  },
  start,
  limits: {
    'shared signals': NO_SIGNALS,
    profile: NO_PROFILE,
    'two resources': { reason: FOR_BOTH, check: ROWS['two resources'] },
    'silent renewal': { reason: FOR_BOTH, check: ROWS['silent renewal'] },
    '20 parallel calls': { reason: FOR_BOTH, check: ROWS['20 parallel calls'] },
    'wrong secret': {
      reason:
        'an empty 400 at a refresh does not say so: 503, or 401 while others are renewed; a sign-in tells (502)',
      check: (scene) =>
        withWrongSecret(
          scene,
          (answer) => {
            const told = `${answer.status} ${answer.json().code}`
            assert.match(told, /^(?:503 provider_unavailable|401 reauthentication_required)$/)
          },
          // A refresh with a wrong secret uses up a one-time refresh token there.
          { endsGrants: true },
        ),
    },
    cancelled: {
      reason: 'its pages have no way to refuse that leads back: the user leaves them, and nothing has begun',
      async check(scene) {
        const browser = scene.browser()
        const page = await browser.navigate(`${APP}/bff/login?returnUrl=/home`, { from: APP })
        assert.equal(page.url.pathname, '/login.html')
        await assertSignedOut(browser)
        await scene.signIn(browser)
        assert.equal(
          (await browser.fetch('/bff/user')).status,
          200,
          'the next attempt is as good as the first',
        )
      },
    },
    narrowed: {
      reason: 'a refresh never narrows; a sign-in with less consent does, and what is missing is refused',
      async check(scene) {
        await scene.provider.narrow?.()
        try {
          const browser = await signedIn(scene)
          await assertServed(scene, browser, 'orders')
          await assertRefused(scene, browser, 'billing')
        } finally {
          await scene.provider.widen?.()
        }
      },
    },
  },
}

async function start(): Promise<RealProvider> {
  const proxy = await startRecordingProxy()
  const application = await startRecordingProxy()
  const port = await freePort()
  const folder = await mkdtemp(join(tmpdir(), 'cloakroom-glewlwyd-'))
  await fillFolder(folder, { port, origin: proxy.origin })
  const program = await startProgram({
    ...{ command: 'glewlwyd', args: [`--config-file=${join(folder, 'glewlwyd.conf')}`], cwd: folder },
    ...{ readyUrl: `http://127.0.0.1:${port}/config`, timeoutMs: START_MS },
  })
  proxy.forwardTo(port)
  const issuer = `${proxy.origin}/api/glwd`
  const admin = caller(proxy.origin, ADMINISTRATOR)
  let keys = [newKey()]
  const withheld = new Set<string>()
  await setUp(admin, { issuer, keys, application: application.origin })
  const pages = await startScriptedPages()
  /** Its page for a sign-out wants to know who asks; the application of this one has nothing to do with it. */
  async function signOutThere(browser: Browser): Promise<readonly string[]> {
    const { answer } = proxy.tokenExchanges.findLast(({ answer }) => answer.id_token !== undefined) ?? {}
    const query = new URLSearchParams({ id_token_hint: String(answer?.id_token) })
    const page = await browser.navigate(`${issuer}/end_session?${query}`, { from: proxy.origin })
    return pages.frames(browser, page, pressLogout)
  }
  return {
    ...{ issuer, jwks: `${issuer}/jwks`, clientSecret: SECRET, tokenExchanges: proxy.tokenExchanges },
    tokensForBoth: FOR_BOTH,
    ...{ rotates: true, substitutions: [['https://glewlwyd.example.com/api/glwd', issuer]] },
    passSignOut: (browser, page) => pages.pass(browser, page, pressLogout),
    leadToApplication: application.forwardTo,
    signOutElsewhere: signOutThere,
    signOutWithFrames: signOutThere,
    passSignIn: (browser, page) => pages.pass(browser, page, (real) => signIn(real, withheld)),
    removeUser: () => admin('DELETE', `/user/${PERSON.user}`),
    restoreUser: () => makeUser(admin),
    async rotateKeys() {
      keys = [newKey(), ...keys]
      await admin('PUT', '/mod/plugin/glwd', plugin(issuer, keys))
      await admin('PUT', '/mod/plugin/glwd/reset')
    },
    async narrow() {
      withheld.add('billing')
      // As a person does on the profile page.
      const scope = 'openid profile email offline_access orders'
      await caller(proxy.origin, PERSON)('PUT', `/auth/grant/${CLIENT_ID}`, { scope })
    },
    async widen() {
      withheld.clear()
    },
    async stop() {
      await pages.close()
      await program.stop()
      await proxy.close()
      await application.close()
      await rm(folder, { recursive: true, force: true })
    },
  }
}

async function pressLogout(page: Page): Promise<void> {
  // Until then a click on the button does nothing.
  await page.waitForLoadState('networkidle')
  await page.getByRole('button', { name: 'Logout' }).first().click()
}

/** Name and password, then the scopes one by one, if they were not given before. */
async function signIn(page: Page, withheld: ReadonlySet<string>): Promise<void> {
  await page.fill('#username', PERSON.user)
  await page.fill('#password', PERSON.password)
  await page.press('#password', 'Enter')
  const goOn = page.getByRole('button', { name: 'Continue' })
  await goOn.waitFor()
  const consent = page.getByRole('button', { name: 'Grant access' })
  if ((await consent.count()) > 0) {
    for (const box of await page.locator('input[id^=grant-]').all()) {
      const scope = (await box.getAttribute('id'))?.slice('grant-'.length) ?? ''
      await box.setChecked(!withheld.has(scope))
    }
    await consent.click()
    // Until the grants are stored there is nothing to continue with.
    await consent.waitFor({ state: 'detached' })
  }
  await goOn.click()
}

async function install(): Promise<void> {
  // RUNLEVEL 1 keeps the package from starting a server of its own.
  const env = { DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' }
  await run('apt-get', ['update', '-q'], { timeoutMs: INSTALL_MS, env })
  await run('apt-get', ['install', '-q', '-y', '--no-install-recommends', 'glewlwyd'], {
    timeoutMs: INSTALL_MS,
    env,
  })
}

async function fillFolder(folder: string, { port, origin }: { port: number; origin: string }): Promise<void> {
  const database = join(folder, 'glewlwyd.sqlite')
  const tables = existsSync(TABLES) ? await readFile(TABLES) : gunzipSync(await readFile(`${TABLES}.gz`))
  await writeFile(join(folder, 'tables.sql'), tables)
  const { DatabaseSync } = await import('node:sqlite')
  const made = new DatabaseSync(database)
  made.exec(tables.toString('utf8'))
  made.close()
  await cp(join(SHARED, 'webapp'), join(folder, 'webapp'), { recursive: true, dereference: true })
  // The package leaves a place there for what an administrator puts together.
  await rm(join(folder, 'webapp', 'config.json'), { recursive: true, force: true })
  await cp(join(SHARED, 'templates', 'config.json'), join(folder, 'webapp', 'config.json'))
  await writeFile(
    join(folder, 'glewlwyd.conf'),
    `
port=${port}
bind_address="127.0.0.1"
external_url="${origin}"
login_url="login.html"
api_prefix="api"
static_files_path="${folder}/webapp"
static_files_mime_types = (
  { extension = ".html" mime_type = "text/html" }, { extension = ".css" mime_type = "text/css" },
  { extension = ".js" mime_type = "application/javascript" }, { extension = ".json" mime_type = "application/json" },
  { extension = ".png" mime_type = "image/png" }, { extension = ".ttf" mime_type = "font/ttf" },
  { extension = ".woff" mime_type = "font/woff" }
)
log_mode="console"
log_level="WARNING"
cookie_secure=0
cookie_same_site="empty"
session_expiration=2419200
session_key="GLEWLWYD2_SESSION_ID"
admin_session_authentication="cookie"
profile_session_authentication="cookie"
allow_multiple_user_per_session=true
login_api_enabled=true
admin_scope="g_admin"
profile_scope="g_profile"
user_module_path="/usr/lib/glewlwyd/user"
client_module_path="/usr/lib/glewlwyd/client"
user_auth_scheme_module_path="/usr/lib/glewlwyd/scheme"
plugin_module_path="/usr/lib/glewlwyd/plugin"
use_secure_connection=false
secure_connection_key_file="${folder}/none.key"
secure_connection_pem_file="${folder}/none.pem"
secure_connection_ca_file="${folder}/none.crt"
hash_algorithm="SHA512"
database = { type = "sqlite3"; path = "${database}"; };
`,
  )
}

type Caller = (method: string, path: string, body?: unknown) => Promise<unknown>

/** The administrator of a new database. */
const ADMINISTRATOR = { user: 'admin', password: 'password' }

/** Calls of its API in the session of a person. */
function caller(origin: string, { user, password }: { user: string; password: string }): Caller {
  let cookie: string | undefined
  async function call(method: string, path: string, body?: unknown): Promise<Response> {
    return fetch(`${origin}/api${path}`, {
      method,
      headers: { 'content-type': 'application/json', ...(cookie ? { cookie } : {}) },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
  }
  return async (method, path, body) => {
    if (cookie === undefined) {
      const signedIn = await call('POST', '/auth/', { username: user, password })
      cookie = signedIn.headers
        .getSetCookie()
        .map((line) => line.split(';')[0])
        .join('; ')
    }
    const answer = await call(method, path, body)
    const text = await answer.text()
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`)
    return text === '' ? undefined : JSON.parse(text)
  }
}

async function setUp(
  admin: Caller,
  { issuer, keys, application }: { issuer: string; keys: readonly object[]; application: string },
): Promise<void> {
  for (const name of ['profile', 'email', 'offline_access', 'orders', 'billing'])
    await admin('POST', '/scope', {
      ...{ name, display_name: name, description: name, password_required: false, scheme: {} },
    })
  await makeUser(admin)
  await knowPostLogoutUris(admin)
  await admin('POST', '/client', {
    ...{ client_id: CLIENT_ID, name: 'Shop', confidential: true, enabled: true },
    ...{ password: SECRET, client_secret: SECRET, redirect_uri: [`${APP}/bff/callback`] },
    ...{ authorization_type: ['code', 'refresh_token'], token_endpoint_auth_method: AUTH_METHODS },
    ...{ post_logout_redirect_uris: [`${APP}/bff/logged-out`], scope: [] },
    backchannel_logout_uri: `${application}/bff/backchannel-logout`,
    frontchannel_logout_uri: `${APP}/bff/frontchannel-logout`,
    frontchannel_logout_session_required: '1',
  })
  await admin('POST', '/mod/plugin', plugin(issuer, keys))
}

/** A new database's clients have no property of the name that the OpenID Connect plugin looks for. */
async function knowPostLogoutUris(admin: Caller): Promise<void> {
  const clients = (await admin('GET', '/mod/client/database')) as { parameters: { 'data-format': object } }
  Object.assign(clients.parameters['data-format'], {
    post_logout_redirect_uris: { multiple: true, read: true, write: true },
    backchannel_logout_uri: { multiple: false, read: true, write: true },
    frontchannel_logout_uri: { multiple: false, read: true, write: true },
    frontchannel_logout_session_required: { multiple: false, read: true, write: true },
  })
  await admin('PUT', '/mod/client/database', clients)
  await admin('PUT', '/mod/client/database/reset')
}

async function makeUser(admin: Caller): Promise<void> {
  await admin('POST', '/user', {
    ...{ username: PERSON.user, password: PERSON.password, name: 'Ada Lovelace', email: 'ada@example.com' },
    ...{ enabled: true, scope: ['openid', 'profile', 'email', 'offline_access', 'orders', 'billing'] },
  })
}

function plugin(issuer: string, keys: readonly object[]) {
  return { module: 'oidc', name: 'glwd', display_name: 'Shop', parameters: pluginParameters(issuer, keys) }
}

function pluginParameters(issuer: string, keys: readonly object[]) {
  return {
    iss: issuer,
    ...{
      'jwt-type': 'rsa',
      'jwt-key-size': '256',
      'jwks-private': JSON.stringify({ keys }),
      'jwks-show': true,
    },
    ...{ 'access-token-duration': TOKEN_SECONDS, 'refresh-token-duration': 86_400, 'code-duration': 60 },
    ...{ 'refresh-token-rolling': true, 'refresh-token-one-use': 'always', 'allow-non-oidc': true },
    ...{ 'auth-type-code-enabled': true, 'auth-type-refresh-enabled': true },
    ...{ 'pkce-allowed': true, 'pkce-method-plain-allowed': false },
    ...{ 'name-claim': 'mandatory', 'email-claim': 'mandatory', 'scope-claim': 'no' },
    ...{ 'session-cookie-name': 'GLEWLWYD2_OIDC_SID', 'session-cookie-expiration': 86_400 },
    // Its page for a sign-out asks for the clients that hear of it through the browser.
    ...{ 'front-channel-logout-allowed': true, 'back-channel-logout-allowed': true },
    ...{ 'session-management-allowed': true, 'introspection-revocation-allowed': true },
    ...{ 'introspection-revocation-allow-target-client': true, 'oauth-as-iss-id': true },
  }
}

function newKey(): object {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  return { ...privateKey.export({ format: 'jwk' }), kid: randomBytes(8).toString('hex'), alg: 'RS256' }
}
