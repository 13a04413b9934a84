import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { after, before, describe, test } from 'node:test'
import { calculateJwkThumbprint, decodeJwt, EmbeddedJWK, type JWK, jwtVerify } from 'jose'
import { WebSocket, WebSocketServer } from 'ws'
import { listenOnLoopback } from '../../src/demo/loopback-server.ts'
import { createIdentityProvider } from '../../src/demo/provider/identity-provider.ts'
import type { TokenRequest } from '../../src/demo/provider/identity-provider-options.ts'
import { jwtClaims } from '../../src/demo/scripted/signing.ts'
import type { Browser, Exchange } from '../kit/browsers/browser.ts'
import { fillFirstForm } from '../kit/browsers/html-forms.ts'
import { type RunningCloakroom, startCloakroom } from '../kit/cloakroom.ts'
import { type ConfigData, sessionKey } from '../kit/config/cloakroom-config.ts'
import type { RecordedRequest } from '../kit/local-server.ts'
import { assertNoSecrets } from '../kit/secrets.ts'
import { skipWithoutRedis, startRedis } from '../kit/store/redis.ts'
import { contentOf } from '../kit/store/redis-content.ts'
import { startUpstream, type Upstream } from '../kit/upstream/upstream.ts'

const APP = 'https://shop.test'
const ORDERS = 'https://orders.test'
const BILLING = 'https://billing.test'
const SECRET = 'a-client-secret-of-these-tests'

/** The clients of the one provider, and how each wants its responses. */
const CLIENTS: Readonly<Record<string, { metadata?: object; provider: ConfigData }>> = {
  posted: { provider: { responseMode: 'form_post' } },
  hybrid: {
    provider: { responseMode: 'form_post', responseType: 'code id_token' },
    metadata: {
      response_types: ['code id_token'],
      grant_types: ['authorization_code', 'implicit', 'refresh_token'],
    },
  },
  signed: { provider: { responseMode: 'jwt' }, metadata: { authorization_signed_response_alg: 'RS256' } },
  proved: { provider: { dpop: 'end-to-end', par: 'auto' } },
  public: {
    provider: { dpop: 'provider', clientAuth: { method: 'none' } },
    metadata: { token_endpoint_auth_method: 'none', client_secret: undefined },
  },
  bound: { provider: { dpop: 'provider', par: 'auto' }, metadata: { dpop_bound_access_tokens: true } },
}

let issuer: string
let api: Upstream
const tokenRequests: TokenRequest[] = []
const running: { close(): Promise<unknown> }[] = []

before(async () => {
  const provider = await listenOnLoopback(
    (origin) =>
      createIdentityProvider({
        issuer: origin,
        clients: Object.entries(CLIENTS).map(([clientId, { metadata }]) => ({
          ...{ clientId, clientSecret: SECRET, authMethod: 'client_secret_post' },
          redirectUris: [`${APP}/bff/callback`],
          ...(metadata && { metadata: metadata as Record<string, unknown> }),
        })),
        resources: Object.fromEntries(
          [ORDERS, BILLING].map((audience) => [
            audience,
            { audience, scope: 'read', accessTokenTtlSeconds: 300 },
          ]),
        ),
        features: {
          jwtResponseModes: { enabled: true },
          dPoP: { enabled: true, nonceSecret: randomBytes(32), requireNonce: () => true },
        },
        onTokenRequest: (request) => tokenRequests.push(request),
      }).callback,
  )
  issuer = provider.origin
  api = await startUpstream({ handle: requireProof })
  running.push(provider, api)
})
after(() => Promise.all(running.map((one) => one.close())))

function cloakroomProvider(clientId: string): ConfigData {
  return {
    ...{ issuer, clientId, clientAuth: { method: 'client_secret_post', secret: SECRET } },
    ...{ resourceDialect: 'resource-indicator', scopes: ['openid', 'offline_access'], par: 'off' },
    ...CLIENTS[clientId]?.provider,
  }
}

async function startFor(clientId: string, changes: ConfigData = {}): Promise<RunningCloakroom> {
  const cloakroom = await startCloakroom({
    publicUrl: APP,
    trustProxy: ['127.0.0.1'],
    provider: cloakroomProvider(clientId),
    resources: {
      orders: { resource: ORDERS, audience: ORDERS },
      billing: { resource: BILLING, audience: BILLING },
    },
    routes: [
      { path: '/api/orders', upstream: api.url, resource: 'orders' },
      { path: '/api/proved', upstream: api.url, rewrite: '/proved', resource: 'orders', websocket: true },
      { path: '/api/billing', upstream: api.url, resource: 'billing' },
      { path: '/', upstream: api.url, auth: 'anonymous' },
    ],
    ...changes,
  })
  running.push(cloakroom)
  return cloakroom
}

/** Signs in up to the page of the provider whose form posts the response; gives that form. */
async function responseForm(browser: Browser, params: Record<string, string> = {}) {
  const query = new URLSearchParams({ returnUrl: '/home', ...params })
  let page = await browser.navigate(`${APP}/bff/login?${query}`, { from: APP })
  for (let steps = 0; steps < 5; steps += 1) {
    const form = fillFirstForm(page.body)
    if (form?.action === `${APP}/bff/callback`) return { page, fields: form.fields }
    page = await browser.submit(page)
  }
  throw new Error(`no response from ${page.url.href}`)
}

/** Posts a response as a page of the provider does. */
function post(browser: Browser, body: string, headers: Record<string, string> = {}) {
  const type = { 'content-type': 'application/x-www-form-urlencoded' }
  return browser.open('/bff/callback', {
    ...{ method: 'POST', from: issuer, body },
    headers: { ...type, ...headers },
  })
}

const encoded = (fields: readonly [string, string][]) => new URLSearchParams([...fields]).toString()
const fieldOf = (fields: readonly [string, string][], name: string) =>
  fields.find(([one]) => one === name)?.[1] ?? ''
const atApp = ({ exchanges }: { exchanges: Exchange[] }) => exchanges.filter(({ url }) => url.origin === APP)

for (const sameSite of ['strict', 'lax'] as const)
  describe(`responses that are posted, with sameSite: ${sameSite}`, () => {
    let cloakroom: RunningCloakroom
    before(async () => {
      cloakroom = await startFor('posted', { session: { cookie: { sameSite } } })
    })

    test('a sign-in by form_post reaches the API, and neither code nor state is in a URL or in the log', async () => {
      const browser = cloakroom.browser()
      const landing = await browser.signIn({ returnUrl: '/home' })
      assert.deepEqual([landing.status, landing.url.href], [200, `${APP}/home`])
      assert.equal((await browser.fetch('/api/orders')).status, 200)
      const posted = browser.exchanges.find(({ method, url }) => method === 'POST' && url.origin === APP)
      assert.ok(posted)
      assert.equal(posted.requestHeaders.cookie, undefined)
      assert.equal(posted.status, 303)
      const fields = new URLSearchParams(posted.requestBody)
      assert.equal(fields.get('iss'), issuer)
      const secrets = [fields.get('code'), fields.get('state')].map(String)
      const urls = atApp(browser).map(({ url, requestHeaders }) => `${url.href} ${requestHeaders.referer}`)
      assertNoSecrets({ urls: urls.join('\n'), log: cloakroom.logs.join('\n') }, secrets)
    })

    test('a response that is posted again leads into the application, in the browser that signed in and in no other', async () => {
      const browser = cloakroom.browser()
      const { page, fields } = await responseForm(browser)
      const landing = await browser.submit(page)
      assert.equal(landing.url.href, `${APP}/home`)
      const again = await browser.submit(page)
      assert.deepEqual([again.status, again.url.href], [200, `${APP}/home`])
      const stranger = cloakroom.browser()
      const bounced = await post(stranger, encoded(fields))
      assert.equal(bounced.status, 303)
      const refused = await stranger.open(String(bounced.headers.location))
      assert.deepEqual([refused.status, refused.json().code], [400, 'invalid_callback'])
      const sent = tokenRequests.filter(({ params }) => params.code === fieldOf(fields, 'code'))
      assert.equal(sent.length, 1)
    })

    test('two tabs that sign in at once both arrive', async () => {
      const browser = cloakroom.browser()
      const [one, two] = [await responseForm(browser), await responseForm(browser)]
      for (const { page } of [two, one]) {
        const landing = await browser.submit(page)
        assert.deepEqual([landing.status, landing.url.href], [200, `${APP}/home`])
      }
    })

    test('a posted error goes on to the application with prompt=none, and shows a page otherwise', async () => {
      const browser = cloakroom.browser()
      const silent = await browser.signIn({ returnUrl: '/home', params: { prompt: 'none' } })
      assert.equal(silent.url.href, `${APP}/home?login_error=login_required`)
      const { fields } = await responseForm(browser)
      const kept = fields.filter(([name]) => name !== 'code')
      const bounced = await post(browser, encoded([...kept, ['error', 'access_denied']]))
      const page = await browser.navigate(String(bounced.headers.location), { from: issuer })
      assert.equal(page.status, 403)
      assert.match(page.body, /returnUrl=%2Fhome/)
    })
  })

describe('what is posted to the callback and is no response', () => {
  let cloakroom: RunningCloakroom
  let browser: Browser
  let fields: [string, string][]
  before(async () => {
    cloakroom = await startFor('posted')
    browser = cloakroom.browser()
    fields = (await responseForm(browser)).fields
  })

  const refusals: [what: string, () => [body: string, headers?: Record<string, string>], number, string][] = [
    ['a state twice', () => [`${encoded(fields)}&state=x`], 400, 'invalid_callback'],
    ['a code twice', () => [`${encoded(fields)}&code=x`], 400, 'invalid_callback'],
    ['no state', () => ['code=x'], 400, 'invalid_callback'],
    ['another media type', () => [encoded(fields), { 'content-type': 'text/plain' }], 400, 'bad_request'],
    ['a content coding', () => [encoded(fields), { 'content-encoding': 'gzip' }], 400, 'bad_request'],
    ['a body over 64 KiB', () => [`${encoded(fields)}&x=${'x'.repeat(65_536)}`], 413, 'body_too_large'],
    ['a script', () => [encoded(fields), { 'sec-fetch-mode': 'no-cors' }], 403, 'origin_forbidden'],
  ]
  for (const [what, request, status, code] of refusals)
    test(`${what} is refused with ${status}`, async () => {
      const answer = await post(browser, ...request())
      assert.deepEqual([answer.status, answer.json().code], [status, code])
    })

  test('more than 4 KiB are refused where no response is asked to be posted, because strangers post them', async () => {
    const elsewhere = await startFor('signed')
    const answer = await post(elsewhere.browser(), `state=x&code=${'x'.repeat(4_096)}`)
    assert.deepEqual([answer.status, answer.json().code], [413, 'body_too_large'])
  })

  test('a mixed-up or incomplete response is refused once it is opened', async () => {
    for (const changed of [
      fields.map(([name, value]): [string, string] => [name, name === 'iss' ? 'https://evil.test' : value]),
      fields.filter(([name]) => name !== 'iss'),
    ]) {
      const own = cloakroom.browser()
      const { fields: fresh } = await responseForm(own)
      const state = fieldOf(fresh, 'state')
      const body = changed.map(([name, value]): [string, string] => [name, name === 'state' ? state : value])
      const before = tokenRequests.length
      const bounced = await post(own, encoded(body))
      const answer = await own.open(String(bounced.headers.location), { from: issuer })
      assert.deepEqual([answer.status, answer.json().code], [400, 'invalid_callback'])
      assert.equal(tokenRequests.length, before)
    }
  })

  test('an unknown reference is refused, and so is HEAD', async () => {
    for (const h of ['', 'x', 'A'.repeat(43)]) {
      const answer = await browser.open(`/bff/callback/finish?h=${h}`)
      assert.deepEqual([answer.status, answer.json().code], [400, 'invalid_callback'])
    }
    const head = await browser.open('/bff/callback/finish?h=x', { method: 'HEAD' })
    assert.equal(head.status, 405)
  })

  test('after all of these the sign-in can still be finished, once', async () => {
    const bounced = await post(browser, encoded(fields))
    const landing = await browser.navigate(String(bounced.headers.location), { from: issuer })
    assert.deepEqual([landing.status, landing.url.href], [200, `${APP}/home`])
    // Its reference is good once, in no browser again.
    const before = tokenRequests.length
    for (const one of [browser, cloakroom.browser()]) {
      const again = await one.open(String(bounced.headers.location), { from: issuer })
      assert.deepEqual([again.status, again.json().code], [400, 'invalid_callback'])
    }
    assert.equal(tokenRequests.length, before)
  })
})

describe('responses with an ID token beside the code', () => {
  let cloakroom: RunningCloakroom
  before(async () => {
    cloakroom = await startFor('hybrid')
  })

  /** A response of the provider with changes, finished in the browser that it is for. */
  async function finished(change: (fields: [string, string][]) => [string, string][]) {
    const browser = cloakroom.browser()
    const { fields } = await responseForm(browser)
    const asked = tokenRequests.length
    const bounced = await post(browser, encoded(change(fields)))
    const answer = await browser.open(String(bounced.headers.location), { from: issuer })
    return { answer, requests: tokenRequests.length - asked }
  }

  test('a sign-in verifies both ID tokens', async () => {
    const browser = cloakroom.browser()
    const landing = await browser.signIn({ returnUrl: '/home' })
    assert.equal(landing.url.href, `${APP}/home`)
    const posted = browser.exchanges.find(({ method, url }) => method === 'POST' && url.origin === APP)
    assert.ok(new URLSearchParams(posted?.requestBody).get('id_token'))
    assert.equal((await browser.fetch('/bff/user')).json().sub, 'ada')
    assert.equal((await browser.fetch('/api/orders')).status, 200)
  })

  test('the code of another sign-in does not fit the ID token, and is not redeemed', async () => {
    const other = await responseForm(cloakroom.browser())
    const code = fieldOf(other.fields, 'code')
    const { answer, requests } = await finished((fields) =>
      fields.map(([name, value]): [string, string] => [name, name === 'code' ? code : value]),
    )
    assert.deepEqual([answer.status, answer.json().code, requests], [400, 'invalid_callback', 0])
    const line = cloakroom.logs.find((one) => one.includes('c_hash'))
    assert.match(line ?? '', /"step":"id_token"/)
  })

  test('a response without its ID token is refused', async () => {
    const { answer, requests } = await finished((fields) => fields.filter(([name]) => name !== 'id_token'))
    assert.deepEqual([answer.status, answer.json().code, requests], [400, 'invalid_callback', 0])
  })
})

describe('responses that are signed', () => {
  let cloakroom: RunningCloakroom
  before(async () => {
    cloakroom = await startFor('signed')
  })

  test('a sign-in brings a JWT and nothing beside it', async () => {
    const browser = cloakroom.browser()
    const landing = await browser.signIn({ returnUrl: '/home' })
    assert.equal(landing.url.href, `${APP}/home`)
    const callback = atApp(browser).find(({ url }) => url.pathname === '/bff/callback')
    assert.deepEqual([...(callback?.url.searchParams.keys() ?? [])], ['response'])
    assert.equal((await browser.fetch('/api/orders')).status, 200)
  })

  test('a sign-in without the user is told by a signed error', async () => {
    const browser = cloakroom.browser()
    const landing = await browser.signIn({ returnUrl: '/home', params: { prompt: 'none' } })
    assert.equal(landing.url.href, `${APP}/home?login_error=login_required`)
  })

  test('a forged response is refused, and so are plain parameters, alone or beside it', async () => {
    const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
    const forgeries: ((state: string) => string)[] = [
      (state) =>
        `response=${part({ alg: 'none' })}.${part({ state, code: 'x', iss: issuer, aud: 'signed', exp: 1e10 })}.`,
      (state) => `response=${part({ alg: 'RS256' })}.${part({ state, code: 'x' })}.AAAA`,
      (state) => `response=${part({ alg: 'RS256' })}.${part({ state, code: 'x' })}.AAAA&state=${state}`,
      (state) => `code=x&state=${state}&iss=${issuer}`,
      () => 'response=a.b.c.d.e',
      () => 'response=nonsense',
    ]
    for (const forge of forgeries) {
      const browser = cloakroom.browser()
      const login = await browser.open('/bff/login')
      const state = new URL(String(login.headers.location)).searchParams.get('state') ?? ''
      const asked = tokenRequests.length
      const answer = await browser.open(`/bff/callback?${forge(state)}`, { from: issuer })
      assert.deepEqual([answer.status, answer.json().code], [400, 'invalid_callback'], forge(state))
      assert.equal(tokenRequests.length, asked)
    }
  })
})

/** What the API under `/proved` wants in a proof, and the proofs that it has seen. */
const wanted: { nonce: string | undefined; rejects: number; seen: Set<string> } = {
  ...{ nonce: undefined, rejects: 0, seen: new Set() },
}

/** Refuses all that is no DPoP request (RFC 9449 §4.3, §7.1), and proofs without its nonce. */
async function requireProof({ path, method, headers }: RecordedRequest, res: ServerResponse) {
  if (!path.startsWith('/proved')) return false
  const [scheme, token = ''] = String(headers.authorization).split(' ')
  const { payload, protectedHeader } = await jwtVerify(String(headers.dpop), EmbeddedJWK)
  assert.deepEqual([scheme, protectedHeader.typ], ['DPoP', 'dpop+jwt'])
  assert.equal(payload.ath, createHash('sha256').update(token).digest('base64url'))
  assert.deepEqual([payload.htm, payload.htu], [method, `${api.url}${path}`])
  assert.deepEqual(jwtClaims(token)?.cnf, { jkt: await calculateJwkThumbprint(protectedHeader.jwk as JWK) })
  assert.ok(!wanted.seen.has(String(payload.jti)), 'a proof was sent twice')
  wanted.seen.add(String(payload.jti))
  if (wanted.nonce === undefined || payload.nonce === wanted.nonce) {
    if (wanted.rejects === 0) return false
    wanted.rejects -= 1
    res.writeHead(401, { 'www-authenticate': 'DPoP error="invalid_token"' }).end()
    return true
  }
  const challenge = 'dpop error="use_dpop_nonce", error_description="nonce"'
  res.writeHead(401, { 'www-authenticate': challenge, 'dpop-nonce': wanted.nonce }).end('nonce')
  return true
}

describe('tokens that are proved to upstreams', () => {
  let cloakroom: RunningCloakroom
  let browser: Browser
  before(async () => {
    cloakroom = await startFor('proved')
    browser = cloakroom.browser()
    await browser.signIn()
  })
  const seen = () => wanted.seen.size

  test('each request has a proof of its own, with the nonce that the API gave last', async () => {
    wanted.nonce = undefined
    assert.equal((await browser.fetch('/api/proved/1?x=1')).status, 200)
    wanted.nonce = 'n-1'
    let before = seen()
    assert.equal((await browser.fetch('/api/proved/2')).status, 200)
    assert.equal(seen(), before + 2, 'once more with the nonce')
    before = seen()
    assert.equal((await browser.fetch('/api/proved/3')).status, 200)
    assert.equal(seen(), before + 1, 'the nonce is known by now')
  })

  test('requests that learn of a new nonce at the same time are all sent again', async () => {
    wanted.nonce = `n-${randomBytes(4).toString('hex')}`
    const paths = Array.from({ length: 8 }, (_, n) => `/api/proved/at-once/${n}`)
    const answers = await Promise.all(paths.map((path) => browser.fetch(path)))
    assert.deepEqual(
      answers.map(({ status }) => status),
      paths.map(() => 200),
    )
  })

  test('a body that is still whole is sent again, a longer one is not', async () => {
    wanted.nonce = 'n-2'
    const headers = { 'content-type': 'text/plain' }
    const answer = await browser.fetch('/api/proved', { method: 'POST', body: 'x'.repeat(1_000), headers })
    assert.deepEqual([answer.status, answer.json().bodyBytes], [200, 1_000])
    wanted.nonce = 'n-3'
    const long = { method: 'POST', body: 'x'.repeat(70_000), headers }
    assert.equal((await browser.fetch('/api/proved', long)).status, 401)
    assert.equal((await browser.fetch('/api/proved', long)).status, 200)
  })

  test('a token that the API rejects is renewed, and the new one proved', async () => {
    const tokens = () => api.requests.slice(-2).map(({ headers }) => headers.authorization)
    wanted.rejects = 1
    assert.equal((await browser.fetch('/api/proved/4')).status, 200)
    assert.equal(new Set(tokens()).size, 2)
  })

  test('an API that is never content is asked twice', async () => {
    const before = seen()
    Object.defineProperty(wanted, 'nonce', {
      get: () => `n-${randomBytes(4).toString('hex')}`,
      configurable: true,
    })
    const answer = await browser.fetch('/api/proved')
    Object.defineProperty(wanted, 'nonce', { value: undefined, writable: true, configurable: true })
    assert.deepEqual([answer.status, seen()], [401, before + 2])
  })

  test("a client's own proof and scheme reach no upstream, and ours no client and no log", async () => {
    const forged = { DPoP: 'forged', authorization: 'DPoP forged' }
    assert.equal((await browser.fetch('/api/proved', { headers: forged })).status, 200)
    assert.doesNotMatch(JSON.stringify(api.requests.at(-1)?.headers), /forged/)
    assertNoSecrets({ log: cloakroom.logs.join('\n'), ...browser.haystacks() }, [...wanted.seen])
  })

  test('a WebSocket handshake has one, too', async (t) => {
    const sockets = new WebSocketServer({ noServer: true })
    const proofs: unknown[] = []
    const accept = (req: IncomingMessage, socket: Duplex, head: Buffer) => {
      const { dpop, authorization } = req.headers
      proofs.push([
        String(authorization).split(' ')[0],
        decodeJwt(String(dpop)).htu,
        decodeJwt(String(dpop)).htm,
      ])
      sockets.handleUpgrade(req, socket, head, (one) => one.close(1000))
    }
    api.server.on('upgrade', accept)
    t.after(() => api.server.off('upgrade', accept))
    const client = new WebSocket(`${cloakroom.listenUrl.replace('http', 'ws')}/api/proved/live?x=1`, {
      headers: { host: 'shop.test', origin: APP, cookie: browser.cookieHeader() },
    })
    const [code] = await once(client, 'close')
    assert.equal(code, 1000)
    assert.deepEqual(proofs, [['DPoP', `${api.url}/proved/live`, 'GET']])
  })

  test('switched off and on again, the session goes on', async () => {
    for (const [dpop, isBound] of [
      ['off', false],
      ['provider', true],
    ] as const) {
      // A resource with another definition starts without a token.
      const billing = { resource: BILLING, ...(isBound ? {} : { audience: BILLING }) }
      const resources = { orders: { resource: ORDERS, audience: ORDERS }, billing }
      await cloakroom.reload({ provider: { ...cloakroomProvider('proved'), dpop }, resources })
      assert.equal((await browser.fetch('/api/billing')).status, 200)
      const claims = jwtClaims(String(api.requests.at(-1)?.headers.authorization).split(' ')[1] ?? '')
      assert.equal(claims?.cnf !== undefined, isBound, dpop)
    }
  })
})

describe('tokens that are bound to a key of their session', () => {
  const tokenOf = ({ requests }: Upstream) => String(requests.at(-1)?.headers.authorization).split(' ')
  const keyIn = (token = '') => (jwtClaims(token)?.cnf as { jkt?: string } | undefined)?.jkt

  test('the provider binds them by code and by refresh, and wants its nonce once', async () => {
    const cloakroom = await startFor('bound')
    const asked = tokenRequests.length
    const browser = cloakroom.browser()
    await browser.signIn()
    const keys: (string | undefined)[] = []
    for (const path of ['/api/orders', '/api/billing']) {
      assert.equal((await browser.fetch(path)).status, 200)
      const [scheme, token] = tokenOf(api)
      assert.equal(scheme, 'Bearer')
      assert.equal(api.requests.at(-1)?.headers.dpop, undefined)
      keys.push(keyIn(token))
    }
    assert.ok(keys[0])
    assert.equal(keys[1], keys[0])
    const grants = tokenRequests.slice(asked)
    assert.deepEqual(
      grants.map(({ grantType, status, answer }) => [grantType, status, answer.error ?? answer.token_type]),
      [
        ['authorization_code', 400, 'use_dpop_nonce'],
        ['authorization_code', 200, 'DPoP'],
        ['refresh_token', 200, 'DPoP'],
      ],
    )
    const other = cloakroom.browser()
    await other.signIn()
    assert.equal((await other.fetch('/api/orders')).status, 200)
    assert.notEqual(keyIn(tokenOf(api)[1]), keys[0])
    assertNoSecrets({ log: cloakroom.logs.join('\n'), ...browser.haystacks() }, [])
  })

  test('the refresh token of a public client is offered with the key that it is bound to', async () => {
    const cloakroom = await startFor('public')
    const browser = cloakroom.browser()
    await browser.signIn()
    assert.equal((await browser.fetch('/api/orders')).status, 200)
    const key = keyIn(tokenOf(api)[1])
    assert.equal((await browser.fetch('/api/billing')).status, 200)
    assert.equal(keyIn(tokenOf(api)[1]), key)
    assert.ok(key)
  })

  test('another replica renews them with the same key, which Redis holds sealed', {
    skip: skipWithoutRedis(),
  }, async (t) => {
    const redis = await startRedis()
    t.after(() => redis.stop())
    const session = { store: { type: 'redis', url: redis.url }, keys: [sessionKey()] }
    const [one, other] = [await startFor('public', { session }), await startFor('public', { session })]
    t.after(() => Promise.all([one.close(), other.close()]))
    const browser = one.browser()
    await browser.signIn()
    assert.equal((await browser.fetch('/api/orders')).status, 200)
    const key = keyIn(tokenOf(api)[1])
    assert.equal((await browser.fetch('/api/billing', { via: other.listenUrl })).status, 200)
    assert.equal(keyIn(tokenOf(api)[1]), key)
    assert.ok(key)
    const stored = (await contentOf(redis)).map(({ field, value }) => `${field} ${value}`).join('\n')
    assert.ok(stored.length > 500)
    assert.doesNotMatch(stored, /"kty"|"crv"|"d":|PRIVATE KEY/)
    const tokens = tokenRequests
      .slice(-2)
      .flatMap(({ answer }) => [answer.access_token, answer.refresh_token])
    assertNoSecrets({ stored }, tokens.filter(Boolean).map(String))
  })
})
