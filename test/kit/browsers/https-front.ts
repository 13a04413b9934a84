import { createHash, X509Certificate } from 'node:crypto'
import {
  Agent,
  type IncomingHttpHeaders,
  type IncomingMessage,
  request,
  type ServerResponse,
} from 'node:http'
import { createServer } from 'node:https'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { selfSigned } from '../self-signed.ts'

/** A request as the front let it through. */
export type FrontRequest = {
  readonly host: string
  readonly method: string
  readonly path: string
  readonly headers: IncomingHttpHeaders
  readonly isUpgrade: boolean
}

/** A TLS-terminating proxy in front of several hosts, as an ingress is. */
export type HttpsFront = {
  readonly port: number
  /** SHA-256 of its public key, base64: what a browser is told to trust. Errors that it ignores would keep it from caching. */
  readonly keyHash: string
  /** Everything that came, cookies included. */
  readonly requests: FrontRequest[]
  /** Sends a host's traffic to an http origin from now on. */
  serve(host: string, origin: string): void
  close(): Promise<void>
}

/** Starts the front on a free port of 127.0.0.1 with a self-signed certificate for `hosts`. */
export async function startHttpsFront(hosts: readonly string[]): Promise<HttpsFront> {
  const origins = new Map<string, string>()
  const requests: FrontRequest[] = []
  const sockets = new Set<Socket>()
  // Each request has its own connection, so that closing waits for none that idles.
  const agent = new Agent({ keepAlive: false })

  function originOf(req: IncomingMessage, isUpgrade: boolean): URL | undefined {
    const host = req.headers.host ?? ''
    const { method = 'GET', url: path = '/', headers } = req
    requests.push({ host, method, path, headers, isUpgrade })
    const origin = origins.get(host)
    return origin === undefined ? undefined : new URL(origin)
  }

  const identity = selfSigned(hosts)
  const server = createServer(identity, (req, res) => {
    const origin = originOf(req, false)
    if (!origin) return void res.writeHead(404).end()
    forward(req, res, origin, agent)
  })
  server.on('upgrade', (req, socket: Socket, head: Buffer) => {
    const origin = originOf(req, true)
    if (origin) tunnel(req, socket, head, origin)
    else socket.destroy()
  })
  server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', resolve)
  })
  return {
    port: (server.address() as AddressInfo).port,
    keyHash: keyHashOf(identity.cert),
    requests,
    serve: (host, origin) => void origins.set(host, origin),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        for (const socket of sockets) socket.destroy()
      }),
  }
}

function keyHashOf(cert: string): string {
  const key = new X509Certificate(cert).publicKey.export({ type: 'spki', format: 'der' })
  return createHash('sha256').update(key).digest('base64')
}

const FORWARDED = { 'x-forwarded-proto': 'https', 'x-forwarded-for': '127.0.0.1' }

function forward(req: IncomingMessage, res: ServerResponse, origin: URL, agent: Agent): void {
  const { method, url: path } = req
  const headers = { ...req.headers, ...FORWARDED }
  const outbound = request({ host: origin.hostname, port: origin.port, method, path, headers, agent })
  outbound.once('response', (answer) => {
    res.writeHead(answer.statusCode ?? 502, answer.rawHeaders)
    answer.pipe(res)
  })
  outbound.once('error', () => (res.headersSent ? res.destroy() : res.writeHead(502).end()))
  res.once('close', () => outbound.destroy())
  req.pipe(outbound)
}

/** Hands on the handshake as it came, and then every byte. */
function tunnel(req: IncomingMessage, socket: Socket, head: Buffer, origin: URL): void {
  const upstream = connect(Number(origin.port), origin.hostname)
  const lines = [`${req.method} ${req.url} HTTP/1.1`]
  for (let at = 0; at < req.rawHeaders.length; at += 2) {
    lines.push(`${req.rawHeaders[at]}: ${req.rawHeaders[at + 1]}`)
  }
  upstream.write(`${lines.join('\r\n')}\r\n\r\n`)
  upstream.write(head)
  upstream.pipe(socket).pipe(upstream)
  for (const [one, other] of [
    [socket, upstream],
    [upstream, socket],
  ] as const) {
    one.on('error', () => other.destroy())
    one.once('close', () => other.destroy())
  }
}
