import assert from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import { ORDERS, setUp } from '../../kit/attack/sign-in.ts'
import { sessionKey } from '../../kit/config/cloakroom-config.ts'
import { field, sendJson } from '../../kit/local-server.ts'
import { jwtClaims } from '../../kit/provider/signing.ts'
import { eventually } from '../../kit/shops/deadline.ts'
import { skipWithoutRedis, startRedis } from '../../kit/store/redis.ts'
import { bearerToken } from '../../kit/upstream/upstream.ts'

const LIFE = { control: { accessTokenSeconds: 60 } }

test('G6: Redis takes no more writes once the provider has rotated: served from memory, stored later, nothing spent twice', {
  skip: skipWithoutRedis(),
}, async (t) => {
  const redis = await startRedis({ args: ['--maxmemory-policy', 'noeviction'] })
  t.after(() => redis.stop())
  const { provider, browser, advance } = await setUp(t, {
    provider: LIFE,
    config: { session: { store: { type: 'redis', url: redis.url }, keys: [sessionKey()] } },
  })
  await browser.signIn()
  assert.equal((await browser.fetch('/api/orders')).status, 200)
  advance(61_000)
  let isFull = false
  provider.control.intercept = async ({ form }) => {
    if (field(form, 'grant_type') === 'refresh_token' && !isFull) {
      await redis.cli('CONFIG', 'SET', 'maxmemory', '1')
      isFull = true
    }
    return false
  }
  for (let call = 0; call < 5; call += 1) assert.equal((await browser.fetch('/api/orders')).status, 200)
  assert.equal(isFull, true)
  assert.equal(provider.counters.refreshCalls, 1, 'what memory has is not asked for again')
  await redis.cli('CONFIG', 'SET', 'maxmemory', '0')
  await eventually('it is stored', async () => {
    const [key = ''] = await redis.cli('KEYS', 'cloakroom:{*}:tokens')
    return (await redis.cli('HEXISTS', key, 'spend'))[0] === '0'
  })
  advance(61_000)
  assert.equal((await browser.fetch('/api/orders')).status, 200)
  assert.deepEqual([provider.counters.refreshCalls, provider.counters.reuseDetected], [2, 0])
})

test('G6: Redis takes no writes before the provider is asked: 503, and the refresh token is not spent', {
  skip: skipWithoutRedis(),
}, async (t) => {
  const redis = await startRedis({ args: ['--maxmemory-policy', 'noeviction'] })
  t.after(() => redis.stop())
  const { provider, browser, advance } = await setUp(t, {
    provider: LIFE,
    config: { session: { store: { type: 'redis', url: redis.url }, keys: [sessionKey()] } },
  })
  await browser.signIn()
  advance(61_000)
  await redis.cli('CONFIG', 'SET', 'maxmemory', '1')
  const refused = await browser.fetch('/api/orders')
  assert.deepEqual([refused.status, refused.json().code], [503, 'store_unavailable'])
  assert.equal(provider.counters.refreshCalls, 0)
  assert.equal((await browser.fetch('/bff/user')).status, 200, 'reading goes on')
  await redis.cli('CONFIG', 'SET', 'maxmemory', '0')
  assert.equal((await browser.fetch('/api/orders')).status, 200)
  assert.deepEqual([provider.counters.refreshCalls, provider.counters.reuseDetected], [1, 0])
})

describe('an access token whose', () => {
  for (const [name, claims, isUsed] of [
    ['aud is another API', { aud: 'https://billing.test' }, false],
    ['aud is none', {}, false],
    ['aud starts with ours', { aud: `${ORDERS}.evil.test` }, false],
    ['aud names several, ours too', { aud: ['https://billing.test', ORDERS] }, true],
    ['scope is more than was asked for', { aud: ORDERS, scope: 'orders.read admin' }, true],
    ['scope is less than was asked for', { aud: ORDERS, scope: '' }, true],
  ] as const)
    test(`G9: ${name} is ${isUsed ? 'sent' : 'neither sent nor kept, and counted'}`, async (t) => {
      const scene = await signedInAndExpired(t)
      const { browser, provider, api } = scene
      const token = await provider.signer.sign({ iss: provider.issuer, sub: 'alice', ...claims })
      scene.answerWith(token)
      const before = api.requests.length
      for (let call = 0; call < 2; call += 1) {
        const answer = await browser.fetch('/api/orders')
        assert.equal(answer.status, isUsed ? 200 : 502)
        if (!isUsed) assert.equal(answer.json().reason, 'wrong_audience')
      }
      const sent = api.requests.slice(before).map(bearerToken)
      assert.deepEqual(sent, isUsed ? [token, token] : [])
      const metrics = await (await fetch(`${scene.cloakroom.adminUrl}/metrics`)).text()
      const outcome = isUsed ? 'renewed' : 'wrong_audience'
      const counted = `cloakroom_refreshes_total{resource="orders",outcome="${outcome}"} 1`
      assert.ok(metrics.includes(counted), counted)
    })

  test('G9: content is opaque is sent, because only its reader can know', async (t) => {
    const scene = await signedInAndExpired(t)
    scene.answerWith('opaque-4711')
    assert.equal((await scene.browser.fetch('/api/orders')).status, 200)
    assert.equal(bearerToken(scene.api.requests.at(-1)!), 'opaque-4711')
  })
})

describe('G14: a clock that is five minutes', () => {
  for (const [name, skewMs] of [
    ['behind', 300_000],
    ['ahead', -300_000],
  ] as const)
    test(`${name} of the provider's, tokens of 60 s: renewed twice a minute, and no loop`, async (t) => {
      let aheadMs = 0
      const { provider, browser, advance } = await setUp(t, {
        provider: { ...LIFE, now: () => Date.now() + skewMs + aheadMs },
        config: { provider: { clockTolerance: '6m' } },
      })
      await browser.signIn()
      for (let second = 0; second < 600; second += 5) {
        assert.equal((await browser.fetch('/api/orders')).status, 200)
        advance(5_000)
        aheadMs += 5_000
      }
      const { refreshCalls, reuseDetected } = provider.counters
      assert.ok(refreshCalls >= 9 && refreshCalls <= 21, `${refreshCalls} refreshes in 10 minutes`)
      assert.equal(reuseDetected, 0)
    })
})

test('G17: another user signs in with the same browser, and the same user with another: no token is shared', async (t) => {
  const { provider, browser, api, cloakroom } = await setUp(t)
  const seen: (string | undefined)[] = []
  const ask = async (by: typeof browser) => {
    assert.equal((await by.fetch('/api/orders')).status, 200)
    seen.push(bearerToken(api.requests.at(-1)!))
  }
  await browser.signIn()
  await ask(browser)
  const second = cloakroom.browser()
  await second.signIn()
  await ask(second)
  provider.control.user = 'bob'
  await browser.signIn()
  await ask(browser)
  await ask(second)
  assert.deepEqual(
    seen.map((token) => jwtClaims(token ?? '')?.sub),
    ['alice', 'alice', 'bob', 'alice'],
  )
  assert.equal(new Set(seen).size, 3)
  assert.equal(seen[1], seen[3])
})

async function signedInAndExpired(t: TestContext) {
  const scene = await setUp(t, { provider: LIFE })
  await scene.browser.signIn()
  scene.advance(61_000)
  return {
    ...scene,
    answerWith(accessToken: string) {
      scene.provider.control.intercept = ({ form }, res) => {
        if (field(form, 'grant_type') !== 'refresh_token') return false
        sendJson(res, 200, { access_token: accessToken, token_type: 'Bearer', expires_in: 3600 })
        return true
      }
    },
  }
}
