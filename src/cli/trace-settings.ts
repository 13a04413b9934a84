import type { CommandIo } from './command.ts'

/** What the variables of OpenTelemetry ask for. */
export type TraceSettings =
  | { readonly kind: 'none' }
  | { readonly kind: 'switched-off' }
  /** No traces, although an endpoint is set. */
  | { readonly kind: 'wrong'; readonly message: string; readonly cure: string }
  | { readonly kind: 'on'; readonly endpoint: URL }

/**
 * Reads whether and where traces are sent (OpenTelemetry Environment Variable Specification). An empty variable counts as
 * unset.
 */
export function readTraceSettings(env: CommandIo['env']): TraceSettings {
  const [written, name] = env.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT
    ? [env.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, 'OTEL_EXPORTER_OTLP_TRACES_ENDPOINT']
    : [env.OTEL_EXPORTER_OTLP_ENDPOINT, 'OTEL_EXPORTER_OTLP_ENDPOINT']
  if (!written) return { kind: 'none' }
  if (env.OTEL_SDK_DISABLED?.toLowerCase() === 'true' || env.OTEL_TRACES_EXPORTER === 'none')
    return { kind: 'switched-off' }
  if ((env.OTEL_EXPORTER_OTLP_TRACES_PROTOCOL || env.OTEL_EXPORTER_OTLP_PROTOCOL) === 'grpc') {
    return {
      kind: 'wrong',
      message: 'OTEL_EXPORTER_OTLP_PROTOCOL is grpc, and only OTLP over HTTP (JSON) is spoken',
      cure: 'set it to http/json, and the endpoint to port 4318 of the collector',
    }
  }
  const endpoint = URL.canParse(written) ? new URL(written) : undefined
  if (endpoint && /^https?:$/.test(endpoint.protocol)) return { kind: 'on', endpoint }
  return { kind: 'wrong', message: `${name} is not an http(s) URL`, cure: 'set e.g. http://collector:4318' }
}
