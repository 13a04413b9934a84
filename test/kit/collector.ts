import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { gunzipSync } from 'node:zlib'

/** One span as OTLP/JSON has it (opentelemetry-proto, trace/v1). */
export type CollectedSpan = {
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId?: string
  readonly name: string
  readonly kind: number
  readonly startTimeUnixNano: string
  readonly endTimeUnixNano: string
  readonly attributes: readonly { readonly key: string; readonly value: Record<string, unknown> }[]
  readonly status: { readonly code?: number }
}

/** A collector of traces over OTLP/HTTP. */
export type Collector = {
  readonly url: string
  readonly spans: CollectedSpan[]
  /** Everything that it was sent, as text. */
  readonly bodies: string[]
  /** Attributes of the resource that was sent last. */
  resource: Readonly<Record<string, unknown>>
  close(): Promise<void>
}

/** Starts a collector; `isDead`: one that takes connections and never answers. */
export async function startCollector({ isDead = false } = {}): Promise<Collector> {
  const server = createServer(async (req, res) => {
    if (isDead) return
    const chunks: Buffer[] = []
    for await (const chunk of req) chunks.push(chunk as Buffer)
    const bytes = Buffer.concat(chunks)
    const text = (req.headers['content-encoding'] === 'gzip' ? gunzipSync(bytes) : bytes).toString()
    collector.bodies.push(text)
    for (const { resource, scopeSpans } of JSON.parse(text).resourceSpans ?? []) {
      collector.resource = Object.fromEntries(
        resource.attributes.map(({ key, value }: CollectedSpan['attributes'][number]) => [
          key,
          value.stringValue,
        ]),
      )
      for (const { spans } of scopeSpans) collector.spans.push(...spans)
    }
    res.writeHead(200, { 'content-type': 'application/json' }).end('{}')
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const collector: Collector = {
    ...{
      url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
      spans: [],
      bodies: [],
      resource: {},
    },
    async close() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
  return collector
}
