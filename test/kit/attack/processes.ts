import assert from 'node:assert/strict'
import { rmSync } from 'node:fs'
import { dirname } from 'node:path'
import type { ConfigData } from '../config/cloakroom-config.ts'
import { type Replica, startReplica, writeReplicaConfig } from '../replica.ts'
import { eventually } from '../shops/deadline.ts'
import { startRedis, type TestRedis } from '../store/redis.ts'

/** Cloakroom processes on one config file and one Redis. */
export type Processes = {
  readonly redis: TestRedis
  readonly replicas: readonly Replica[]
  /** Writes the file anew, and tells all processes. Resolves when it is in use. */
  reload(config: ConfigData): Promise<void>
  /** Leaves those that still run to the next who asks. */
  giveBack(): void
}

/** What is asked for. */
export type Wanted = {
  readonly count: number
  /** The whole file, but for its store and its session keys. */
  readonly config: ConfigData
  readonly env: Record<string, string>
}

/** What goes from one user to the next: a start costs more processor time than most tests. */
type Shared = {
  readonly env: string
  readonly redis: TestRedis
  readonly file: Awaited<ReturnType<typeof writeReplicaConfig>>
  replicas: Replica[]
}

const idle: Shared[] = []
const ended = new WeakSet<Replica>()

/**
 * So many processes, all with this configuration and an empty Redis. They may have served others before, under another
 * provider: then they read the new file as an operator's change. They end with this process.
 */
export async function takeProcesses(wanted: Wanted): Promise<Processes> {
  const env = JSON.stringify(wanted.env)
  const place = idle.findIndex((one) => one.env === env)
  const shared = place < 0 ? await newShared(env, wanted.config) : idle.splice(place, 1)[0]!
  for (const replica of shared.replicas) replica.stdout.length = 0
  await shared.redis.cli('FLUSHALL')
  await reload(shared, wanted.config)
  await startMissing(shared, wanted)
  return {
    redis: shared.redis,
    replicas: shared.replicas.slice(0, wanted.count),
    reload: (config) => reload(shared, config),
    giveBack() {
      shared.replicas = shared.replicas.filter((replica) => !ended.has(replica))
      for (const one of [shared.redis, ...shared.replicas]) one.unref()
      idle.push(shared)
    },
  }
}

async function newShared(env: string, config: ConfigData): Promise<Shared> {
  const redis = await startRedis()
  const session = { store: { type: 'redis', url: redis.url } }
  const file = await writeReplicaConfig({ ...config, session })
  process.once('exit', () => rmSync(dirname(file.file), { recursive: true, force: true }))
  return { env, redis, file, replicas: [] }
}

async function startMissing({ file, replicas }: Shared, { count, env }: Wanted): Promise<void> {
  const start = async () => {
    const replica = await startReplica({ configFile: file.file, env })
    void replica.exited.then(() => ended.add(replica))
    replicas.push(replica)
  }
  await Promise.all(Array.from({ length: count - replicas.length }, start))
}

/** The keys of the first file stay, or a user who is signed in would not be any more. */
async function reload({ file, replicas: all }: Shared, config: ConfigData): Promise<void> {
  const replicas = all.filter((replica) => !ended.has(replica))
  const [before, told] = [await reloadsOf(replicas), reloadsTold(replicas)]
  await file.rewrite(config)
  for (const replica of replicas) replica.signal('SIGHUP')
  // The log is looked at first: to read metrics again and again would keep the processes busy.
  await eventually('the new file is read', () =>
    reloadsTold(replicas).every((count, index) => count > told[index]!),
  )
  await eventually('the new file is in use', async () => {
    const now = await reloadsOf(replicas)
    assert.deepEqual(
      now.map(({ refused }) => refused),
      before.map(({ refused }) => refused),
    )
    return now.every(({ applied }, index) => applied > before[index]!.applied)
  })
}

/** The lines of a process's metrics; none when it has ended. */
export async function metricsOf({ adminUrl }: Replica): Promise<string[]> {
  const text = await fetch(`${adminUrl}/metrics`).then(
    (answer) => answer.text(),
    () => '',
  )
  return text.split('\n')
}

/** The sum of the metrics whose lines start so. */
export const sumOf = (lines: readonly string[], start: string) =>
  lines
    .filter((line) => line.startsWith(start))
    .reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0)

/** How often each process has read its file, by what came of it. */
function reloadsOf(replicas: readonly Replica[]) {
  return Promise.all(
    replicas.map(async (replica) => {
      const lines = await metricsOf(replica)
      const times = (outcome: string) => sumOf(lines, `cloakroom_config_reloads_total{outcome="${outcome}"}`)
      return { applied: times('applied'), refused: times('refused') }
    }),
  )
}

/** How many log lines each process has of a file that it read again. */
const reloadsTold = (replicas: readonly Replica[]) =>
  replicas.map(
    ({ stdout }) => stdout.filter((line) => /configuration (was read again|is refused)/.test(line)).length,
  )
