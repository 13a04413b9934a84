import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http'
import type { AddressInfo } from 'node:net'

/** One request as it arrived: form fields and query in wire order, duplicates kept. */
export type RecordedRequest = {
  readonly method: string
  readonly path: string
  readonly query: [name: string, value: string][]
  readonly form: [name: string, value: string][]
  readonly headers: IncomingHttpHeaders
  readonly rawHeaders: string[]
  readonly body: string
  /** Epoch ms. */
  readonly receivedAt: number
}

/** What a scripted server does with one recorded request; it may return a promise, which is awaited. */
export type Handle = (request: RecordedRequest, res: ServerResponse, req: IncomingMessage) => unknown

/** A recording HTTP server on a free port of 127.0.0.1. */
export type LocalServer = {
  readonly origin: string
  readonly port: number
  readonly server: Server
  readonly requests: RecordedRequest[]
  /** Ends every connection and stops listening. */
  close(): Promise<void>
}

/** Starts a server that records each request (also in `requests`) before it hands it to `handle`; port 0 unless told. */
export async function startLocalServer(handle: Handle, port = 0): Promise<LocalServer> {
  const requests: RecordedRequest[] = []
  const server = createServer(async (req, res) => {
    try {
      const request = await record(req)
      requests.push(request)
      await handle(request, res, req)
    } catch (error) {
      if (!res.headersSent) sendText(res, 500, `test kit failure: ${String(error)}`)
      else res.destroy()
    }
  })
  // Proxies keep their connections; a server that closed them early would look like a flaky upstream.
  server.keepAliveTimeout = 60_000
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, '127.0.0.1', resolve)
  })
  const address = server.address() as AddressInfo
  return {
    origin: `http://127.0.0.1:${address.port}`,
    port: address.port,
    server,
    requests,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

async function record(req: IncomingMessage): Promise<RecordedRequest> {
  const receivedAt = Date.now()
  const chunks: Buffer[] = []
  for await (const chunk of req) chunks.push(chunk as Buffer)
  const body = Buffer.concat(chunks).toString('utf8')
  const [path = '/', query = ''] = splitOnce(req.url ?? '/', '?')
  const isForm = /^application\/x-www-form-urlencoded/i.test(req.headers['content-type'] ?? '')
  return {
    method: req.method ?? 'GET',
    path,
    query: [...new URLSearchParams(query)],
    form: isForm ? [...new URLSearchParams(body)] : [],
    headers: req.headers,
    rawHeaders: req.rawHeaders,
    body,
    receivedAt,
  }
}

function splitOnce(text: string, separator: string): [string, string] {
  const at = text.indexOf(separator)
  return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + 1)]
}

/** The first value of a query or form field. */
export function field(fields: [string, string][], name: string): string | undefined {
  return fields.find(([key]) => key === name)?.[1]
}

/** Every value of a query or form field, in order. */
export function fields(all: [string, string][], name: string): string[] {
  return all.filter(([key]) => key === name).map(([, value]) => value)
}

/** Answers compact JSON that nobody may store (RFC 6749 §5.1). */
export function sendJson(
  res: ServerResponse,
  status: number,
  body: object,
  headers: Record<string, string | string[]> = {},
): void {
  res.writeHead(status, {
    'content-type': 'application/json; charset=utf-8',
    'cache-control': 'no-store, no-cache',
    pragma: 'no-cache',
    ...headers,
  })
  res.end(JSON.stringify(body))
}

/** Answers a small HTML page. */
export function sendHtml(
  res: ServerResponse,
  status: number,
  html: string,
  headers: Record<string, string> = {},
): void {
  res.writeHead(status, { 'content-type': 'text/html; charset=utf-8', ...headers })
  res.end(`<!doctype html><html><head><title>scripted provider</title></head><body>${html}</body></html>`)
}

/** Answers plain text. */
export function sendText(res: ServerResponse, status: number, text: string): void {
  res.writeHead(status, { 'content-type': 'text/plain; charset=utf-8' })
  res.end(text)
}

/** Cuts the connection without an answer, as a proxy or a crash does. */
export function dropConnection(res: ServerResponse): void {
  res.socket?.resetAndDestroy()
}

/** Text that may stand in HTML content and in quoted attributes. */
export function escapeHtml(text: string): string {
  return text.replace(
    /[&<>"']/g,
    (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' })[c] ?? c,
  )
}
