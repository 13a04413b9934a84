import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http'

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

/** Reads a request to its end. Throws when its body has more than `maxBytes`, if that is given. */
export async function recordRequest(req: IncomingMessage, maxBytes = Infinity): Promise<RecordedRequest> {
  const receivedAt = Date.now()
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of req) {
    bytes += (chunk as Buffer).length
    if (bytes > maxBytes) throw new RangeError(`a body of more than ${maxBytes} bytes`)
    chunks.push(chunk as Buffer)
  }
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

/** Answers compact JSON that must not be stored (RFC 6749 §5.1). */
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
