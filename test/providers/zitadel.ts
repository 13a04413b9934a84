import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { freePort } from '../kit/ports.ts'
import { startRecordingProxy } from '../kit/recording-proxy.ts'
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
import {
  assertCannotLogOut,
  assertRefused,
  assertServed,
  assertSignedOut,
  callInParallel,
  renewSilently,
  signedIn,
  signOut,
} from './rows.ts'

const VERSION = '3.52.0'
const MODULE = `github.com/zitadel/oidc/v3/example/server@v${VERSION}`
const INSTALL_MS = 20 * 60_000
const START_MS = 60_000
/** The example's tokens live five minutes; nothing in it says otherwise. */
const TOKEN_SECONDS = 8

const FOREIGN_SCOPES = 'its example server grants no scope but custom_scope: the second API is refused'

/**
 * The example server of the Go library, from the Go module proxy. It keeps everything in memory, and listens on every
 * address of the machine for as long as it runs: it has no setting for that.
 */
export const zitadel: ProviderKind = {
  id: 'zitadel',
  title: `zitadel/oidc ${VERSION}, example server`,
  section: 'zitadel/oidc',
  missing: async () => ((await has('go', 'version')) ? whyNot(installed) : 'needs go to build it'),
  start,
  limits: {
    'shared signals': NO_SIGNALS,
    profile: NO_PROFILE,
    'back-channel logout': { reason: 'it signs nobody out elsewhere', check: assertCannotLogOut },
    'front-channel logout': { reason: 'it signs nobody out elsewhere', check: assertCannotLogOut },
    'two resources': {
      reason: FOREIGN_SCOPES,
      async check(scene) {
        const browser = await signedIn(scene)
        await assertServed(scene, browser, 'orders')
        await assertRefused(scene, browser, 'billing')
        await assertServed(scene, browser, 'orders')
      },
    },
    'silent renewal': { reason: FOREIGN_SCOPES, check: (scene) => renewSilently(scene, ['orders']) },
    '20 parallel calls': { reason: FOREIGN_SCOPES, check: (scene) => callInParallel(scene, ['orders']) },
    'sign-out': {
      reason: 'its example client has no post-logout URI: the user is signed out, and stays on its page',
      async check(scene) {
        const browser = await signedIn(scene)
        const page = await signOut(scene, browser)
        assert.equal(page.url.origin, new URL(scene.provider.issuer).origin)
        await assertSignedOut(browser)
      },
    },
    cancelled: {
      reason: 'its page has no way to refuse: login_required is tried instead',
      async check(scene) {
        const browser = scene.browser()
        const query = new URLSearchParams({ returnUrl: '/home', prompt: 'none' })
        const landing = await browser.navigate(`${APP}/bff/login?${query}`, { from: APP })
        assert.deepEqual([landing.status, landing.url.href], [200, `${APP}/home?login_error=login_required`])
        await assertSignedOut(browser)
      },
    },
    narrowed: {
      reason: 'no consent and no scopes of its own: what it drops from a sign-in is refused',
      async check(scene) {
        const browser = await signedIn(scene)
        await assertRefused(scene, browser, 'billing')
      },
    },
  },
}

async function start(): Promise<RealProvider> {
  const command = await installed()
  const port = await freePort()
  const issuer = `http://localhost:${port}/`
  const folder = await mkdtemp(join(tmpdir(), 'cloakroom-zitadel-'))
  const users = join(folder, 'users.json')
  // Its issuer is its own address, so that only requests for tokens can be led through somebody else.
  const proxy = await startRecordingProxy({
    changeAnswer: (answer) =>
      answer.access_token === undefined ? answer : { ...answer, expires_in: TOKEN_SECONDS },
  })
  proxy.forwardTo(port)
  let program: Program | undefined

  async function serve(isAdaThere: boolean): Promise<void> {
    await program?.stop()
    await writeFile(users, JSON.stringify(isAdaThere ? { ada: ADA } : {}))
    program = await startProgram({
      ...{ command, args: [], cwd: folder, timeoutMs: START_MS },
      env: { PORT: String(port), REDIRECT_URI: `${APP}/bff/callback`, USERS_FILE: users },
      readyUrl: `${issuer}.well-known/openid-configuration`,
    })
  }
  await serve(true)
  return {
    ...{ issuer, jwks: `${issuer}keys`, clientSecret: 'secret', tokenExchanges: proxy.tokenExchanges },
    substitutions: [
      ['https://zitadel.example.com/', issuer],
      [CLIENT_ID, 'web'],
    ],
    endpoints: { token: `${proxy.origin}/oauth/token` },
    rotates: true,
    passSignIn: throughForms,
    removeUser: () => serve(false),
    restoreUser: () => serve(true),
    // A new process has a new key, and none of the old grants.
    rotateKeys: () => serve(true),
    async stop() {
      await program?.stop()
      await proxy.close()
      await rm(folder, { recursive: true, force: true })
    },
  }
}

const ADA = {
  ...{ ID: 'ada', Username: PERSON.user, Password: PERSON.password, FirstName: 'Ada', LastName: 'Lovelace' },
  ...{ Email: 'ada@example.com', EmailVerified: true, PreferredLanguage: 'en' },
}

async function installed(): Promise<string> {
  const folder = await cacheFolder(join('zitadel', VERSION))
  return unlessThere(join(folder, 'server'), () =>
    run('go', ['install', MODULE], { timeoutMs: INSTALL_MS, env: { GOBIN: folder } }),
  )
}
