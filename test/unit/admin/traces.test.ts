import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createTraces } from '../../../src/admin/traces.ts'
import { captureLog } from '../../kit/cloakroom.ts'
import { type Collector, startCollector } from '../../kit/collector.ts'

const TRACE_ID = '4bf92f3577b34da6a3ce929d0e0e4736'
const parent = (flags: string) => `00-${TRACE_ID}-00f067aa0ba902b7-${flags}`
/** Requests of no parent, and of a trusted proxy whose own span is sampled or not. */
const REQUESTS = { root: undefined, sampled: parent('01'), unsampled: parent('00') }

/** By OTEL_TRACES_SAMPLER and its argument: whose spans are sent. */
const SAMPLERS: readonly (readonly [name: string, arg: string | undefined, sent: string])[] = [
  ['', undefined, 'root sampled'],
  ['parentbased_always_on', undefined, 'root sampled'],
  ['parentbased_always_off', undefined, 'sampled'],
  ['parentbased_traceidratio', '0', 'sampled'],
  ['parentbased_traceidratio', '1', 'root sampled'],
  ['always_on', undefined, 'root sampled unsampled'],
  ['always_off', undefined, ''],
  ['traceidratio', '0', ''],
  ['traceidratio', '1', 'root sampled unsampled'],
  ['traceidratio', 'half', 'root sampled unsampled'],
  ['traceidratio', '7', 'root sampled unsampled'],
  ['jaeger_remote', undefined, 'root sampled'],
]

test('OTEL_TRACES_SAMPLER decides which requests are sent, and says so in the traceparent of the next hop', async (t) => {
  const collector = await startCollector()
  t.after(() => collector.close())
  // The exporter reads its own variables itself.
  process.env.OTEL_EXPORTER_OTLP_ENDPOINT = collector.url
  t.after(() => delete process.env.OTEL_EXPORTER_OTLP_ENDPOINT)
  for (const [name, arg, sent] of SAMPLERS) {
    const found = await sentWith(collector, {
      OTEL_TRACES_SAMPLER: name,
      ...(arg === undefined ? {} : { OTEL_TRACES_SAMPLER_ARG: arg }),
    })
    assert.deepEqual(found, { sent, flagged: sent }, `${name} ${arg}`)
  }
})

async function sentWith(collector: Collector, env: Record<string, string>) {
  const trace = createTraces({ env, version: '1.0.0', log: captureLog().log })
  collector.spans.length = 0
  const flagged: string[] = []
  for (const [kind, traceparent] of Object.entries(REQUESTS)) {
    const span = trace.request(traceparent)
    if (span.traceparent.endsWith('-01')) flagged.push(kind)
    if (traceparent !== undefined) assert.ok(span.traceparent.startsWith(`00-${TRACE_ID}-`))
    span.end(kind)
  }
  await trace.close()
  return { sent: collector.spans.map(({ name }) => name).join(' '), flagged: flagged.join(' ') }
}
