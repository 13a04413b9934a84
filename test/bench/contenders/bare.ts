import { startServer } from '../process/child.ts'
import { pin } from '../process/cores.ts'
import type { World } from './cloakroom.ts'
import type { Fresh } from './contender.ts'

/** Starts the least that a proxy on Node can do, on the measured core. It sends `bearer` with each request. */
export async function startBare(
  { world, bearer }: { readonly world: World; readonly bearer: string },
  env: Record<string, string>,
  stderr: 'inherit' | 'ignore' = 'ignore',
): Promise<Fresh> {
  const more = { UPSTREAM: world.api, CHAT: world.chat, BEARER: bearer }
  const server = await startServer('contenders/bare-proxy.ts', { ...env, ...more }, stderr)
  pin(server.pid, world.cores.measured)
  return server
}
