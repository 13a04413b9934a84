import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { suite, type TestContext, test } from 'node:test'
import { systemClock } from '../../src/async/clock.ts'
import type { SessionConfig } from '../../src/config/config.ts'
import { type BffSession, createSessions, sessionHash } from '../../src/session/session.ts'
import { createSessionCache } from '../../src/session/session-cache.ts'
import type { RedisAddress } from '../../src/store/redis/connection/servers.ts'
import { createSessionStore } from '../../src/store/session-store.ts'
import { type AccessToken, packToken } from '../../src/tokens/record/sealing.ts'
import { type CopiedToken, createTokens } from '../../src/tokens/tokens.ts'
import { freePort } from '../kit/ports.ts'
import { skipWithoutRedis, startRedis } from '../kit/store/redis.ts'
import { eventually, openRedisStore, silentLog } from '../kit/store/store-contestants.ts'

const SECRET = 'secret'
const ID = 'A'.repeat(43)
const HASH = sessionHash(ID)
const COOKIE = { path: '/', httpOnly: true, secure: false, sameSite: 'strict' } as const
const SENT_TOGETHER_MS = 30
const NOW = 1_000
const RECORD = JSON.stringify({
  user: { claims: { sub: 'ada' }, idToken: 'a.b.c', logoutHandle: 'h' },
  createdAt: NOW,
})
/** As a rule an access token of Entra ID is longer. */
const TOKEN_BYTES = 1_500

/** Stored as it is, so that what is read can be weighed. */
const UNSEALED = { seal: (_: unknown, text: string) => text, open: (_: unknown, text: string) => text }

/**
 * Stands between us and Redis. From the first command about the session on, it keeps back all answers for a moment: what
 * is sent meanwhile needed none of them, and shares the round trip.
 */
async function startTurnstile(t: TestContext) {
  let redisPort = 0
  let roundTrips = 0
  let received = 0
  let isKeeping = false
  const kept: (() => void)[] = []

  function keepAnswers(): void {
    if (isKeeping) return
    isKeeping = true
    roundTrips += 1
    setTimeout(() => {
      isKeeping = false
      for (const pass of kept.splice(0)) pass()
    }, SENT_TOGETHER_MS)
  }

  const turnstile = createServer((client: Socket) => {
    const redis = connect(redisPort, '127.0.0.1')
    for (const socket of [client, redis]) socket.on('error', () => socket.destroy())
    client.on('close', () => redis.destroy())
    redis.on('close', () => client.destroy())
    client.on('data', (bytes) => {
      redis.write(bytes)
      if (bytes.includes(HASH)) keepAnswers()
    })
    redis.on('data', (bytes) => {
      received += bytes.length
      if (isKeeping) kept.push(() => client.write(bytes))
      else client.write(bytes)
    })
  }).listen(0, '127.0.0.1')
  await once(turnstile, 'listening')
  t.after(() => turnstile.close())
  return {
    port: (turnstile.address() as AddressInfo).port,
    leadTo(port: number): void {
      redisPort = port
    },
    /** Of the last work. */
    received: () => received,
    async roundTripsOf(work: () => unknown): Promise<number> {
      roundTrips = received = 0
      await work()
      return roundTrips
    },
  }
}

type Turnstile = Awaited<ReturnType<typeof startTurnstile>>

/** A server that is reached through the turnstile alone. */
const SERVERS: Readonly<Record<string, (t: TestContext, turnstile: Turnstile) => Promise<RedisAddress>>> = {
  async 'one server'(t, { port, leadTo }) {
    const redis = await startRedis()
    t.after(() => redis.stop())
    leadTo(redis.port)
    return { url: `redis://127.0.0.1:${port}` }
  },
  async 'a Redis Cluster'(t, { port, leadTo }) {
    const args = [
      ...['--cluster-enabled', 'yes', '--cluster-port', String(await freePort())],
      ...['--cluster-announce-ip', '127.0.0.1', '--cluster-announce-port', String(port)],
    ]
    const redis = await startRedis({ args })
    t.after(() => redis.stop())
    leadTo(redis.port)
    await redis.cli('CLUSTER', 'ADDSLOTSRANGE', '0', '16383')
    await eventually(async () => /cluster_state:ok/.test((await redis.cli('CLUSTER', 'INFO')).join()))
    return { cluster: [{ host: '127.0.0.1', port }] }
  },
}

/** A user with a session and twenty tokens, of which no replica has a copy, and one replica. */
async function startSignedIn(t: TestContext, server: (typeof SERVERS)[string]) {
  const turnstile = await startTurnstile(t)
  const store = await openRedisStore(t, await server(t, turnstile))
  const { sessions: records, invalidations } = store
  const cacheDeps = {
    ...{ invalidations, trustedMs: 60_000, max: 100, maxBytes: 1_000_000 },
    monotonicNow: () => NOW,
  }
  const tokens = createTokens({
    ...{ store, sealing: UNSEALED, copy: createSessionCache<CopiedToken>(cacheDeps) },
    provider: {
      refreshGrant: async () => assert.fail('nothing is refreshed'),
      clientCredentialsGrant: async () => assert.fail('no client token is asked for'),
      tokenExchangeGrant: async () => assert.fail('no token is exchanged'),
      admit: (work) => work(),
      revoke: async () => undefined,
    },
    ...{ resources: {}, reusesRefreshTokens: true, providerTimeoutMs: 1_000 },
    clock: { now: () => NOW, monotonicNow: () => NOW, pause: systemClock.pause },
    observe: { unseenRefresh() {}, refreshLock() {}, sessionEnded() {} },
  })
  const sessions = createSessions({
    store: createSessionStore({ ...UNSEALED, records, hash: sessionHash, cookie: COOKIE }),
    ...{ records, readAhead: tokens.readAhead },
    config: {
      ...{ idleTimeoutMs: 60_000, absoluteTimeoutMs: 600_000 },
      cookie: { name: 'sid', secure: false, sameSite: 'strict' },
    } as SessionConfig,
    signingSecrets: [SECRET],
    copy: createSessionCache<BffSession>(cacheDeps),
    log: silentLog,
    ...{ now: () => NOW, monotonicNow: () => NOW },
  })
  // The first of its kind sends its script, too.
  await records.slide(sessionHash('another'))
  await store.tokens.read(sessionHash('another'), 'r0')
  await records.create(HASH, RECORD)
  const accessTokens = Object.fromEntries(
    Array.from({ length: 20 }, (_, n) => [`r${n}`, packToken(living(`at-${n}`))]),
  )
  await store.tokens.create(HASH, { refreshToken: 'rt', accessTokens })
  const signature = createHmac('sha256', SECRET).update(ID).digest('base64').replace(/=+$/, '')
  const req = { headers: { cookie: `sid=s%3A${ID}.${encodeURIComponent(signature)}` } } as IncomingMessage
  /** As on another replica: resolves when the message of it has come. */
  async function changed(): Promise<void> {
    let told = 0
    const unsubscribe = invalidations.onInvalidate(() => {
      told += 1
    })
    await records.replace(HASH, { before: RECORD, after: RECORD })
    // Once at once, and once by Redis.
    await eventually(() => told === 2)
    unsubscribe()
  }
  return { turnstile, records, sessions, tokens, req, changed }
}

function living(name: string): AccessToken {
  return { value: name.padEnd(TOKEN_BYTES, '.'), expiresAt: 2 * NOW, renewAt: 2 * NOW }
}

for (const [name, server] of Object.entries(SERVERS))
  suite(`round trips to ${name}`, { skip: skipWithoutRedis() }, () => {
    test('a session that is in no copy costs one, whether it is extended or only looked at', async (t) => {
      const { turnstile, records, sessions, req, changed } = await startSignedIn(t, server)
      let found: BffSession | undefined
      const find = async () => {
        found = await sessions.find(req)
      }
      assert.equal(await turnstile.roundTripsOf(find), 1)
      assert.equal(found?.claims.sub, 'ada')
      assert.equal(await turnstile.roundTripsOf(find), 0)
      assert.equal(await turnstile.roundTripsOf(() => sessions.peek(req)), 1)
      const timeLeft = () => sessions.timeLeft(found!)
      assert.equal(await turnstile.roundTripsOf(timeLeft), 0, 'it is in the copy')
      await changed()
      assert.equal(await turnstile.roundTripsOf(timeLeft), 1)
      const oneAfterTheOther = async () => {
        await records.read(HASH)
        await records.timeLeft(HASH)
      }
      assert.equal(await turnstile.roundTripsOf(oneAfterTheOther), 2, 'two would be seen')
    })

    test('its access token comes with it, without the tokens of other resources', async (t) => {
      const { turnstile, sessions, tokens, req, changed } = await startSignedIn(t, server)
      let token: AccessToken | undefined
      const ask = async () => {
        const session = await sessions.find(req, 'r7')
        token = await tokens.tokenFor(session!, 'r7')
      }
      assert.equal(await turnstile.roundTripsOf(ask), 1)
      assert.match(token?.value ?? '', /^at-7\./)
      assert.ok(turnstile.received() < 2 * TOKEN_BYTES, `${turnstile.received()} bytes were read`)
      assert.equal(await turnstile.roundTripsOf(ask), 0, 'both are in the copies')
      await changed()
      assert.equal(await turnstile.roundTripsOf(ask), 1)
      const withoutToken = () => sessions.find(req)
      await changed()
      await turnstile.roundTripsOf(withoutToken)
      assert.ok(turnstile.received() < TOKEN_BYTES, 'no token is read for a route without one')
    })
  })
