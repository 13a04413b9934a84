import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Upstreams } from '../proxy/upstream/upstream.ts'
import type { Tunnel } from '../proxy/websocket/tunnel.ts'

/** Everything on the public listener under one configuration. */
export type Generation = {
  readonly edge: (req: IncomingMessage, res: ServerResponse) => void
  readonly tunnel: Pick<Tunnel, 'upgrade' | 'closeAll'>
  readonly upstreams: Pick<Upstreams, 'endEventStreams'>
  /** Lets go of its connections and copies; called once, when nothing of it is under way any more. */
  release(): Promise<void>
}

type Serving = { readonly generation: Generation; underWay: number }

/**
 * The configuration in use, and those before it that still have requests or tunnels to finish: who began under one
 * configuration ends under it, and is released then.
 */
export function createGenerations<G extends Generation>(first: G) {
  let current: Serving & { readonly generation: G } = { generation: first, underWay: 0 }
  const retired = new Set<Serving>()
  let isClosing = false

  function count(serving: Serving, connection: ServerResponse | Socket): void {
    serving.underWay += 1
    connection.on('close', () => {
      serving.underWay -= 1
      if (serving.underWay === 0 && retired.has(serving)) release(serving)
    })
  }

  function release(serving: Serving): Promise<void> {
    retired.delete(serving)
    return serving.generation.release()
  }

  return {
    current: (): G => current.generation,

    request(req: IncomingMessage, res: ServerResponse): void {
      count(current, res)
      current.generation.edge(req, res)
    },
    upgrade(req: IncomingMessage, socket: Socket, head: Buffer): void {
      count(current, socket)
      current.generation.tunnel.upgrade(req, socket, head)
    },

    /** From now on everything new is served by `next`. */
    succeed(next: G): void {
      const before = current
      current = { generation: next, underWay: 0 }
      retired.add(before)
      if (before.underWay === 0) release(before)
      if (isClosing) endStreams(next)
    },
    /** Ends every tunnel and event stream; each generation refuses new ones, those to come as well. */
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
