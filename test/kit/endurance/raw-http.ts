import { once } from 'node:events'
import { createServer, type RequestListener } from 'node:http'
import { type AddressInfo, connect, type Server, type Socket } from 'node:net'
import type { TestContext } from 'node:test'

/** The head of a request as it goes over the wire. */
export function requestHead(
  method: string,
  target: string,
  fields: Readonly<Record<string, string>>,
): string {
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`)
  return `${method} ${target} HTTP/1.1\r\n${lines.join('')}\r\n`
}

/** Connects to 127.0.0.1; what goes wrong with it later is for whoever waits for its `close`. */
export async function openSocket(port: number): Promise<Socket> {
  const socket = connect({ port, host: '127.0.0.1', noDelay: true })
  socket.on('error', () => undefined)
  await Promise.race([once(socket, 'connect'), once(socket, 'close')])
  return socket
}

/** Resolves when the connection is over, whoever ended it. */
export function untilClosed(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    if (socket.closed) resolve()
    else socket.once('close', () => resolve())
  })
}

/** An upstream of a test: its origin, and every connection to it that is open. */
export type OpenUpstream = { readonly origin: string; readonly port: number; readonly sockets: Set<Socket> }

/** Opens a server on a free port of 127.0.0.1; it ends with the test. */
export async function openUpstream(t: Pick<TestContext, 'after'>, server: Server): Promise<OpenUpstream> {
  const sockets = new Set<Socket>()
  server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.on('error', () => undefined).once('close', () => sockets.delete(socket))
  })
  server.listen(0, '127.0.0.1', 4_096)
  await once(server, 'listening')
  t.after(() => {
    server.close()
    for (const socket of sockets) socket.destroy()
  })
  const { port } = server.address() as AddressInfo
  return { origin: `http://127.0.0.1:${port}`, port, sockets }
}

/** An HTTP upstream whose idle connections the proxy gives up after about a second. */
export function openHttpUpstream(t: Pick<TestContext, 'after'>, answer: RequestListener) {
  const server = createServer(answer)
  server.keepAliveTimeout = 3_000
  return openUpstream(t, server)
}

/** Does `work` for 0 … `times`-1, at most `atOnce` at the same time; rejects with the first failure. */
export async function inParallel(
  times: number,
  atOnce: number,
  work: (n: number) => Promise<void>,
): Promise<void> {
  let next = 0
  async function worker(): Promise<void> {
    while (next < times) {
      const n = next
      next += 1
      await work(n)
    }
  }
  await Promise.all(Array.from({ length: atOnce }, worker))
}

/** Counts how often each outcome was seen. */
export type Tally = { add(outcome: string): void; of(outcome: string): number; toString(): string }

/** An empty tally. */
export function createTally(): Tally {
  const counts = new Map<string, number>()
  return {
    add: (outcome) => void counts.set(outcome, (counts.get(outcome) ?? 0) + 1),
    of: (outcome) => counts.get(outcome) ?? 0,
    toString: () =>
      [...counts]
        .sort(([a], [b]) => a.localeCompare(b))
        .map(([what, n]) => `${what} ${n}`)
        .join(', '),
  }
}
