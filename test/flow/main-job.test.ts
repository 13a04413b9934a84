import assert from 'node:assert/strict'
import { test } from 'node:test'
import { startCloakroom } from '../kit/cloakroom.ts'
import { startRotatingProvider } from '../kit/rotating-provider.ts'
import { startUpstream } from '../kit/upstream.ts'

test('sign-in, user, two APIs with their own tokens, logout', async (t) => {
  const provider = await startRotatingProvider()
  t.after(() => provider.close())
  const api = await startUpstream({ jwks: `${provider.endpoints.jwks}` })
  t.after(() => api.close())
  const cloakroom = await startCloakroom({
    provider: { ...provider.settings },
    resources: {
      orders: { resource: 'https://orders.test', audience: 'https://orders.test' },
      billing: { resource: 'https://billing.test', audience: 'https://billing.test' },
    },
    routes: [
      { path: '/api/orders', upstream: api.url, resource: 'orders' },
      { path: '/api/billing', upstream: api.url, resource: 'billing' },
    ],
  })
  t.after(() => cloakroom.close())
  const browser = cloakroom.browser()
  assert.equal((await browser.fetch('/bff/user')).status, 401)
  const landing = await browser.signIn({ returnUrl: '/api/orders/1' })
  console.log(landing.status, landing.url.href, landing.body.slice(0, 300))
  const user = await browser.fetch('/bff/user')
  console.log(user.status, user.body)
  for (const name of ['orders', 'billing']) {
    const answer = await browser.fetch(`/api/${name}/1?x=1`)
    console.log(answer.status, answer.body)
  }
  const out = await browser.fetch('/bff/logout', { method: 'POST' })
  console.log(out.status, out.body, provider.revoked)
  console.log((await browser.fetch('/bff/user')).body)
  console.log(cloakroom.logs.join(''))
  console.log(await (await fetch(`${cloakroom.adminUrl}/readyz`)).text())
})
