import { randomUUID } from 'node:crypto'
import { systemClock } from '../../async/clock.ts'
import { silentLog } from '../../async/log-throttle.ts'
import { BffError, describeError } from '../../errors.ts'
import type { ObserveStore } from '../port.ts'
import type { RedisConnection } from './connection/client.ts'
import { openRedis } from './connection/servers.ts'
import { createRedisStore, type RedisStoreConfig } from './redis-store.ts'
import { SCRIPTS } from './scripts.ts'

/** What a Redis says of itself, and what it lets us do. */
export type RedisDiagnosis = {
  /** `redis`, or what a server that speaks its protocol calls itself. */
  readonly server: string | undefined
  /** That server's own version; undefined where INFO is not allowed. */
  readonly version: string | undefined
  readonly role: string | undefined
  readonly evictionPolicy: string | undefined
  /** Bytes; 0 = no limit of its own. */
  readonly maxMemory: number | undefined
  readonly usedMemory: number | undefined
  /** `aof`: every write is kept; `rdb`: a copy now and then; undefined where that cannot be asked for. */
  readonly persistence: 'aof' | 'rdb' | 'none' | undefined
  /** The last write to disk failed, so that Redis may refuse writes. */
  readonly hasFailedToSave: boolean
  /** Of one round trip, in ms. */
  readonly latency: { readonly medianMs: number; readonly worstMs: number }
  /** What the proxy sends and the server does not let this user do, in the server's words; empty when all is allowed. */
  readonly refused: readonly { readonly command: string; readonly reason: string }[]
  /** Why the trial that every replica makes at its start failed; undefined when it passed. */
  readonly trialFailure: string | undefined
}

const PINGS = 20

/**
 * Asks a Redis for what its operator must know, with the proxy's own connections and commands. It touches keys of random
 * names under the prefix only, which end by themselves within seconds. Rejects with `store_unavailable` when there is no
 * connection.
 */
export async function diagnoseRedis(config: RedisStoreConfig): Promise<RedisDiagnosis> {
  const { commands: redis, close } = openRedis(config, { log: silentLog })
  try {
    await redis.attempted
    await redis.call('ping', 'PING')
    const info = await readInfo(redis)
    const latency = await measureLatency(redis)
    const refused = await refusedCommands(redis, config.keyPrefix)
    return {
      ...factsOf(info),
      persistence: await persistenceOf(redis, info),
      ...{ latency, refused },
      trialFailure: refused.length > 0 ? undefined : await trialFailure(config),
    }
  } finally {
    await close()
  }
}

type Info = ReadonlyMap<string, string>

/** Of a cluster, what its first primary says. Empty where the command is not allowed. */
async function readInfo(redis: RedisConnection): Promise<Info> {
  try {
    const text = String(await redis.call('info', 'INFO'))
    return new Map(
      text.split(/\r?\n/).flatMap((line): [string, string][] => {
        const [, name, value] = /^(\w+):(.*)$/.exec(line) ?? []
        return name === undefined || value === undefined ? [] : [[name, value]]
      }),
    )
  } catch (error) {
    if (isReply(error)) return new Map()
    throw error
  }
}

function factsOf(info: Info) {
  const number = (name: string) => {
    const value = Number(info.get(name))
    return info.has(name) && Number.isFinite(value) ? value : undefined
  }
  // Valkey says of itself which Redis it is like.
  const isOther = info.has('server_name') && info.get('server_name') !== 'redis'
  const server = info.get('server_name') ?? (info.has('redis_version') ? 'redis' : undefined)
  const version = (isOther && info.get(`${server}_version`)) || info.get('redis_version')
  const hasFailedToSave =
    info.get('rdb_last_bgsave_status') === 'err' || info.get('aof_last_write_status') === 'err'
  return {
    ...{ server, version, hasFailedToSave },
    role: info.get('role'),
    evictionPolicy: info.get('maxmemory_policy'),
    maxMemory: number('maxmemory'),
    usedMemory: number('used_memory'),
  }
}

/** INFO tells nothing of the points at which a copy is saved, and managed offers forbid CONFIG. */
async function persistenceOf(redis: RedisConnection, info: Info): Promise<RedisDiagnosis['persistence']> {
  if (info.get('aof_enabled') === '1') return 'aof'
  try {
    const [, points] = (await redis.call('config', 'CONFIG', 'GET', 'save')) as string[]
    return points ? 'rdb' : 'none'
  } catch (error) {
    if (isReply(error)) return undefined
    throw error
  }
}

async function measureLatency(redis: RedisConnection): Promise<RedisDiagnosis['latency']> {
  const times: number[] = []
  for (let i = 0; i < PINGS; i += 1) {
    const startedAt = systemClock.monotonicNow()
    await redis.call('ping', 'PING')
    times.push(systemClock.monotonicNow() - startedAt)
  }
  times.sort((a, b) => a - b)
  return { medianMs: times[PINGS / 2]!, worstMs: times.at(-1)! }
}

/** What comes behind the key, which holds a text: commands for other types do nothing to it. */
const ARGUMENTS: Readonly<Record<string, readonly string[]>> = {
  PEXPIRE: ['5000'],
  HGET: ['f'],
  HSET: ['f', 'v'],
  HDEL: ['f'],
  ZADD: ['0', 'm'],
  ZREM: ['m'],
  ZRANGE: ['0', '0'],
  ZSCORE: ['m'],
  ZREMRANGEBYSCORE: ['0', '0'],
  SADD: ['m'],
  SREM: ['m'],
}
const CREATING: ReadonlySet<string> = new Set(['HSET', 'ZADD', 'SADD', 'INCR'])
/** Those without a key. PING and SUBSCRIBE are sent by the trial. */
const KEYLESS: Readonly<Record<string, readonly string[]>> = { TIME: [], EVAL: ['return 1', '0'] }

/** Every command that a script or a record of this folder sends. */
export function commandsInUse(): string[] {
  const scripted = Object.values(SCRIPTS).flatMap(({ lua }) =>
    Array.from(lua.matchAll(/redis\.call\('(\w+)'/g), ([, name]) => name!),
  )
  const direct = ['GET', 'SET', 'PTTL', 'HGETALL', 'HDEL', 'UNLINK', 'SMEMBERS', 'SREM', 'ZREM']
  return [...new Set([...scripted, ...direct, 'PUBLISH', 'EVAL'])].sort()
}

/** All that is not allowed at once, because one at a time means one attempt for each. */
async function refusedCommands(redis: RedisConnection, prefix: string): Promise<RedisDiagnosis['refused']> {
  const key = `${prefix}:{doctor-${randomUUID()}}:session`
  const refused: { command: string; reason: string }[] = []
  async function attempt(command: string, ...args: readonly string[]): Promise<void> {
    try {
      await redis.call('doctor', command, ...args)
    } catch (error) {
      const reason = replyIn(error)
      if (reason === undefined) throw error
      // What else it says, such as of the wrong type, says that the command is allowed.
      if (/^(?:NOPERM|ERR unknown command|READONLY|OOM|MISCONF)/.test(reason))
        refused.push({ command, reason })
    }
  }
  await attempt('SET', key, 'doctor', 'PX', '5000')
  // Without that key some commands would make one, which never ends.
  const isThere = refused.length === 0
  for (const command of commandsInUse()) {
    if (!isThere && CREATING.has(command)) continue
    const args = KEYLESS[command] ?? [key, ...(ARGUMENTS[command] ?? [])]
    if (command === 'PUBLISH') await attempt(command, `${prefix}:invalidate`, `doctor-${randomUUID()}`)
    else if (!['SET', 'DEL', 'UNLINK'].includes(command)) await attempt(command, ...args)
  }
  await attempt('UNLINK', key)
  await attempt('DEL', key)
  return refused
}

async function trialFailure(config: RedisStoreConfig): Promise<string | undefined> {
  const times = { idleTimeoutMs: () => 10_000, absoluteTimeoutMs: () => 10_000 }
  let failed = ''
  const observe: ObserveStore = (command, _seconds, outcome) => {
    if (outcome === 'error') failed ||= command
  }
  const store = await createRedisStore(config, times, { log: silentLog, observe })
  try {
    await store.tryOut()
    return undefined
  } catch (error) {
    const cause = error instanceof BffError ? error.cause : undefined
    return [failed, describeError(error).message, cause && describeError(cause).message]
      .filter(Boolean)
      .join(': ')
  } finally {
    await store.close()
  }
}

function isReply(error: unknown): boolean {
  return replyIn(error) !== undefined
}

/** What the server said, if it was the server that refused. */
function replyIn(error: unknown): string | undefined {
  const cause = error instanceof BffError ? error.cause : error
  return cause instanceof Error && cause.name === 'ReplyError' ? cause.message : undefined
}
