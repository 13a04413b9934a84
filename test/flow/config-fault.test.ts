import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { sendJson } from '../kit/local-server.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { eventually } from '../kit/shops/deadline.ts'
import { movableClock, ORDERS, startShop, verdict } from '../kit/shops/shop.ts'

const PEOPLE = 20
const LIFE_MS = 300_000
/** Longer than a refusal is remembered, and than it takes until a fault is over. */
const MINUTE_MS = 61_000

test('our client secret expires under 20 sessions: one log line, one metric, all sessions stay; with a new one all go on', async (t) => {
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
  clock.advance(MINUTE_MS)
  const [last, ...others] = browsers
  for (const browser of others)
    assert.deepEqual(verdict(await browser.fetch('/api/orders')), [200, ORDERS], 'no sign-in is needed')
  assert.deepEqual(await gauges(), [gauge('invalid_client', 1)], 'one more refusal may follow')
  clock.advance(MINUTE_MS)
  assert.deepEqual(verdict(await last!.fetch('/api/orders')), [200, ORDERS])
  assert.deepEqual(await gauges(), [gauge('invalid_client', 0)])
  assert.deepEqual(told(), [
    ['error', 'invalid_client'],
    ['info', 'invalid_client'],
  ])
  assert.equal(await refreshes('renewed'), PEOPLE)
})

for (const [what, answers, faults] of [
  ['every second of our requests is refused', [[401, { error: 'invalid_client' }]], ['invalid_client']],
  [
    'two faults take turns',
    [
      [400, { error: 'unauthorized_client' }],
      [400, { error: 'invalid_scope' }],
    ],
    ['unauthorized_client', 'invalid_scope'],
  ],
  [
    'no answer can be used',
    [
      [200, { access_token: 'x', token_type: 'mac' }],
      [200, { access_token: 'x', token_type: 'mac' }],
    ],
    ['unusable_answer'],
  ],
] as const)
  test(`${what}, under 20 sessions: one line and one gauge for each fault, and a minute later how often`, async (t) => {
    const { browsers, clock, refuseInTurn, told, gauges, warnings } = await signedIn(t)
    clock.advance(LIFE_MS)
    const [last, ...others] = browsers
    refuseInTurn(answers)
    const before = warnings()
    for (const browser of others) await browser.fetch('/api/orders')
    const lines = faults.map((error) => ['error', error])
    assert.deepEqual([told(), await gauges()], [lines, faults.map((error) => gauge(error, 1))])
    assert.ok(warnings() - before <= 1, 'no user has a line of his own')
    clock.advance(MINUTE_MS)
    refuseInTurn([answers[0], answers[0]])
    await last!.fetch('/api/orders')
    const errors = told().filter(([level]) => level === 'error')
    assert.deepEqual(errors, [...lines, ['error', faults[0]]])
  })

test('a refusal that comes late, to a request under the configuration before, is no fault of the one in use', async (t) => {
  const { shop, browsers, clock, provider, told, gauges } = await signedIn(t)
  clock.advance(LIFE_MS)
  const late = Promise.withResolvers<void>()
  provider.control.intercept = async ({ path }, res) => {
    if (path !== '/token') return false
    await late.promise
    sendJson(res, 401, { error: 'invalid_client' })
    return true
  }
  const before = provider.tokenRequests().length
  const asking = browsers[0]!.fetch('/api/orders')
  await eventually('it is asked', () => provider.tokenRequests().length > before)
  await shop.cloakroom.reload({})
  late.resolve()
  assert.deepEqual(verdict(await asking), [502, 'provider_rejected'])
  assert.deepEqual([await gauges(), told()], [[], []])
})

test('a fault that becomes another is told again, and words of the provider are no labels', async (t) => {
  const { browsers, clock, refuse, told, gauges } = await signedIn(t)
  clock.advance(LIFE_MS)
  for (const error of ['unauthorized_client', 'made_up_4711', 'made_up_4712']) {
    refuse(400, error)
    for (const browser of browsers) await browser.fetch('/api/orders')
    clock.advance(MINUTE_MS)
  }
  assert.deepEqual(await gauges(), [gauge('unauthorized_client', 0), gauge('other', 1)])
  assert.deepEqual(told(), [
    ['error', 'unauthorized_client'],
    ['error', 'other'],
    ['info', 'unauthorized_client'],
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
  clock.advance(MINUTE_MS)
  await first!.fetch('/api/orders')
  assert.deepEqual(await gauges(), [gauge('invalid_scope', 1)])
  assert.deepEqual(told(), [['error', 'invalid_scope']])
})

test('a provider that was not asked for refresh tokens is a fault of the configuration, told once for all users', async (t) => {
  const { browsers, clock, told, gauges, refreshes } = await signedIn(t, { scopes: ['openid'] })
  clock.advance(LIFE_MS)
  for (const browser of browsers) {
    const refused = await browser.fetch('/api/orders')
    assert.deepEqual(
      [...verdict(refused), refused.json().reason],
      // The token that came with the code was this API's: another sign-in brings another.
      [401, 'reauthentication_required', 'no_refresh_token'],
    )
  }
  assert.deepEqual(await gauges(), [gauge('no_refresh_token', 1)])
  assert.deepEqual(told(), [['error', 'no_refresh_token']])
  assert.equal(await refreshes('no_refresh_token'), PEOPLE)
})

function gauge(error: string, value: 0 | 1): string {
  return `cloakroom_provider_config_fault{resource="orders",error="${error}"} ${value}`
}

async function signedIn(t: TestContext, settings: object = {}) {
  const provider = await startRotatingProvider()
  t.after(() => provider.close())
  const clock = movableClock()
  const shop = await startShop(t, {
    provider: { ...provider.settings, ...settings },
    jwks: provider.endpoints.jwks,
    now: clock.now,
  })
  const browsers = Array.from({ length: PEOPLE }, () => shop.browser())
  await Promise.all(browsers.map((browser) => browser.signIn()))
  const metrics = async () => (await (await fetch(`${shop.cloakroom.adminUrl}/metrics`)).text()).split('\n')
  return {
    ...{ browsers, clock, provider, shop },
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
    /** Answers the token requests so, in turn; where there is only one such answer, every second one goes well. */
    refuseInTurn(answers: readonly (readonly [status: number, body: object])[]) {
      let turn = 0
      provider.control.intercept = ({ path }, res) => {
        const answer = path === '/token' ? answers[turn++ % 2] : undefined
        if (answer) sendJson(res, ...answer)
        return answer !== undefined
      }
    },
    /** But for the line that says that our clock, which the test has moved, is not the provider's. */
    warnings: () =>
      shop.cloakroom.logs
        .map((line) => JSON.parse(line))
        .filter(({ level, clockOffsetSeconds }) => level === 'warn' && clockOffsetSeconds === undefined)
        .length,
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
