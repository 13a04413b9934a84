import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { ORDERS, setUp } from '../kit/attack/sign-in.ts'
import { sessionKey } from '../kit/config/cloakroom-config.ts'
import { skipWithoutRedis, startRedis } from '../kit/store/redis.ts'

const OTHER = 'https://other.test'

/** Signed in and served once by one process; its successor starts with other settings on the same Redis. */
async function setUpTwo(t: TestContext, keys: string[]) {
  const redis = await startRedis()
  t.after(() => redis.stop())
  const store = { type: 'redis', url: redis.url }
  const setup = await setUp(t, {
    config: { publicUrl: 'https://app.example.test', session: { store, keys } },
  })
  await setup.browser.signIn()
  assert.equal((await setup.browser.fetch('/api/orders')).status, 200)
  const successor = async (changes: Record<string, unknown>) => {
    const next = await setup.start(changes)
    setup.browser.connectTo(setup.cloakroom.publicUrl, next.listenUrl)
    return next
  }
  return { ...setup, redis, store, successor }
}

const options = { skip: skipWithoutRedis() }

test(
  'an access token is not used for a resource that has the same name and is another one',
  options,
  async (t) => {
    const { browser, api, provider, successor } = await setUpTwo(t, [sessionKey()])
    // No sign-in was for the new one: the refresh token is not even offered for it.
    const calls = provider.counters.refreshCalls
    const before = api.requests.length
    await successor({ resources: { orders: { resource: OTHER, audience: OTHER } } })
    const answer = await browser.fetch('/api/orders')
    const audiences = api.requests.slice(before).map(({ headers }) => audienceOf(headers.authorization))
    assert.deepEqual(
      audiences.filter((audience) => audience !== OTHER),
      [],
      `a token for ${ORDERS} was sent`,
    )
    assert.equal(provider.counters.refreshCalls, calls)
    assert.equal(answer.status, 401)
    assert.equal(answer.json().reason, 'resource_not_granted')
  },
)

test(
  'a session of another provider or client counts as none, and its refresh token is offered nowhere',
  options,
  async (t) => {
    for (const changes of [{ clientId: 'another-client' }, { issuer: 'other' }]) {
      const setup = await setUpTwo(t, [sessionKey()])
      const other = await setUp(t)
      const provider = changes.issuer
        ? { ...setup.provider.settings, issuer: other.provider.issuer }
        : { ...setup.provider.settings, ...changes }
      await setup.successor({ provider })
      const offered = setup.provider.tokenRequests().length
      setup.advance(400_000)
      assert.equal((await setup.browser.fetch('/bff/user')).status, 401)
      assert.equal((await setup.browser.fetch('/api/orders')).status, 401)
      assert.equal(setup.provider.tokenRequests().length, offered)
      assert.equal(other.provider.tokenRequests().length, 0)
    }
  },
)

test('while a new session key is rolled out all sessions stay, in whatever order', options, async (t) => {
  const [older, newer] = [sessionKey(), sessionKey()]
  const { browser, store, successor, advance, cloakroom, provider } = await setUpTwo(t, [older])
  const served = async () => [
    (await browser.fetch('/bff/user')).status,
    (await browser.fetch('/api/orders')).status,
  ]
  // It seals with the new key: the refresh token that it stores does not open with the old one alone.
  const ahead = await successor({ session: { store, keys: [newer, older] } })
  advance(400_000)
  assert.deepEqual(await served(), [200, 200])
  browser.connectTo(cloakroom.publicUrl, cloakroom.listenUrl)
  advance(400_000)
  const [user, api] = await served()
  assert.equal(user, 200)
  assert.equal(api, 401, 'a token that does not open is no fault of the provider')
  // The process that has both keys goes on.
  browser.connectTo(cloakroom.publicUrl, ahead.listenUrl)
  assert.deepEqual(await served(), [200, 200])
  assert.equal(provider.counters.reuseDetected, 0)
})

test('without its key a session is not found: 401, no 500', options, async (t) => {
  const { browser, store, successor } = await setUpTwo(t, [sessionKey()])
  await successor({ session: { store, keys: [sessionKey()] } })
  assert.equal((await browser.fetch('/bff/user')).status, 401)
  assert.equal((await browser.fetch('/api/orders')).status, 401)
})

test('tokens moved between sessions or resources in Redis open nowhere', options, async (t) => {
  const { browser, cloakroom, redis, api, advance } = await setUpTwo(t, [sessionKey()])
  const thief = cloakroom.browser()
  await thief.signIn()
  const keys = (await redis.cli('KEYS', '*:tokens')).sort()
  assert.equal(keys.length, 2)
  const [a, b] = keys as [string, string]
  const fields = async (key: string) => ({
    rt: (await redis.cli('HGET', key, 'rt'))[0]!,
    at: (await redis.cli('HGET', key, 'at:orders'))[0]!,
  })
  const [of, other] = [await fields(a), await fields(b)]
  for (const [key, { rt, at }] of [
    [a, other],
    [b, of],
  ] as const) {
    await redis.cli('HSET', key, 'rt', rt, 'at:orders', at)
  }
  // Longer than any copy in the process is believed.
  advance(6_000)
  const before = api.requests.length
  for (const user of [browser, thief]) {
    const answer = await user.fetch('/api/orders')
    assert.equal(answer.status, 401)
  }
  assert.equal(api.requests.length, before)
})

function audienceOf(authorization: string | undefined): unknown {
  const [, payload = ''] = (authorization ?? '').split('.')
  return payload === '' ? undefined : JSON.parse(Buffer.from(payload, 'base64url').toString()).aud
}
