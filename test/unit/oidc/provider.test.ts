import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Config } from '../../../src/config/config.ts'
import { Secret } from '../../../src/config/secrets/secret.ts'
import { createProvider } from '../../../src/oidc/provider.ts'
import { createLimiters, type Limiters } from '../../../src/oidc/token-endpoint/limiter.ts'
import { captureLog } from '../../kit/cloakroom.ts'
import { createTestClock, settled } from '../../kit/clock.ts'
import { BASE, load } from '../../kit/config/base-config.ts'
import { sendJson, startLocalServer } from '../../kit/local-server.ts'

/** A provider at an address where no server is. */
function setUp(
  of: { provider?: Partial<Config['provider']>; more?: Partial<Config>; limiters?: Limiters } = {},
) {
  const { config } = load(BASE)
  const clock = createTestClock()
  const { log, lines } = captureLog()
  const faults: unknown[] = []
  const reports: [string, unknown][] = []
  const limiters =
    of.limiters ??
    createLimiters({
      ...{ log, clock },
      observe: {
        inFlight: (calls) => void reports.push(['inFlight', calls]),
        queue: (waiting) => void reports.push(['queue', waiting]),
        breaker: (state) => void reports.push(['breaker', state]),
        call() {},
      },
    })
  const provider = createProvider({
    config: {
      ...config,
      ...of.more,
      provider: { ...config.provider, issuer: 'http://127.0.0.1:1', ...of.provider },
    },
    ...{ log, now: clock.now, monotonicNow: clock.monotonicNow },
    limiters,
    observe: {
      grant: (resource, outcome) => void faults.push([resource, outcome]),
      configFault: (...told) => void faults.push(told),
    },
  })
  const told = () => lines.splice(0).map((line) => JSON.parse(line))
  return { provider, config, clock, told, faults, limiters, reports }
}

test('the redirect URI is the callback of this service under its public address', () => {
  assert.equal(setUp().provider.redirectUri, 'https://app.example.com/bff/callback')
})

test('a sign-in asks for the resources that routes use, in the order of the routes, each once', () => {
  const { config } = setUp()
  const [orders, billing, spa] = config.routes
  const resources = {
    ...config.resources,
    unused: { ...config.resources.orders!, name: 'unused', scopes: ['api://unused/.default'] },
    own: { ...config.resources.orders!, name: 'own', scopes: ['own'], grant: 'client_credentials' as const },
    stock: {
      ...{ name: 'stock', scopes: ['stock'], grant: 'token_exchange' as const, subject: 'orders' },
    },
  }
  const routes = [spa!, billing!, { ...orders!, resource: 'own' }, { ...orders!, resource: 'stock' }, orders!]
  const { provider } = setUp({ more: { resources, routes } })
  assert.deepEqual(provider.signInGrant().scopes, [
    ...['openid', 'profile', 'offline_access', 'api://billing/.default', 'api://orders/.default'],
  ])
})

test('hosts in plain http and proxies are told at every start, the proxies without their passwords', () => {
  const proxy = {
    ...{
      https: new Secret('http://us:er@proxy.test:3128'),
      http: new Secret('http://us:er@proxy.test:3128'),
    },
    except: [],
  }
  const { told } = setUp({ provider: { insecureHosts: ['id.internal', 'b.internal:81'], proxy } })
  const lines = told()
  assert.deepEqual(
    lines.map(({ level, url }) => [level, url]),
    [
      ['warn', 'http://id.internal'],
      ['warn', 'http://b.internal:81'],
      ['info', 'http://proxy.test:3128'],
    ],
  )
  assert.ok(!JSON.stringify(lines).includes('us:er'))
  assert.deepEqual(setUp().told(), [])
})

test('a provider that cannot be discovered is told once, and asked again for its state without waiting', async () => {
  const { provider, told, clock } = setUp()
  assert.equal(provider.state(), 'unknown')
  await provider.discovered()
  await settled()
  assert.equal(provider.state(), 'unavailable')
  clock.advance(1_000)
  await provider.discovered()
  await settled()
  const lines = told().filter(({ msg }) => msg === 'the provider cannot be discovered')
  assert.equal(lines.length, 1)
  assert.deepEqual([lines[0].level, lines[0].url], ['warn', 'http://127.0.0.1:1'])
  assert.match(lines[0].err.message, /^http:\/\/127\.0\.0\.1:1\/\.well-known\/openid-configuration: ./)
  provider.retire()
})

test('a client authentication that the metadata do not list is warned of, once', async (t) => {
  let listed = ['private_key_jwt']
  const server = await startLocalServer((_, res) =>
    sendJson(res, 200, {
      ...{ issuer: server.origin, jwks_uri: `${server.origin}/jwks` },
      ...{ authorization_endpoint: `${server.origin}/authorize`, token_endpoint: `${server.origin}/token` },
      token_endpoint_auth_methods_supported: listed,
    }),
  )
  t.after(() => server.close())
  const warnings = async () => {
    const { provider, told, clock } = setUp({ provider: { issuer: server.origin } })
    await provider.discovered()
    clock.advance(3_700_000)
    await provider.discovered()
    await settled()
    provider.retire()
    return told().filter(({ msg }) => /do not list/.test(msg))
  }
  const [line, ...others] = await warnings()
  assert.deepEqual([line?.level, line?.clientAuth, others], ['warn', 'client_secret_post', []])
  assert.match(line?.msg, /do not list client_secret_post \(token_endpoint_auth_methods_supported\)/)
  listed = ['client_secret_post']
  assert.deepEqual(await warnings(), [])
})

test('a refresh token that cannot be revoked leaves a line, and no error', async () => {
  const { provider, told } = setUp()
  await provider.revoke('the-refresh-token')
  const lines = told()
  const line = lines.find(({ msg }) => msg === 'the refresh token could not be revoked')
  assert.equal(line?.level, 'warn')
  assert.ok(line.err.message)
  assert.ok(!JSON.stringify(lines).includes('the-refresh-token'))
  provider.retire()
})

test('what becomes of a grant is counted, and a fault of the configuration is told', () => {
  const { provider, faults, told } = setUp()
  provider.noRefreshToken('orders')
  assert.deepEqual(faults, [
    ['orders', 'no_refresh_token'],
    ['orders', 'no_refresh_token', true],
  ])
  assert.equal(told()[0].level, 'error')
  provider.retire()
})

test('the configuration that takes over reports in the place of the one before, which falls silent', () => {
  const before = setUp()
  const { provider } = setUp({ provider: { timeoutMs: 1_234 }, limiters: before.limiters })
  assert.deepEqual(before.reports, [])
  provider.succeed(before.provider)
  assert.deepEqual(before.reports, [
    ['inFlight', 0],
    ['queue', 0],
    ['breaker', 'closed'],
  ])
  before.provider.noRefreshToken('orders')
  assert.deepEqual(
    before.faults.filter((told) => Array.isArray(told) && told.length === 3),
    [],
  )
})
