import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { CAE_CHALLENGE, CAE_CLAIMS } from '../kit/azure/azure-fixtures.ts'
import {
  type AzureScene,
  LIFE_SECONDS,
  lastForm,
  newestRefreshToken,
  refreshCalls,
  signedInAtAzure,
} from '../kit/azure/azure-shop.ts'
import { DEAD, OURS, REFUSALS, recordedAs, type Version } from '../kit/azure/entra-refusals.ts'
import { testSeeds } from '../kit/azure/entra-seeds.ts'
import {
  assertLogIsWhole,
  assertNothingReachesBrowser,
  assertSessionEnded,
  assertSessionLives,
  assertTold,
} from '../kit/azure/entra-verdicts.ts'
import { verdict } from '../kit/shops/shop.ts'

const VERSIONS = ['v1', 'v2'] as const
const LETTERS = [...'abcdefghijklmno']
const tested = new Set<string>()

/** Defines a test of one fixture; its letter leads the name. */
function fixture(letter: string, what: string, version: Version, run: (t: TestContext) => Promise<void>) {
  tested.add(letter)
  test(`(${letter}) ${what}, ${version}`, run)
}

for (const version of VERSIONS)
  for (const [letter, what, rawOf, told] of REFUSALS)
    fixture(letter, what, version, async (t) => {
      const at = await signedInAtAzure(t, version)
      const raw = rawOf(version)
      at.setBilling({ outcome: 'raw', raw })
      const cookie = at.browser.cookieHeader()
      assertTold(await at.browser.fetch('/api/billing'), told)
      // What is remembered is told alike, and costs the provider nothing.
      const calls = refreshCalls(at)
      if (told !== DEAD) assertTold(await at.browser.fetch('/api/billing'), told)
      assert.equal(refreshCalls(at), calls)
      assert.equal(at.browser.cookieHeader(), cookie)
      await (told === DEAD ? assertSessionEnded(at) : assertSessionLives(at))
      assertNothingReachesBrowser(at, raw)
      assertLogIsWhole(at, raw)
      assert.deepEqual(at.azure.violations, [])
    })

for (const version of VERSIONS) {
  testSeeds(version, (what, run) => fixture('a', what, version, run))

  fixture(
    'l',
    'an answer for the other resource is sent nowhere, and its refresh token kept',
    version,
    async (t) => {
      const at = await signedInAtAzure(t, version)
      at.setBilling({ outcome: 'wrong-resource', answerFor: at.orders })
      assertTold(await at.browser.fetch('/api/billing'), { ...OURS, reason: 'wrong_audience' })
      assert.deepEqual([at.shop.orders.requests.length, at.shop.billing.requests.length], [0, 0])
      const kept = newestRefreshToken(at)
      await assertSessionLives(at)
      assert.equal(lastForm(at).refresh_token, kept)
    },
  )

  for (const absent of [
    'refresh_token',
    'expires_in',
    'expires_on',
    'expires_in and expires_on',
    'all three',
  ])
    fixture('m', `an answer without ${absent} is as good as any`, version, async (t) => {
      const at = await signedInAtAzure(t, version)
      const names = ['refresh_token', 'expires_in', 'expires_on']
      const left = names.filter((name) => absent === 'all three' || absent.split(' ').includes(name))
      const edit = (answer: Record<string, unknown>) => {
        for (const name of left) delete answer[name]
      }
      at.setBilling({ outcome: 'ok', edit })
      const before = newestRefreshToken(at)
      assert.deepEqual(verdict(await at.browser.fetch('/api/billing')), [200, at.billing])
      const issued = newestRefreshToken(at)
      // v1 says the end of the life twice; where no answer says it, a token is used for five minutes.
      const saysLife = !left.includes('expires_in') || (version === 'v1' && !left.includes('expires_on'))
      await assertLife(at, saysLife ? LIFE_SECONDS : 300)
      assert.equal(lastForm(at).refresh_token, left.includes('refresh_token') ? before : issued)
    })

  for (const [kind, expiresIn] of [
    ['a number', LIFE_SECONDS],
    ['a string', String(LIFE_SECONDS)],
  ] as const)
    fixture('n', `expires_in as ${kind} is believed`, version, async (t) => {
      const at = await signedInAtAzure(t, version)
      const edit = (answer: Record<string, unknown>) => Object.assign(answer, { expires_in: expiresIn })
      at.setBilling({ outcome: 'ok', edit })
      assert.deepEqual(verdict(await at.browser.fetch('/api/billing')), [200, at.billing])
      await assertLife(at, LIFE_SECONDS)
    })
}

fixture(
  'c',
  'the recorded chain ends the session: challenge, refresh with its claims, 50173',
  'v2',
  async (t) => {
    const at = await challenged(t)
    const raw = recordedAs('revoked')('v2')
    at.setBilling({ outcome: 'raw', raw })
    assertTold(await at.browser.fetch('/api/billing'), DEAD)
    assert.equal(lastForm(at).claims, CAE_CLAIMS)
    assert.equal(at.shop.billing.requests.length, 2, 'nothing is sent with the token that was taken back')
    await assertSessionEnded(at)
    assertNothingReachesBrowser(at, raw)
    assertLogIsWhole(at, raw)
  },
)

fixture(
  'c',
  'the challenge is met silently when the refresh gives a token that lives a day',
  'v2',
  async (t) => {
    const at = await challenged(t)
    at.setBilling({ outcome: 'ok', edit: (answer) => Object.assign(answer, { expires_in: 80_000 }) })
    const calls = refreshCalls(at)
    assert.deepEqual(verdict(await at.browser.fetch('/api/billing')), [200, at.billing])
    assert.equal(lastForm(at).claims, CAE_CLAIMS)
    assert.equal(refreshCalls(at), calls + 1)
    assert.equal(at.shop.billing.requests.length, 3, 'once refused, once sent again')
    assert.deepEqual(verdict(await at.browser.fetch('/api/orders')), [200, at.orders])
  },
)

test('every fixture has its test', () => {
  assert.deepEqual([...tested].sort(), LETTERS)
})

/** The token is used up to half of its life at least, and not after its end. */
async function assertLife(at: AzureScene, seconds: number): Promise<void> {
  const calls = refreshCalls(at)
  at.advance(seconds * 0.45)
  assert.deepEqual(verdict(await at.browser.fetch('/api/billing')), [200, at.billing])
  assert.equal(refreshCalls(at), calls, 'not renewed before half of its life')
  at.advance(seconds * 0.55)
  assert.deepEqual(verdict(await at.browser.fetch('/api/billing')), [200, at.billing])
  assert.equal(refreshCalls(at), calls + 1, 'renewed after its end')
}

/** Billing has been called once, and takes its token back the next time. */
async function challenged(t: TestContext): Promise<AzureScene> {
  const at = await signedInAtAzure(t, 'v2', { clientCapabilities: ['cp1'] })
  await at.browser.fetch('/api/billing')
  const headers = { 'www-authenticate': CAE_CHALLENGE }
  Object.assign(at.shop.billing.answer, { status: 401, headers, times: 1 })
  return at
}
