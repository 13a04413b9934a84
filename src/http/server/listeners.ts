import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { every, systemClock } from '../../async/clock.ts'
import { createGracefulShutdown } from './graceful-shutdown.ts'

type Address = { readonly host: string; readonly port: number }

export type ListenersDeps = {
  readonly publicServer: Server
  readonly adminServer: Server
  readonly addresses: { readonly public: Address; readonly admin: Address }
  /** How long connections are still accepted at the end, when readiness says no already; none unless given. Milliseconds. */
  readonly delayMs?: () => number
  /** How long running requests may take at the end. Milliseconds. */
  readonly drainMs: number
  /** How long a client's connection may idle during the shutdown. Milliseconds. */
  readonly idleGraceMs?: number | undefined
  /** Called first, so that readiness says no before a connection is refused. */
  readonly onStop: () => void
  /** Called when no connection is accepted any more. */
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
  let hurry: (() => void) | undefined

  /** Waits until the step is over, or `hurry` is called. */
  function step<T>(wait: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const controller = new AbortController()
    hurry = () => controller.abort('hurry')
    return wait(controller.signal)
  }

  async function closeAll(delayMs: number): Promise<void> {
    deps.onStop()
    if (delayMs > 0) await step((signal) => systemClock.pause(delayMs, signal))
    deps.onDrain()
    await step((signal) => shutDownPublic(deps.drainMs, signal))
    hurry = undefined
    await deps.release()
    await closeServer(deps.adminServer, ADMIN_GRACE_MS)
  }

  return {
    /** Rejects with a ListenError. */
    async listen(): Promise<{ publicPort: number; adminPort: number }> {
      const { admin, public: open } = deps.addresses
      try {
        const adminPort = await listenOn(deps.adminServer, admin).catch(named('admin.listen', admin))
        const publicPort = await listenOn(deps.publicServer, open).catch(named('listen', open))
        return { publicPort, adminPort }
      } catch (error) {
        await closeAll(0)
        throw error
      }
    },
    close(): Promise<void> {
      closing ??= closeAll(deps.delayMs?.() ?? 0)
      return closing
    },
    /** Ends the step of the shutdown that waits now: the delay, or else what still runs is cut. What has to be stored is stored. */
    hurry(): void {
      hurry?.()
    },
  }
}

/** A socket of the configuration that cannot be opened. */
export class ListenError extends Error {
  /** `listen` or `admin.listen`. */
  readonly field: string
  readonly cure: string
  /** The system's, such as EADDRINUSE. */
  readonly code: string | undefined
  readonly port: number

  constructor(field: string, { host, port }: Address, cause: NodeJS.ErrnoException) {
    const address = `${host.includes(':') ? `[${host}]` : host}:${port}`
    const [what, cure] = LISTEN_FAULTS[cause.code ?? ''] ?? [cause.message, 'correct the address']
    super(`${field}: ${address} ${what}`, { cause })
    this.name = 'ListenError'
    this.field = field
    this.cure = cure
    this.code = cause.code
    this.port = port
  }
}

const LISTEN_FAULTS: Readonly<Record<string, readonly [what: string, cure: string]>> = {
  EADDRINUSE: ['is taken by another process', 'end that process, or choose another port'],
  EACCES: [
    'needs a right that this process does not have',
    'choose a port of 1024 or above; a Service or proxy in front may have 80 and 443',
  ],
  EPERM: ['is forbidden to this process', 'choose a port of 1024 or above'],
  EADDRNOTAVAIL: ['is no address of this machine', 'name one of its addresses, or 0.0.0.0 for all of them'],
  ENOTFOUND: ['has a name that is not known', 'name an address of this machine, or 0.0.0.0 for all of them'],
  EAI_AGAIN: [
    'has a name that cannot be looked up',
    'name an address of this machine, or 0.0.0.0 for all of them',
  ],
  EAFNOSUPPORT: [
    'is of IPv6, which this machine does not have',
    'name an IPv4 address, or 0.0.0.0 for all of them',
  ],
}

function named(field: string, address: Address) {
  return (cause: unknown): never => {
    throw new ListenError(field, address, cause as NodeJS.ErrnoException)
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
