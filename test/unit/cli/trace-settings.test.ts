import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readTraceSettings } from '../../../src/cli/trace-settings.ts'

const ENDPOINT = { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://collector:4318' }

test('traces are sent where an endpoint is set and nothing switches them off', () => {
  const rows: [env: Record<string, string>, kind: string][] = [
    [{}, 'none'],
    [{ OTEL_EXPORTER_OTLP_ENDPOINT: '' }, 'none'],
    [ENDPOINT, 'on'],
    [{ OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'https://collector/v1/traces' }, 'on'],
    [{ ...ENDPOINT, OTEL_SDK_DISABLED: 'TRUE' }, 'switched-off'],
    [{ ...ENDPOINT, OTEL_TRACES_EXPORTER: 'none' }, 'switched-off'],
    [{ ...ENDPOINT, OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' }, 'wrong'],
    [
      { ...ENDPOINT, OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc', OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: 'http/json' },
      'on',
    ],
  ]
  for (const [env, kind] of rows) assert.equal(readTraceSettings(env).kind, kind, JSON.stringify(env))
})

test('an endpoint that is no URL is told by the name of its variable, and with an example', () => {
  for (const endpoint of ['collector:4318', 'not a url', 'ftp://collector']) {
    const settings = readTraceSettings({ OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: endpoint })
    assert.deepEqual(settings, {
      kind: 'wrong',
      message: 'OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is not an http(s) URL',
      cure: 'set e.g. http://collector:4318',
    })
  }
})
