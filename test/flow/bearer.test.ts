import assert from 'node:assert/strict'
import { once } from 'node:events'
import { request as httpRequest, type IncomingHttpHeaders } from 'node:http'
import { after, before, test } from 'node:test'
import { WebSocket } from 'ws'
import { unsignedJwt } from '../../src/demo/scripted/signing.ts'
import { type RunningCloakroom, startCloakroom } from '../kit/cloakroom.ts'
import type { ConfigData } from '../kit/config/cloakroom-config.ts'
import { sendJson } from '../kit/local-server.ts'
import { type RotatingProvider, startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { talkRaw } from '../kit/raw-http.ts'
import { assertNoSecrets } from '../kit/secrets.ts'
import { APP, BILLING, ORDERS, startApis } from '../kit/shops/shop.ts'
import { type ChatUpstream, closeOf, echoOf, startChatUpstream } from '../kit/shops/websocket-shop.ts'
import type { Upstream } from '../kit/upstream/upstream.ts'

const CLI = 'api://cli'
const cleanUps: (() => unknown)[] = []
const scope = { after: (cleanUp: () => unknown) => void cleanUps.push(cleanUp) }
/** Every token that a client brought, or that came in exchange. */
const secrets: string[] = []

let provider: RotatingProvider
let orders: Upstream
let billing: Upstream
let chat: ChatUpstream
let cloakroom: RunningCloakroom

before(async () => {
  provider = await startRotatingProvider()
  scope.after(() => provider.close())
  chat = await startChatUpstream(scope)
  const apis = await startApis(scope, { provider: provider.settings, jwks: provider.endpoints.jwks })
  ;({ orders, billing } = apis)
  const ofOrders = {
    upstream: orders.url,
    resource: 'orders',
    bearer: { audience: ORDERS, scopes: ['read'] },
  }
  const routes = [
    { path: '/cli/orders', id: 'orders', ...ofOrders, headers: { 'x-user': '{claims.sub}' } },
    { path: '/cli/ops', id: 'ops', ...ofOrders, require: { claims: { groups: ['ops'] }, acr: ['mfa'] } },
    {
      path: '/cli/billing',
      id: 'billing',
      upstream: billing.url,
      resource: 'exchanged',
      bearer: { audience: CLI },
    },
    { path: '/cli/chat', id: 'chat', upstream: chat.url, websocket: true, bearer: { audience: CLI } },
    { path: '/cli/maybe', id: 'maybe', upstream: chat.url, auth: 'optional', bearer: { audience: CLI } },
    { path: '/app', id: 'app', upstream: orders.url, resource: 'orders' },
    (apis.config.routes as ConfigData[]).at(-1)!,
  ]
  const resources = {
    orders: { resource: ORDERS, audience: ORDERS },
    exchanged: { resource: BILLING, audience: BILLING, grant: 'token_exchange', subject: 'orders' },
  }
  const allowedOrigins = ['https://friend.example.test']
  cloakroom = await startCloakroom({ ...apis.config, resources, routes, allowedOrigins } as ConfigData)
  scope.after(() => cloakroom.close())
})

after(async () => {
  for (const cleanUp of cleanUps.toReversed()) await cleanUp()
})

/** A token of the provider for the command line. */
async function tokenFor(
  audience: unknown,
  claims: Record<string, unknown> = {},
  typ = 'at+jwt',
): Promise<string> {
  const now = Math.floor(Date.now() / 1000)
  const all = {
    iss: provider.issuer,
    aud: audience,
    sub: 'carol',
    scope: 'read',
    iat: now,
    exp: now + 300,
    ...claims,
  }
  return kept(await provider.signer.sign({ ...all, jti: String(secrets.length) }, { typ }))
}

function kept(secret: string): string {
  secrets.push(secret)
  return secret
}

type Answer = {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: string
  // biome-ignore lint/suspicious/noExplicitAny: tests read members of many different answers
  readonly json: any
}

/** What a client without a browser sends: no cookie, no CSRF header, no Fetch Metadata. */
function call(path: string, token?: string, headers: Record<string, string> = {}): Promise<Answer> {
  const url = new URL(path, cloakroom.listenUrl)
  const own = { host: new URL(APP).host, 'x-forwarded-proto': 'https' }
  const authorization = token === undefined ? {} : { authorization: `Bearer ${token}` }
  return new Promise((resolve, reject) => {
    const req = httpRequest(
      url,
      { headers: { ...own, ...authorization, ...headers }, agent: false },
      (res) => {
        let body = ''
        res.on('data', (chunk) => {
          body += chunk
        })
        res.on('error', reject)
        res.on('end', () => {
          const isJson = res.headers['content-type']?.includes('json')
          resolve({
            status: res.statusCode!,
            headers: res.headers,
            body,
            json: isJson ? JSON.parse(body) : {},
          })
        })
      },
    )
    req.on('error', reject)
    req.end()
  })
}

const outcome = ({ status, json }: Answer) => [status, json.code, json.reason]
/** What caches tell callers apart by; `Origin` is there because of `allowedOrigins`. */
const varies = ({ headers }: Answer) => headers.vary?.replace(/^Origin, |, Origin$/, '')
const INVALID = [401, 'session_required', 'invalid_token']

test('a command line calls with a token of its own, which its API gets as it is', async () => {
  const token = await tokenFor(ORDERS)
  Object.assign(orders.answer, { headers: { 'cache-control': 'public, max-age=60' }, times: 1 })
  const answer = await call('/cli/orders/7?x=1', token)
  assert.deepEqual([answer.status, answer.json.sub, answer.json.path], [200, 'carol', '/cli/orders/7'])
  const { headers } = orders.requests.at(-1)!
  assert.deepEqual(
    [headers.authorization, headers['x-user'], headers.cookie],
    [`Bearer ${token}`, 'carol', undefined],
  )
  assert.equal(varies(answer), 'Cookie, Authorization')
  assert.equal(answer.headers['cache-control'], 'max-age=60, private')
  assert.equal(answer.headers['set-cookie'], undefined)
  const several = await tokenFor(['api://other', ORDERS], {}, 'JWT')
  assert.equal((await call('/cli/orders', several)).status, 200)
})

test('what the API says of that token is for its client: nothing is renewed or sent again', async () => {
  const before = orders.requests.length
  Object.assign(orders.answer, {
    status: 401,
    headers: { 'www-authenticate': 'Bearer error="invalid_token"' },
    times: 1,
  })
  const answer = await call('/cli/orders', await tokenFor(ORDERS))
  assert.deepEqual([answer.status, answer.headers['cloakroom-error']], [401, undefined])
  assert.equal(answer.headers['www-authenticate'], 'Bearer error="invalid_token"')
  assert.equal(orders.requests.length, before + 1)
})

test('without any credential the answer names both ways in', async () => {
  const answer = await call('/cli/orders', undefined, { 'x-csrf': '1' })
  assert.deepEqual(outcome(answer), [401, 'session_required', undefined])
  assert.deepEqual([answer.headers['www-authenticate'], answer.json.login_url], ['Bearer', '/bff/login'])
  assert.equal(varies(answer), 'Cookie, Authorization')
  assert.deepEqual(outcome(await call('/cli/orders')), [403, 'csrf_required', undefined])
  assert.equal((await call('/app', undefined, { 'x-csrf': '1' })).headers['www-authenticate'], undefined)
})

test('a bad token is refused before anything else is done, and never taken for an anonymous caller', async () => {
  const now = Math.floor(Date.now() / 1000)
  const idToken = { aud: provider.clientId, nonce: 'n', scope: undefined }
  const BAD: [what: string, token: string, claim: string][] = [
    ['opaque', kept('not-a-jwt-at-all'), 'form'],
    [
      'alg none',
      kept(unsignedJwt({ iss: provider.issuer, aud: ORDERS, sub: 'admin', exp: now + 300 })),
      'form',
    ],
    ['for another API', await tokenFor(BILLING), 'aud'],
    ['of another issuer', await tokenFor(ORDERS, { iss: 'https://evil.example' }), 'iss'],
    ['expired', await tokenFor(ORDERS, { exp: now - 120 }), 'exp'],
    ['an ID token', await tokenFor(provider.clientId, idToken, 'JWT'), 'nonce'],
    ['an ID token for that audience', await tokenFor(ORDERS, { nonce: 'n' }, 'JWT'), 'nonce'],
    ['a logout token', await provider.logoutToken({ aud: ORDERS, sub: 'carol' }), 'typ'],
    ['bound to a key', await tokenFor(ORDERS, { cnf: { jkt: 'x' } }), 'cnf'],
    [
      'with a signature cut off',
      kept(`${(await tokenFor(ORDERS)).split('.').slice(0, 2).join('.')}.AAAA`),
      'signature',
    ],
  ]
  const before = orders.requests.length
  for (const [what, token, claim] of BAD) {
    const answer = await call('/cli/orders', token)
    assert.deepEqual(outcome(answer), INVALID, what)
    assert.equal(answer.headers['www-authenticate'], 'Bearer error="invalid_token"')
    assert.deepEqual([answer.json.login_url, varies(answer)], [undefined, 'Cookie, Authorization'], what)
    const line = JSON.parse(cloakroom.logs.at(-1)!)
    assert.deepEqual([line.reason, line.claim], ['invalid_token', claim], what)
  }
  assert.deepEqual(outcome(await call('/cli/maybe', await tokenFor(BILLING))), INVALID)
  assert.equal(orders.requests.length, before)
})

test('a scope that is missing is told', async () => {
  const answer = await call('/cli/orders', await tokenFor(ORDERS, { scope: 'write' }))
  assert.deepEqual(outcome(answer), [403, 'access_denied', 'insufficient_scope'])
  assert.equal(answer.headers['www-authenticate'], 'Bearer error="insufficient_scope", scope="read"')
})

test('a cookie and a token at once, or two tokens, are refused, whatever they are worth', async () => {
  const token = await tokenFor(ORDERS)
  const browser = cloakroom.browser()
  await browser.signIn()
  const both = await browser.fetch('/cli/orders', { headers: { authorization: `Bearer ${token}` } })
  assert.deepEqual([both.status, both.json().code], [400, 'bad_request'])
  for (const cookie of ['__Host-Http-cloakroom=stale', '__Host-Http-cloakroom=a; __Host-Http-cloakroom=b'])
    assert.deepEqual(outcome(await call('/cli/orders', token, { cookie })), [400, 'bad_request', undefined])
  assert.equal((await call('/cli/orders', token, { cookie: 'theme=dark' })).status, 200)
  const head = `GET /cli/orders HTTP/1.1\r\nHost: ${new URL(APP).host}\r\nConnection: close\r\n`
  for (const second of [token, 'x'])
    for (const name of ['Authorization', 'AUTHORIZATION']) {
      const fields = `Authorization: Bearer ${token}\r\n${name}: Bearer ${second}\r\n\r\n`
      const { statuses } = await talkRaw(Number(new URL(cloakroom.listenUrl).port), head + fields)
      assert.deepEqual(statuses, [400])
    }
  // The cookie alone goes on as ever, and the browser's own Basic credentials for a proxy in between change nothing.
  const basic = { headers: { authorization: 'Basic c3RhZ2luZw==' } }
  assert.equal((await browser.fetch('/cli/orders', basic)).json().sub, 'alice')
  assert.notEqual(orders.requests.at(-1)?.headers.authorization, 'Basic c3RhZ2luZw==')
})

test("on a route without bearer the client's token is dropped, as ever", async () => {
  const token = await tokenFor(ORDERS)
  const answer = await call('/app', token, { 'x-csrf': '1' })
  assert.deepEqual(outcome(answer), [401, 'session_required', undefined])
  assert.equal(varies(answer), 'Cookie')
  const browser = cloakroom.browser()
  await browser.signIn()
  const passed = await browser.fetch('/app', { headers: { authorization: `Bearer ${token}` } })
  assert.equal(passed.json().sub, 'alice')
  assert.deepEqual(outcome(await call('/bff/user', token, { 'x-csrf': '1' })), [
    401,
    'session_required',
    undefined,
  ])
})

test('scripts of foreign origins are refused with a token, too; those of allowed ones are not', async () => {
  const token = await tokenFor(ORDERS)
  const refused = [403, 'origin_forbidden', undefined]
  const foreign: Record<string, string>[] = [
    { origin: 'https://evil.example' },
    { origin: 'null' },
    { 'sec-fetch-site': 'cross-site' },
    { 'sec-fetch-site': 'same-site' },
  ]
  for (const headers of foreign) assert.deepEqual(outcome(await call('/cli/orders', token, headers)), refused)
  assert.equal(
    (await call('/cli/orders', token, { origin: APP, 'sec-fetch-site': 'same-origin' })).status,
    200,
  )
  const friend = { origin: 'https://friend.example.test', 'sec-fetch-site': 'same-site' }
  assert.equal((await call('/cli/orders', token, friend)).status, 200)
})

test('access rules go by the claims of the token', async () => {
  const needed = { groups: ['ops'], acr: 'mfa' }
  assert.equal((await call('/cli/ops', await tokenFor(ORDERS, needed))).status, 200)
  const other = await call('/cli/ops', await tokenFor(ORDERS, { ...needed, groups: ['dev'] }))
  assert.deepEqual(outcome(other), [403, 'access_denied', 'claims'])
  const weak = await call('/cli/ops', await tokenFor(ORDERS, { ...needed, acr: 'pwd' }))
  const reason = 'insufficient_user_authentication'
  assert.deepEqual(outcome(weak), [401, 'reauthentication_required', reason])
  assert.equal(weak.headers['www-authenticate'], `Bearer error="${reason}", acr_values="mfa"`)
  assert.equal(weak.json.login_url, undefined)
  const overage = await call('/cli/ops', await tokenFor(ORDERS, { acr: 'mfa', hasgroups: true }))
  assert.deepEqual(outcome(overage), [403, 'access_denied', 'groups_overage'])
})

test('a token for another audience is exchanged for one of the API, once', async () => {
  const token = await tokenFor(CLI)
  const exchanges: Record<string, string>[] = []
  let isRefused = false
  provider.control.intercept = async ({ path, form }, res) => {
    if (path !== '/token') return false
    exchanges.push(Object.fromEntries(form))
    if (isRefused) sendJson(res, 400, { error: 'invalid_grant' })
    else sendJson(res, 200, { access_token: await tokenFor(BILLING), token_type: 'Bearer', expires_in: 300 })
    return true
  }
  const before = billing.requests.length
  const answers = await Promise.all(Array.from({ length: 8 }, () => call('/cli/billing', token)))
  for (const { status, json } of answers)
    assert.deepEqual([status, json.aud, json.sub], [200, BILLING, 'carol'])
  assert.equal((await call('/cli/billing', token)).status, 200)
  assert.equal(exchanges.length, 1)
  const [{ grant_type, subject_token, resource } = {}] = exchanges
  assert.deepEqual(
    [grant_type, subject_token, resource],
    ['urn:ietf:params:oauth:grant-type:token-exchange', token, BILLING],
  )
  for (const { headers } of billing.requests.slice(before))
    assert.ok(headers.authorization !== `Bearer ${token}`, "the client's own token went out")
  isRefused = true
  const refused = await call('/cli/billing', await tokenFor(CLI))
  delete provider.control.intercept
  assert.equal(refused.json.code, 'reauthentication_required')
  assert.deepEqual(
    [refused.status, refused.headers['www-authenticate'], refused.json.login_url],
    [401, 'Bearer error="invalid_token"', undefined],
  )
})

test('a WebSocket opens with a token and no Origin, and ends with the token', async () => {
  const url = `${cloakroom.listenUrl.replace('http', 'ws')}/cli/chat`
  const connect = (token: string, headers: Record<string, string> = {}) => {
    const own = { host: new URL(APP).host, authorization: `Bearer ${token}` }
    const socket = new WebSocket(url, { headers: { ...own, ...headers } })
    scope.after(() => socket.terminate())
    return socket
  }
  const now = Math.floor(Date.now() / 1000)
  const token = await tokenFor(CLI, { exp: now + 2 })
  const socket = connect(token)
  await once(socket, 'open')
  assert.equal(await echoOf(socket, 'hello'), 'hello')
  assert.equal(chat.handshakes.at(-1)?.headers.authorization, `Bearer ${token}`)
  const { code, reason } = await closeOf(socket)
  assert.deepEqual([code, reason], [1008, 'session ended'])
  for (const [headers, status] of [
    [{ origin: 'https://evil.example' }, 403],
    [{ cookie: '__Host-Http-cloakroom=x' }, 400],
    [{ authorization: 'Bearer x.y.z' }, 401],
  ] as [Record<string, string>, number][]) {
    const [error] = await once(connect(await tokenFor(CLI), headers), 'error')
    assert.match(String(error), new RegExp(`response: ${status}`))
  }
  const line = cloakroom.logs
    .map((text) => JSON.parse(text))
    .findLast(({ msg }) => msg === 'a WebSocket was refused')
  assert.deepEqual([line.code, line.reason, line.claim], ['session_required', 'invalid_token', 'form'])
})

test('an event stream ends with the token', async () => {
  const now = Math.floor(Date.now() / 1000)
  const answer = await call('/cli/maybe/events', await tokenFor(CLI, { exp: now + 2 }))
  assert.deepEqual([answer.status, answer.body], [200, 'data: hello\n\n'])
})

test('no token is in a log line, in a metric or in an answer', async () => {
  const metrics = await (await fetch(`${cloakroom.adminUrl}/metrics`)).text()
  const problem = await call('/cli/orders', secrets[0]!.slice(0, -3))
  assert.deepEqual(outcome(problem), INVALID)
  assertNoSecrets({ logs: cloakroom.logs.join('\n'), metrics, problem: problem.body }, secrets)
})
