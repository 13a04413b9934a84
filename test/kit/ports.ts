import type { AddressInfo } from 'node:net'
import { createServer } from 'node:net'

/** Ports given out by this process: the system may offer one again before its server listens. */
const given = new Set<number>()

/** A port of 127.0.0.1 that is free, for when a URL must be known before its server listens; never the same one twice. */
export async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', resolve)
  })
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  if (given.has(port)) return freePort()
  given.add(port)
  return port
}
