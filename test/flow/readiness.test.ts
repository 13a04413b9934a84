import assert from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import { startCloakroom } from '../kit/cloakroom.ts'
import type { ConfigData } from '../kit/config/cloakroom-config.ts'
import { eventually } from '../kit/shops/deadline.ts'
import { skipWithoutRedis, startRedis } from '../kit/store/redis.ts'

const PASSWORD = 'a-very-secret-password'

type Answer = {
  readonly status: number
  readonly text: string
  readonly body: {
    readonly reasons?: { readonly store?: string }
    readonly dependencies: { readonly store: string }
  }
}

async function start(t: TestContext, store: ConfigData, more: ConfigData = {}) {
  const cloakroom = await startCloakroom({
    provider: { issuer: 'http://127.0.0.1:1', clientId: 'app', clientAuth: { method: 'none' } },
    session: { store },
    routes: [{ path: '/', upstream: 'http://127.0.0.1:1', auth: 'anonymous' }],
    ...more,
  })
  t.after(() => cloakroom.close())
  return {
    cloakroom,
    async ready(): Promise<Answer> {
      const answer = await fetch(`${cloakroom.adminUrl}/readyz`)
      const text = await answer.text()
      return { status: answer.status, text, body: JSON.parse(text) }
    },
  }
}

test('a replica with its store in memory is ready at once', async (t) => {
  const { ready } = await start(t, { type: 'memory' })
  const { status, body } = await ready()
  assert.deepEqual([status, body.dependencies.store, body.reasons], [200, 'ok', undefined])
})

describe('readiness', { skip: skipWithoutRedis(), concurrency: true }, () => {
  test('a replica is not ready before its store has worked once, says why, and what happens later drops no pod', async (t) => {
    const redis = await startRedis({ password: 'another' })
    t.after(() => redis.stop())
    const { cloakroom, ready } = await start(t, { type: 'redis', url: redis.url, password: PASSWORD })
    const before = await ready()
    assert.equal(before.status, 503)
    assert.match(before.body.reasons?.store ?? '', /WRONGPASS invalid username-password pair/)
    const told = cloakroom.logs.map((line) => JSON.parse(line)).filter(({ msg }) => /^not ready/.test(msg))
    assert.equal(told.length, 1)
    assert.equal(told[0].level, 'warn')
    assert.match(told[0].err.message, /WRONGPASS/)
    assert.doesNotMatch(before.text + cloakroom.logs.join(''), new RegExp(PASSWORD))

    await redis.cli('CONFIG', 'SET', 'requirepass', PASSWORD)
    await eventually('it is ready', async () => (await ready()).status === 200)
    assert.match(cloakroom.logs.join(''), /the store works: ready/)

    await redis.kill()
    await eventually(
      'the outage shows',
      async () => (await ready()).body.dependencies.store === 'unavailable',
    )
    const later = await ready()
    assert.equal(later.status, 200)
    assert.match(later.body.reasons?.store ?? '', /ECONNREFUSED/)
  })

  test('a right that is needed only at a sign-in is missed before the first one', async (t) => {
    const redis = await startRedis()
    t.after(() => redis.stop())
    await redis.cli('ACL', 'SETUSER', 'app', 'on', `>${PASSWORD}`, '~*', '&*', '+@all', '-hset')
    const { ready } = await start(t, { type: 'redis', url: redis.url, username: 'app', password: PASSWORD })
    const { status, body, text } = await ready()
    assert.equal(status, 503)
    assert.match(body.reasons?.store ?? '', /HSET/i)
    assert.doesNotMatch(text, new RegExp(PASSWORD))
    await redis.cli('ACL', 'SETUSER', 'app', '+hset')
    await eventually('it is ready', async () => (await ready()).status === 200)
  })

  test('with admin.strictReadiness a later outage is not ready either', async (t) => {
    const redis = await startRedis()
    t.after(() => redis.stop())
    const strict = { admin: { listen: '127.0.0.1:0', strictReadiness: true } }
    const { ready } = await start(t, { type: 'redis', url: redis.url }, strict)
    await redis.kill()
    const { status, body } = await ready()
    assert.equal(status, 503)
    assert.equal(body.dependencies.store, 'unavailable')
  })
})
