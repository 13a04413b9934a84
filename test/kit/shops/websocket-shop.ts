import { once } from 'node:events'
import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { WebSocket, WebSocketServer } from 'ws'
import { type Browser, createBrowser } from '../browsers/browser.ts'
import type { ConfigData } from '../config/cloakroom-config.ts'
import { type RotatingProvider, startRotatingProvider } from '../provider/rotating-provider.ts'
import { steadyNow } from '../steady.ts'
import { APP, type Scope, startApis } from './shop.ts'

/** An upstream that answers each message with itself, and `/events` with an event stream that never ends. */
export type ChatUpstream = {
  readonly url: string
  readonly handshakes: IncomingMessage[]
  /** The upstream's end of each WebSocket. */
  readonly sockets: WebSocket[]
}

/** Starts one on a free port. */
export async function startChatUpstream(t: Scope, { perMessageDeflate = false } = {}): Promise<ChatUpstream> {
  const handshakes: IncomingMessage[] = []
  const sockets: WebSocket[] = []
  const server = createServer((_, res) => {
    res.writeHead(200, { 'content-type': 'text/event-stream' }).write('data: hello\n\n')
  })
  // ws resets who sends pings faster than it writes pongs, 60 at most; an echo of many frames needs every one.
  const limits = { maxPayload: 2 ** 28, maxPendingAutoPongs: 0 }
  const upgrades = new WebSocketServer({ server, perMessageDeflate, ...limits })
  upgrades.on('connection', (socket, req) => {
    handshakes.push(req)
    sockets.push(socket)
    socket.on('error', () => {})
    socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    for (const socket of sockets) socket.terminate()
    server.closeAllConnections()
    server.close()
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, handshakes, sockets }
}

/** What a Cloakroom needs to have a chat behind `/chat`, with a token for it. */
export async function chatConfig(
  t: Scope,
  overrides: ConfigData = {},
): Promise<{ config: ConfigData; chat: ChatUpstream; provider: RotatingProvider }> {
  const provider = await startRotatingProvider()
  t.after(() => provider.close())
  const chat = await startChatUpstream(t)
  const { config } = await startApis(t, { provider: provider.settings, jwks: provider.endpoints.jwks })
  const route = { path: '/chat', id: 'chat', upstream: chat.url, resource: 'orders', websocket: true }
  const routes = [route, ...(config.routes as ConfigData[])]
  return { config: { ...config, routes, ...overrides }, chat, provider }
}

/** A browser that is signed in at the Cloakroom which listens there. */
export async function signedInAt(t: Scope, listenUrl: string): Promise<Browser> {
  const browser = createBrowser({ origin: APP, connect: { [APP]: listenUrl } })
  t.after(() => browser.close())
  await browser.signIn()
  return browser
}

/** Opens the WebSocket as a script of the application does; rejects with the status when it is refused. */
export async function openChat(
  t: Scope,
  browser: Browser,
  listenUrl: string,
  { path = '/chat', protocols = [] as string[] } = {},
): Promise<WebSocket> {
  const socket = new WebSocket(`${listenUrl.replace('http', 'ws')}${path}`, protocols, {
    origin: APP,
    headers: { host: new URL(APP).host, cookie: browser.cookieHeader() },
  })
  t.after(() => socket.terminate())
  await once(socket, 'open')
  socket.on('error', () => {})
  return socket
}

/** Sends a message and waits for its echo. */
export async function echoOf(socket: WebSocket, text: string): Promise<string> {
  socket.send(text)
  const [data] = await once(socket, 'message')
  return String(data)
}

/** How the other side closed it, and after how many ms. */
export async function closeOf(socket: WebSocket): Promise<{ code: number; reason: string; afterMs: number }> {
  const startedAt = steadyNow()
  const [code, reason] = await once(socket, 'close')
  return { code: code as number, reason: String(reason), afterMs: steadyNow() - startedAt }
}
