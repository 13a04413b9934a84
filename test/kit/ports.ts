import { randomInt } from 'node:crypto'
import { createServer } from 'node:net'

/** Ports given out by this process: one may be asked for again before its server listens. */
const given = new Set<number>()

/**
 * Below the ports that systems give to outgoing connections and to servers that ask for any (32768 and up on Linux): one
 * of those could be taken by another test between its choice here and the moment its server listens.
 */
const FIRST = 10_000
const AFTER_LAST = 32_000

/** A port of 127.0.0.1 that is free, for when a URL must be known before its server listens; never the same one twice. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(FIRST, AFTER_LAST)
    if (given.has(port) || !(await isFree(port))) continue
    given.add(port)
    return port
  }
}

function isFree(port: number): Promise<boolean> {
  const server = createServer()
  return new Promise((resolve) => {
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })
}
