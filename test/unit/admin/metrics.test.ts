import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { describe, test } from 'node:test'
import { METRICS } from '../../../src/admin/metric-definitions.ts'
import { createMetrics } from '../../../src/admin/metrics.ts'
import type { Config } from '../../../src/config/config.ts'
import { skipWithoutPromtool } from '../../kit/promtool.ts'

const ROUTE = { id: 'orders', upstream: 'http://orders.test:8080', methods: ['POST'] }
const CONFIG = {
  session: { store: { type: 'redis' } },
  resources: { billing: {} },
  routes: [ROUTE],
} as unknown as Config
const FACTS = { hash: 'abc', at: 1_700_000_000_000, certificateEnds: new Map([['store', 1_800_000_000_000]]) }

function configured() {
  const metrics = createMetrics({
    ...{ version: '1.2.3', isStoreLive: () => true, droppedLogLines: () => 0, openWebSockets: () => 2 },
  })
  metrics.configured(CONFIG, FACTS)
  return metrics
}

async function linesOf(metrics: ReturnType<typeof createMetrics>): Promise<string[]> {
  return (await metrics.render()).text.split('\n')
}

describe('the metrics', () => {
  const skip = skipWithoutPromtool('the metrics were NOT checked')

  test("pass Prometheus' own check, with every kind of series", { skip }, async () => {
    const metrics = configured()
    metrics.requestBegan()
    metrics.firstByte({ route: 'orders' }, 'POST', 0.02)
    metrics.request({
      route: 'orders',
      method: 'POST',
      status: 503,
      code: 'store_unavailable',
      seconds: 0.03,
    })
    metrics.storeCommand('readSession', 0.001, 'error', 'OOM')
    metrics.upstreamFailed('orders', 'tls')
    metrics.provider.configFault('billing', 'invalid_scope', true)
    const { text } = await metrics.render()
    const { stdout, stderr, status } = spawnSync('promtool', ['check', 'metrics'], {
      input: text,
      encoding: 'utf8',
    })
    assert.deepEqual([stdout, stderr, status], ['', '', 0])
  })

  test('every counter and every histogram is there from the start, but for those whose labels are not known yet', async () => {
    const text = (await linesOf(configured())).join('\n')
    // What a provider, a store or a route may add.
    const open = new Set(['cloakroom_sign_in_failures_total', 'cloakroom_store_command_duration_seconds'])
    for (const { name, type } of Object.values(METRICS)) {
      if (type === 'gauge' || open.has(name)) continue
      const series = type === 'histogram' ? `${name}_count` : name
      assert.match(text, new RegExp(`^${series}(\\{.*\\})? 0$`, 'm'), name)
    }
    for (const line of [
      'cloakroom_refusals_total{code="internal_error"} 0',
      'cloakroom_csrf_refusals_total{route="orders",code="csrf_required"} 0',
      'cloakroom_upstream_errors_total{route="orders",upstream="http://orders.test:8080",reason="tls"} 0',
      'cloakroom_upstream_breaker_open{upstream="http://orders.test:8080"} 0',
      'cloakroom_refreshes_total{resource="billing",outcome="dead_grant"} 0',
      'cloakroom_sessions_total{event="ended",reason="backchannel_logout"} 0',
      'cloakroom_decrypt_failures_total{kind="session",reason="key_gone"} 0',
      'cloakroom_request_duration_seconds_count{route="orders",method="POST",status="200",code="none"} 0',
    ])
      assert.ok(text.includes(`${line}\n`), line)
  })

  test('what clients and providers make up becomes no label', async () => {
    const metrics = configured()
    metrics.requestBegan()
    metrics.request({ route: 'none', method: 'BREW', status: 404, code: 'route_not_found', seconds: 0 })
    metrics.session('ended', 'a word of the provider')
    metrics.storeCommand('ping', 0, 'error', 'ESOMETHING')
    const text = (await linesOf(metrics)).join('\n')
    assert.doesNotMatch(text, /BREW|a word|ESOMETHING/)
    assert.match(text, /method="OTHER",status="404",code="route_not_found"\} 1/)
    assert.match(text, /cloakroom_sessions_total\{event="ended",reason="other"\} 1/)
    assert.match(text, /cloakroom_store_errors_total\{kind="other"\} 1/)
  })

  test('buckets are cumulative, and a bound belongs to its own bucket', async () => {
    const metrics = configured()
    for (const seconds of [0.001, 0.3, 31]) metrics.upstreamAnswered('orders', seconds)
    const series = 'cloakroom_upstream_response_seconds_'
    const values = (await linesOf(metrics))
      .filter((line) => line.startsWith(series))
      .map((line) => line.slice(line.lastIndexOf(' ') + 1))
    assert.deepEqual(values, [
      ...['1', '1', '1', '1', '1', '1', '1', '1', '2', '2', '2', '2', '2', '2', '3'],
      ...['31.301', '3'],
    ])
  })

  test('the store is up while it answers, if only with an error', async () => {
    const metrics = configured()
    const up = async () => (await linesOf(metrics)).find((line) => line.startsWith('cloakroom_store_up '))
    assert.equal(await up(), 'cloakroom_store_up 0')
    metrics.storeCommand('ping', 0.001, 'ok')
    metrics.storeCommand('readSession', 0.001, 'error', 'NOPERM')
    assert.equal(await up(), 'cloakroom_store_up 1')
    metrics.storeCommand('ping', 0.5, 'error', 'ETIMEDOUT')
    assert.equal(await up(), 'cloakroom_store_up 0')
  })
})
