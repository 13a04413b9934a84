import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Secret } from '../../src/config/secrets/secret.ts'
import { createRedisStore } from '../../src/store/redis/redis-store.ts'
import { accessRule } from '../kit/store/access-rule.ts'
import { skipWithoutRedis, startRedis } from '../kit/store/redis.ts'
import { eventually, signedIn, silentLog, someHash } from '../kit/store/store-contestants.ts'

test('the access rule of the README is enough for all that is done with Redis', {
  skip: skipWithoutRedis(),
}, async (t) => {
  const redis = await startRedis()
  t.after(() => redis.stop())
  await redis.cli(...accessRule('geheim'))
  const address = { url: redis.url, username: 'cloakroom', password: new Secret('geheim') }
  const times = { idleTimeoutMs: () => 60_000, absoluteTimeoutMs: () => 600_000 }
  const store = await createRedisStore({ ...address, keyPrefix: 'cloakroom' }, times, { log: silentLog })
  t.after(() => store.close())
  await eventually(() => store.invalidations.isLive())

  await store.ping()
  const hash = await signedIn(store)
  assert.ok(await store.sessions.read(hash))
  assert.ok(await store.sessions.slide(hash))
  assert.ok(await store.sessions.timeLeft(hash))
  assert.equal(await store.sessions.replace(hash, { before: 'sealed', after: 'sealed' }), true)
  const attempt = 'open:me' as const
  assert.equal(await store.tokens.write(hash, { expectedVersion: 1, attempt }), 'written')
  const accessToken = { resource: 'orders', sealed: 'sealed-at-2' }
  const renewal = { expectedVersion: 2, refreshToken: 'sealed-rt-2', accessToken, attempt: 'ended' } as const
  assert.equal(await store.tokens.write(hash, renewal), 'written')
  assert.equal(await store.tokens.keep(hash, accessToken), true)
  await store.tokens.forget(hash, ['orders'])
  assert.equal(await store.tokens.forgetAll(hash), true)
  assert.equal((await store.tokens.read(hash))?.version, 3)
  assert.equal(await store.tokens.lock(hash, 'me', 1_000), true)
  await store.tokens.unlock(hash, 'me')
  const indexes = { user: 'sub:ada', idpSession: 'idp:one' } as const
  assert.equal(await store.sessions.create(someHash(), 'sealed', indexes), true)
  assert.equal((await store.index.living('sub:ada')).length, 1)
  assert.equal((await store.index.living('idp:one')).length, 1)
  await store.clientTokens.write('key', 'sealed', 1_000)
  assert.equal(await store.clientTokens.read('key'), 'sealed')
  assert.equal(await store.clientTokens.lock('key', 'me', 1_000), true)
  await store.clientTokens.unlock('key', 'me')
  await store.logins.put('key', 'sealed', 1_000)
  assert.equal(await store.logins.read('key'), 'sealed')
  assert.equal(await store.logins.take('key'), 'sealed')
  assert.equal(await store.replays.firstUse('logout', 'jti', 1_000), 'first')
  await store.replays.keep('logout', 'jti', 1_000)
  await store.replays.forget('logout', 'jti')
  await store.endings.note(['ada'], 1_000)
  assert.equal(await store.endings.lastOf(['ada']), await store.endings.last())
  assert.equal(await store.countRequests('login', { requests: 1, perMs: 60_000 })('client'), 0)
  assert.deepEqual(await redis.cli('get', 'cloakroom:limit:login:client'), ['1'])
  assert.ok(await store.sessions.end(hash))
})
