import { AsyncLocalStorage } from 'node:async_hooks'
import {
  type Context,
  type Span as OtelSpan,
  ROOT_CONTEXT,
  SpanKind,
  SpanStatusCode,
  trace as traceApi,
} from '@opentelemetry/api'
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http'
import { defaultResource, resourceFromAttributes } from '@opentelemetry/resources'
import {
  AlwaysOffSampler,
  AlwaysOnSampler,
  BatchSpanProcessor,
  ParentBasedSampler,
  type Sampler,
  type SpanExporter,
  TraceIdRatioBasedSampler,
  TracerProvider,
} from '@opentelemetry/sdk-trace'
import { within } from '../async/deadline.ts'
import { createThrottledWarning } from '../async/log-throttle.ts'
import type { Span, Trace } from '../async/trace.ts'
import { describeError } from '../errors.ts'
import type { Logger } from '../log.ts'

export type TracesDeps = {
  readonly env: Readonly<Record<string, string | undefined>>
  readonly version: string
  readonly log: Logger
}

/** How long the last spans may take at the end, in ms. */
const CLOSE_MS = 1_000

/**
 * Traces over OTLP/HTTP (JSON), set up by the variables of OpenTelemetry. The only file that imports its packages, which
 * are loaded only where an endpoint is set. Nothing waits for a collector: spans gather in a queue of bounded length, and
 * what is more is dropped.
 */
export function createTraces({ env, version, log }: TracesDeps): Trace {
  const warn = createThrottledWarning(log, 'the trace collector does not accept spans')
  const exporter = reportingFailures(new OTLPTraceExporter(), warn)
  const provider = new TracerProvider({
    resource: defaultResource().merge(resourceFromAttributes(resourceOf(env, version))),
    sampler: samplerOf(env),
    spanProcessors: [new BatchSpanProcessor({ exporter, ...batchOf(env) })],
  })
  const tracer = provider.getTracer('cloakroom', version)
  const running = new AsyncLocalStorage<{ readonly span: OtelSpan; readonly context: Context }>()

  function spanOf(span: OtelSpan): Span {
    const { traceId, spanId, traceFlags } = span.spanContext()
    const store = { span, context: traceApi.setSpan(ROOT_CONTEXT, span) }
    return {
      traceparent: `00-${traceId}-${spanId}-${traceFlags.toString(16).padStart(2, '0')}`,
      note: (facts) => void span.setAttributes(facts),
      run: (work) => running.run(store, work),
      end(name, error) {
        if (name !== undefined) span.updateName(name)
        if (error !== undefined) noteError(span, error)
        span.end()
      },
    }
  }

  return {
    request: (traceparent) =>
      spanOf(tracer.startSpan('request', { kind: SpanKind.SERVER }, parentOf(traceparent))),
    part(name, facts, work) {
      // Work that belongs to no request, such as discovery at the start, is no trace of its own.
      const parent = running.getStore()?.context
      if (!parent) return work(NO_SPAN)
      const kind = name === 'upstream' || name === 'provider' ? SpanKind.CLIENT : SpanKind.INTERNAL
      const span = spanOf(tracer.startSpan(name, { kind, attributes: { ...facts } }, parent))
      return span.run(() => ended(span, () => work(span)))
    },
    note: (facts) => void running.getStore()?.span.setAttributes(facts),
    close: () => within(provider.shutdown().catch(ignore), CLOSE_MS, { late: ignore }),
  }
}

const ignore = () => undefined

const NO_SPAN: Span = { traceparent: '', note() {}, run: (work) => work(), end() {} }

/** Ends a span with its work, whether that is a promise or not. */
function ended<T>(span: Span, work: () => T): T {
  try {
    const result = work()
    if (!(result instanceof Promise)) {
      span.end()
      return result
    }
    result.then(
      () => span.end(),
      (error) => span.end(undefined, error),
    )
    return result
  } catch (error) {
    span.end(undefined, error)
    throw error
  }
}

/** Messages may hold what a provider or an upstream said. */
function noteError(span: OtelSpan, error: unknown): void {
  const { name, code } = describeError(error)
  span.setStatus({ code: SpanStatusCode.ERROR })
  span.setAttribute('error.type', code ?? name)
}

function parentOf(traceparent: string | undefined): Context {
  const [, traceId = '', spanId = '', flags = ''] = traceparent?.split('-') ?? []
  if (traceId === '') return ROOT_CONTEXT
  const remote = { traceId, spanId, traceFlags: Number.parseInt(flags, 16) & 1, isRemote: true }
  return traceApi.setSpanContext(ROOT_CONTEXT, remote)
}

/** Tells of spans that were not taken: once a minute at most, and nothing of the collector's address or headers. */
function reportingFailures(
  exporter: SpanExporter,
  warn: (fields: { err: ReturnType<typeof describeError> }) => void,
) {
  return {
    export(spans, done) {
      exporter.export(spans, (result) => {
        if (result.error) {
          const { name, code } = describeError(result.error)
          warn({ err: { name, message: 'not exported', ...(code === undefined ? {} : { code }) } })
        }
        done(result)
      })
    },
    shutdown: () => exporter.shutdown(),
    forceFlush: async () => exporter.forceFlush?.(),
  } satisfies SpanExporter
}

/** OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES (OpenTelemetry Environment Variables; W3C Baggage §3.3.1.3 for the octets). */
function resourceOf(env: TracesDeps['env'], version: string): Record<string, string> {
  const pairs = (env.OTEL_RESOURCE_ATTRIBUTES ?? '').split(',').flatMap((pair): [string, string][] => {
    // The value may hold an equals sign itself (baggage-octet).
    const [, name = '', value = ''] = /^([^=]+)=(.*)$/s.exec(pair) ?? []
    return name.trim() === '' ? [] : [[decoded(name.trim()), decoded(value.trim())]]
  })
  const attributes = { 'service.name': 'cloakroom', 'service.version': version, ...Object.fromEntries(pairs) }
  return env.OTEL_SERVICE_NAME ? { ...attributes, 'service.name': env.OTEL_SERVICE_NAME } : attributes
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

/** OTEL_BSP_*, in ms and spans; what is no number above 0 counts as absent. A batch is no larger than the queue. */
function batchOf(env: TracesDeps['env']) {
  const number = (name: string, standard: number) => {
    const written = Number(env[`OTEL_BSP_${name}`])
    return written > 0 && Number.isSafeInteger(written) ? written : standard
  }
  const maxQueueSize = number('MAX_QUEUE_SIZE', 2_048)
  return {
    ...{ maxQueueSize, maxExportBatchSize: Math.min(maxQueueSize, number('MAX_EXPORT_BATCH_SIZE', 512)) },
    scheduledDelayMillis: number('SCHEDULE_DELAY', 5_000),
    exportTimeoutMillis: number('EXPORT_TIMEOUT', 30_000),
  }
}

/** OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG; the default is that of the specification. */
function samplerOf({
  OTEL_TRACES_SAMPLER: name = '',
  OTEL_TRACES_SAMPLER_ARG: arg,
}: TracesDeps['env']): Sampler {
  const written = Number(arg ?? 1)
  const ratio = written >= 0 && written <= 1 ? written : 1
  const roots = new Map<string, Sampler>([
    ['always_on', new AlwaysOnSampler()],
    ['always_off', new AlwaysOffSampler()],
    ['traceidratio', new TraceIdRatioBasedSampler(ratio)],
  ])
  const [, isParentBased, root = ''] = /^(parentbased_)?(.*)$/.exec(name) ?? []
  const sampler = roots.get(root)
  if (sampler && !isParentBased) return sampler
  return new ParentBasedSampler({ root: sampler ?? new AlwaysOnSampler() })
}
