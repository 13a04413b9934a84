import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { suite, type TestContext, test } from 'node:test'
import type { SessionConfig } from '../../src/config/config.ts'
import { createSessions, sessionHash } from '../../src/session/session.ts'
import { createSessionStore } from '../../src/store/session-store.ts'
import { skipWithoutRedis } from '../kit/store/redis.ts'
import { openRedisStore, redisForThisFile, silentLog } from '../kit/store/store-contestants.ts'

const SECRET = 'secret'
const ID = 'A'.repeat(43)
const HASH = sessionHash(ID)
const COOKIE = { path: '/', httpOnly: true, secure: false, sameSite: 'strict' } as const
const SENT_TOGETHER_MS = 30

/**
 * Stands between us and Redis. From the first command about the session on, it keeps back all answers for a moment: what
 * is sent meanwhile needed none of them, and shares the round trip.
 */
async function startTurnstile(t: TestContext, redisPort: number) {
  let roundTrips = 0
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
      if (isKeeping) kept.push(() => client.write(bytes))
      else client.write(bytes)
    })
  }).listen(0, '127.0.0.1')
  await once(turnstile, 'listening')
  t.after(() => turnstile.close())
  return {
    url: `redis://127.0.0.1:${(turnstile.address() as AddressInfo).port}`,
    async roundTripsOf(work: () => unknown): Promise<number> {
      roundTrips = 0
      await work()
      return roundTrips
    },
  }
}

suite('round trips to Redis', { skip: skipWithoutRedis() }, () => {
  const server = redisForThisFile()

  test('a session that is in no copy costs one, whether it is extended or only looked at', async (t) => {
    const turnstile = await startTurnstile(t, Number(new URL(server().url).port))
    const store = await openRedisStore(t, { url: turnstile.url })
    const records = store.sessions
    const sessions = createSessions({
      store: createSessionStore({
        ...{ records, hash: sessionHash, cookie: COOKIE },
        seal: (_, text) => text,
        open: (_, text) => text,
      }),
      records,
      config: {
        ...{ idleTimeoutMs: 60_000, absoluteTimeoutMs: 600_000 },
        cookie: { name: 'sid', secure: false, sameSite: 'strict' },
      } as SessionConfig,
      signingSecrets: [SECRET],
      copy: { peek: () => undefined, load: (_key, _hash, read) => read() },
      log: silentLog,
      ...{ now: () => 1_000, monotonicNow: () => 1_000 },
    })
    // The first of its kind sends its script, too.
    await records.slide(sessionHash('another'))
    const contents = {
      user: { claims: { sub: 'ada' }, idToken: 'a.b.c', logoutHandle: 'h' },
      createdAt: 1_000,
    }
    await records.create(HASH, JSON.stringify(contents))
    const signature = createHmac('sha256', SECRET).update(ID).digest('base64').replace(/=+$/, '')
    const req = { headers: { cookie: `sid=s%3A${ID}.${encodeURIComponent(signature)}` } } as IncomingMessage
    const found = await sessions.find(req)
    assert.equal(found?.claims.sub, 'ada')
    assert.equal(await turnstile.roundTripsOf(() => sessions.find(req)), 1)
    assert.equal(await turnstile.roundTripsOf(() => sessions.peek(req)), 1)
    assert.equal(await turnstile.roundTripsOf(() => sessions.timeLeft(found)), 1)
    const oneAfterTheOther = async () => {
      await records.read(HASH)
      await records.timeLeft(HASH)
    }
    assert.equal(await turnstile.roundTripsOf(oneAfterTheOther), 2, 'two would be seen')
  })
})
