import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { sendHtml } from '../kit/local-server.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { movableClock, ORDERS, startShop, verdict } from '../kit/shops/shop.ts'

const LIFE_MS = 300_000
const CONCURRENCY = 8
const PEOPLE = 60

test('a page with status 200 for all of 60 sessions: the provider is not asked again and again, the log stays short, and no grant is lost', async (t) => {
  const { provider, clock, people, warnings, metric, showPage } = await signedIn(t)
  clock.advance(LIFE_MS)
  let asked = 0
  showPage(() => {
    asked += 1
    return true
  })
  const before = warnings()
  const answers = await Promise.all(people.map((browser) => browser.fetch('/api/orders')))
  for (const answer of answers) assert.deepEqual(verdict(answer), [503, 'provider_unavailable'])
  assert.ok(asked >= 5 && asked < 5 + CONCURRENCY, `${asked} requests reached it`)
  assert.equal(await metric('cloakroom_provider_breaker_state'), 2)
  // The breaker's, the resource's, and the cause behind the first request that failed.
  assert.ok(warnings() - before <= 3, `${warnings() - before} lines`)

  showPage(() => false)
  clock.advance(31_000)
  for (const browser of people) assert.deepEqual(verdict(await browser.fetch('/api/orders')), [200, ORDERS])
  assert.deepEqual(
    [await metric('cloakroom_provider_breaker_state'), provider.counters.reuseDetected],
    [0, 0],
  )
})

test('one user who is shown an error screen may ask as often as he likes: all others are served', async (t) => {
  const { provider, clock, people, metric, showPage } = await signedIn(t)
  clock.advance(LIFE_MS)
  const [blocked, other] = people
  showPage(() => true)
  for (let time = 0; time < 20; time += 1) {
    assert.deepEqual(verdict(await blocked!.fetch('/api/orders')), [503, 'provider_unavailable'])
    clock.advance(10_000)
  }
  assert.equal(await metric('cloakroom_provider_breaker_state'), 0)
  showPage(() => false)
  assert.deepEqual(verdict(await other!.fetch('/api/orders')), [200, ORDERS])
  assert.deepEqual(
    verdict(await blocked!.fetch('/api/orders')),
    [200, ORDERS],
    'his refresh token was not spent',
  )
  assert.equal(provider.counters.reuseDetected, 0)
})

async function signedIn(t: TestContext) {
  const provider = await startRotatingProvider()
  t.after(() => provider.close())
  const clock = movableClock()
  const shop = await startShop(t, {
    // Every one of them is to be asked for, however slow the machine is.
    provider: { ...provider.settings, concurrency: CONCURRENCY, timeout: '60s' },
    jwks: provider.endpoints.jwks,
    now: clock.now,
  })
  const people = Array.from({ length: PEOPLE }, () => shop.browser())
  for (const browser of people) await browser.signIn()
  return {
    ...{ provider, clock, people },
    showPage(isDue: () => boolean) {
      provider.control.intercept = ({ path }, res) => {
        if (path !== '/token' || !isDue()) return false
        sendHtml(res, 200, '<h1>We will be back soon</h1>')
        return true
      }
    },
    /** But for the line that says that our clock, which the test has moved, is not the provider's. */
    warnings: () =>
      shop.cloakroom.logs
        .map((line) => JSON.parse(line))
        .filter(({ level, clockOffsetSeconds }) => level === 'warn' && clockOffsetSeconds === undefined)
        .length,
    async metric(name: string): Promise<number> {
      const text = await (await fetch(`${shop.cloakroom.adminUrl}/metrics`)).text()
      const line = text.split('\n').find((candidate) => candidate.startsWith(`${name} `))
      return Number(line?.slice(name.length + 1))
    },
  }
}
