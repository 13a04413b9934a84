import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { describe, type TestContext, test } from 'node:test'
import { doctorCommand } from '../../src/cli/doctor/doctor.ts'
import { jwtClaims, unsignedJwt } from '../../src/demo/scripted/signing.ts'
import { signedInAtAzure } from '../kit/azure/azure-shop.ts'
import { type Browser, createBrowser, type Exchange } from '../kit/browsers/browser.ts'
import { startCollector } from '../kit/collector.ts'
import type { ConfigData } from '../kit/config/cloakroom-config.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { EVENT, issSub, PUSH_AUTHORIZATION, startSsfTransmitter } from '../kit/provider/ssf-transmitter.ts'
import { startReplica, writeReplicaConfig } from '../kit/replica.ts'
import { assertNoSecrets } from '../kit/secrets.ts'
import { eventually } from '../kit/shops/deadline.ts'
import { APP, BILLING, ORDERS, startApis, verdict } from '../kit/shops/shop.ts'
import { skipWithoutRedis, startRedis } from '../kit/store/redis.ts'

const PERSON = 'ada.lovelace-4711'
/** What an operator can open, with what the console explains of a route with a token. */
const ADMIN_PAGES = [
  ...[
    '/metrics',
    '/readyz',
    '/livez',
    '/nowhere',
    '/',
    '/console/console.js',
    '/api/status',
    '/api/status?limit=200',
  ],
  ...[
    '/api/explain?url=/api/orders/1',
    '/api/explain?method=POST&url=/cli/orders',
    '/api/explain?url=/bff/user',
  ],
]
const EMAIL = 'ada.lovelace-4711@example.com'

describe('nothing leaks', () => {
  test('of a whole day with every kind of failure, browser, log, traces and admin pages hold no secret', {
    skip: skipWithoutRedis(),
  }, async (t) => {
    const day = await startDay(t)
    await ordinaryHours(day)
    await troubleAtTheProvider(day)
    await troubleWithRedis(day)
    await troubleUpstream(day)
    const logouts = await signOuts(day)
    const pushed = await securityEvents(day)
    const brought = await tokensOfOthers(day)
    await day.visitAdmin()
    const doctor = await day.examine()

    const log = [...day.replica.stdout, ...day.replica.stderr].join('\n')
    const cookies = day.browsers.flatMap(({ exchanges }) => exchanges.flatMap(cookieValues))
    const cookieSecrets = [...cookies, ...cookies.map(sessionIdOf)].filter((value) => value.length >= 8)
    const secrets = [
      ...day.secrets(),
      ...day.provider.issuedSecrets,
      ...codeVerifiers(day),
      ...pushed,
      ...brought,
    ]
    assert.ok(secrets.length > 20 && cookieSecrets.length > 10 && day.adminPages.length > 5)
    assert.match(log, /provider_unavailable/)
    assert.match(log, /invalid_grant/)
    assert.match(log, /store_unavailable/)
    assert.match(doctor, /client authentication .*invalid_grant/)
    const traces = day.collector.bodies.join('\n')
    assert.match(traces, /"refresh"/)
    assertNoSecrets({ log, doctor, traces, admin: day.adminPages.join('\n') }, [
      ...secrets,
      ...cookieSecrets,
      ...[PERSON, EMAIL, ...logouts.handles],
    ])
    for (const browser of day.browsers) assertNothingAtTheBrowser(browser, secrets, cookieSecrets)
    assert.equal(logouts.hints, 2)
  })

  test("the texts of Azure AD's errors, with their names and mails, reach neither browser nor log", async (t) => {
    for (const version of ['v1', 'v2'] as const)
      for (const outcome of ['wrong-directory', 'invalid-resource', 'secret-expired', 'step-up'] as const) {
        const { azure, shop, browser, setBilling } = await signedInAtAzure(t, version)
        setBilling({ outcome })
        const refused = await browser.fetch('/api/billing')
        const log = shop.cloakroom.logs.join('\n')
        assert.ok(refused.status >= 400)
        assert.match(log, /"errorCodes":"\d+"/, 'the operator learns the code')
        for (const text of [log, refused.body, refused.rawHeaders.join('\n')])
          assert.doesNotMatch(text, /AADSTS|contoso\.com\.|jürgen|essential|Trace ID/, outcome)
        assertNoSecrets({ ...browser.haystacks(), log }, [...azure.issuedSecrets, azure.clientSecret ?? ''])
      }
  })
})

type Day = Awaited<ReturnType<typeof startDay>>

/** A process of its own, so that everything it prints is seen. */
async function startDay(t: TestContext) {
  const provider = await startRotatingProvider({
    control: { user: PERSON, idTokenClaims: { email: EMAIL } },
  })
  t.after(() => provider.close())
  // What was written outlives the process without a sync, which a busy disk makes slow.
  const redis = await startRedis({ args: ['--appendonly', 'yes', '--appendfsync', 'no'] })
  t.after(() => redis.stop())
  const transmitter = await startSsfTransmitter()
  t.after(() => transmitter.close())
  const sharedSignals = {
    ...{ transmitter: transmitter.issuer, audience: transmitter.audience, subjects: ['iss_sub', 'email'] },
    authorization: PUSH_AUTHORIZATION,
  }
  const { config, billing } = await startApis(t, {
    provider: { ...provider.settings, sharedSignals, globalTokenRevocation: true },
    jwks: provider.endpoints.jwks,
    redisUrl: redis.url,
  })
  const [ordersRoute] = config.routes as ConfigData[]
  const cli = { ...ordersRoute, path: '/cli/orders', id: 'cli', bearer: { audience: ORDERS } }
  const shared = await writeReplicaConfig({ ...config, routes: [cli, ...(config.routes as ConfigData[])] })
  t.after(() => shared.remove())
  const collector = await startCollector()
  t.after(() => collector.close())
  const env = { OTEL_EXPORTER_OTLP_ENDPOINT: collector.url, OTEL_BSP_SCHEDULE_DELAY: '200' }
  const replica = await startReplica({ configFile: shared.file, env })
  t.after(() => replica.stop())
  const { session } = JSON.parse(await readFile(shared.file, 'utf8'))
  const browsers: Browser[] = []
  const adminPages: string[] = []
  const newBrowser = () => {
    const browser = createBrowser({ origin: APP, connect: { [APP]: replica.listenUrl } })
    t.after(() => browser.close())
    browsers.push(browser)
    return browser
  }
  return {
    ...{ collector, provider, transmitter, redis, replica, billing, browsers, adminPages, newBrowser },
    secrets: (): string[] => [provider.clientSecret, ...session.keys],
    async signedIn() {
      const browser = newBrowser()
      // A machine that is busy may keep Redis from answering in time.
      await eventually('a sign-in', async () => (await browser.signIn()).status === 200)
      return browser
    },
    /** The doctor, with a refresh token that it uses up, in words and for programs. */
    async examine() {
      let text = ''
      const output = { write: (part: string) => (text += part) }
      const io = { stdout: output, stderr: output, env: { PUBLIC_PORT: '0', ADMIN_PORT: '0' } }
      const file = `${shared.file}.refresh-token`
      await writeFile(
        file,
        provider.issuedSecrets.findLast((secret) => secret.startsWith('rt')) ?? 'rt-none-there',
      )
      for (const more of [[], ['--json']])
        await doctorCommand(['--config', shared.file, '--refresh-token-file', file, ...more], io)
      return text
    },
    async visitAdmin() {
      for (const path of ADMIN_PAGES) {
        const answer = await fetch(replica.adminUrl + path)
        adminPages.push(`${JSON.stringify([...answer.headers])}\n${await answer.text()}`)
      }
    },
  }
}

async function ordinaryHours({ newBrowser, visitAdmin }: Day): Promise<void> {
  const browser = newBrowser()
  await browser.fetch('/bff/user')
  await browser.fetch('/api/orders')
  await browser.signIn({ returnUrl: '/home?x=1' })
  await browser.fetch('/bff/user')
  assert.deepEqual(verdict(await browser.fetch('/api/orders/1?q=2')), [200, ORDERS])
  assert.deepEqual(verdict(await browser.fetch('/api/billing/1')), [200, BILLING])
  await browser.fetch('/api/orders', { headers: { 'x-csrf': '' } })
  await browser.open('/bff/logout?sid=wrong')
  await browser.open('/bff/login?returnUrl=https://evil.test')
  await browser.fetch('/bff/nowhere')
  const callback = browser.exchanges.find(({ url }) => url.pathname === '/bff/callback')
  const again = await browser.navigate(callback!.url.href)
  assert.deepEqual(
    [again.status, again.url.pathname],
    [200, '/home'],
    'a code is good once; the way on is known',
  )
  await visitAdmin()
}

async function troubleAtTheProvider({ provider, signedIn, newBrowser, visitAdmin }: Day): Promise<void> {
  for (const fault of [
    { kind: 'status', status: 503 },
    { kind: 'status', status: 401 },
    { kind: 'drop-after' },
  ] as const) {
    const browser = await signedIn()
    provider.control.fault = { ...fault, leg: 'refresh' }
    assert.ok((await browser.fetch('/api/billing')).status >= 500)
    provider.control.fault = undefined
  }
  const revoked = await signedIn()
  const token = provider.issuedSecrets.findLast((secret) => secret.startsWith('rt_')) ?? ''
  const { clientId: client_id, clientSecret: client_secret } = provider
  await fetch(provider.endpoints.revocation, {
    method: 'POST',
    body: new URLSearchParams({ client_id, client_secret, token }),
  })
  assert.deepEqual(verdict(await revoked.fetch('/api/billing')), [401, 'session_required'])
  for (const atSignIn of [
    { fault: { kind: 'status', status: 500, leg: 'code' } as const },
    { fault: { kind: 'drop-after', leg: 'code' } as const },
    { authorizationError: { error: 'access_denied', error_description: `${EMAIL} said no` } },
  ]) {
    Object.assign(provider.control, atSignIn)
    assert.ok((await newBrowser().signIn()).status >= 400)
    Object.assign(provider.control, { fault: undefined, authorizationError: undefined })
  }
  await visitAdmin()
}

async function troubleWithRedis({ redis, signedIn, newBrowser, visitAdmin }: Day): Promise<void> {
  const browser = await signedIn()
  await redis.kill()
  await eventually('Redis is missed', async () => (await browser.fetch('/api/orders')).status === 503)
  for (const path of ['/bff/user', '/api/billing', '/bff/login']) await browser.fetch(path)
  await browser.fetch('/bff/logout', { method: 'POST' })
  await newBrowser().navigate(`${APP}/bff/login`)
  await visitAdmin()
  await redis.restart()
  await eventually('Redis is back', async () => (await browser.fetch('/api/orders')).status === 200)
}

async function troubleUpstream({ billing, signedIn, visitAdmin }: Day): Promise<void> {
  const browser = await signedIn()
  await billing.close()
  assert.equal((await browser.fetch('/api/billing')).status, 502)
  await visitAdmin()
}

/** One logout by link and one by script; both must carry the ID token as `id_token_hint`, and nothing else may. */
async function signOuts({ signedIn, browsers }: Day): Promise<{ hints: number; handles: string[] }> {
  const byLink = await signedIn()
  const logoutUrl = (await byLink.fetch('/bff/user')).json()['bff:logout_url']
  const left = await byLink.navigate(logoutUrl, { from: APP })
  assert.equal(left.url.href, `${APP}/`)
  const byScript = await signedIn()
  assert.equal((await byScript.fetch('/bff/logout', { method: 'POST' })).status, 200)
  const texts = browsers.flatMap(({ exchanges }) => exchanges.filter(isOurs).map(textOf))
  const hints = texts.flatMap((text) => text.match(/id_token_hint=eyJ[\w.-]+/g) ?? [])
  for (const hint of hints) assert.equal(jwtClaims(hint.split('=')[1]!)?.sub, PERSON)
  return { hints: hints.length, handles: [new URL(logoutUrl, APP).searchParams.get('sid') ?? ''] }
}

/** What the provider pushes, good and forged; gives what must not be found again. */
async function securityEvents({ provider, transmitter, replica, signedIn }: Day): Promise<string[]> {
  const browser = await signedIn()
  const user = issSub(provider.issuer, PERSON)
  const guess = 'Bearer a-guess-at-the-push-secret'
  const sets = [
    await transmitter.set(EVENT.verification, undefined, { event: { state: 'state-of-a-verification' } }),
    await transmitter.set(EVENT.accountDisabled, user, { claims: { aud: 'https://other.test' } }),
    await transmitter.set(EVENT.accountDisabled, { format: 'email', email: EMAIL }),
    await transmitter.set(EVENT.sessionRevoked, user),
  ]
  const statuses: number[] = []
  for (const set of sets) {
    const { status } = await transmitter.push(`${replica.listenUrl}/bff/ssf/events`, set)
    statuses.push(status)
  }
  const refused = await transmitter.push(`${replica.listenUrl}/bff/ssf/events`, sets[3]!, {
    authorization: guess,
  })
  assert.deepEqual([...statuses, refused.status], [202, 400, 202, 202, 400])
  assert.equal((await browser.fetch('/api/orders')).status, 401)
  const revocation = await fetch(`${replica.listenUrl}/bff/global-token-revocation`, {
    method: 'POST',
    headers: { authorization: guess, 'content-type': 'application/json' },
    body: JSON.stringify({ sub_id: user }),
  })
  assert.equal(revocation.status, 401)
  return [PUSH_AUTHORIZATION, guess, 'state-of-a-verification', ...sets]
}

/** Logout tokens and access tokens that clients bring, good and forged; gives what must not be found again. */
async function tokensOfOthers({ provider, replica, signedIn }: Day): Promise<string[]> {
  const sid = 'session-of-the-provider-4711'
  provider.control.idTokenClaims = { email: EMAIL, sid }
  const browser = await signedIn()
  const logoutTokens = [
    await provider.logoutToken({ sid, iss: 'https://elsewhere.example' }),
    await provider.logoutToken({ sid }),
  ]
  const statuses: number[] = []
  for (const token of logoutTokens) {
    const body = new URLSearchParams({ logout_token: token })
    const { status } = await fetch(`${replica.listenUrl}/bff/backchannel-logout`, { method: 'POST', body })
    statuses.push(status)
  }
  await fetch(`${replica.listenUrl}/bff/frontchannel-logout?sid=${sid}&iss=https://elsewhere.example`)
  assert.equal((await browser.fetch('/api/orders')).status, 401)
  const now = Math.floor(Date.now() / 1000)
  const claims = { iss: provider.issuer, aud: ORDERS, sub: PERSON, iat: now, exp: now + 300 }
  const bearers = [
    await provider.signer.sign(claims, { typ: 'at+jwt' }),
    await provider.signer.sign({ ...claims, aud: BILLING }, { typ: 'at+jwt' }),
    unsignedJwt(claims),
  ]
  for (const token of bearers) {
    const headers = { authorization: `Bearer ${token}` }
    const { status } = await fetch(`${replica.listenUrl}/cli/orders`, { headers })
    statuses.push(status)
  }
  assert.deepEqual(statuses, [400, 200, 200, 401, 401])
  return [sid, ...logoutTokens, ...bearers]
}

function assertNothingAtTheBrowser(browser: Browser, secrets: string[], cookieSecrets: string[]): void {
  for (const exchange of browser.exchanges.filter(isOurs)) {
    const { method, url, status, headers } = exchange
    const where = `${method} ${url.pathname} → ${status}`
    const text = textOf(exchange)
    // The one exception (OpenID Connect RP-Initiated Logout 1.0 §2), and that only once in an answer.
    const scanned = url.pathname === '/bff/logout' ? text.replace(/id_token_hint=[\w.-]+/, '') : text
    assertNoSecrets({ [where]: scanned }, [...secrets, ...cookieSecrets])
    assertNoSecrets({ [`${where}, Set-Cookie`]: (headers['set-cookie'] ?? []).join('\n') }, secrets)
  }
}

function isOurs({ url }: Exchange): boolean {
  return url.origin === APP
}

/** Everything of an answer but its Set-Cookie lines. */
function textOf({ rawHeaders, body }: Exchange): string {
  const lines = rawHeaders.flatMap((name, at) => (at % 2 ? [] : [`${name}: ${rawHeaders[at + 1]}`]))
  return [...lines.filter((line) => !/^set-cookie:/i.test(line)), body].join('\n')
}

function cookieValues(exchange: Exchange): string[] {
  return isOurs(exchange)
    ? (exchange.headers['set-cookie'] ?? []).map((line) => /^[^=]+=([^;]*)/.exec(line)?.[1] ?? '')
    : []
}

function sessionIdOf(cookie: string): string {
  return /^s:([^.]+)\./.exec(decodeURIComponent(cookie))?.[1] ?? cookie
}

function codeVerifiers({ provider }: Day): string[] {
  const fields = provider.tokenRequests().flatMap(({ form }) => form)
  return fields.filter(([name]) => name === 'code_verifier').map(([, value]) => value)
}
