import { once } from 'node:events'
import {
  createServer as createHttpServer,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http'
import { type AddressInfo, connect, createServer, type Server as NetServer, type Socket } from 'node:net'
import type { TestContext } from 'node:test'
import { systemClock } from '../../../src/async/clock.ts'
import type { RouteConfig } from '../../../src/config/config.ts'
import { BffError } from '../../../src/errors.ts'
import { ownCookieNames } from '../../../src/proxy/headers/dropped.ts'
import { compileRequestHeaders } from '../../../src/proxy/headers/request.ts'
import { compileResponseHeaders } from '../../../src/proxy/headers/response.ts'
import type { OutboundRequest } from '../../../src/proxy/upstream/exchange.ts'
import { createUpstreams, type Upstreams, type UpstreamsDeps } from '../../../src/proxy/upstream/upstreams.ts'
import { type BffSession, sessionHash } from '../../../src/session/session.ts'
import { routeWith } from './routes.ts'

export const site = {
  publicUrl: 'http://app.test',
  isOwnCookie: ownCookieNames('cloakroom'),
}

/** Every request of `proxyTo` belongs to this session. */
export const SESSION_HASH = sessionHash('session-1')
export const SESSION = { hash: SESSION_HASH } as BffSession

/** Opens a server on a free port for the length of a test. */
export async function open(t: TestContext, server: Server | NetServer): Promise<number> {
  const sockets = new Set<Socket>()
  server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.on('close', () => sockets.delete(socket))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return (server.address() as AddressInfo).port
}

/** An upstream that records the bytes of each connection and is told of each piece that arrives. */
export async function rawUpstream(
  t: TestContext,
  onData: (socket: Socket, received: string, connection: number) => void,
): Promise<{ origin: string; received: string[]; closed: Promise<void>[] }> {
  const received: string[] = []
  const closed: Promise<void>[] = []
  const server = createServer({ noDelay: true }, (socket) => {
    const connection = received.push('') - 1
    closed.push(new Promise((resolve) => socket.on('close', () => resolve())))
    socket.on('data', (chunk) => {
      received[connection] += chunk.toString('latin1')
      onData(socket, received[connection]!, connection)
    })
  })
  const port = await open(t, server)
  return { origin: `http://127.0.0.1:${port}`, received, closed }
}

export type Proxy = { port: number; upstreams: Upstreams; outcomes: string[]; settled: () => Promise<string> }

/** With what token the requests of a proxy go out, and who is asked when it is refused. */
export type SentToken = Pick<OutboundRequest, 'accessToken' | 'onRejectedToken'> & {
  /** Fields of the answer that are there before the upstream is asked. */
  readonly fields?: Readonly<Record<string, string>>
}

const IDLE_DEPS: Omit<UpstreamsDeps, 'responseHeaders'> = {
  clock: systemClock,
  observeBreaker: () => undefined,
  watch: () => () => undefined,
  bodyPace: { bytesPerSecond: 0, graceMs: 0 },
  runFor: (_, work) => work(),
}

/** A server whose every request goes to one upstream by the real rules; outcomes are `sent` or an error code. */
export async function proxyTo(
  t: TestContext,
  parts: Partial<RouteConfig> & { upstream: string },
  { fields = {}, ...sent }: SentToken = {},
  deps: Partial<UpstreamsDeps> = {},
): Promise<Proxy> {
  const route = routeWith({ path: '/', ...parts })
  const upstreams = createUpstreams([route], {
    ...IDLE_DEPS,
    responseHeaders: compileResponseHeaders([route], site),
    ...deps,
  })
  t.after(() => upstreams.destroy())
  const requestHeaders = compileRequestHeaders([route], site)
  const outcomes: string[] = []
  const waiting: ((outcome: string) => void)[] = []
  function settle(outcome: string): void {
    outcomes.push(outcome)
    waiting.shift()?.(outcome)
  }
  function serve(req: IncomingMessage, res: ServerResponse): void {
    for (const [name, value] of Object.entries(fields)) res.setHeader(name, value)
    const headers = requestHeaders(route, req.rawHeaders, {
      clientAddress: '127.0.0.1',
      requestId: 'r-1',
      accessToken: sent.accessToken?.value,
    })
    const outbound = { route, target: req.url!, headers, session: SESSION, ...sent }
    new Promise<void>((resolve, reject) => {
      upstreams.send(req, res, outbound, (error) => (error ? reject(error) : resolve()))
    }).then(
      () => settle('sent'),
      (error) => {
        const code = error instanceof BffError ? error.code : String(error)
        const again = error instanceof BffError ? error.retryAfterSeconds : undefined
        if (again !== undefined) res.setHeader('retry-after', again)
        const status = (error instanceof BffError && error.status) || 500
        if (!res.headersSent) res.writeHead(status, { 'content-length': code.length }).end(code)
        settle(code)
      },
    )
  }
  const server = createHttpServer(serve)
  server.on('checkContinue', serve)
  const port = await open(t, server)
  const settled = () => new Promise<string>((resolve) => waiting.push(resolve))
  return { port, upstreams, outcomes, settled }
}

export type RawClient = {
  readonly socket: Socket
  text(): string
  /** Resolves as soon as what was received satisfies `is`; rejects when the connection closes before. */
  until(is: (text: string) => boolean): Promise<string>
  /** Resolves with everything received, and whether the server ended cleanly, when the connection is closed. */
  closed: Promise<{ text: string; clean: boolean }>
}

/** A client that says exactly these bytes. */
export function rawClient(t: TestContext, port: number, bytes: string): RawClient {
  const socket = connect(port, '127.0.0.1')
  t.after(() => socket.destroy())
  let received = ''
  let clean = false
  let ended = false
  const waiting = new Set<() => void>()
  const wake = () => {
    for (const check of [...waiting]) check()
  }
  socket.on('error', () => {})
  socket.on('data', (chunk) => {
    received += chunk.toString('latin1')
    wake()
  })
  socket.on('end', () => {
    clean = true
  })
  const closed = new Promise<{ text: string; clean: boolean }>((resolve) => {
    socket.on('close', () => {
      ended = true
      wake()
      resolve({ text: received, clean })
    })
  })
  socket.write(bytes, 'latin1')
  function until(is: (text: string) => boolean): Promise<string> {
    return new Promise((resolve, reject) => {
      function check(): void {
        if (is(received)) resolve(received)
        else if (ended) reject(new Error(`closed after ${JSON.stringify(received)}`))
        else return
        waiting.delete(check)
      }
      waiting.add(check)
      check()
    })
  }
  return { socket, text: () => received, until, closed }
}

export const isWholeHead = (text: string) => text.includes('\r\n\r\n')

/** What a client waits for: a text that ends like this. */
export const ends = (tail: string) => (text: string) => text.endsWith(tail)

/** What a client waits for: a text with this in it. */
export const has = (part: string) => (text: string) => text.includes(part)
