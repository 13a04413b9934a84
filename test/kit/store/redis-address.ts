import { connect, createServer, type Socket } from 'node:net'

/** An address that leads to one Redis after another, as a Service or a DNS name does. */
export type RedisAddress = {
  readonly url: string
  /** Where new connections go from now on; those that are open stay where they are. */
  leadTo(port: number): void
  /** Ends those that are open, so that they are made anew. */
  cut(): void
  close(): void
}

/** Opens one that leads to the Redis on `port`. */
export async function startRedisAddress(port: number): Promise<RedisAddress> {
  let target = port
  const sockets = new Set<Socket>()
  const server = createServer((near) => {
    const far = connect(target, '127.0.0.1')
    for (const socket of [near, far]) {
      sockets.add(socket)
      socket.on('error', () => undefined)
      socket.on('close', () => {
        sockets.delete(socket)
        near.destroy()
        far.destroy()
      })
    }
    near.pipe(far).pipe(near)
  })
  function cut(): void {
    for (const socket of sockets) socket.destroy()
  }

  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `redis://127.0.0.1:${(server.address() as { port: number }).port}`,
    leadTo(next) {
      target = next
    },
    cut,
    close() {
      server.close()
      cut()
    },
  }
}
