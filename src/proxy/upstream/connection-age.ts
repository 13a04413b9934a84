import type { EventEmitter } from 'node:events'
import type { Socket } from 'node:net'

/** One place of a pool, which dials again when its connection has ended. */
type PooledClient = EventEmitter & {
  /** `size`: requests that it has or waits to send. */
  readonly stats: { readonly size: number }
}

/** A pool that tells of each connection; the last of `targets` is the client it belongs to. */
export type DialingPool = {
  on(event: 'connect', listener: (origin: URL, targets: readonly unknown[]) => void): unknown
}

/**
 * Ends each connection that is older than `ttlMs` as soon as it has nothing to do. `newest` is the socket of the one that
 * is told of.
 */
export function endOldConnections(
  pool: DialingPool,
  { newest, ttlMs }: { newest: () => Socket; ttlMs: number },
): void {
  pool.on('connect', (_origin, targets) => {
    const client = targets.at(-1) as PooledClient
    const socket = newest()
    const endIfIdle = () => void (client.stats.size === 0 && socket.destroy())
    const timer = setTimeout(() => {
      // Before the pool hears of it, which may have the next request ready: that one goes on the connection to come.
      client.prependListener('drain', endIfIdle)
      endIfIdle()
    }, ttlMs).unref()
    socket.once('close', () => {
      clearTimeout(timer)
      client.off('drain', endIfIdle)
    })
  })
}
