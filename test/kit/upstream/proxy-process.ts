import { fork } from 'node:child_process'
import { once } from 'node:events'
import type { TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import type { RouteConfig } from '../../../src/config/config.ts'
import { proxyTo, rawClient, SESSION_HASH } from './sockets.ts'

type RouteParts = Partial<RouteConfig> & { upstream: string }
type Order = { block: number } | 'endSession' | 'destroy'

const ALIVE_WITHIN_MS = 8_000

/** A proxy in a process of its own, which may stop to answer without taking the test with it. */
export type ProxyProcess = {
  readonly port: number
  /** Stops its event loop for so many ms, so that whatever comes meanwhile is dealt with in one turn of it. */
  block(ms: number): void
  /** Ends the session that its requests belong to. */
  endSession(): void
  /** Ends every request in flight. */
  destroy(): void
  /** Rejects when a request of its own, to a route that answers, is not answered in time. */
  requireAlive(target: string): Promise<string>
}

/** Starts `proxyTo` in a process of its own. */
export async function proxyProcess(t: TestContext, route: RouteParts): Promise<ProxyProcess> {
  const child = fork(fileURLToPath(import.meta.url), [JSON.stringify(route)])
  t.after(() => void child.kill('SIGKILL'))
  const [port] = (await once(child, 'message')) as [number]
  const order = (what: Order) => void child.send(what)
  async function requireAlive(target: string): Promise<string> {
    const { closed } = rawClient(t, port, `GET ${target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`)
    const late = new Promise<never>((_, reject) => {
      setTimeout(() => reject(new Error('the process hangs')), ALIVE_WITHIN_MS).unref()
    })
    return (await Promise.race([closed, late])).text
  }
  return {
    port,
    block: (ms) => order({ block: ms }),
    endSession: () => order('endSession'),
    destroy: () => order('destroy'),
    requireAlive,
  }
}

async function serve(route: RouteParts): Promise<void> {
  const { port, upstreams } = await proxyTo({ after() {} } as unknown as TestContext, route)
  process.on('message', (order: Order) => {
    if (order === 'endSession') upstreams.endSession(SESSION_HASH)
    else if (order === 'destroy') void upstreams.destroy()
    else for (const end = performance.now() + order.block; performance.now() < end; );
  })
  process.on('disconnect', () => process.exit())
  process.send!(port)
}

if (import.meta.main) void serve(JSON.parse(process.argv[2]!))
