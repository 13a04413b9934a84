import type { Socket } from 'node:net'
import { ask, opened, statusOf } from './connection.ts'
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
  let refusal: string | undefined
  let begun = 0
  await Promise.all(
    sockets.map(async (socket) => {
      while (begun < order.count) {
        const answer = await ask(socket, order.requests[begun++ % order.requests.length]!)
        const status = statusOf(answer)
        statuses[status] = (statuses[status] ?? 0) + 1
        if (status !== '200') refusal ??= answer
      }
    }),
  )
  const result: LoadResult = { elapsedMs: performance.now() - startedAt, statuses, refusal }
  process.send!(result)
})

/** A server ends connections that have long had nothing to do; and a port may belong to another process by now. */
async function socketsTo({ port, connections }: LoadOrder): Promise<Socket[]> {
  const known = (idle.get(port) ?? []).filter((socket) => !socket.destroyed).slice(0, connections)
  const missing = Array.from({ length: connections - known.length }, () => opened(port))
  const sockets = [...known, ...(await Promise.all(missing))]
  idle.set(port, sockets)
  return sockets
}
