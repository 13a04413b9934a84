import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { suite, type TestContext, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { Secret } from '../../src/config/secrets/secret.ts'
import type { BffError } from '../../src/errors.ts'
import type { Store } from '../../src/store/port.ts'
import type { RedisAddress } from '../../src/store/redis/connection/servers.ts'
import { createRedisStore } from '../../src/store/redis/redis-store.ts'
import { captureLog } from '../kit/cloakroom.ts'
import { accessRule } from '../kit/store/access-rule.ts'
import { skipWithoutRedis, startRedis } from '../kit/store/redis.ts'
import { redisCommand } from '../kit/store/redis-command.ts'
import {
  eventually,
  openRedisStore,
  redisForThisFile,
  signedIn,
  someHash,
} from '../kit/store/store-contestants.ts'

const PASSWORD = 'geheim'

async function open(t: TestContext, config: RedisAddress) {
  const { log, lines } = captureLog()
  const times = { idleTimeoutMs: () => 60_000 }
  const store = await createRedisStore({ keyPrefix: 'cloakroom', ...config }, times, { log })
  t.after(() => store.close())
  return { store, lines }
}

/** What a sign-in that cannot be stored says of Redis. */
async function refusalOf(store: Store): Promise<string> {
  const refusal = await store.sessions.create(someHash(), 'sealed').then(
    () => assert.fail('it was stored'),
    (error: BffError) => error,
  )
  assert.equal(refusal.code, 'store_unavailable')
  return (refusal.cause as Error).message
}

suite('setting up a connection to Redis', { skip: skipWithoutRedis() }, () => {
  const server = redisForThisFile()
  const asCloakroom = () => ({ username: 'cloakroom', password: new Secret(PASSWORD) })

  async function assertAway(t: TestContext, config: RedisAddress, why: RegExp) {
    const { store, lines } = await open(t, config)
    assert.match(await refusalOf(store), why)
    assert.equal(store.invalidations.isLive(), false)
    const told = lines.map((line) => JSON.parse(line))
    for (const name of ['command', 'invalidation']) {
      const [down, ...more] = told.filter(({ msg }) => msg === `redis ${name} connection is down`)
      assert.match(down.err.message, why)
      assert.deepEqual(more, [], 'it is told once')
    }
    assert.deepEqual(await server().cli('dbsize'), ['0'])
    assert.doesNotMatch(lines.join(''), new RegExp(PASSWORD))
  }

  test('a database that Redis does not have is a store that is away, not database 0', async (t) => {
    await assertAway(t, { url: `${server().url}/99` }, /^ERR DB index is out of range$/)
  })

  test('a database that the access rule keeps us from is a store that is away, not database 0', async (t) => {
    await server().cli(...accessRule(PASSWORD), '-select')
    const whole = /^NOPERM .*'select' command/
    await assertAway(t, { url: `${server().url}/2`, ...asCloakroom() }, whole)
  })

  test('a wrong password is a store that is away', async (t) => {
    await server().cli('ACL', 'DELUSER', 'cloakroom')
    await server().cli(...accessRule('another'))
    const whole = /^WRONGPASS invalid username-password pair or user is disabled\.$/
    await assertAway(t, { url: server().url, ...asCloakroom() }, whole)
  })

  test('an address that takes connections and ends them is a store that is away, and the log says so', async (t) => {
    const address = createServer((socket) => socket.destroy()).listen(0, '127.0.0.1')
    t.after(() => address.close())
    await once(address, 'listening')
    const { port } = address.address() as AddressInfo
    const { lines } = await open(t, { url: `redis://127.0.0.1:${port}` })
    await eventually(() => lines.some((line) => line.includes('command connection is down')))
    for (const line of lines) assert.ok(JSON.parse(line).err?.message, line)
  })

  test('with the access rule of the README another database than 0 is used, after a reconnect too', async (t) => {
    await server().cli('ACL', 'DELUSER', 'cloakroom')
    await server().cli(...accessRule(PASSWORD))
    const inDatabase2 = (...args: string[]) => redisCommand(server().port, args, { database: 2 })
    const { store, lines } = await open(t, { url: `${server().url}/2`, ...asCloakroom() })
    await signedIn(store)
    await server().cli('CLIENT', 'KILL', 'USER', 'cloakroom')
    await signedIn(store)
    assert.deepEqual(await server().cli('dbsize'), ['0'])
    assert.deepEqual(await inDatabase2('DBSIZE'), ['4'])
    await inDatabase2('FLUSHDB')
    assert.doesNotMatch(lines.join(''), /Stream isn/)
  })
})

suite('a connection to Redis that is lost', { skip: skipWithoutRedis() }, () => {
  const server = redisForThisFile()

  test('is waited for: reads and writes meanwhile are served, 20 times over', async (t) => {
    const store = await openRedisStore(t, server())
    for (let round = 0; round < 20; round += 1) {
      const hash = await signedIn(store)
      const killed = server().cli('CLIENT', 'KILL', 'TYPE', 'normal')
      for (let version = 1; version < 6; version += 1) {
        assert.ok(await store.sessions.slide(hash))
        const accessToken = { resource: 'orders', sealed: `at-${version}` }
        assert.equal(await store.tokens.write(hash, { expectedVersion: version, accessToken }), 'written')
        await delay(2)
      }
      await killed
    }
  })

  test('with Redis itself is waited for while that is started again at once', async (t) => {
    const redis = await startRedis()
    t.after(() => redis.stop())
    const store = await openRedisStore(t, redis)
    const restarted = redis.restart()
    await delay(5)
    await store.ping()
    await restarted
    await eventually(() => store.invalidations.isLive())
  })
})
