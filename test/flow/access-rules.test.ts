import assert from 'node:assert/strict'
import { after, before, beforeEach, test } from 'node:test'
import type { Browser, FetchAnswer } from '../kit/browsers/browser.ts'
import { type RunningCloakroom, startCloakroom } from '../kit/cloakroom.ts'
import type { ConfigData } from '../kit/config/cloakroom-config.ts'
import { type RotatingProvider, startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { APP, movableClock, startApis } from '../kit/shops/shop.ts'
import { openChat, startChatUpstream } from '../kit/shops/websocket-shop.ts'
import type { Upstream } from '../kit/upstream/upstream.ts'

const cleanUps: (() => unknown)[] = []
const scope = { after: (cleanUp: () => unknown) => void cleanUps.push(cleanUp) }
const clock = movableClock()
const seconds = () => Math.floor(clock.now() / 1000)

let provider: RotatingProvider
let orders: Upstream
let cloakroom: RunningCloakroom
let browser: Browser

before(async () => {
  provider = await startRotatingProvider({ now: clock.now })
  scope.after(() => provider.close())
  const chat = await startChatUpstream(scope)
  const apis = await startApis(scope, { provider: provider.settings, jwks: provider.endpoints.jwks })
  orders = apis.orders
  const guarded = (id: string, require: ConfigData, more: ConfigData = {}) => ({
    ...{ path: `/${id}`, id, upstream: orders.url, resource: 'orders', require, ...more },
  })
  const open = (apis.config.routes as ConfigData[]).at(-1)!.upstream
  const routes = [
    guarded('ops', { claims: { 'realm_access.roles': ['ops', 'root'] } }),
    guarded('groups', { claims: { groups: ['g-ops'] } }),
    guarded('strong', { acr: ['mfa', 'hwk'], maxAge: '15m' }),
    guarded('fresh', { maxAge: '15m' }, { resource: undefined, upstream: open }),
    guarded('report', { acr: ['mfa'] }, { csrf: 'fetch-metadata' }),
    guarded('gold', { acr: ['gold'] }),
    guarded('silver', { acr: ['silver'] }),
    guarded('write', { scopes: ['orders.write'] }),
    guarded('chat', { claims: { groups: ['g-ops'] }, acr: ['mfa'] }, { upstream: chat.url, websocket: true }),
    ...(apis.config.routes as ConfigData[]),
  ]
  cloakroom = await startCloakroom({ ...apis.config, routes }, { now: clock.now })
  scope.after(() => cloakroom.close())
})

after(async () => {
  for (const cleanUp of cleanUps.toReversed()) await cleanUp()
})

beforeEach(() => {
  browser = cloakroom.browser()
  Object.assign(provider.control, { idTokenClaims: {}, idTokenOnRefresh: false, editAnswer: undefined })
})

async function signIn(claims: Record<string, unknown>): Promise<void> {
  provider.control.idTokenClaims = claims
  await browser.signIn()
}

const outcome = (answer: FetchAnswer) =>
  answer.status === 200 ? [200] : [answer.status, answer.json().code, answer.json().reason]

/** The request that the step-up of an answer makes at the provider, and where the browser ends up. */
async function stepUp(answer: FetchAnswer, claims: Record<string, unknown>) {
  provider.control.idTokenClaims = claims
  const landing = await browser.navigate(`${APP}${answer.json().login_url}&returnUrl=/done`)
  const asked = provider.requests.filter(({ path }) => path === '/authorize').at(-1)
  return { landing, query: new URLSearchParams(asked?.query) }
}

test('a claim lets in and keeps out; the refusal tells the browser and the log why, and no value', async () => {
  await signIn({ realm_access: { roles: ['dev', 'ops'] } })
  assert.deepEqual(outcome(await browser.fetch('/ops')), [200])
  await signIn({ realm_access: { roles: ['secret-role'] } })
  const sent = orders.requests.length
  const refused = await browser.fetch('/ops')
  assert.deepEqual(outcome(refused), [403, 'access_denied', 'claims'])
  assert.equal(refused.headers.vary, 'Cookie')
  assert.equal(orders.requests.length, sent)
  const line = JSON.parse(cloakroom.logs.filter((text) => text.includes('"path":"/ops"')).at(-1)!)
  assert.deepEqual([line.code, line.reason, line.claim], ['access_denied', 'claims', 'realm_access.roles'])
  assert.doesNotMatch(cloakroom.logs.join('') + refused.body, /secret-role/)
  assert.deepEqual(outcome(await cloakroom.browser().fetch('/ops')), [401, 'session_required', undefined])
})

test('access follows the claims of a refreshed ID token, in the very request that brought it', async () => {
  await signIn({ realm_access: { roles: ['ops'] } })
  assert.deepEqual(outcome(await browser.fetch('/ops')), [200])
  provider.control.idTokenOnRefresh = true
  provider.control.idTokenClaims = { realm_access: { roles: ['none'] } }
  clock.advance(400_000)
  assert.deepEqual(outcome(await browser.fetch('/ops')), [403, 'access_denied', 'claims'])
  provider.control.idTokenClaims = { realm_access: { roles: ['root'] } }
  clock.advance(400_000)
  assert.deepEqual(outcome(await browser.fetch('/ops')), [200])
})

test("Entra ID's overage of groups is a refusal of its own, with one line for the operator", async () => {
  await signIn({ _claim_names: { groups: 'src1' }, _claim_sources: { src1: { endpoint: 'https://graph' } } })
  for (let n = 0; n < 5; n += 1)
    assert.deepEqual(outcome(await browser.fetch('/groups')), [403, 'access_denied', 'groups_overage'])
  const lines = cloakroom.logs.map((text) => JSON.parse(text)).filter(({ msg }) => /groups overage/.test(msg))
  assert.deepEqual(
    lines.map(({ route, claim }) => [route, claim]),
    [['groups', 'groups']],
  )
})

test('a weak sign-in is cured by the one that login_url leads to, and is asked for again when it has grown old', async () => {
  await signIn({ acr: 'pwd', auth_time: seconds() })
  const refused = await browser.fetch('/strong')
  const needed = [401, 'reauthentication_required', 'insufficient_user_authentication']
  assert.deepEqual(outcome(refused), needed)
  const strong = { acr: 'hwk', auth_time: seconds() }
  const { query, landing } = await stepUp(refused, strong)
  assert.deepEqual([query.get('acr_values'), query.get('max_age')], ['mfa hwk', '900'])
  assert.equal(landing.url.pathname, '/done')
  assert.deepEqual(outcome(await browser.fetch('/strong')), [200])
  for (const _ of [1, 2]) {
    clock.advance(1_000_000)
    const old = await browser.fetch('/strong')
    assert.deepEqual(outcome(old), needed)
    await stepUp(old, { ...strong, auth_time: seconds() })
    assert.deepEqual(outcome(await browser.fetch('/strong')), [200])
  }
})

for (const [what, claims] of [
  ['brings another acr', () => ({ acr: 'pwd', auth_time: seconds() })],
  ['brings no acr', () => ({ auth_time: seconds() })],
  ['brings no auth_time', () => ({ acr: 'mfa' })],
  ['brings the old auth_time', () => ({ acr: 'mfa', auth_time: seconds() - 3_600 })],
] as const) {
  test(`a step-up that ${what} ends in access_denied, not in a circle`, async () => {
    await signIn({})
    const { landing } = await stepUp(await browser.fetch('/strong'), claims())
    assert.equal(landing.url.pathname, '/done')
    const denied = [403, 'access_denied', 'step_up_did_not_help']
    assert.deepEqual(outcome(await browser.fetch('/strong')), denied)
    assert.deepEqual(outcome(await browser.fetch('/strong')), denied)
    // A sign-in of one's own begins anew.
    await signIn({ acr: 'mfa', auth_time: seconds() })
    assert.deepEqual(outcome(await browser.fetch('/strong')), [200])
  })
}

test('two routes that undo the step-up of each other end in access_denied in the second round, for some minutes', async () => {
  const needed = [401, 'reauthentication_required', 'insufficient_user_authentication']
  const denied = [403, 'access_denied', 'step_up_did_not_help']
  await signIn({ acr: 'pwd' })
  for (const acr of ['gold', 'silver']) {
    const refused = await browser.fetch(`/${acr}`)
    assert.deepEqual(outcome(refused), needed)
    await stepUp(refused, { acr })
    assert.deepEqual(outcome(await browser.fetch(`/${acr}`)), [200])
  }
  assert.deepEqual(outcome(await browser.fetch('/gold')), denied)
  assert.deepEqual(outcome(await browser.fetch('/silver')), [200])
  // Who comes back later does not go in circles.
  clock.advance(300_000)
  const later = await browser.fetch('/gold')
  assert.deepEqual(outcome(later), needed)
  await stepUp(later, { acr: 'gold' })
  assert.deepEqual(outcome(await browser.fetch('/gold')), [200])
})

test('a step-up that was given up can be begun again with the same login_url, until one is finished', async () => {
  await signIn({ acr: 'pwd' })
  const refused = await browser.fetch('/gold')
  const { login_url: loginUrl } = refused.json()
  // The popup is closed at the provider; another one is opened at once.
  for (const _ of [1, 2]) assert.equal((await browser.open(`${loginUrl}&returnUrl=/done`)).status, 302)
  assert.equal((await browser.fetch('/gold')).json().login_url, loginUrl)
  await stepUp(refused, { acr: 'gold' })
  assert.deepEqual(outcome(await browser.fetch('/gold')), [200])
  const spent = await browser.open(`${loginUrl}&returnUrl=/done`)
  assert.deepEqual([spent.status, spent.json().reason], [400, 'step_up_expired'])
})

test('a step-up that comes back as another user is refused, and the session before stays', async () => {
  await signIn({})
  provider.control.user = 'mallory'
  const { landing } = await stepUp(await browser.fetch('/strong'), { acr: 'mfa', auth_time: seconds() })
  provider.control.user = 'alice'
  assert.equal(landing.status, 400)
  assert.equal((await browser.fetch('/bff/user')).json().sub, 'alice')
})

test('a route without a resource asks for a fresh sign-in too', async () => {
  await signIn({ auth_time: seconds() - 3_600 })
  const { query } = await stepUp(await browser.fetch('/fresh'), { auth_time: seconds() })
  assert.deepEqual([query.get('acr_values'), query.get('max_age')], [null, '900'])
  assert.deepEqual(outcome(await browser.fetch('/fresh')), [200])
})

test('a person who opens a page is sent to the step-up and back to it; when it did not help, told so', async () => {
  await signIn({ acr: 'pwd' })
  provider.control.idTokenClaims = { acr: 'mfa' }
  const page = await browser.navigate(`${APP}/report/7?x=1`)
  assert.deepEqual([page.status, page.url.pathname + page.url.search], [200, '/report/7?x=1'])
  const [first] = page.exchanges
  assert.deepEqual([first?.status, first?.headers['cache-control']], [302, 'no-store'])
  assert.match(
    String(first?.headers.location),
    /^\/bff\/login\?returnUrl=%2Freport%2F7%3Fx%3D1&challenge=[\w-]{43}$/,
  )
  await signIn({ acr: 'pwd' })
  const again = await browser.navigate(`${APP}/report/7`)
  assert.deepEqual([again.status, JSON.parse(again.body).reason], [403, 'step_up_did_not_help'])
  await signIn({ acr: 'pwd' })
  assert.deepEqual(outcome(await browser.fetch('/report/7')), [
    ...[401, 'reauthentication_required', 'insufficient_user_authentication'],
  ])
})

test("scopes are those of the route's access token: those it carries, or those that came with it", async () => {
  await signIn({})
  assert.deepEqual(outcome(await browser.fetch('/write')), [403, 'access_denied', 'insufficient_scope'])
  assert.deepEqual(outcome(await browser.fetch('/api/orders')), [200])
  provider.control.editAnswer = (answer) =>
    Object.assign(answer, { access_token: 'opaque', scope: 'openid offline_access orders.write' })
  await signIn({})
  const passed = await browser.fetch('/write')
  assert.equal(passed.headers['cloakroom-error'], undefined)
  assert.equal(orders.requests.at(-1)?.headers.authorization, 'Bearer opaque')
})

test('a WebSocket is judged the same', async () => {
  const failing = (status: number) => new RegExp(`Unexpected server response: ${status}`)
  await signIn({ groups: ['g-dev'], acr: 'mfa' })
  await assert.rejects(openChat(scope as never, browser, cloakroom.listenUrl), failing(403))
  await signIn({ groups: ['g-ops'] })
  await assert.rejects(openChat(scope as never, browser, cloakroom.listenUrl), failing(401))
  const line = cloakroom.logs
    .map((text) => JSON.parse(text))
    .findLast(({ msg }) => msg === 'a WebSocket was refused')
  assert.deepEqual([line.code, line.claim], ['reauthentication_required', 'acr'])
  await signIn({ groups: ['g-ops'], acr: 'mfa' })
  await openChat(scope as never, browser, cloakroom.listenUrl)
})
