import { connect, createServer, type Socket } from 'node:net'

/** An address in front of a Redis that holds a replica's commands when told. */
export type HeldRedis = {
  readonly url: string
  /** Lets so many pieces of commands pass from now on, and holds what follows. A piece is what the replica writes at once. */
  holdAfter(pieces: number): Hold
  close(): void
}

/** What waits in front of Redis. */
export type Hold = {
  readonly begun: Promise<void>
  readonly isHolding: () => boolean
  /** Lets everything pass. */
  release(): void
}

/** Opens one in front of the Redis on `port`. */
export async function startHeldRedis(port: number): Promise<HeldRedis> {
  const sockets = new Set<Socket>()
  let passed = Number.POSITIVE_INFINITY
  let begin: () => void = () => undefined
  const waiting: (() => void)[] = []
  const server = createServer((near) => {
    const far = connect(port, '127.0.0.1')
    for (const socket of [near, far]) {
      sockets.add(socket)
      socket.on('error', () => undefined)
      socket.on('close', () => {
        sockets.delete(socket)
        near.destroy()
        far.destroy()
      })
    }
    far.pipe(near)
    near.on('data', (piece) => {
      passed -= 1
      if (passed >= 0 && waiting.length === 0) far.write(piece)
      else {
        waiting.push(() => void far.write(piece))
        begin()
      }
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))

  function release(): void {
    passed = Number.POSITIVE_INFINITY
    for (const pass of waiting.splice(0)) pass()
  }
  return {
    url: `redis://127.0.0.1:${(server.address() as { port: number }).port}`,
    holdAfter(pieces) {
      passed = pieces
      const { promise: begun, resolve } = Promise.withResolvers<void>()
      begin = resolve
      return { begun, isHolding: () => waiting.length > 0, release }
    },
    close() {
      server.close()
      for (const socket of sockets) socket.destroy()
    },
  }
}
