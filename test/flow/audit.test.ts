import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http2'
import { type AddressInfo, connect } from 'node:net'
import { test } from 'node:test'
import { createLogger } from '../../src/log.ts'
import type { Browser } from '../kit/browsers/browser.ts'
import { startCloakroom } from '../kit/cloakroom.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { eventually } from '../kit/shops/deadline.ts'
import { movableClock } from '../kit/shops/shop.ts'
import { startUpstream } from '../kit/upstream/upstream.ts'

test('the audit stream tells who did what and why, and no name', async (t) => {
  const provider = await startRotatingProvider({ control: { user: 'ada.lovelace-4711' } })
  t.after(() => provider.close())
  const api = await startUpstream()
  t.after(() => api.close())
  const cloakroom = await startCloakroom({
    provider: { ...provider.settings },
    resources: { orders: { resource: 'https://orders.test' } },
    routes: [
      { path: '/api', id: 'api', upstream: api.url, resource: 'orders' },
      {
        ...{ path: '/ops', id: 'ops', upstream: api.url, websocket: true },
        require: { claims: { groups: ['ops'] } },
      },
      { path: '/', id: 'app', upstream: api.url, auth: 'anonymous' },
    ],
  })
  t.after(() => cloakroom.close())
  const lines = () => cloakroom.logs.map((line) => JSON.parse(line) as Record<string, unknown>)
  const audit = () => lines().filter(({ stream }) => stream === 'audit')

  const browser = cloakroom.browser()
  await browser.signIn()
  await browser.fetch('/ops/x')
  assert.equal(await upgrade(cloakroom.listenUrl, browser, '/ops/socket'), 403)
  await browser.fetch('/bff/callback?code=x&state=nobody-knows-it')
  const user = await browser.fetch('/bff/user')
  await browser.open(user.json()['bff:logout_url'])
  const other = cloakroom.browser()
  await other.signIn()
  const runs = async () => /^cloakroom_config_info\{hash="(\w+)"\} 1$/m.exec(await metrics())?.[1]
  const metrics = async () => (await fetch(`${cloakroom.adminUrl}/metrics`)).text()
  const first = await runs()
  await assert.rejects(cloakroom.reload({ basePath: 'no path' }))
  await cloakroom.reload({ rateLimits: { login: '7/1m' } })

  const told = audit().map(({ action, reason, by, route, step, outcome }) =>
    [action, reason ?? route ?? step ?? outcome, by].filter((one) => one !== undefined).join(' '),
  )
  assert.deepEqual(told, [
    'sign_in',
    'access_denied claims',
    'access_denied claims',
    'sign_in_failed callback',
    'token_revocation',
    'session_ended logout user',
    'sign_in',
    'config_reloaded refused',
    'config_reloaded applied',
  ])
  const [began, denied, socket, , revoked, ended, again, refused, applied] = audit()
  assert.deepEqual([refused?.hash, refused?.count], [first, 1])
  assert.equal(applied?.hash, await runs())
  assert.notEqual(applied?.hash, first)
  assert.match(String(began?.session), /^[\w-]{12}$/)
  for (const line of [denied, socket, revoked, ended]) assert.equal(line?.session, began?.session)
  assert.match(String(began?.subject), /^[\w-]{22}$/)
  for (const line of [denied, socket, again]) assert.equal(line?.subject, began?.subject)
  for (const line of lines())
    if (!line.stream) assert.equal(line.subject, undefined, 'in the audit stream alone')
  assert.notEqual(again?.session, began?.session)
  // The access lines of the sign-in and the sign-out.
  for (const path of ['/bff/callback', '/bff/logout'])
    assert.ok(
      lines().some((line) => line.path === path && line.session === began?.session),
      path,
    )
  assert.doesNotMatch(cloakroom.logs.join('\n'), /ada\.lovelace/)
})

test('the end of a session says whose doing it was and, as a step-up does, which request it came with', async (t) => {
  const clock = movableClock()
  const provider = await startRotatingProvider({ now: clock.now, control: { accessTokenSeconds: 100_000 } })
  t.after(() => provider.close())
  const api = await startUpstream()
  t.after(() => api.close())
  const cloakroom = await startCloakroom(
    {
      provider: { ...provider.settings },
      session: { maxPerUser: 2, idleTimeout: '2h', absoluteTimeout: '2h' },
      resources: {
        orders: { resource: 'https://orders.test' },
        billing: { resource: 'https://billing.test' },
      },
      routes: [
        { path: '/api', upstream: api.url, resource: 'orders' },
        { path: '/fresh', upstream: api.url, resource: 'billing', require: { maxAge: '15m' } },
        { path: '/', upstream: api.url, auth: 'anonymous' },
      ],
    },
    { now: clock.now },
  )
  t.after(() => cloakroom.close())
  const lines = () => cloakroom.logs.map((line) => JSON.parse(line) as Record<string, unknown>)
  let seen = 0
  /** The audit lines since the last look, each with the path of its request. */
  function told(): string[] {
    const fresh = lines().slice(seen)
    seen += fresh.length
    const pathOf = new Map(lines().map(({ request_id, path }) => [request_id, path]))
    return fresh
      .filter(({ stream, action }) => stream === 'audit' && action !== 'sign_in')
      .map(({ action, reason, by, request_id }) => [action, reason, by, pathOf.get(request_id)].join(' '))
  }
  async function signedIn(sid = 'sid-1') {
    provider.control.idTokenClaims = { auth_time: Math.floor(clock.now() / 1000), sid }
    const browser = cloakroom.browser()
    await browser.signIn()
    return browser
  }

  await signedIn()
  const [second, third] = [await signedIn(), await signedIn()]
  assert.deepEqual(told(), ['session_ended max_per_user limit /bff/callback'])
  await second.fetch('/bff/sessions', { method: 'DELETE' })
  assert.deepEqual(told(), ['session_ended by_user user /bff/sessions'])
  assert.equal((await third.fetch('/api/x')).status, 401)
  told()

  clock.advance(20 * 60_000)
  const { login_url: stepUp } = (await second.fetch('/fresh/x')).json()
  provider.control.idTokenClaims = { auth_time: Math.floor(clock.now() / 1000), sid: 'sid-2' }
  await second.navigate(cloakroom.publicUrl + stepUp)
  assert.deepEqual(told(), [
    'step_up   /bff/callback',
    'token_revocation   /bff/callback',
    'session_ended replaced user /bff/callback',
  ])

  const { clientId: client_id, clientSecret: client_secret } = provider
  const token = provider.issuedSecrets.findLast((secret) => secret.startsWith('rt_')) ?? ''
  const form = new URLSearchParams({ client_id, client_secret, token })
  await fetch(provider.endpoints.revocation, { method: 'POST', body: form })
  assert.equal((await second.fetch('/api/y')).status, 401)
  assert.deepEqual(told(), ['session_ended invalid_grant provider /api/y'])

  await signedIn()
  const body = new URLSearchParams({ logout_token: await provider.logoutToken({ sid: 'sid-1' }) })
  const logout = await fetch(`${cloakroom.listenUrl}/bff/backchannel-logout`, { method: 'POST', body })
  assert.equal(logout.status, 200)
  assert.deepEqual(told(), ['session_ended backchannel_logout provider /bff/backchannel-logout'])

  const last = await signedIn('sid-3')
  clock.advance(60 * 60_000)
  assert.equal((await last.fetch('/bff/user')).status, 200)
  clock.advance(61 * 60_000)
  assert.equal((await last.fetch('/bff/user')).status, 401)
  assert.deepEqual(told(), ['session_ended absolute_timeout timeout /bff/user'])
})

test('a session that ends while its request is proxied is told with the id of that request, whoever opened the connection', async (t) => {
  const clock = movableClock()
  const provider = await startRotatingProvider({ now: clock.now })
  t.after(() => provider.close())
  const rejectsTokens = (path: string | undefined) => path?.includes('rejected') === true
  const api = await startUpstream({
    handle(request, res) {
      if (!rejectsTokens(request.path)) return false
      res.writeHead(401, { 'www-authenticate': 'Bearer error="invalid_token"' }).end()
      return true
    },
  })
  t.after(() => api.close())
  const h2 = createServer((req, res) =>
    res
      .writeHead(
        rejectsTokens(req.url) ? 401 : 200,
        rejectsTokens(req.url) ? { 'www-authenticate': 'Bearer error="invalid_token"' } : {},
      )
      .end('h2'),
  )
  h2.listen(0, '127.0.0.1')
  await once(h2, 'listening')
  t.after(() => h2.close())
  const cloakroom = await startCloakroom(
    {
      provider: { ...provider.settings },
      session: { idleTimeout: '2h', absoluteTimeout: '2h' },
      resources: { orders: { resource: 'https://orders.test' } },
      routes: [
        { path: '/h1', upstream: api.url, resource: 'orders', websocket: true },
        {
          path: '/h2',
          upstream: `http://127.0.0.1:${(h2.address() as AddressInfo).port}`,
          resource: 'orders',
          http2: true,
        },
      ],
    },
    { now: clock.now },
  )
  t.after(() => cloakroom.close())
  const lines = () => cloakroom.logs.map((line) => JSON.parse(line) as Record<string, unknown>)

  /** Signs in, ends the grant at the provider, and has the session end by a request; what its line says. */
  async function endedBy(
    path: string,
    {
      meanwhile = () => {},
      ask = async (browser: Browser, path: string) => (await browser.fetch(path)).status,
    } = {},
  ): Promise<string> {
    const browser = cloakroom.browser()
    await browser.signIn()
    await browser.fetch(path.replace(/\w+$/, 'before'))
    const { clientId: client_id, clientSecret: client_secret } = provider
    const token = provider.issuedSecrets.findLast((secret) => secret.startsWith('rt_')) ?? ''
    const form = new URLSearchParams({ client_id, client_secret, token })
    await fetch(provider.endpoints.revocation, { method: 'POST', body: form })
    // It keeps the connection to the upstream open, and busy.
    await opener.fetch(path.replace(/\w+$/, 'opener'))
    meanwhile()
    const seen = lines().length
    assert.equal(await ask(browser, path), 401)
    await eventually('its line', () => lines().some((line) => line.path === path))
    const pathOf = new Map(lines().map((line) => [line.request_id, line.path]))
    const [ended] = lines()
      .slice(seen)
      .filter(({ action }) => action === 'session_ended')
    return `${ended?.reason} ${pathOf.get(ended?.request_id)}`
  }

  const opener = cloakroom.browser()
  await opener.signIn()
  await opener.fetch('/h1/first')
  await opener.fetch('/h2/first')
  assert.equal(await endedBy('/h1/rejected'), 'invalid_grant /h1/rejected')
  assert.equal(await endedBy('/h2/rejected'), 'invalid_grant /h2/rejected')
  const meanwhile = () => clock.advance(301_000)
  assert.equal(await endedBy('/h1/renewed', { meanwhile }), 'invalid_grant /h1/renewed')
  assert.equal(await endedBy('/h2/renewed', { meanwhile }), 'invalid_grant /h2/renewed')
  const ask = (browser: Browser, path: string) => upgrade(cloakroom.listenUrl, browser, path)
  assert.equal(await endedBy('/h1/socket', { meanwhile, ask }), 'invalid_grant /h1/socket')
  const last = cloakroom.browser()
  await last.signIn()
  clock.advance(3_600_000)
  await last.fetch('/h1/x')
  clock.advance(3_600_001)
  const seen = lines().length
  assert.equal((await last.fetch('/h1/timeout')).status, 401)
  await eventually('its line', () =>
    lines()
      .slice(seen)
      .some(({ msg }) => msg === 'request'),
  )
  const [ended, line] = ['session_ended', undefined].map((wanted) =>
    lines()
      .slice(seen)
      .find(({ action, msg }) => (wanted ? action === wanted : msg === 'request')),
  )
  assert.deepEqual([ended?.reason, ended?.request_id], ['absolute_timeout', line?.request_id])
})

test('the audit stream is there at every level of the log', () => {
  const written: string[] = []
  const log = createLogger({ level: 'error', destination: { write: (line) => written.push(line) } })
  log.info({}, 'not this')
  log.audit?.('config_reloaded', { outcome: 'applied' })
  assert.equal(written.length, 1)
  const { stream, action, outcome, level } = JSON.parse(written[0] ?? '{}')
  assert.deepEqual([stream, action, outcome, level], ['audit', 'config_reloaded', 'applied', 'info'])
})

/** Asks for a WebSocket with the browser's cookies, and returns the status of the answer. */
async function upgrade(listenUrl: string, browser: Browser, path: string): Promise<number> {
  const { origin, port, host } = new URL(listenUrl)
  const socket = connect(Number(port), '127.0.0.1').setEncoding('latin1')
  const own = [`Host: ${host}`, `Origin: ${origin}`, `Cookie: ${browser.cookieHeader(path)}`]
  const asked = ['Connection: upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13']
  const key = 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=='
  socket.write([`GET ${path} HTTP/1.1`, ...own, ...asked, key, '', ''].join('\r\n'))
  return Number((await socket.toArray()).join('').split(' ')[1])
}
