import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { field, type RecordedRequest, sendJson } from '../kit/local-server.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { movableClock, ORDERS, startShop, verdict } from '../kit/shops/shop.ts'

const LIFE_MS = 300_000
const SECOND = 'second-client-secret'

/** A shop whose client secret is in a file, and a provider where it can be replaced by another. */
async function setUp(t: TestContext) {
  const folder = await mkdtemp(join(tmpdir(), 'cloakroom-secret-'))
  t.after(() => rm(folder, { recursive: true, force: true }))
  const file = join(folder, 'client-secret')
  const provider = await startRotatingProvider()
  t.after(() => provider.close())
  await writeFile(file, provider.clientSecret)
  const clock = movableClock()
  const clientAuth = { method: 'client_secret_post', secret: { file } }
  const shop = await startShop(t, {
    provider: { ...provider.settings, clientAuth },
    jwks: provider.endpoints.jwks,
    now: clock.now,
  })
  const sent: string[] = []
  return {
    ...{ provider, clock, browser: shop.browser(), sent },
    /** From now on the provider takes only the second secret; `refused` runs before a refusal is answered. */
    rotate(refused: (times: number) => Promise<void> | void, headers: Record<string, string> = {}) {
      let refusals = 0
      provider.control.intercept = async ({ path, form }, res) => {
        if (path !== '/token') return false
        const secret = secretOf(form)
        sent.push(secret[1])
        if (secret[1] === SECOND) {
          // The kit's provider knows one secret for good.
          secret[1] = provider.clientSecret
          return false
        }
        refusals += 1
        await refused(refusals)
        sendJson(res, 401, { error: 'invalid_client' }, headers)
        return true
      }
    },
    deliver: (secret: string) => writeFile(file, secret),
  }
}

function secretOf(form: RecordedRequest['form']): [name: string, value: string] {
  assert.ok(field(form, 'client_secret') !== undefined)
  return form.find(([name]) => name === 'client_secret')!
}

for (const [name, headers] of [
  ['', {}],
  [' and a challenge', { 'www-authenticate': 'Basic realm="token"' }],
] as const)
  test(`a secret whose file changes while it is refused with invalid_client${name}: asked again once, and no user notices`, async (t) => {
    const { browser, clock, deliver, provider, rotate, sent } = await setUp(t)
    await browser.signIn()
    rotate(() => deliver(SECOND), headers)
    clock.advance(LIFE_MS)
    assert.deepEqual(verdict(await browser.fetch('/api/orders')), [200, ORDERS])
    assert.deepEqual(sent, [provider.clientSecret, SECOND])
    assert.equal(provider.counters.reuseDetected, 0)
    clock.advance(LIFE_MS)
    assert.deepEqual(verdict(await browser.fetch('/api/orders')), [200, ORDERS])
    assert.deepEqual(sent, [provider.clientSecret, SECOND, SECOND])
    assert.deepEqual(provider.violations, [])
  })

test('the same at sign-in: the code is redeemed with the new secret', async (t) => {
  const { browser, deliver, provider, rotate, sent } = await setUp(t)
  rotate(() => deliver(SECOND))
  await browser.signIn()
  assert.equal((await browser.fetch('/bff/user')).status, 200)
  assert.deepEqual(sent, [provider.clientSecret, SECOND])
})

test('a secret that is still the one that was refused is not sent again', async (t) => {
  const { browser, clock, rotate, sent } = await setUp(t)
  await browser.signIn()
  rotate(() => undefined)
  clock.advance(LIFE_MS)
  assert.deepEqual(verdict(await browser.fetch('/api/orders')), [502, 'provider_rejected'])
  assert.equal(sent.length, 1)
})

test('a refusal that took long is not answered with another request: the lock of this one could end before it', async (t) => {
  const { browser, clock, deliver, rotate, sent } = await setUp(t)
  await browser.signIn()
  rotate(() => {
    clock.advance(600)
    return deliver(SECOND)
  })
  clock.advance(LIFE_MS)
  assert.deepEqual(verdict(await browser.fetch('/api/orders')), [502, 'provider_rejected'])
  assert.equal(sent.length, 1)
  clock.advance(61_000)
  assert.deepEqual(verdict(await browser.fetch('/api/orders')), [200, ORDERS])
})

test('a secret that changes with every refusal is asked with twice, not for ever', async (t) => {
  const { browser, clock, deliver, rotate, sent } = await setUp(t)
  await browser.signIn()
  rotate((times) => deliver(`wrong-${times}`))
  clock.advance(LIFE_MS)
  assert.deepEqual(verdict(await browser.fetch('/api/orders')), [502, 'provider_rejected'])
  assert.equal(sent.length, 2)
  assert.equal((await browser.fetch('/bff/user')).status, 200)
})

test('what is no invalid_client is not asked again, whatever happens to the secret', async (t) => {
  const { browser, clock, deliver, provider, sent } = await setUp(t)
  await browser.signIn()
  provider.control.intercept = async ({ path, form }, res) => {
    if (path !== '/token') return false
    sent.push(secretOf(form)[1])
    await deliver(SECOND)
    sendJson(res, 400, { error: 'unauthorized_client' })
    return true
  }
  clock.advance(LIFE_MS)
  assert.deepEqual(verdict(await browser.fetch('/api/orders')), [502, 'provider_rejected'])
  assert.equal(sent.length, 1)
})

test('a second answer that is lost is no refusal: the refresh token may be spent, and is offered as such', async (t) => {
  const { browser, clock, deliver, provider, rotate, sent } = await setUp(t)
  await browser.signIn()
  rotate(() => deliver(SECOND))
  provider.control.fault = { kind: 'drop-after', leg: 'refresh', times: 1 }
  clock.advance(LIFE_MS)
  assert.deepEqual(verdict(await browser.fetch('/api/orders')), [503, 'provider_unavailable'])
  assert.deepEqual(sent, [provider.clientSecret, SECOND])
})
