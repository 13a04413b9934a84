import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { describe, it, type TestContext } from 'node:test'
import { BILLING_RESOURCE, ORDERS_RESOURCE, startDemoBackends } from '../../../src/demo/demo-backends.ts'
import { listenOnLoopback } from '../../../src/demo/loopback-server.ts'
import { createScriptedBrowser } from '../../kit/browsers/scripted-browser.ts'

const APP = 'http://localhost:1'
const CALLBACK = `${APP}/bff/callback`
const VERIFIER = 'v'.repeat(43)

async function signedInBackends(t: TestContext) {
  const backends = await startDemoBackends({ publicUrl: APP, accessTokenTtlSeconds: 60 })
  t.after(() => backends.close())
  const { issuer, clientId, clientSecret } = backends

  async function token(parameters: Record<string, string>) {
    const response = await fetch(`${issuer}/token`, {
      method: 'POST',
      headers: { authorization: `Basic ${btoa(`${clientId}:${clientSecret}`)}` },
      body: new URLSearchParams(parameters),
    })
    assert.equal(response.status, 200)
    return (await response.json()) as { access_token: string; refresh_token: string }
  }

  const browser = createScriptedBrowser({ stopAt: `${APP}/` })
  const query = new URLSearchParams([
    ['client_id', clientId],
    ['response_type', 'code'],
    ['redirect_uri', CALLBACK],
    ['scope', 'openid offline_access orders.read billing.read'],
    ['code_challenge', createHash('sha256').update(VERIFIER).digest('base64url')],
    ['code_challenge_method', 'S256'],
    ['resource', ORDERS_RESOURCE],
    ['resource', BILLING_RESOURCE],
  ])
  const page = await browser.visit(`${issuer}/auth?${query}`)
  const { url } = await browser.visit(page.url, { person: 'grace' })
  const tokens = await token({
    grant_type: 'authorization_code',
    code: new URL(url).searchParams.get('code') ?? '',
    redirect_uri: CALLBACK,
    code_verifier: VERIFIER,
    resource: ORDERS_RESOURCE,
  })
  return { ...backends, token, tokens }
}

function call(url: string, accessToken: string): Promise<Response> {
  return fetch(url, { headers: { authorization: `Bearer ${accessToken}` } })
}

describe("the demo's backends", () => {
  it('let each API accept its own token and refuse the other one', async (t) => {
    const { ordersUrl, billingUrl, token, tokens } = await signedInBackends(t)
    const billing = await token({
      grant_type: 'refresh_token',
      refresh_token: tokens.refresh_token,
      resource: BILLING_RESOURCE,
      scope: 'billing.read',
    })
    assert.equal((await call(`${ordersUrl}/orders`, tokens.access_token)).status, 200)
    assert.equal((await call(`${billingUrl}/invoices`, billing.access_token)).status, 200)
    assert.equal((await call(`${billingUrl}/invoices`, tokens.access_token)).status, 401)
    assert.equal((await call(`${ordersUrl}/orders`, billing.access_token)).status, 401)
  })

  it('leave nothing running when the port of the provider is taken', async (t) => {
    const other = await listenOnLoopback(() => (_req, res) => res.end())
    t.after(() => other.close())
    const providerPort = Number(new URL(other.origin).port)
    await assert.rejects(startDemoBackends({ publicUrl: APP, accessTokenTtlSeconds: 60, providerPort }), {
      code: 'EADDRINUSE',
      port: providerPort,
    })
  })
})
