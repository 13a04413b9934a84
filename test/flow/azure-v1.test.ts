import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { testRefusals } from '../kit/azure/azure-refusals.ts'
import {
  LIFE_SECONDS,
  lastForm,
  newestRefreshToken,
  refreshCalls,
  signedInAtAzure,
} from '../kit/azure/azure-shop.ts'
import { APP, verdict } from '../kit/shops/shop.ts'

describe('Azure AD v1', () => {
  test('one sign-in, one refresh token, a token for each resource; only `resource` names it', async (t) => {
    const at = await signedInAtAzure(t, 'v1')
    const { azure, browser, orders, billing } = at
    const client = { client_id: azure.clientId, client_secret: azure.clientSecret }
    const authorization = azure.requests.find(({ path }) => path.endsWith('/oauth2/authorize'))
    const { state, nonce, code_challenge, ...asked } = Object.fromEntries(authorization?.query ?? [])
    assert.ok(state && nonce && code_challenge)
    assert.deepEqual(asked, {
      ...{ response_type: 'code', client_id: azure.clientId, redirect_uri: `${APP}/bff/callback` },
      ...{ scope: 'openid', resource: orders, code_challenge_method: 'S256' },
    })
    const { code, code_verifier, ...redeemed } = lastForm(at)
    assert.ok(code && code_verifier)
    assert.deepEqual(redeemed, {
      ...client,
      ...{ grant_type: 'authorization_code', redirect_uri: `${APP}/bff/callback`, resource: orders },
    })

    assert.deepEqual(verdict(await browser.fetch('/api/orders')), [200, orders])
    assert.equal(refreshCalls(at), 0, 'the token of the code is used')
    for (const [path, resource] of [
      ['/api/billing', billing],
      ['/api/orders', orders],
      ['/api/billing', billing],
    ] as const) {
      const newest = newestRefreshToken(at)
      assert.deepEqual(verdict(await browser.fetch(path)), [200, resource])
      assert.deepEqual(lastForm(at), {
        ...client,
        ...{ grant_type: 'refresh_token', refresh_token: newest, resource },
      })
      at.advance(LIFE_SECONDS)
    }
    assert.equal(refreshCalls(at), 3)
    assert.deepEqual(azure.violations, [])
  })

  test('lifetimes that come as strings are believed', async (t) => {
    const at = await signedInAtAzure(t, 'v1')
    await at.browser.fetch('/api/billing')
    at.advance(LIFE_SECONDS * 0.45)
    assert.deepEqual(verdict(await at.browser.fetch('/api/billing')), [200, at.billing])
    assert.equal(refreshCalls(at), 1, 'not renewed before half of its life')
    at.advance(LIFE_SECONDS * 0.55)
    assert.deepEqual(verdict(await at.browser.fetch('/api/billing')), [200, at.billing])
    assert.equal(refreshCalls(at), 2, 'renewed after its end')
  })

  test('answers that name no resource are for the one that was asked for, and their refresh token serves the others', async (t) => {
    const at = await signedInAtAzure(t, 'v1')
    at.azure.policy.namesNoResource = true
    await at.browser.signIn()
    for (const [path, resource] of [
      ['/api/orders', at.orders],
      ['/api/billing', at.billing],
    ] as const)
      assert.deepEqual(verdict(await at.browser.fetch(path)), [200, resource])
    assert.equal(refreshCalls(at), 1)
  })

  test('an unsigned ID token, as its documents show one, begins no session', async (t) => {
    const at = await signedInAtAzure(t, 'v1')
    at.azure.policy.unsignedIdToken = true
    const stranger = at.shop.browser()
    assert.equal((await stranger.signIn()).status, 400)
    assert.deepEqual(verdict(await stranger.fetch('/api/orders')), [401, 'session_required'])
  })

  testRefusals('v1')
})
