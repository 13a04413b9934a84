import assert from 'node:assert/strict'
import { get } from 'node:http'
import { after, before, describe, test } from 'node:test'
import { type Browser, createBrowser } from '../kit/browsers/browser.ts'
import { type CollectedSpan, type Collector, startCollector } from '../kit/collector.ts'
import { type RotatingProvider, startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { type Replica, startReplica, writeReplicaConfig } from '../kit/replica.ts'
import { assertNoSecrets } from '../kit/secrets.ts'
import { eventually } from '../kit/shops/deadline.ts'
import { APP } from '../kit/shops/shop.ts'
import { echoOf, openChat, startChatUpstream } from '../kit/shops/websocket-shop.ts'
import { startUpstream, type Upstream } from '../kit/upstream/upstream.ts'

const PARENT = { traceId: '4bf92f3577b34da6a3ce929d0e0e4736', spanId: '00f067aa0ba902b7' }
const TRACEPARENT = `00-${PARENT.traceId}-${PARENT.spanId}-01`

const factsOf = ({ attributes }: CollectedSpan): Record<string, unknown> =>
  Object.fromEntries(attributes.map(({ key, value }) => [key, Object.values(value)[0]]))

describe('traces over OTLP', () => {
  let collector: Collector
  let dead: Collector
  let api: Upstream
  let replica: Replica
  let stuck: Replica
  let browser: Browser
  let provider: RotatingProvider
  let secrets: () => string[]
  const closers: (() => unknown)[] = []

  before(async () => {
    collector = await startCollector()
    closers.push(() => collector.close())
    dead = await startCollector({ isDead: true })
    closers.push(() => dead.close())
    provider = await startRotatingProvider()
    closers.push(() => provider.close())
    secrets = () => [provider.clientSecret, ...provider.issuedSecrets]
    api = await startUpstream()
    closers.push(() => api.close())
    const chat = await startChatUpstream({ after: (close) => void closers.push(close) })
    const shared = await writeReplicaConfig({
      publicUrl: APP,
      trustProxy: ['127.0.0.1'],
      provider: { ...provider.settings },
      resources: {
        orders: { resource: 'https://orders.test' },
        billing: { resource: 'https://billing.test' },
      },
      routes: [
        { path: '/api/orders', id: 'orders', upstream: api.url, resource: 'orders' },
        { path: '/api/billing', id: 'billing', upstream: api.url, resource: 'billing' },
        { path: '/chat', id: 'chat', upstream: chat.url, resource: 'orders', websocket: true },
        { path: '/', id: 'app', upstream: api.url, auth: 'anonymous' },
      ],
    })
    closers.push(() => shared.remove())
    const env = (url: string) => ({
      ...{ OTEL_EXPORTER_OTLP_ENDPOINT: url, OTEL_SERVICE_NAME: 'front', OTEL_BSP_SCHEDULE_DELAY: '100' },
      OTEL_RESOURCE_ATTRIBUTES: 'deployment.environment.name=test,service.name=other,team=a%20b=c',
    })
    replica = await startReplica({ configFile: shared.file, env: env(collector.url) })
    closers.push(() => replica.stop())
    stuck = await startReplica({ configFile: shared.file, env: env(dead.url) })
    closers.push(() => stuck.stop('SIGKILL'))
    browser = createBrowser({ origin: shared.publicUrl, connect: { [shared.publicUrl]: replica.listenUrl } })
    closers.push(() => browser.close())
    await browser.signIn()
  })
  after(async () => {
    for (const close of closers.reverse()) await close()
  })

  const named = (name: string, traceId: string) =>
    collector.spans.filter((span) => span.name === name && span.traceId === traceId)

  test('one request with a refresh: request, session, refresh with its wait for the lock, provider, upstream', async () => {
    const answer = await browser.fetch('/api/billing/7?secret=in-the-query', {
      headers: { traceparent: TRACEPARENT, tracestate: 'rojo=1' },
    })
    assert.equal(answer.status, 200)
    const request = () => named('GET billing', PARENT.traceId)[0]
    await eventually('the trace is there', () => request() !== undefined)
    const { spanId } = request()!
    assert.equal(request()!.parentSpanId, PARENT.spanId)
    const all = collector.spans.filter(({ traceId }) => traceId === PARENT.traceId)
    const parents = new Map(all.map((span) => [span.spanId, span.name]))
    const tree = all.map(({ name, parentSpanId = '' }) => `${parents.get(parentSpanId)} > ${name}`)
    assert.deepEqual(tree.toSorted(), [
      'GET billing > refresh',
      'GET billing > session',
      'GET billing > upstream',
      'refresh > provider',
      'undefined > GET billing',
    ])
    const { 'cloakroom.request_id': id, ...facts } = factsOf(request()!)
    assert.match(String(id), /^[\w-]{36}$/)
    assert.deepEqual(
      [facts['http.route'], facts['url.path'], Number(facts['http.response.status_code'])],
      ['billing', '/api/billing/7', 200],
    )
    const refresh = factsOf(named('refresh', PARENT.traceId)[0]!)
    assert.equal(refresh['cloakroom.refresh.outcome'], 'worked')
    assert.ok(Number(refresh['cloakroom.refresh.lock_wait_ms']) >= 0)
    assert.equal(refresh['cloakroom.resource'], 'billing')
    const [upstream] = named('upstream', PARENT.traceId)
    const received = api.requests.find(({ path }) => path.startsWith('/api/billing'))?.headers
    assert.equal(received?.traceparent, `00-${PARENT.traceId}-${upstream!.spanId}-01`)
    assert.equal(received?.tracestate, 'rojo=1')
    const line = () =>
      replica.stdout.find((text) => text.includes(String(id)) && text.includes('"msg":"request"'))
    await eventually('its line is written', () => line() !== undefined)
    assert.equal(JSON.parse(line()!).traceparent, `00-${PARENT.traceId}-${spanId}-01`)
    assert.deepEqual(
      ['service.name', 'deployment.environment.name', 'team'].map((name) => collector.resource[name]),
      ['front', 'test', 'a b=c'],
    )
  })

  test('a caller that waits for the refresh of another says so in its span, which has no provider call', async () => {
    const another = createBrowser({ origin: APP, connect: { [APP]: replica.listenUrl } })
    closers.push(() => another.close())
    await another.signIn()
    const ids = ['a', 'b'].map((letter) => letter.repeat(32))
    provider.control.latencyMs = 300
    const answers = await Promise.all(
      ids.map((id) =>
        another.fetch('/api/billing/9', { headers: { traceparent: `00-${id}-00f067aa0ba902b7-01` } }),
      ),
    )
    provider.control.latencyMs = 0
    assert.deepEqual(
      answers.map(({ status }) => status),
      [200, 200],
    )
    await eventually('both traces are there', () => ids.every((id) => named('GET billing', id).length === 1))
    const told = ids.map((id) => {
      const refresh = factsOf(named('refresh', id)[0]!)
      return `${refresh['cloakroom.refresh.outcome']}, ${named('provider', id).length} calls`
    })
    assert.deepEqual(told.toSorted(), ['coalesced, 0 calls', 'worked, 1 calls'])
  })

  test('what a rejected token causes is a part of the request that it came with, whoever opened the connection', async () => {
    const another = createBrowser({ origin: APP, connect: { [APP]: replica.listenUrl } })
    closers.push(() => another.close())
    await another.signIn()
    const [opener, rejected] = ['d', 'e'].map((letter) => letter.repeat(32)) as [string, string]
    const headersOf = (id: string) => ({ traceparent: `00-${id}-00f067aa0ba902b7-01` })
    assert.equal((await another.fetch('/api/orders/1', { headers: headersOf(rejected) })).status, 200)
    assert.equal((await browser.fetch('/api/orders/1', { headers: headersOf(opener) })).status, 200)
    const challenge = { 'www-authenticate': 'Bearer error="invalid_token"' }
    Object.assign(api.answer, { status: 401, headers: challenge, times: 1 })
    const traceId = 'f'.repeat(32)
    assert.equal((await another.fetch('/api/orders/2', { headers: headersOf(traceId) })).status, 200)
    await eventually('the trace is there', () => named('GET orders', traceId).length === 1)
    const parts = collector.spans.filter((span) => span.traceId === traceId).map(({ name }) => name)
    assert.deepEqual(parts.toSorted(), ['GET orders', 'provider', 'refresh', 'session', 'upstream'])
    for (const id of [opener, rejected]) assert.equal(named('provider', id).length, 0)
  })

  test('the trace context of a client that is no trusted proxy is not taken, and reaches no upstream', async () => {
    const traceId = 'c'.repeat(32)
    const headers = {
      traceparent: `00-${traceId}-00f067aa0ba902b7-01`,
      tracestate: 'evil=1',
      baggage: 'evil=1',
    }
    // Loopback addresses are many; the proxy that is trusted has another.
    const from = { localAddress: '127.0.0.2', headers: { ...headers, host: new URL(browser.origin).host } }
    const status = await new Promise((resolve, reject) =>
      get(`${replica.listenUrl}/from-a-stranger`, from, (res) => resolve(res.resume().statusCode)).on(
        'error',
        reject,
      ),
    )
    assert.equal(status, 200)
    const found = () => collector.spans.find((span) => factsOf(span)['url.path'] === '/from-a-stranger')
    await eventually('its span is there', () => found() !== undefined)
    assert.notEqual(found()!.traceId, traceId)
    assert.ok(!found()!.parentSpanId)
    const [upstream] = named('upstream', found()!.traceId)
    const received = api.requests.find(({ path }) => path === '/from-a-stranger')?.headers
    assert.equal(received?.traceparent, `00-${found()!.traceId}-${upstream!.spanId}-01`)
    assert.deepEqual([received?.tracestate, received?.baggage], [undefined, undefined])
    assert.ok(!collector.bodies.join('').includes(traceId))
  })

  test('a WebSocket is a span until its 101, with its session as a part; one that is refused has the code', async (t) => {
    const socket = await openChat(t, browser, replica.listenUrl)
    assert.equal(await echoOf(socket, 'hello'), 'hello')
    const stranger = createBrowser({ origin: APP })
    t.after(() => stranger.close())
    await assert.rejects(openChat(t, stranger, replica.listenUrl))
    const upgrades = () => collector.spans.filter(({ name }) => name === 'GET chat')
    await eventually('both are there', () => upgrades().length === 2)
    const told = upgrades().map((span) => {
      const facts = factsOf(span)
      const parts = collector.spans.filter(({ parentSpanId }) => parentSpanId === span.spanId)
      const names = parts.map(({ name }) => name).toSorted()
      return [Number(facts['http.response.status_code']), facts['error.type'], ...names]
    })
    assert.deepEqual(told, [
      [101, undefined, 'session'],
      [401, 'session_required', 'session'],
    ])
  })

  test('a collector gets no token, cookie, code, claim or query', async () => {
    await browser.fetch('/bff/callback?code=a-code-of-somebody&state=a-state-of-somebody')
    await eventually('the failed sign-in is there', () =>
      collector.spans.some(({ name }) => name === 'GET bff/callback'),
    )
    const text = collector.bodies.join('\n')
    const cookies = browser.exchanges.flatMap(({ rawHeaders }) =>
      rawHeaders.filter((_, at) => at % 2 === 1 && rawHeaders[at - 1]?.toLowerCase() === 'set-cookie'),
    )
    const values = cookies.map((cookie) => cookie.split(/[=;]/)[1] ?? '').filter((value) => value.length > 8)
    assert.ok(values.length > 1 && text.includes('GET bff/login'))
    assertNoSecrets({ text }, [
      ...secrets(),
      ...values,
      'in-the-query',
      'a-code-of-somebody',
      'a-state-of-somebody',
    ])
  })

  test('a collector that never answers delays neither a request nor the end', async () => {
    const answer = await browser.fetch('/public', { via: stuck.listenUrl })
    assert.equal(answer.status, 200)
    const startedAt = performance.now()
    const { code } = await stuck.stop()
    const tookMs = performance.now() - startedAt
    assert.equal(code, 0)
    assert.ok(tookMs < 6_000, `${Math.round(tookMs)} ms`)
  })
})
