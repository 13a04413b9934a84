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

const ORDERS_SCOPE = 'api://orders/.default'
const BILLING_SCOPE = 'https://billing.contoso.com/read https://billing.contoso.com/pay'

describe('Entra ID v2', () => {
  test('one sign-in, one refresh token, a token for each resource; only `scope` names it', async (t) => {
    const at = await signedInAtAzure(t, 'v2')
    const { azure, browser, orders, billing } = at
    const client = { client_id: azure.clientId, client_secret: azure.clientSecret }
    const authorization = azure.requests.find(({ path }) => path.endsWith('/oauth2/v2.0/authorize'))
    const { state, nonce, code_challenge, ...asked } = Object.fromEntries(authorization?.query ?? [])
    assert.ok(state && nonce && code_challenge)
    assert.deepEqual(asked, {
      ...{ response_type: 'code', client_id: azure.clientId, redirect_uri: `${APP}/bff/callback` },
      ...{ scope: `openid profile email offline_access ${ORDERS_SCOPE}`, code_challenge_method: 'S256' },
    })
    const { code, code_verifier, ...redeemed } = lastForm(at)
    assert.ok(code && code_verifier)
    assert.deepEqual(redeemed, {
      ...client,
      ...{ grant_type: 'authorization_code', redirect_uri: `${APP}/bff/callback` },
      scope: `${ORDERS_SCOPE} openid profile email offline_access`,
    })

    assert.deepEqual(verdict(await browser.fetch('/api/orders')), [200, orders])
    assert.equal(refreshCalls(at), 0, 'the token of the code is used')
    for (const [path, resource, scope] of [
      ['/api/billing', billing, BILLING_SCOPE],
      ['/api/orders', orders, ORDERS_SCOPE],
      ['/api/billing', billing, BILLING_SCOPE],
    ] as const) {
      const newest = newestRefreshToken(at)
      assert.deepEqual(verdict(await browser.fetch(path)), [200, resource])
      assert.deepEqual(lastForm(at), {
        ...client,
        ...{ grant_type: 'refresh_token', refresh_token: newest, scope: `${scope} offline_access openid` },
      })
      at.advance(LIFE_SECONDS)
    }
    assert.equal(refreshCalls(at), 3)
    assert.deepEqual(azure.violations, [])
  })

  testRefusals('v2')
})
