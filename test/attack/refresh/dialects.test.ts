import assert from 'node:assert/strict'
import { before, describe } from 'node:test'
import { routesTo, same, startFleet, suiteScope } from '../../kit/attack/fleet.ts'
import { startAzureAdV1, startEntraV2 } from '../../kit/azure/azure-ad.ts'
import type { ConfigData } from '../../kit/config/cloakroom-config.ts'
import type { RecordedRequest } from '../../kit/local-server.ts'
import type { ProviderSettings } from '../../kit/provider/provider-settings.ts'
import { steadyTest as test } from '../../kit/steady.ts'
import { skipWithoutRedis } from '../../kit/store/redis.ts'

const NAMES = ['orders', 'billing']
const RESOURCES = {
  orders: { resource: 'https://orders.test/', scopes: ['orders/.default'] },
  billing: { resource: 'https://billing.test/', scopes: ['billing/read', 'billing/pay'] },
} as const

type Provider = {
  readonly settings: ProviderSettings
  readonly requests: RecordedRequest[]
  readonly clientId: string
  readonly clientSecret: string | undefined
  readonly issuedSecrets: string[]
  readonly violations: string[]
  readonly endpoints: Record<string, string>
  tokenRequests(): RecordedRequest[]
}
type Dialect = {
  readonly name: string
  readonly provider: () => Provider
  /** What a resource is in the config file. */
  readonly definition: (name: keyof typeof RESOURCES) => ConfigData
  /** What a refresh request names it by, and nothing else. */
  readonly named: (name: keyof typeof RESOURCES) => Record<string, string>
  /** What names it when the code is redeemed. */
  readonly atSignIn: Record<string, string>
  readonly audience: (name: keyof typeof RESOURCES) => string
}

const uri = (name: keyof typeof RESOURCES) => RESOURCES[name].resource
const scopes = (name: keyof typeof RESOURCES) => RESOURCES[name].scopes.map((scope) => `api://${scope}`)

describe('three processes, and to the byte what is asked of a provider in the dialect', {
  skip: skipWithoutRedis(),
}, () => {
  const scope = suiteScope()
  let scene: Awaited<ReturnType<typeof startFleet>>
  let v1: Awaited<ReturnType<typeof startAzureAdV1>>
  let v2: Awaited<ReturnType<typeof startEntraV2>>
  before(async () => {
    ;[v1, v2] = await Promise.all([startAzureAdV1(), startEntraV2()])
    scope.after(() => Promise.all([v1.close(), v2.close()]))
    scene = await startFleet(scope, { replicas: 3, resources: NAMES })
  })

  const dialects: readonly Dialect[] = [
    {
      ...{ name: 'resource', provider: () => v1, audience: uri },
      definition: (name) => ({ resource: uri(name), audience: uri(name) }),
      named: (name) => ({ resource: uri(name) }),
      atSignIn: { resource: uri('orders') },
    },
    {
      ...{ name: 'scope', provider: () => v2, audience: (name) => `api://${name}` },
      definition: (name) => ({ scopes: scopes(name), audience: `api://${name}` }),
      named: (name) => ({ scope: [...scopes(name), 'offline_access', 'openid'].join(' ') }),
      atSignIn: { scope: [...scopes('orders'), 'openid profile email offline_access'].join(' ') },
    },
    {
      ...{ name: 'resource-indicator', provider: () => scene.provider, audience: uri },
      definition: (name) => ({ resource: uri(name), scopes: scopes(name), audience: uri(name) }),
      named: (name) => ({ resource: uri(name), scope: scopes(name).join(' ') }),
      atSignIn: { resource: uri('orders') },
    },
    {
      ...{ name: 'audience', provider: () => scene.provider, audience: uri },
      definition: (name) => ({ resource: uri(name), scopes: scopes(name), audience: uri(name) }),
      named: (name) => ({ audience: uri(name), scope: scopes(name).join(' ') }),
      atSignIn: {},
    },
  ]

  for (const { name, provider: at, definition, named, atSignIn, audience } of dialects)
    test(`G19: ${name}: one resource by its own parameter, the newest refresh token, each parameter once`, async () => {
      const provider = at()
      await scene.reload({
        provider: { ...provider.settings, resourceDialect: name },
        resources: { orders: definition('orders'), billing: definition('billing') },
        routes: routesTo(scene.api.url, NAMES),
      })
      const issuedBefore = provider.issuedSecrets.length
      const browser = await scene.person('ada')
      const client = { client_id: provider.clientId, client_secret: provider.clientSecret }
      const { code, code_verifier, redirect_uri, ...redeemed } = lastForm(provider)
      assert.ok(code && code_verifier && redirect_uri?.endsWith('/bff/callback'))
      assert.deepEqual(redeemed, { ...client, grant_type: 'authorization_code', ...atSignIn })

      const calls = provider.tokenRequests().length
      const newest = refreshTokensIn(provider.issuedSecrets.slice(issuedBefore)).at(-1)
      assert.deepEqual(
        await scene.verdictsEverywhere(browser, '/api/billing'),
        same([200, audience('billing')]),
      )
      assert.deepEqual(lastForm(provider), {
        ...{ ...client, grant_type: 'refresh_token', refresh_token: newest },
        ...named('billing'),
      })
      assert.equal(provider.tokenRequests().length - calls, 1)
      assert.deepEqual(
        await scene.verdictsEverywhere(browser, '/api/orders'),
        same([200, audience('orders')]),
      )
      assert.equal(provider.tokenRequests().length - calls, 1, 'the token of the sign-in is used')
      assert.deepEqual(provider.violations, [])
    })
})

/** The form of the latest token request; throws when a parameter stands in it twice. */
function lastForm(provider: Provider): Record<string, string> {
  const form = provider.tokenRequests().at(-1)?.form ?? []
  const names = form.map(([name]) => name)
  assert.deepEqual(names, [...new Set(names)])
  return Object.fromEntries(form)
}

function refreshTokensIn(secrets: readonly string[]): string[] {
  return secrets.filter((secret) => /^(rt_|AwABAAAAvPM1|0\.ARoA)/.test(secret))
}
