import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type RecordedRequest, recordRequest } from '../../src/demo/scripted/http-messages.ts'

export {
  dropConnection,
  escapeHtml,
  field,
  fields,
  type RecordedRequest,
  sendHtml,
  sendJson,
} from '../../src/demo/scripted/http-messages.ts'

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

/**
 * Starts a server that records each request (also in `requests`) before it hands it to `handle`; port 0 unless told, on
 * 127.0.0.1 unless other machines are to reach it.
 */
export async function startLocalServer(handle: Handle, port = 0, host = '127.0.0.1'): Promise<LocalServer> {
  const requests: RecordedRequest[] = []
  const server = createServer(async (req, res) => {
    try {
      const request = await recordRequest(req)
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
    server.listen(port, host, resolve)
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

/** Answers plain text. */
export function sendText(res: ServerResponse, status: number, text: string): void {
  res.writeHead(status, { 'content-type': 'text/plain; charset=utf-8' })
  res.end(text)
}
