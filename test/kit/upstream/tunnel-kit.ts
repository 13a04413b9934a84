import { once } from 'node:events'
import { createServer, type IncomingMessage } from 'node:http'
import type { TestContext } from 'node:test'
import { WebSocket, WebSocketServer } from 'ws'
import type { RouteConfig } from '../../../src/config/config.ts'
import { BffError } from '../../../src/errors.ts'
import { endWithAnswer } from '../../../src/http/server/raw-answer.ts'
import { compileRequestHeaders } from '../../../src/proxy/headers/request.ts'
import { compileResponseHeaders } from '../../../src/proxy/headers/response.ts'
import { compileRoutes } from '../../../src/proxy/route-table.ts'
import { createTunnel, type Tunnel, type TunnelDeps } from '../../../src/proxy/websocket/tunnel.ts'
import { type BffSession, sessionHash } from '../../../src/session/session.ts'
import { accessCheckAt, routeWith } from './routes.ts'
import { open, type RawClient, site } from './sockets.ts'

export const KEY = 'dGhlIHNhbXBsZSBub25jZQ=='
export const ACCEPT = 's3pPLMBiTxaQ9kYGzzhZRbK+xOo='
export const SWITCHED = `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${ACCEPT}\r\n`

export const SESSION = {
  id: 'session-1',
  hash: sessionHash('session-1'),
  claims: { sub: 'u1' },
} as unknown as BffSession

export type Listening = { port: number; tunnel: Tunnel; statuses: number[] }

/** A server with a tunnel on `/ws`; who has the cookie `cloakroom=1` is signed in. */
export async function tunnelTo(
  t: TestContext,
  upstream: string,
  { route, ...deps }: Partial<TunnelDeps> & { route?: Partial<RouteConfig> } = {},
): Promise<Listening> {
  const statuses: number[] = []
  const routes = [
    routeWith({ path: '/ws', upstream, websocket: true, resource: 'orders', rewrite: '/v1', ...route }),
    routeWith({ path: '/api', upstream }),
  ]
  const tunnel = createTunnel({
    runFor: (_, work) => work(),
    match: compileRoutes(routes),
    requestHeaders: compileRequestHeaders(routes, site),
    responseHeaders: compileResponseHeaders(routes, site),
    findSession: async (req) => (req.headers.cookie?.includes('cloakroom=1') ? SESSION : undefined),
    accessToken: async (_, resource) => ({ value: `token-for-${resource}`, expiresAt: 0, renewAt: 0 }),
    accessRefusal: accessCheckAt(0),
    clientAddress: () => '127.0.0.1',
    factsOf: () => ({ id: 'r-1' }),
    refuse(socket, error) {
      const headers = error instanceof BffError ? { 'cloakroom-error': error.code, ...error.headers } : {}
      const body = error instanceof BffError ? error.code : `unexpected ${error}`
      endWithAnswer(socket, { status: 400, headers, body })
      return 400
    },
    publicUrl: site.publicUrl,
    allowedOrigins: ['http://friend.test'],
    observe: (_, status) => statuses.push(status),
    ...deps,
  })
  const server = createServer((_, res) => res.end('no upgrade'))
  server.on('upgrade', (req, socket, head) => void tunnel.upgrade(req, socket as RawClient['socket'], head))
  const port = await open(t, server)
  t.after(() => tunnel.closeAll())
  return { port, tunnel, statuses }
}

export type Echo = { origin: string; server: WebSocketServer; requests: IncomingMessage[] }

export async function echoUpstream(t: TestContext): Promise<Echo> {
  const server = createServer()
  const requests: IncomingMessage[] = []
  const sockets = new WebSocketServer({ server, handleProtocols: (offered) => [...offered][0] ?? false })
  sockets.on('connection', (socket, req) => {
    requests.push(req)
    socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }))
  })
  const port = await open(t, server)
  return { origin: `http://127.0.0.1:${port}`, server: sockets, requests }
}

export function dial(t: TestContext, port: number, headers: Record<string, string> = {}): WebSocket {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/ws/room?x=a//b&u=http://c`, ['chat.v1'], {
    origin: 'http://app.test',
    headers: {
      cookie: 'a=1; cloakroom=1; b=2',
      authorization: 'Bearer evil',
      'x-forwarded-for': '6.6.6.6',
      ...headers,
    },
  })
  t.after(() => socket.terminate())
  return socket
}

/** The bytes of an opening handshake; each line given replaces the one of the same name, an empty value removes it. */
export function handshake(changes: Record<string, string> = {}, requestLine = 'GET /ws HTTP/1.1'): string {
  const fields: Record<string, string> = {
    Host: 'app.test',
    Connection: 'Upgrade',
    Upgrade: 'websocket',
    Origin: 'http://app.test',
    Cookie: 'cloakroom=1',
    'Sec-WebSocket-Key': KEY,
    'Sec-WebSocket-Version': '13',
    ...changes,
  }
  const lines = Object.entries(fields).filter(([, value]) => value !== '')
  return `${requestLine}\r\n${lines.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`
}

/** An open tunnel to an echo; `far` is the upstream's end. */
export async function openTunnel(t: TestContext, deps: Parameters<typeof tunnelTo>[2] = {}) {
  const upstream = await echoUpstream(t)
  const listening = await tunnelTo(t, upstream.origin, deps)
  const connected = once(upstream.server, 'connection') as Promise<[WebSocket]>
  const client = dial(t, listening.port)
  const [[far]] = await Promise.all([connected, once(client, 'open')])
  return { ...listening, client, far }
}

/** How a WebSocket was closed by the other side. */
export async function closing(socket: WebSocket): Promise<[code: number, reason: string]> {
  const [code, reason] = await once(socket, 'close')
  return [code as number, String(reason)]
}
