import {
  createSecureServer,
  createServer,
  type Http2Server,
  type IncomingHttpHeaders,
  type SecureServerOptions,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2'
import type { Socket } from 'node:net'
import type { TestContext } from 'node:test'
import type { RouteConfig } from '../../../src/config/config.ts'
import { certificates } from './certificates.ts'
import { open, rawUpstream } from './sockets.ts'

export type Http2Upstream = {
  /** What a route needs to reach it. */
  route: Pick<RouteConfig, 'upstream' | 'http2'> & Partial<RouteConfig>
  sessions: ServerHttp2Session[]
  sockets: Socket[]
  streams: { stream: ServerHttp2Stream; headers: IncomingHttpHeaders }[]
}

/** An upstream that speaks HTTP/2, with TLS or by prior knowledge. */
export async function http2Upstream(
  t: TestContext,
  onStream: (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => void,
  { tls = false, ...options }: { tls?: boolean } & SecureServerOptions = {},
): Promise<Http2Upstream> {
  const server: Http2Server = tls
    ? createSecureServer({ ...certificates.server, ...options })
    : createServer(options)
  const sessions: ServerHttp2Session[] = []
  const streams: Http2Upstream['streams'] = []
  const sockets: Socket[] = []
  server.on('connection', (socket: Socket) => sockets.push(socket))
  server.on('session', (session) => {
    sessions.push(session)
    session.on('error', () => {})
  })
  server.on('stream', (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => {
    stream.on('error', () => {})
    streams.push({ stream, headers })
    onStream(stream, headers)
  })
  server.on('sessionError', () => {})
  const port = await open(t, server)
  t.after(() => {
    for (const session of sessions) session.destroy()
  })
  const tlsConfig = { ca: certificates.ca, servername: 'orders.internal' }
  const route = { upstream: `${tls ? 'https://localhost' : 'http://127.0.0.1'}:${port}`, http2: true }
  return { route: tls ? { ...route, tls: tlsConfig } : route, sessions, sockets, streams }
}

/** Answers with a body when the request's own is whole. */
export function answerWith(status: number, fields: Record<string, string | string[]>, body?: string) {
  return (stream: ServerHttp2Stream): void => {
    stream.resume()
    stream.on('end', () => {
      // A request that is given up ends, too.
      if (stream.destroyed) return
      stream.respond({ ':status': status, ...fields }, { endStream: body === undefined })
      if (body !== undefined) stream.end(body, 'latin1')
    })
  }
}

/** A frame of HTTP/2 (RFC 9113 §4.1). */
export function frame(
  type: number,
  flags: number,
  stream: number,
  payload: Buffer = Buffer.alloc(0),
): Buffer {
  const head = Buffer.alloc(9)
  head.writeUIntBE(payload.length, 0, 3)
  head[3] = type
  head[4] = flags
  head.writeUInt32BE(stream, 5)
  return Buffer.concat([head, payload])
}

/** A number of 32 bits, as error codes and stream ids are written. */
export function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

const SETTINGS = Buffer.concat([frame(4, 0, 0), frame(4, 1, 0)])
/** `:status: 200`, from the static table of HPACK. */
const STATUS_200 = Buffer.from([0x88])

/** An upstream whose first stream answers 200 and `some`, without an end; `go` says what follows. */
export async function rawHttp2Upstream(t: TestContext, go: (socket: Socket) => void): Promise<string> {
  const answered = new Set<Socket>()
  const upstream = await rawUpstream(t, (socket, received) => {
    // The preface is followed by settings and the request; all of it is there when there is more than they take.
    if (answered.has(socket) || received.length < 100) return
    answered.add(socket)
    socket.write(Buffer.concat([SETTINGS, frame(1, 4, 1, STATUS_200), frame(0, 0, 1, Buffer.from('some'))]))
    go(socket)
  })
  return upstream.origin
}
