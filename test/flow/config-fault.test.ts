import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { sendJson } from '../kit/local-server.ts'
import { startRotatingProvider } from '../kit/rotating-provider.ts'
import { movableClock, ORDERS, startShop, verdict } from './shop.ts'

const PEOPLE = 20
const LIFE_MS = 300_000
/** Longer than a refusal is remembered. */
const FORGOTTEN_MS = 61_000

test('our client secret expires under 20 sessions: one log line, one metric, nobody is signed out; with a new one all go on', async (t) => {
  const { browsers, clock, refuse, told, gauges, refreshes } = await signedIn(t)
  clock.advance(LIFE_MS)
  refuse(401, 'invalid_client')
  for (const browser of browsers) {
    const refused = await browser.fetch('/api/orders')
    assert.deepEqual(verdict(refused), [502, 'provider_rejected'])
    assert.equal(refused.headers['set-cookie'], undefined)
  }
  assert.deepEqual(await gauges(), [gauge('invalid_client', 1)])
  assert.deepEqual(told(), [['error', 'invalid_client']])
  assert.equal(await refreshes('configuration'), PEOPLE)
  for (const browser of browsers) assert.equal((await browser.fetch('/bff/user')).status, 200)

  refuse()
  clock.advance(FORGOTTEN_MS)
  for (const browser of browsers)
    assert.deepEqual(verdict(await browser.fetch('/api/orders')), [200, ORDERS], 'no sign-in is needed')
  assert.deepEqual(await gauges(), [gauge('invalid_client', 0)])
  assert.deepEqual(told(), [
    ['error', 'invalid_client'],
    ['info', 'invalid_client'],
  ])
  assert.equal(await refreshes('renewed'), PEOPLE)
})

test('a fault that becomes another is told again, and words of the provider are no labels', async (t) => {
  const { browsers, clock, refuse, told, gauges } = await signedIn(t)
  clock.advance(LIFE_MS)
  for (const error of ['unauthorized_client', 'made_up_4711', 'made_up_4712']) {
    refuse(400, error)
    for (const browser of browsers) await browser.fetch('/api/orders')
    clock.advance(FORGOTTEN_MS)
  }
  assert.deepEqual(await gauges(), [gauge('unauthorized_client', 0), gauge('other', 1)])
  assert.deepEqual(told(), [
    ['error', 'unauthorized_client'],
    ['error', 'other'],
  ])
})

test('what concerns one user or will pass is no fault of the configuration, and does not end one', async (t) => {
  const { browsers, clock, refuse, told, gauges } = await signedIn(t)
  clock.advance(LIFE_MS)
  const [first, second, third] = browsers
  refuse(400, 'interaction_required')
  assert.deepEqual(verdict(await first!.fetch('/api/orders')), [401, 'reauthentication_required'])
  refuse(503, 'temporarily_unavailable')
  assert.deepEqual(verdict(await second!.fetch('/api/orders')), [503, 'provider_unavailable'])
  assert.deepEqual([await gauges(), told()], [[], []])
  refuse(400, 'invalid_scope')
  await third!.fetch('/api/orders')
  refuse(400, 'interaction_required')
  clock.advance(FORGOTTEN_MS)
  await first!.fetch('/api/orders')
  assert.deepEqual(await gauges(), [gauge('invalid_scope', 1)])
  assert.deepEqual(told(), [['error', 'invalid_scope']])
})

function gauge(error: string, value: 0 | 1): string {
  return `cloakroom_provider_config_fault{resource="orders",error="${error}"} ${value}`
}

async function signedIn(t: TestContext) {
  const provider = await startRotatingProvider()
  t.after(() => provider.close())
  const clock = movableClock()
  const shop = await startShop(t, {
    provider: provider.settings,
    jwks: provider.endpoints.jwks,
    now: clock.now,
  })
  const browsers = Array.from({ length: PEOPLE }, () => shop.browser())
  await Promise.all(browsers.map((browser) => browser.signIn()))
  const metrics = async () => (await (await fetch(`${shop.cloakroom.adminUrl}/metrics`)).text()).split('\n')
  return {
    ...{ browsers, clock },
    /** Answers every token request so, or none any more. */
    refuse(status?: number, error?: string) {
      provider.control.intercept =
        status === undefined
          ? undefined
          : ({ path }, res) => {
              if (path !== '/token') return false
              sendJson(res, status, { error })
              return true
            }
    },
    /** Level and reason of the lines about the configuration; there must be no other error. */
    told: () =>
      shop.cloakroom.logs
        .map((line) => JSON.parse(line))
        .filter(({ level, reason, path }) => level === 'error' || (reason && !path && level === 'info'))
        .map(({ level, reason }) => [level, reason]),
    gauges: async () =>
      (await metrics()).filter((line) => line.startsWith('cloakroom_provider_config_fault')),
    refreshes: async (outcome: string) => {
      const start = `cloakroom_refreshes_total{resource="orders",outcome="${outcome}"} `
      const line = (await metrics()).find((text) => text.startsWith(start))
      return Number(line?.slice(start.length) ?? 0)
    },
  }
}
