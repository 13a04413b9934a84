import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { quantileMs, readTotals } from '../../../../src/admin/console/readings.ts'
import { createTraffic } from '../../../../src/admin/console/traffic.ts'
import { SECONDS } from '../../../../src/admin/metric-definitions.ts'
import { createMetrics } from '../../../../src/admin/metrics.ts'
import { createTestClock } from '../../../kit/clock.ts'

function setUp() {
  const clock = createTestClock()
  const metrics = createMetrics({
    version: '1',
    isStoreLive: () => true,
    droppedLogLines: () => 0,
    openWebSockets: () => 0,
  })
  const open: string[] = []
  const traffic = createTraffic({ metrics, clock, openCircuits: async () => [...open] })
  const serve = (count: number, { route = 'orders', status = 200, seconds = 0.02, code = '' } = {}) => {
    for (let at = 0; at < count; at += 1) {
      const refusal = code === '' ? undefined : code
      metrics.requestBegan()
      metrics.firstByte({ route, ...(refusal && { code: refusal }) }, 'GET', seconds)
      metrics.request({ route, method: 'GET', status, code: refusal, seconds: seconds + 60 })
    }
  }
  const now = () => traffic.now()
  return { clock, metrics, traffic, serve, open, now }
}

describe("the console's numbers", () => {
  test('what is read of a metric is what Prometheus is told', async () => {
    const { metrics, serve } = setUp()
    for (const seconds of [0.0005, 0.02, 0.02, 0.7, 45]) serve(1, { seconds })
    serve(3, { status: 503, code: 'store_unavailable' })
    serve(2, { status: 502, code: 'upstream_unreachable' })
    serve(4, { status: 404 })
    serve(5, { status: 401, code: 'session_required' })
    serve(6, { status: 499 })
    const { text } = await metrics.render()
    const sums = new Map<string, number>()
    for (const [, bound = '', count] of text.matchAll(
      /^cloakroom_request_time_to_first_byte_seconds_bucket\{.*le="([^"]+)".*\} (\d+)$/gm,
    ))
      sums.set(bound, (sums.get(bound) ?? 0) + Number(count))
    const { requests } = await readTotals(metrics)
    let below = 0
    const cumulative = requests.buckets.map((count) => (below += count))
    assert.deepEqual(cumulative, [...sums.values()])
    const { count, failed, upstreamFailed, refused } = requests
    assert.deepEqual(
      { count, failed, upstreamFailed, refused },
      { count: 25, failed: 5, upstreamFailed: 2, refused: 5 },
    )
  })

  test('quantiles are those of histogram_quantile', () => {
    const buckets = (counts: Record<number, number>) => ({
      buckets: [...SECONDS, 0].map((_, at) => counts[at] ?? 0),
    })
    const [from, to] = [SECONDS.indexOf(0.1), SECONDS.indexOf(0.25)]
    assert.equal(quantileMs(buckets({ [from]: 2, [to]: 2 }), 0.5), 100)
    assert.equal(quantileMs(buckets({ [from]: 2, [to]: 2 }), 0.75), 175)
    assert.equal(quantileMs(buckets({ [SECONDS.length]: 4 }), 0.99), 30_000, 'beyond all bounds: the highest')
    assert.equal(quantileMs(buckets({}), 0.99), null)
  })

  test('a sample every ten seconds has rates, errors, latencies and open circuits, and half an hour of them is kept', async () => {
    const { clock, serve, now, open, metrics } = setUp()
    serve(90)
    serve(10, { status: 502 })
    metrics.provider.grant('orders', 'renewed', 3_600_000)
    metrics.refresh('orders', 'uncertain')
    open.push('http://orders')
    await clock.elapse(10_000)
    open.pop()
    await clock.elapse(10_000)
    const { requests, errors, p50Ms, refreshed, refreshesFailed, open: circuits } = (await now()).samples()
    assert.equal(requests.join(), '10,0')
    assert.equal(errors.join(), '1,0')
    assert.equal([refreshed, refreshesFailed].join(), '1,0,1,0')
    assert.deepEqual(circuits, [['http://orders'], []])
    assert.ok(
      p50Ms[0]! > 10 && p50Ms[0]! <= 25 && p50Ms[1] === null,
      'to the first byte, not the whole minute',
    )
    await clock.elapse(3_600_000)
    assert.equal((await now()).samples().at.length, 180)
  })

  test('what came since the last sample is in the samples, too', async () => {
    const { clock, serve, now } = setUp()
    serve(8)
    clock.advance(4_000)
    assert.deepEqual((await now()).samples().requests, [2])
  })

  test('a window has what came in the last minutes and nothing from before; the whole time after a start', async () => {
    const { clock, serve, now } = setUp()
    serve(30)
    await clock.elapse(30_000)
    const early = (await now()).window(5)
    assert.deepEqual([early.seconds, early.reading.requests.count], [30, 30])
    await clock.elapse(600_000)
    serve(5)
    await clock.elapse(60_000)
    const { seconds, reading } = (await now()).window(5)
    assert.ok(seconds >= 300 && seconds < 360, `${seconds}`)
    assert.equal(reading.routes.get('orders')?.count, 5)
    assert.equal((await now()).window(1).reading.requests.count, 5)
  })

  test('a route has its minutes, and is forgotten half an hour after its last request', async () => {
    const { clock, serve, traffic } = setUp()
    serve(6, { status: 500 })
    await clock.elapse(60_000)
    serve(3)
    await clock.elapse(60_000)
    assert.deepEqual(traffic.historyOf('orders'), { requests: [6, 3], errors: [6, 0] })
    await clock.elapse(31 * 60_000)
    assert.deepEqual(traffic.historyOf('orders'), { requests: [], errors: [] })
  })
})
