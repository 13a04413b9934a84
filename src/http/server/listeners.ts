import type { Server } from 'node:http'
import { createDrain } from './graceful-shutdown.ts'
import { closeServer, listenOn } from './public-server.ts'

type Address = { readonly host: string; readonly port: number }

export type ListenersDeps = {
  readonly publicServer: Server
  readonly adminServer: Server
  readonly addresses: { readonly public: Address; readonly admin: Address }
  /** How long running requests may take at the end. Milliseconds. */
  readonly drainMs: number
  /** How long a client's connection may idle while it is drained. Milliseconds. */
  readonly idleGraceMs?: number | undefined
  /** Told first, so that readiness says no before a connection is refused. */
  readonly onDrain: () => void
  /** Closes what stands behind the listeners. */
  readonly release: () => Promise<void>
}

/** Longer than a request is on its way, and than busy clients pause. */
const IDLE_GRACE_MS = 1_000
const ADMIN_GRACE_MS = 1_000

/** Both listeners, opened and drained together; the admin one last, so that probes see the drain. */
export function createListeners(deps: ListenersDeps) {
  const drainPublic = createDrain(deps.publicServer, deps.idleGraceMs ?? IDLE_GRACE_MS)
  let closing: Promise<void> | undefined

  async function closeAll(): Promise<void> {
    deps.onDrain()
    await drainPublic(deps.drainMs)
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
