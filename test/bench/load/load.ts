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

async function socketsTo({ port, connections }: LoadOrder): Promise<Socket[]> {
  const known = idle.get(port)
  if (known) return known
  const sockets = await Promise.all(Array.from({ length: connections }, () => opened(port)))
  idle.set(port, sockets)
  return sockets
}
