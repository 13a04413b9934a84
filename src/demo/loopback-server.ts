import { once } from 'node:events'
import { createServer, type IncomingMessage, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'

/** A listener on 127.0.0.1. */
export type LoopbackServer = {
  /** `http://127.0.0.1:PORT`. */
  readonly origin: string
  /** Stops listening and ends every connection. */
  close(): Promise<void>
}

/** Takes over the connection of a request that wants another protocol. */
export type UpgradeListener = (req: IncomingMessage, socket: Duplex, head: Buffer) => void

/**
 * Listens on 127.0.0.1, on a free port unless one is named, and answers with the listener `createListener` makes for
 * that origin. Rejects with the system's error, e.g. EADDRINUSE, or with `createListener`'s own, and then listens no more.
 */
export async function listenOnLoopback(
  createListener: (origin: string) => RequestListener,
  port = 0,
  upgrade?: UpgradeListener,
): Promise<LoopbackServer> {
  const server = createServer()
  server.listen(port, '127.0.0.1')
  await once(server, 'listening')
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  try {
    server.on('request', createListener(origin))
    if (upgrade) server.on('upgrade', upgrade)
  } catch (error) {
    server.close()
    throw error
  }
  return {
    origin,
    async close() {
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
    },
  }
}
