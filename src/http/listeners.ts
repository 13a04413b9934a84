import type { Server } from 'node:http'
import { drain, listenOn } from './listener.ts'

type Address = { readonly host: string; readonly port: number }

export type ListenersDeps = {
  readonly publicServer: Server
  readonly adminServer: Server
  readonly addresses: { readonly public: Address; readonly admin: Address }
  /** How long running requests may take at the end. Milliseconds. */
  readonly drainMs: number
  /** Told first, so that readiness says no before a connection is refused. */
  readonly onDrain: () => void
  /** Closes what stands behind the listeners. */
  readonly release: () => Promise<void>
}

/** Both listeners, opened and drained together; the admin one last, so that probes see the drain. */
export function createListeners(deps: ListenersDeps) {
  let closing: Promise<void> | undefined

  async function closeAll(): Promise<void> {
    deps.onDrain()
    await drain(deps.publicServer, deps.drainMs)
    await deps.release()
    await drain(deps.adminServer, 1_000)
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
