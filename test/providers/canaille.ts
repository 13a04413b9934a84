import assert from 'node:assert/strict'
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Landing } from '../kit/browsers/browser.ts'
import { freePort } from '../kit/ports.ts'
import { type RecordingProxy, startRecordingProxy } from '../kit/recording-proxy.ts'
import { cacheFolder, has, type Program, run, startProgram, unlessThere, whyNot } from './program.ts'
import {
  APP,
  CLIENT_ID,
  NO_PROFILE,
  NO_SIGNALS,
  PERSON,
  type ProviderKind,
  type RealProvider,
  throughForms,
} from './provider.ts'
import { assertCannotLogOut, assertServed, ROWS, signedIn } from './rows.ts'

const VERSION = '0.3.6'
const INSTALL_MS = 10 * 60_000
const START_MS = 120_000
const COMMAND_MS = 60_000
/** Its refresh tokens end with the access token: long enough for a row, and for the commands in it. */
const TOKEN_SECONDS = 30
const SECRET = 'canaille-client-secret-0123456789'

const FOR_BOTH =
  'a used refresh token is good for the scopes of that use only: one resource, one token for both APIs'

/** Canaille from PyPI, with SQLite, in a virtual environment of its own. */
export const canaille: ProviderKind = {
  id: 'canaille',
  title: `Canaille ${VERSION}`,
  section: 'Canaille',
  missing: async () =>
    (await has('python3', '-m', 'venv', '--help')) ? whyNot(installed) : 'needs python3 with venv',
  start,
  limits: {
    'shared signals': NO_SIGNALS,
    profile: NO_PROFILE,
    'back-channel logout': { reason: 'it signs nobody out elsewhere', check: assertCannotLogOut },
    'front-channel logout': { reason: 'it signs nobody out elsewhere', check: assertCannotLogOut },
    'two resources': { reason: FOR_BOTH, check: ROWS['two resources'] },
    'silent renewal': { reason: FOR_BOTH, check: ROWS['silent renewal'] },
    '20 parallel calls': { reason: FOR_BOTH, check: ROWS['20 parallel calls'] },
    narrowed: {
      reason:
        'one resource for both APIs: a sign-in with less brings a token without billing, and that API must look',
      async check(scene) {
        await scene.provider.narrow?.()
        try {
          const browser = await signedIn(scene)
          await assertServed(scene, browser, 'orders')
          const granted = String(scene.provider.tokenExchanges.at(-1)?.answer.scope).split(' ')
          assert.deepEqual([granted.includes('orders'), granted.includes('billing')], [true, false])
        } finally {
          await scene.provider.widen?.()
        }
      },
    },
  },
}

async function start(): Promise<RealProvider> {
  const command = await installed()
  const proxy = await startRecordingProxy()
  const folder = await mkdtemp(join(tmpdir(), 'cloakroom-canaille-'))
  const config = join(folder, 'canaille.toml')
  const env = { CANAILLE_CONFIG: config }
  const cli = (...args: string[]) => run(command, args, { timeoutMs: COMMAND_MS, cwd: folder, env })
  let keys = [newKey()]
  let program: Program | undefined

  async function serve(): Promise<void> {
    await program?.stop()
    await writeFile(config, configText(proxy, folder, keys))
    const port = await freePort()
    program = await startProgram({
      ...{ command, args: ['run', '--bind', `127.0.0.1:${port}`], cwd: folder, env },
      ...{ readyUrl: `http://127.0.0.1:${port}/.well-known/openid-configuration`, timeoutMs: START_MS },
      readyHost: new URL(proxy.origin).host,
    })
    proxy.forwardTo(port)
  }

  await writeFile(config, configText(proxy, folder, keys))
  await cli('install')
  const { userId, clientId } = await fill(cli)
  await serve()
  const lock = (date: string) => cli('set', 'user', '--quiet', userId, '--lock-date', date)
  return {
    ...{ issuer: proxy.origin, jwks: `${proxy.origin}/oauth/jwks.json`, clientSecret: SECRET },
    substitutions: [['https://canaille.example.com', proxy.origin]],
    tokenExchanges: proxy.tokenExchanges,
    tokensForBoth: FOR_BOTH,
    ...{ rotates: true, refreshEndsWithAccess: true },
    async passSignIn(browser, page) {
      // Its access tokens are the same text within a second, which its database refuses with a 500.
      const last = proxy.tokenExchanges.at(-1)?.answeredAt ?? 0
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, last + 1_100 - Date.now())))
      return throughForms(browser, page, consent('accept'))
    },
    denyPrompt: 'consent',
    denySignIn: (browser, page) => throughForms(browser, page, consent('deny')),
    removeUser: () => lock('2020-01-01T00:00:00+00:00'),
    restoreUser: () => lock('2999-01-01T00:00:00+00:00'),
    async rotateKeys() {
      keys = [newKey(), ...keys]
      await serve()
    },
    narrow: () => cli('set', 'client', '--quiet', clientId, ...scopeArguments(['orders'])),
    widen: () => cli('set', 'client', '--quiet', clientId, ...scopeArguments(['orders', 'billing'])),
    async stop() {
      await program?.stop()
      await proxy.close()
      await rm(folder, { recursive: true, force: true })
    },
  }
}

/** The first button of its page for consent refuses. */
function consent(answer: 'accept' | 'deny') {
  return ({ body }: Landing) => (body.includes(`value="${answer}"`) ? { press: answer } : {})
}

async function installed(): Promise<string> {
  const folder = join(await cacheFolder('canaille'), VERSION)
  return unlessThere(join(folder, 'bin', 'canaille'), async () => {
    await run('python3', ['-m', 'venv', folder], { timeoutMs: COMMAND_MS })
    const packages = `canaille[front,oidc,sqlite,server]==${VERSION}`
    await run(join(folder, 'bin', 'pip'), ['install', '--quiet', packages], { timeoutMs: INSTALL_MS })
  })
}

async function fill(cli: (...args: string[]) => Promise<string>) {
  await cli(
    ...['create', 'user', '--quiet', '--user-name', PERSON.user, '--password', PERSON.password],
    ...['--emails', 'ada@example.com', '--given-name', 'Ada', '--family-name', 'Lovelace'],
    ...['--formatted-name', 'Ada Lovelace'],
  )
  await cli(
    ...['create', 'client', '--quiet', '--client-id', CLIENT_ID, '--client-secret', SECRET],
    ...['--client-name', 'Shop', '--token-endpoint-auth-method', 'client_secret_basic'],
    ...['--redirect-uris', `${APP}/bff/callback`, '--post-logout-redirect-uris', `${APP}/bff/logged-out`],
    ...['--grant-types', 'authorization_code', '--grant-types', 'refresh_token', '--response-types', 'code'],
    ...['--id-token-signed-response-alg', 'RS256', ...scopeArguments(['orders', 'billing'])],
  )
  const idOf = async (model: string) => (JSON.parse(await cli('get', model)) as { id: string }[])[0]!.id
  const clientId = await idOf('client')
  // Its ID tokens are for the client only when the client is in its own audience.
  await cli('set', 'client', '--quiet', clientId, '--audience', clientId)
  return { clientId, userId: await idOf('user') }
}

function scopeArguments(apis: readonly string[]): string[] {
  return ['openid', 'profile', 'email', 'offline_access', ...apis].flatMap((scope) => ['--scope', scope])
}

function configText(proxy: RecordingProxy, folder: string, keys: readonly object[]): string {
  const [active, ...inactive] = keys.map(inlineTable)
  return `
SECRET_KEY = "${folder}"
SERVER_NAME = "${new URL(proxy.origin).host}"
PREFERRED_URL_SCHEME = "http"
OAUTH2_TOKEN_EXPIRES_IN = { authorization_code = ${TOKEN_SECONDS}, refresh_token = ${TOKEN_SECONDS} }

[CANAILLE]
DATABASE = "sql"
JAVASCRIPT = false
HTMX = false

[CANAILLE_SQL]
DATABASE_URI = "sqlite:///${folder}/canaille.sqlite"

[CANAILLE_OIDC]
TRUSTED_DOMAINS = []
ACTIVE_JWKS = [${active}]
INACTIVE_JWKS = [${inactive.join(', ')}]
`
}

function inlineTable(key: object): string {
  const members = Object.entries(key).map(([name, value]) => `${name} = ${JSON.stringify(value)}`)
  return `{ ${members.join(', ')} }`
}

function newKey(): object {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  return { ...privateKey.export({ format: 'jwk' }), kid: randomBytes(8).toString('hex') }
}
