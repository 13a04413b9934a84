import { spawnSync } from 'node:child_process'
import { globSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { jwtClaims } from '../../src/demo/scripted/signing.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { startChatUpstream } from '../kit/shops/websocket-shop.ts'
import { startRedis } from '../kit/store/redis.ts'
import type { Field } from './case.ts'
import { startApi } from './contenders/api.ts'
import { startBare } from './contenders/bare.ts'
import { type Cloakroom, ORIGINAL, openCloakroom, type World } from './contenders/cloakroom.ts'
import type { Contender, Scope } from './contenders/contender.ts'
import { startPeers } from './contenders/peers.ts'
import { startLoad } from './load/load-order.ts'
import type { Cores } from './process/cores.ts'

/** Who shall take part. */
export type FieldOptions = {
  readonly cores: Cores
  /** Folder of another checkout. */
  readonly against: string | undefined
  readonly peers: boolean
  /** Seconds of a window. */
  readonly seconds: number
}

/** Starts all contenders, and what they need. */
export async function openField(t: Scope, options: FieldOptions): Promise<Field> {
  const { cores, against } = options
  const load = startLoad()
  t.after(load.stop)
  const api = await startApi(t)
  const redis = await startRedis()
  t.after(() => redis.stop())
  const provider = await startRotatingProvider({ control: { accessTokenSeconds: 7200 } })
  t.after(() => provider.close())
  const chat = await startChatUpstream(t)
  const world: World = { cores, redis, provider, api: api.origin, chat: chat.url }
  const dirs = [HERE, ...(against ? [against] : [])]
  const cloakrooms: Cloakroom[] = []
  for (const [n, dir] of dirs.entries()) {
    build(dir)
    const name = n === 0 ? 'Cloakroom' : `Cloakroom of ${dir}`
    cloakrooms.push(await openCloakroom(t, world, { name, dir }))
  }
  const bearer = provider.issuedSecrets.find((secret) => jwtClaims(secret)?.aud === ORIGINAL) ?? ''
  const signed = { bearer, fields: cloakrooms[0]!.fields }
  const { pid, port, stop } = await startBare({ world, bearer }, {}, 'inherit')
  t.after(stop)
  const bare: Contender = { name: 'bare node:http + undici', pid, port, fields: signed.fields, isOpen: true }
  const { peers, absent } = options.peers ? await startPeers(t, world, signed) : { peers: [], absent: [] }
  return { world, load, bare, bearer, cloakrooms, peers, absent, seconds: options.seconds }
}

const HERE = fileURLToPath(new URL('../..', import.meta.url))

/** What is measured is what is shipped: `dist/`, made anew when a source is newer. */
function build(dir: string): void {
  const changedAt = (path: string) => statSync(join(dir, path), { throwIfNoEntry: false })?.mtimeMs ?? 0
  const newest = Math.max(...globSync('src/**/*', { cwd: dir }).map(changedAt))
  if (newest < changedAt('dist/main.js')) return
  const { status, stdout, stderr } = spawnSync('npm', ['run', 'build'], { cwd: dir, encoding: 'utf8' })
  if (status !== 0) throw new Error(`${dir} cannot be built:\n${stdout}${stderr}`)
}
