import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import type { AzureErrorName } from '../../../src/demo/azure/azure-errors.ts'
import { verdict } from '../shops/shop.ts'
import {
  type AzureScene,
  LIFE_SECONDS,
  lastForm,
  newestRefreshToken,
  refreshCalls,
  signedInAtAzure,
} from './azure-shop.ts'

/** Longer than a refusal is remembered, so that the provider is asked again. */
const FORGOTTEN_SECONDS = 61

/** Defines what must happen, with either version of Azure AD, when the token endpoint does not simply give a token. */
export function testRefusals(version: 'v1' | 'v2'): void {
  const scene = (t: TestContext) => signedInAtAzure(t, version)

  for (const [name, outcome, reason] of [
    ['multi-factor authentication (50076)', 'step-up', 'interaction_required'],
    ['consent (65001)', 'consent', 'consent_required'],
  ] as const)
    test(`${name} wanted for one resource: 401 for it, 200 for the other, nobody is signed out`, async (t) => {
      const at = await scene(t)
      at.setBilling({ outcome })
      const refused = await at.browser.fetch('/api/billing')
      assert.deepEqual(verdict(refused), [401, 'reauthentication_required'])
      assert.equal(refused.json().reason, reason)
      assert.match(refused.json().login_url, /^\/bff\/login/)
      await assertOthersLive(at)
      await assertHealed(at)
    })

  test('a resource that the tenant does not know (50001): 502 for it, the session stays', async (t) => {
    const at = await scene(t)
    at.setBilling({ outcome: 'invalid-resource' })
    const refused = await at.browser.fetch('/api/billing')
    assert.deepEqual(verdict(refused), [502, 'provider_rejected'])
    assert.equal(refused.json().reason, 'invalid_resource')
    await assertOthersLive(at)
    await assertHealed(at)
  })

  for (const outcome of ['secret-expired', 'wrong-secret'] as const)
    test(`our client secret refused with 401 (${outcome}): 502, sessions stay, and all is well after it`, async (t) => {
      const at = await scene(t)
      at.setBilling({ outcome })
      const refused = await at.browser.fetch('/api/billing')
      assert.deepEqual(verdict(refused), [502, 'provider_rejected'])
      assert.equal(refused.headers['set-cookie'], undefined)
      await assertOthersLive(at)
      await assertHealed(at)
    })

  for (const outcome of ['expired', 'expired-bad-token', 'revoked', 'misleading-codes'] as const)
    test(`a dead refresh token (${outcome}): the session ends once, and every request says 401`, (t) =>
      assertSessionEndsOnce(t, version, outcome))

  for (const outcome of ['throttled', 'throttled-until', 'transient', 'html-unavailable'] as const)
    test(`the provider passes (${outcome}): a living token is used on, else 503 with Retry-After`, async (t) => {
      const at = await scene(t)
      assert.deepEqual(verdict(await at.browser.fetch('/api/billing')), [200, at.billing])
      // The provider's dates are those of the real clock, which Cloakroom's is ahead of when it reads them.
      at.setBilling({ outcome, retryAfterSeconds: 7 })
      at.advance(LIFE_SECONDS * 0.6)
      const calls = refreshCalls(at)
      assert.deepEqual(verdict(await at.browser.fetch('/api/billing')), [200, at.billing])
      assert.ok(refreshCalls(at) <= calls + 1)
      at.advance(LIFE_SECONDS * 0.4)
      const unavailable = await at.browser.fetch('/api/billing')
      assert.deepEqual(verdict(unavailable), [503, 'provider_unavailable'])
      const wanted = outcome.startsWith('throttled') ? ['6', '7'] : ['2']
      assert.ok(wanted.includes(String(unavailable.headers['retry-after'])), outcome)
      await assertOthersLive(at)
      await assertHealed(at)
    })

  test('a Retry-After that has passed already is not a request from each caller', async (t) => {
    const at = await scene(t)
    at.advance(LIFE_SECONDS)
    at.setBilling({ outcome: 'throttled-until', retryAfterSeconds: -10 })
    for (let request = 0; request < 3; request += 1) {
      const unavailable = await at.browser.fetch('/api/billing')
      assert.deepEqual(verdict(unavailable), [503, 'provider_unavailable'])
      assert.equal(unavailable.headers['retry-after'], '1')
    }
    assert.equal(refreshCalls(at), 1)
  })

  test('an answer for another resource is never sent anywhere: 502, and the rotated refresh token is kept', async (t) => {
    const at = await scene(t)
    at.setBilling({ outcome: 'wrong-resource', answerFor: at.orders })
    const refused = await at.browser.fetch('/api/billing')
    assert.deepEqual(verdict(refused), [502, 'provider_rejected'])
    assert.equal(refused.json().reason, 'wrong_audience')
    assert.deepEqual([at.shop.orders.requests.length, at.shop.billing.requests.length], [0, 0])
    const kept = newestRefreshToken(at)
    await assertHealed(at)
    assert.equal(lastForm(at).refresh_token, kept)
  })

  test('an answer without refresh_token and expires_in is as good as any', async (t) => {
    const at = await scene(t)
    at.setBilling({ outcome: 'bare' })
    const kept = newestRefreshToken(at)
    assert.deepEqual(verdict(await at.browser.fetch('/api/billing')), [200, at.billing])
    assert.deepEqual(verdict(await at.browser.fetch('/api/billing')), [200, at.billing])
    assert.equal(refreshCalls(at), 1)
    at.setBilling(undefined)
    at.advance(300)
    assert.deepEqual(verdict(await at.browser.fetch('/api/billing')), [200, at.billing])
    assert.equal(lastForm(at).refresh_token, kept, 'the refresh token in hand is used again')
  })
}

async function assertOthersLive({ browser, orders }: AzureScene): Promise<void> {
  assert.deepEqual(verdict(await browser.fetch('/api/orders')), [200, orders])
  assert.equal((await browser.fetch('/bff/user')).status, 200)
}

/** After the fault is gone the same session gets its token: neither it nor the refresh token was lost. */
async function assertHealed(at: AzureScene): Promise<void> {
  at.setBilling(undefined)
  at.advance(FORGOTTEN_SECONDS)
  assert.deepEqual(verdict(await at.browser.fetch('/api/billing')), [200, at.billing])
  assert.deepEqual(at.azure.violations, [])
}

async function assertSessionEndsOnce(t: TestContext, version: 'v1' | 'v2', outcome: AzureErrorName) {
  const at = await signedInAtAzure(t, version)
  const paths = ['/api/orders', '/api/billing']
  for (const path of paths) await at.browser.fetch(path)
  const calls = refreshCalls(at)
  at.azure.policy.everyResource = { outcome, delayMs: 20 }
  at.advance(LIFE_SECONDS)
  const answers = await Promise.all(
    Array.from({ length: 20 }, (_, index) => at.browser.fetch(paths[index % 2]!)),
  )
  for (const answer of answers) {
    assert.deepEqual(verdict(answer), [401, 'session_required'])
    assert.match(answer.json().login_url, /^\/bff\/login/)
  }
  assert.equal(refreshCalls(at), calls + 1, 'the dead token is offered once')
  const metrics = await (await fetch(`${at.shop.cloakroom.adminUrl}/metrics`)).text()
  const ended = metrics.match(/^cloakroom_sessions_total\{event="ended".*[1-9]$/gm) ?? []
  assert.deepEqual(ended, ['cloakroom_sessions_total{event="ended",reason="invalid_grant"} 1'])
  assert.deepEqual(verdict(await at.browser.fetch('/bff/user')), [401, 'session_required'])
}
