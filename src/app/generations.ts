import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { RequestGuard } from '../http/server/request-guard.ts'
import type { Upstreams } from '../proxy/upstream/upstreams.ts'
import type { Tunnel } from '../proxy/websocket/tunnel.ts'

/** Everything on the public listener under one configuration. */
export type Generation = {
  readonly guard: RequestGuard
  readonly edge: (req: IncomingMessage, res: ServerResponse) => void
  readonly tunnel: Pick<Tunnel, 'upgrade' | 'closeAll'>
  readonly upstreams: Pick<Upstreams, 'endEventStreams'>
  /** Closes its connections and drops its copies. Called once, when none of its requests is in flight any more. */
  release(): Promise<void>
}

type Serving<G extends Generation> = {
  readonly generation: G
  inFlight: number
  /** A request or a tunnel has ended. One for all of them, because a listener for each would be garbage of each. */
  readonly leave: () => void
}

/**
 * The configuration in use, and earlier ones that still have requests or tunnels in flight. Each request ends under the
 * configuration it began with. A configuration is released when its last one has ended.
 */
export function createGenerations<G extends Generation>(first: G) {
  const retired = new Set<Serving<G>>()
  let current = servingOf(first)
  let isClosing = false

  function servingOf(generation: G): Serving<G> {
    const serving: Serving<G> = {
      generation,
      inFlight: 0,
      leave() {
        serving.inFlight -= 1
        if (serving.inFlight === 0 && retired.has(serving)) release(serving)
      },
    }
    return serving
  }

  function count(serving: Serving<G>, connection: ServerResponse | Socket): void {
    serving.inFlight += 1
    connection.on('close', serving.leave)
  }

  function release(serving: Serving<G>): Promise<void> {
    retired.delete(serving)
    return serving.generation.release()
  }

  return {
    current: (): G => current.generation,
    guard: (): G['guard'] => current.generation.guard,

    request(req: IncomingMessage, res: ServerResponse): void {
      count(current, res)
      current.generation.edge(req, res)
    },
    upgrade(req: IncomingMessage, socket: Socket, head: Buffer): void {
      count(current, socket)
      current.generation.tunnel.upgrade(req, socket, head)
    },

    /** Serves all new requests and tunnels with `next`. */
    succeed(next: G): void {
      const before = current
      current = servingOf(next)
      retired.add(before)
      if (before.inFlight === 0) release(before)
      if (isClosing) endStreams(next)
    },
    /** Ends every tunnel and event stream. All generations refuse new ones from now on, later generations too. */
    closeStreams(): void {
      isClosing = true
      for (const { generation } of [...retired, current]) endStreams(generation)
    },
    async releaseAll(): Promise<void> {
      await Promise.all([...retired, current].map(release))
    },
  }
}

function endStreams({ tunnel, upstreams }: Generation): void {
  tunnel.closeAll()
  upstreams.endEventStreams()
}
