import { createHmac, randomBytes } from 'node:crypto'
import { Agent, request } from 'node:http'
import { setTimeout as delay } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { loadConfig } from '../../../src/config/load.ts'
import { sessionHash } from '../../../src/session/session.ts'
import {
  bindToGrants,
  cookieSigningSecrets,
  createSealing,
  packToken,
} from '../../../src/tokens/record/sealing.ts'
import { sessionKey } from '../config/cloakroom-config.ts'
import { startRedis } from '../store/redis.ts'
import { startUpstream } from '../upstream/upstream.ts'
import { type Measured, startMeasured } from './kit.ts'
import { inMb, memoryOf } from './process-readings.ts'
import { inParallel } from './raw-http.ts'

/** What a crowd is like. */
export type CrowdOptions = {
  readonly users: number
  /** `--max-old-space-size` of the replica, in MiB. */
  readonly heapMiB: number
  /** About what the ID token of each weighs, and the access token, in bytes. */
  readonly fatBytes: number
  /** A copy is believed for a tenth of it, 5 s at most; in seconds. */
  readonly idleSeconds?: number
}

/** What became of the replica. Bytes. */
export type CrowdReport = {
  readonly served: number
  readonly heapBefore: number
  readonly heapInCrowd: number
  readonly heapAfter: number
  readonly rss: number
}

type Scope = { after(cleanUp: () => unknown): void }

const BATCH = 200
/** No API takes longer fields. */
const MOST_IN_HEADER = 6_000

/**
 * Lets so many users pass through one replica, each with one request and a session of his own, which is in Redis before he
 * comes and gone after him: what stays can only be in the replica. Rejects when it dies on the way.
 */
export async function sendCrowd(
  t: Scope,
  { users, heapMiB, fatBytes, idleSeconds = 1_800 }: CrowdOptions,
): Promise<CrowdReport> {
  const redis = await startRedis()
  t.after(() => redis.stop())
  const upstream = await startUpstream()
  t.after(() => upstream.close())
  const config = {
    session: {
      ...{ store: { type: 'redis', url: redis.url }, keys: [sessionKey()] },
      idleTimeout: `${idleSeconds}s`,
    },
    resources: { orders: { resource: 'https://orders.example.com' } },
    routes: [{ path: '/api', id: 'api', upstream: upstream.url, resource: 'orders' }],
  }
  const collect = new URL('collect-on-signal.ts', import.meta.url).href
  const options = `--max-old-space-size=${heapMiB} --expose-gc --import=${collect}`
  const measured = await startMeasured(t, config, { env: { NODE_OPTIONS: options } })
  const store = new Redis(redis.url)
  t.after(() => store.disconnect())
  const place = { publicUrl: 'http://127.0.0.1:1', listen: '127.0.0.1:1', admin: { listen: '127.0.0.1:2' } }
  const text = JSON.stringify({ ...place, provider: measured.provider.settings, ...config })
  const makeUser = userMaker(text, fatBytes)
  const before = await measured.inside()
  const agent = new Agent({ keepAlive: true, maxSockets: 16 })
  t.after(() => agent.destroy())
  let served = 0
  for (let begun = 0; begun < users; begun += BATCH) {
    const crowd = Array.from({ length: Math.min(BATCH, users - begun) }, (_, n) => makeUser(begun + n))
    await saveUsers(store, crowd)
    await inParallel(crowd.length, 16, async (n) => {
      let status = await ask(measured, agent, crowd[n]!.cookie)
      // A machine too busy for Redis to answer in time is no matter of memory.
      for (let tries = 1; status === 503 && tries < 5; tries += 1) {
        await delay(1_000)
        status = await ask(measured, agent, crowd[n]!.cookie)
      }
      if (status !== 200) throw new Error(`user ${begun + n} got ${status}`)
      served += 1
    })
    await store.unlink(
      crowd.flatMap(({ hash }) => [`cloakroom:{${hash}}:session`, `cloakroom:{${hash}}:tokens`]),
    )
  }
  const inCrowd = await measured.inside()
  // So long a copy is believed, and so long until it is swept.
  await delay(2 * Math.min(5_000, idleSeconds * 100) + 1_000)
  const after = await measured.inside()
  return {
    ...{ served, heapBefore: before.heapUsed, heapInCrowd: inCrowd.heapUsed, heapAfter: after.heapUsed },
    rss: memoryOf(measured.pid).peak,
  }
}

/** Makes what a sign-in would have left in Redis, by the text of a config file with a resource `orders`. */
export function userMaker(config: string, fatBytes: number) {
  const env = { PUBLIC_PORT: '1', ADMIN_PORT: '2', API: 'http://127.0.0.1:3' }
  const loaded = loadConfig({ text: config, file: 'x.yaml', env }).config
  const sealing = bindToGrants(createSealing(loaded.session.keys), loaded)
  const [secret = ''] = cookieSigningSecrets(loaded.session.keys)
  const fat = randomBytes(fatBytes).toString('base64url').slice(0, fatBytes)

  /** With `refreshToken`, the access token has expired; without, it is good for an hour and there is no refresh token. */
  return function makeUser(n: number, refreshToken?: string) {
    const id = randomBytes(32).toString('base64url')
    const groups = Array.from({ length: 60 }, (_, g) => `group ${g} of user ${n}`)
    const user = {
      ...{ claims: { sub: `user-${n}`, name: `User ${n}`, groups }, idToken: `${n}.${fat}` },
      logoutHandle: randomBytes(16).toString('base64url'),
    }
    const endsAt = Date.now() + (refreshToken === undefined ? 3_600_000 : -1_000)
    const token = packToken({
      value: `${n}.${fat.slice(0, MOST_IN_HEADER)}`,
      expiresAt: endsAt,
      renewAt: endsAt,
    })
    const session = sealing.seal({ id, kind: 'session' }, JSON.stringify({ createdAt: Date.now(), user }))
    const signature = createHmac('sha256', secret).update(id).digest('base64').replace(/=+$/, '')
    return {
      hash: sessionHash(id),
      session,
      tokens: {
        ...{ v: 1, 'at:orders': sealing.seal({ id, kind: 'access_token', name: 'orders' }, token) },
        ...(refreshToken && { rt: sealing.seal({ id, kind: 'refresh_token' }, refreshToken) }),
      },
      cookie: `cloakroom=${encodeURIComponent(`s:${id}.${signature}`)}`,
    }
  }
}

const SESSION_LIFE_MS = 3_600_000

/** Writes what `userMaker` made into Redis, all in one pipeline. The sessions live for an hour. */
export async function saveUsers(
  store: Redis,
  users: readonly ReturnType<ReturnType<typeof userMaker>>[],
  keyPrefix = 'cloakroom',
): Promise<void> {
  const pipeline = store.pipeline()
  for (const { hash, session, tokens } of users) {
    pipeline.set(`${keyPrefix}:{${hash}}:session`, session, 'PX', SESSION_LIFE_MS)
    pipeline.hset(`${keyPrefix}:{${hash}}:tokens`, tokens)
  }
  await pipeline.exec()
}

/** A Cookie header as browsers send it, with much that is none of ours. */
function ask({ port, fields }: Measured, agent: Agent, cookie: string): Promise<number> {
  const headers = { ...fields, cookie: `${cookie}; analytics=${'x'.repeat(3_000)}` }
  return new Promise((resolve, reject) => {
    request({ port, host: '127.0.0.1', path: '/api/x', headers, agent })
      .on('error', reject)
      .on('response', (res) => res.resume().on('end', () => resolve(res.statusCode!)))
      .end()
  })
}

/** `node test/kit/endurance/many-users.ts [users] [heap in MiB] [fat in bytes]` */
if (import.meta.main) {
  const [users = 200_000, heapMiB = 200, fatBytes = 4_000] = process.argv.slice(2).map(Number)
  const cleanUps: (() => unknown)[] = []
  const startedAt = performance.now()
  try {
    const report = await sendCrowd(
      { after: (cleanUp) => cleanUps.unshift(cleanUp) },
      { users, heapMiB, fatBytes },
    )
    const { served, ...bytes } = report
    console.log(`${served} users in ${Math.round((performance.now() - startedAt) / 1000)} s`)
    for (const [what, value] of Object.entries(bytes)) console.log(`${what}: ${inMb(value)}`)
  } finally {
    for (const cleanUp of cleanUps) await cleanUp()
  }
}
