import '../kit/untracked.ts'
import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import type { Socket } from 'node:net'
import { test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { sessionKey } from '../kit/config/cloakroom-config.ts'
import { startMeasured } from '../kit/endurance/kit.ts'
import { saveUsers, userMaker } from '../kit/endurance/many-users.ts'
import { inMb, memoryOf, NOT_MEASURABLE } from '../kit/endurance/process-readings.ts'
import { openSocket, openUpstream, requestHead } from '../kit/endurance/raw-http.ts'
import { skipWithoutRedis, startRedis } from '../kit/store/redis.ts'

const USERS = 4_000
/** The program takes 50 MB, and each request that waits 28 KB: there is room for about two thirds of the users. */
const HEAP = '--max-old-space-size=128 --max-semi-space-size=4'
/** So that not all of them read their sessions in the same moment. */
const [BATCH, BATCH_MS] = [200, 50]

test('more users than the heap can hold need a new token at once: some wait, the others are told to come back, and the replica serves on', {
  skip: NOT_MEASURABLE || skipWithoutRedis(),
  timeout: 120_000,
}, async (t) => {
  const redis = await startRedis()
  t.after(() => redis.stop())
  const api = await openUpstream(
    t,
    createServer((_, res) => res.end('served')),
  )
  const config = {
    session: { store: { type: 'redis', url: redis.url }, keys: [sessionKey()] },
    resources: { orders: { resource: 'https://orders.example.com' } },
    routes: [{ path: '/api', id: 'api', upstream: api.origin, resource: 'orders' }],
  }
  const measured = await startMeasured(t, config, {
    env: { NODE_OPTIONS: HEAP },
  })
  const { port, provider, replica, pid, fields } = measured
  const place = { publicUrl: 'http://127.0.0.1:1', listen: '127.0.0.1:1', admin: { listen: '127.0.0.1:2' } }
  const make = userMaker(JSON.stringify({ ...place, provider: provider.settings, ...config }), 2_000)
  const store = new Redis(redis.url)
  t.after(() => store.disconnect())
  const users = Array.from({ length: USERS }, (_, n) => make(n, provider.refreshTokenFor(`user-${n}`)))
  await saveUsers(store, users)
  const sockets: Socket[] = []
  for (let n = 0; n < USERS; n += 1) sockets.push(await openSocket(port))

  provider.control.latencyMs = 1_500
  const ask = (n: number) =>
    new Promise<string>((resolve) => {
      const socket = sockets[n]!
      socket.once('data', (head: Buffer) => resolve(head.toString('latin1').slice(9, 12)))
      socket.once('close', () => resolve('cut'))
      socket.write(requestHead('GET', '/api/x', { ...fields, cookie: users[n]!.cookie }))
    })
  const asked: Promise<string>[] = []
  for (let n = 0; n < USERS; n += 1) {
    asked.push(ask(n))
    if (n % BATCH === 0) await delay(BATCH_MS)
  }
  const statuses = await Promise.all(asked)
  const count = (status: string) => statuses.filter((one) => one === status).length
  assert.equal(
    count('200') + count('503'),
    USERS,
    [...new Set(statuses), ...replica.stderr.slice(0, 12)].join('\n'),
  )
  assert.ok(count('200') > 0 && count('503') > 0)
  t.diagnostic(`200: ${count('200')}, 503: ${count('503')}, RSS at most ${inMb(memoryOf(pid).peak)}`)
  assert.equal(provider.counters.reuseDetected, 0)

  // Each session that was told to come back is served when it does.
  provider.control.latencyMs = 0
  const first = statuses.indexOf('503')
  let status = '503'
  for (let tries = 0; status === '503' && tries < 20; tries += 1) {
    await delay(1_000)
    status = await ask(first)
  }
  assert.equal(status, '200')
  for (const socket of sockets) socket.destroy()
  assert.equal((await replica.stop()).code, 0)
})
