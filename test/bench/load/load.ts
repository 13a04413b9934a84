import { connect, type Socket } from 'node:net'
import type { LoadOrder, LoadResult } from './load-order.ts'

/**
 * The load generator: bare sockets and the least parsing that can be, so that the proxy and not the client is busy.
 * Each connection sends its next request when the answer to the last one is complete. Connections outlive an order.
 */
const idle = new Map<number, Socket[]>()

process.on('message', async (order: LoadOrder) => {
  const sockets = await socketsTo(order)
  const startedAt = performance.now()
  const statuses: Record<string, number> = {}
  let begun = 0
  await Promise.all(
    sockets.map(async (socket) => {
      while (begun < order.count) {
        const status = await ask(socket, order.requests[begun++ % order.requests.length]!)
        statuses[status] = (statuses[status] ?? 0) + 1
      }
    }),
  )
  const result: LoadResult = { elapsedMs: performance.now() - startedAt, statuses }
  process.send!(result)
})

async function socketsTo({ port, connections }: LoadOrder): Promise<Socket[]> {
  const known = idle.get(port)
  if (known) return known
  const sockets = await Promise.all(Array.from({ length: connections }, () => opened(port)))
  idle.set(port, sockets)
  return sockets
}

function opened(port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true }, () => resolve(socket))
    socket.once('error', reject)
  })
}

/** Sends one request; resolves with the status of the answer. Rejects when the connection ends before it. */
function ask(socket: Socket, request: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let received = ''
    const onClose = () => reject(new Error('connection closed before its answer was complete'))
    socket.once('close', onClose)
    socket.on('data', function onData(chunk: Buffer) {
      received += chunk.toString('latin1')
      if (received.length < lengthOf(received)) return
      socket.off('data', onData).off('close', onClose)
      resolve(received.slice('HTTP/1.1 '.length, 'HTTP/1.1 200'.length))
    })
    socket.write(request)
  })
}

/** Length of a whole answer; infinite while its header is not here. Throws when it says no length. */
function lengthOf(received: string): number {
  const end = received.indexOf('\r\n\r\n')
  if (end === -1) return Number.POSITIVE_INFINITY
  const length = /\r\ncontent-length: (\d+)\r\n/i.exec(received.slice(0, end + 2))
  if (!length) throw new Error(`an answer without Content-Length: ${received.slice(0, end)}`)
  return end + 4 + Number(length[1])
}
