import type { Config, StoreConfig } from '../../config/config.ts'
import { isThisMachine } from '../../config/rules/addresses.ts'
import { diagnoseRedis, type RedisDiagnosis } from '../../store/redis/diagnosis.ts'
import { certificateEnd, peerCertificateEnd } from './certificates.ts'
import { causeOf, type Found, fail, type Group, ok, warn } from './finding.ts'

type RedisConfig = Extract<StoreConfig, { type: 'redis' }>

/** Where sessions are kept. */
export async function checkSessionStore(
  group: Group,
  { config, now }: { readonly config: Config; readonly now: () => number },
): Promise<void> {
  const { store } = config.session
  if (store.type === 'memory') {
    const message =
      'sessions are in the memory of one process: lost at its end, and no second replica sees them'
    return group.check('memory', () =>
      warn(message, 'use session.store: { type: redis, … } outside of development'),
    )
  }
  let found: RedisDiagnosis | undefined
  await Promise.all([
    group.check('transport', () => transport(store, now)),
    group.check('connection', async () => {
      found = await diagnoseRedis(store)
      return connection(store, found)
    }),
  ])
  if (!found) return
  const facts = found
  await group.check('access', () => access(facts, store))
  await group.check('latency', () => judgeLatency(facts.latency))
  await group.check('eviction', () => eviction(facts))
  await group.check('persistence', () => persistence(facts))
}

type Server = { readonly host: string; readonly port: number }
type Addresses = {
  readonly servers: readonly Server[]
  readonly usesTls: boolean
  /** How TLS is asked for here. */
  readonly cure: string
}

/** The addresses that the configuration names: one, nodes of a cluster, or sentinels. */
function addressesOf(store: RedisConfig): Addresses {
  if ('url' in store) {
    const { protocol, hostname, port } = new URL(store.url)
    const server = { host: hostname.replace(/^\[|\]$/g, ''), port: Number(port || 6379) }
    return { servers: [server], usesTls: protocol === 'rediss:', cure: 'use rediss://' }
  }
  const cure = 'add session.store.tls: {}'
  const usesTls = store.tls !== undefined
  if ('cluster' in store) return { servers: store.cluster, usesTls, cure }
  return { servers: store.sentinels, usesTls: store.sentinelTls ?? usesTls, cure }
}

const namesOf = ({ servers }: Addresses) =>
  servers.map(({ host, port }) => (host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`)).join(', ')

async function transport(store: RedisConfig, now: () => number): Promise<Found> {
  const { servers, usesTls, cure } = addressesOf(store)
  if (!usesTls) {
    const message = 'without TLS: the password and the names of sessions go over the network as they are'
    return servers.every(({ host }) => isThisMachine(host.includes(':') ? `[${host}]` : host))
      ? ok('redis:// to this machine')
      : warn(message, `${cure}, and session.store.tls.ca if its certificate authority is your own`)
  }
  try {
    const signal = AbortSignal.timeout(5_000)
    const ends = await Promise.all(
      servers.map((server) => peerCertificateEnd({ ...server, tls: store.tls, signal })),
    )
    const [first = 0] = ends.toSorted((a, b) => a - b)
    const at = servers[ends.indexOf(first)] ?? servers[0]!
    return certificateEnd(`Redis at ${at.host}`, { notAfter: first, now: now() })
  } catch (error) {
    const { message, cure } = causeOf(error)
    return fail(`TLS: ${message}`, cure?.replace('tls.', 'session.store.tls.'))
  }
}

const OLDEST = 6

function connection(store: RedisConfig, { server, version, role }: RedisDiagnosis): Found {
  const host = namesOf(addressesOf(store))
  if (version === undefined) {
    return warn(
      `connected to ${host}; what it is cannot be told: INFO is not allowed`,
      'allow it: ACL SETUSER … +info',
    )
  }
  const name = `${server} ${version}${role === undefined ? '' : `, ${role}`} at ${host}`
  if (server === 'redis' && Number.parseInt(version, 10) < OLDEST)
    return fail(`${name} is too old`, 'Redis 6.0 or newer is needed')
  if (role !== undefined && role !== 'master')
    return fail(`${name} is no primary: it refuses every write`, 'name the primary in session.store.url')
  return ok(name)
}

function access(
  { refused, trialFailure }: RedisDiagnosis,
  { keyPrefix, username = 'default' }: RedisConfig,
): Found {
  const [first] = refused
  if (first) {
    const isOf = (text: string) => refused.filter(({ reason }) => reason.includes(text)).length
    if (isOf('key') === refused.length) {
      return fail(
        `the user ${username} may not use keys that begin with ${keyPrefix}: (${first.reason})`,
        `ACL SETUSER ${username} ~${keyPrefix}:*`,
      )
    }
    if (isOf('channel') === refused.length) {
      return fail(
        `the user ${username} may not publish (${first.reason})`,
        `ACL SETUSER ${username} &${keyPrefix}:invalidate`,
      )
    }
    const names = refused.map(({ command }) => command.toLowerCase())
    const isDenied = first.reason.startsWith('NOPERM')
    return fail(
      `not allowed: ${names.join(', ')} (${first.reason})`,
      isDenied
        ? `ACL SETUSER ${username} ${names.map((name) => `+${name}`).join(' ')}`
        : whyRefused(first.reason),
    )
  }
  if (trialFailure !== undefined)
    return fail(
      `the trial that each replica makes at its start failed: ${trialFailure}`,
      'helm/README.md has the access rule that is needed',
    )
  return ok('every command that is used works, under the prefix and on the channel')
}

function whyRefused(reason: string): string {
  if (reason.startsWith('OOM')) return 'its memory is full: raise maxmemory'
  if (reason.startsWith('MISCONF')) return 'it cannot write to its disk: look at its log'
  if (reason.startsWith('READONLY')) return 'it is a replica: name the primary in session.store.url'
  return 'use a server that has these commands: Redis 6.0 or newer'
}

/** A request that finds no copy waits for one round trip or two. */
const SLOW_MS = 10
/** A command that takes longer than half a second is given up. */
const TOO_SLOW_MS = 250

/** Judges round trips to Redis, in ms. The slowest alone fails nothing: one is slow on any busy machine. */
export function judgeLatency({ medianMs, worstMs }: RedisDiagnosis['latency']): Found {
  const said = `${medianMs.toFixed(1)} ms for a round trip, ${worstMs.toFixed(1)} ms at worst of 20`
  const cure = 'put Redis nearer, or look for what keeps it busy (SLOWLOG GET)'
  if (medianMs > TOO_SLOW_MS) return fail(said, cure)
  return medianMs > SLOW_MS || worstMs > TOO_SLOW_MS ? warn(said, cure) : ok(said)
}

function eviction({ evictionPolicy: policy, maxMemory, usedMemory }: RedisDiagnosis): Found {
  if (policy === undefined)
    return warn('the eviction policy cannot be told: INFO is not allowed', 'allow it: ACL SETUSER … +info')
  const share = maxMemory && usedMemory !== undefined ? usedMemory / maxMemory : 0
  const full = `${Math.round(share * 100)} % of maxmemory are used`
  const cure = 'set maxmemory-policy to noeviction, and give it memory enough'
  if (policy.startsWith('allkeys'))
    return fail(`${policy}: a full memory signs users out, and who is active does not matter`, cure)
  if (policy !== 'noeviction') return warn(`${policy}: a full memory signs users out`, cure)
  if (share > 0.8)
    return warn(`noeviction, but ${full}: full, it refuses sign-ins and renewals`, 'raise maxmemory')
  if (maxMemory === 0) return ok('noeviction, without maxmemory: it grows until its machine has no more')
  return ok(maxMemory === undefined ? 'noeviction' : `noeviction; ${full}`)
}

function persistence({ persistence: kept, hasFailedToSave }: RedisDiagnosis): Found {
  if (hasFailedToSave)
    return fail(
      'the last write to its disk failed: it refuses writes soon, if not now',
      'look at its log and its disk',
    )
  if (kept === 'aof') return ok('append-only file: sessions survive a restart')
  const cure = 'set appendonly yes, if sessions are to survive a restart of Redis'
  if (kept === 'rdb')
    return warn('snapshots only (RDB): a restart loses every sign-in and renewal since the last one', cure)
  if (kept === 'none') return warn('no persistence: a restart of Redis signs every user out', cure)
  return ok('no append-only file; whether copies are saved cannot be asked for (CONFIG is not allowed)')
}
