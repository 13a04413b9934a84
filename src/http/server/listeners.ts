import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { every, systemClock } from '../../async/clock.ts'
import { createGracefulShutdown } from './graceful-shutdown.ts'

type Address = { readonly host: string; readonly port: number }

export type ListenersDeps = {
  readonly publicServer: Server
  readonly adminServer: Server
  readonly addresses: { readonly public: Address; readonly admin: Address }
  /** How long running requests may take at the end. Milliseconds. */
  readonly drainMs: number
  /** How long a client's connection may idle during the shutdown. Milliseconds. */
  readonly idleGraceMs?: number | undefined
  /** Called first, so that readiness says no before a connection is refused. */
  readonly onDrain: () => void
  /** Closes what the listeners use. */
  readonly release: () => Promise<void>
}

/** Longer than a request is on its way, and than busy clients pause. */
const IDLE_GRACE_MS = 1_000
const ADMIN_GRACE_MS = 1_000

/** Opens both listeners and shuts them down gracefully; the admin one last, so that probes see the shutdown. */
export function createListeners(deps: ListenersDeps) {
  const shutDownPublic = createGracefulShutdown(deps.publicServer, deps.idleGraceMs ?? IDLE_GRACE_MS)
  let closing: Promise<void> | undefined

  async function closeAll(): Promise<void> {
    deps.onDrain()
    await shutDownPublic(deps.drainMs)
    await deps.release()
    await closeServer(deps.adminServer, ADMIN_GRACE_MS)
  }

  return {
    async listen(): Promise<{ publicPort: number; adminPort: number }> {
      try {
        const adminPort = await listenOn(deps.adminServer, deps.addresses.admin)
        const publicPort = await listenOn(deps.publicServer, deps.addresses.public)
        return { publicPort, adminPort }
      } catch (error) {
        await closeAll()
        throw error
      }
    },
    close(): Promise<void> {
      closing ??= closeAll()
      return closing
    },
  }
}

/** Opens a listening socket and resolves with its port; rejects with the system's error, e.g. EADDRINUSE. */
export function listenOn(server: Server, { host, port }: Address): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host, () => {
      server.off('error', reject)
      resolve((server.address() as AddressInfo).port)
    })
  })
}

/**
 * Stops accepting, lets running requests finish for `graceMs`, then cuts the rest. Resolves when no connection is open.
 * Idle connections are closed as they become idle, because Node itself would wait for them.
 */
function closeServer(server: Server, graceMs: number): Promise<void> {
  if (!server.listening) return Promise.resolve()
  return new Promise((resolve) => {
    const tick = every(systemClock, 50, () => server.closeIdleConnections())
    const deadline = systemClock.after(graceMs, () => server.closeAllConnections())
    server.close(() => {
      tick.cancel()
      deadline.cancel()
      resolve()
    })
    server.closeIdleConnections()
  })
}
