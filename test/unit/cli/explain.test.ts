import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { createExplain } from '../../../src/app/explanation.ts'
import { explainCommand } from '../../../src/cli/config/explain.ts'
import type { Config } from '../../../src/config/config.ts'
import { loadConfig } from '../../../src/config/load.ts'
import { createDialect } from '../../../src/oidc/grants/dialects.ts'
import { createResourceGrants } from '../../../src/oidc/grants/resource-grants.ts'
import { resourcesInUse } from '../../../src/oidc/provider.ts'
import { BASE, changed } from '../../kit/config/base-config.ts'

/** Without one secret. */
function configOf(text: string): Config {
  return loadConfig({ text, file: 'config.yaml', env: {}, requireSecrets: false }).config
}

function explained(text: string, method: string, url: string) {
  const explanation = createExplain(configOf(text))(method, url)
  if (explanation.kind === 'route') return explanation.routed
  throw new Error(`not routed: ${JSON.stringify(explanation)}`)
}

describe('the explanation of a request', () => {
  test('has the route, the URL at the upstream, and what the route says', () => {
    const route = explained(BASE, 'POST', '/api/orders/42?x=%2F1')
    assert.equal(route.id, 'orders')
    assert.equal(route.upstream, 'http://orders:8080/v1/42?x=%2F1')
    assert.equal(route.resource, 'orders')
    assert.equal(route.auth, 'required')
    assert.equal(route.signedOut, 'session_required')
    assert.equal(route.csrf.rule, 'header')
    assert.deepEqual(route.timeout, { connectMs: 2000, responseMs: 30_000, idleMs: 300_000 })
    const headers = Object.fromEntries(route.headers)
    assert.equal(headers['x-user-id'], '{claims.sub}')
    assert.equal(headers['x-forwarded-prefix'], '/api/orders')
    assert.equal(headers.authorization, 'Bearer [access token for orders]')
  })

  test('has the proof of the key, where tokens are bound to one', () => {
    const [bound] = explained(
      changed('  timeout: 5s', '  timeout: 5s\n  dpop: provider'),
      'GET',
      '/api/orders',
    ).tokenRequests
    assert.equal(bound?.dpop, '[proof]')
    assert.equal(explained(BASE, 'GET', '/api/orders').tokenRequests[0]?.dpop, undefined)
  })

  test('of an anonymous route has neither token nor CSRF rule', () => {
    const route = explained(BASE, 'GET', 'https://app.example.com/café?q=1#/part')
    assert.equal(route.upstream, 'http://spa/caf%C3%A9?q=1')
    assert.deepEqual(route.tokenRequests, [])
    assert.equal(route.csrf.rule, 'none')
    assert.equal(route.signedOut, 'served')
  })

  const REFUSED: [method: string, url: string, code: string, hint: RegExp][] = [
    ['DELETE', '/api/orders/42', 'method_not_allowed', /GET, POST/],
    ['GET', '/a/../b', 'path_rejected', /undefined/],
    ['GET', '/a#b', 'path_rejected', /undefined/],
    ['GET', '//evil.example/x', 'path_rejected', /undefined/],
    ['TRACE', '/x', 'method_not_allowed', /GET/],
    ['GET', '/bff/nope', 'route_not_found', /no such endpoint/],
    ['GET', '/bff', 'route_not_found', /no such endpoint/],
    ['PUT', '/bff/user', 'method_not_allowed', /GET, HEAD/],
    ['GET', 'https://other.example.com/api/orders', 'misdirected_request', /undefined/],
    ['GET', 'https://a b/', 'bad_request', /undefined/],
    ['GET', `/${'a'.repeat(20_000)}`, 'bad_request', /undefined/],
  ]
  for (const [method, url, code, hint] of REFUSED) {
    test(`says ${code} to ${method} ${url.slice(0, 40)}, as the proxy does`, () => {
      const explanation = createExplain(configOf(BASE))(method, url)
      assert.equal(explanation.kind, 'refused')
      const { refusal } = explanation as Extract<typeof explanation, { kind: 'refused' }>
      assert.equal(refusal.code, code)
      assert.match(String(refusal.hint), hint)
    })
  }

  const WITHOUT_ROOT = BASE.replace(/ {2}- path: \/\n(?: {4}.*\n)+/, '')
  const NEAR: [url: string, hint: RegExp][] = [
    ['/API/orders', /\/api\/orders is a route, but letters are compared with their case/],
    ['/api/orders-new', /ends at a segment boundary/],
    ['/api', /routes below it only: \/api\/orders, \/api\/billing/],
    ['/x', /the routes are: \/api\/orders, \/api\/billing/],
  ]
  for (const [url, hint] of NEAR) {
    test(`of ${url}, which has no route, says which one was near`, () => {
      const explanation = createExplain(configOf(WITHOUT_ROOT))('GET', url)
      assert.equal(explanation.kind, 'refused')
      const { refusal } = explanation as Extract<typeof explanation, { kind: 'refused' }>
      assert.equal(refusal.code, 'route_not_found')
      assert.match(String(refusal.hint), hint)
    })
  }

  test('knows the endpoints that the configuration switches on', () => {
    const path = '/bff/global-token-revocation'
    assert.equal(createExplain(configOf(BASE))('POST', path).kind, 'refused')
    const on = BASE.replace('  timeout: 5s', '  timeout: 5s\n  globalTokenRevocation: true')
    assert.equal(createExplain(configOf(on))('POST', path).kind, 'endpoint')
    assert.equal(createExplain(configOf(BASE))('GET', '/bff/user?slide=false').kind, 'endpoint')
  })
})

const RESOURCES: [dialect: string, resources: string][] = [
  ['scope', '{ orders: { scopes: [api://orders/.default] }, billing: { scopes: [b.read, b.write] } }'],
  ['resource', '{ orders: { resource: api://orders }, billing: { resource: "https://billing" } }'],
  [
    'resource-indicator',
    '{ orders: { resource: "https://orders", scopes: [o.read] }, billing: { resource: "https://billing" } }',
  ],
  ['audience', '{ orders: { resource: api://orders, scopes: [read] }, billing: { resource: b } }'],
  [
    'scope',
    '{ orders: { scopes: [o], grant: client_credentials }, billing: { scopes: [b], grant: token_exchange, subject: o2 }, o2: { scopes: [o2] } }',
  ],
]

describe('the token requests of an explanation', () => {
  for (const [dialect, resources] of RESOURCES) {
    test(`are those that are sent in dialect ${dialect}: ${resources.slice(0, 60)}`, async () => {
      const text = BASE.replace('resourceDialect: scope', `resourceDialect: ${dialect}`)
        .replace(/resources:\n {2}orders.*\n {2}billing.*\n/, `resources: ${resources}\n`)
        .replace('  timeout: 5s', '  timeout: 5s\n  clientCapabilities: [cp1]')
      const config = configOf(text)
      for (const [resource, path] of [
        ['orders', '/api/orders'],
        ['billing', '/api/billing'],
      ] as const) {
        const { tokenRequests } = explained(text, 'GET', path)
        const sent = await sentFor(config, resource)
        assert.deepEqual(tokenRequests.at(-1)!.parameters, sent)
        assert.deepEqual(tokenRequests.at(-1)!.clientAuth.proof, {
          client_id: 'spa',
          client_secret: '[secret]',
        })
      }
    })
  }
})

/** What a resource's grant sends, caught on the way to the token endpoint. */
async function sentFor(config: Config, name: string): Promise<Record<string, string>> {
  let sent: Record<string, string> = {}
  const caught = (parameters: readonly (readonly [string, string])[], more: Record<string, string>) => {
    sent = { ...more, ...Object.fromEntries(parameters) }
    return Promise.reject(new Error('caught'))
  }
  const grants = createResourceGrants({
    relyingParty: {
      refreshGrant: (token, parameters) =>
        caught(parameters, { grant_type: 'refresh_token', refresh_token: token }),
      clientCredentialsGrant: (parameters) => caught(parameters, { grant_type: 'client_credentials' }),
      tokenExchangeGrant: (grant_type, parameters) => caught(parameters, { grant_type }),
    },
    dialect: createDialect(config.provider, resourcesInUse(config)),
    resources: config.resources,
    clientCapabilities: config.provider.clientCapabilities,
    log: { info() {}, warn() {}, error() {} },
    monotonicNow: () => 0,
    note: () => false,
  })
  const { grant, subject } = config.resources[name]!
  const request = {
    refresh_token: () =>
      grants.refreshGrant({
        ...{ refreshToken: '[refresh token of the session]', resource: name, keep: async () => {} },
      }),
    client_credentials: () => grants.clientCredentialsGrant(name),
    token_exchange: () =>
      grants.tokenExchangeGrant({ resource: name, subjectToken: `[access token for ${subject}]` }),
  }[grant]
  await assert.rejects(request, /caught/)
  return sent
}

describe('cloakroom explain', () => {
  let folder: string
  let path: string
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'cloakroom-'))
    path = join(folder, 'config.yaml')
    writeFileSync(path, BASE)
  })
  after(() => rmSync(folder, { recursive: true }))

  async function run(args: string[], stdin = '') {
    let out = ''
    let err = ''
    const stdout = { write: (text: string) => (out += text) }
    const stderr = { write: (text: string) => (err += text) }
    const env = { CLOAKROOM_CONFIG: path }
    const code = await explainCommand(args, { stdout, stderr, env, readStdin: () => stdin })
    return { code, out, err }
  }

  test('needs no secret, and exits with 0', async () => {
    const { code, out } = await run(['GET', '/api/orders/42'])
    assert.equal(code, 0)
    assert.match(out, /upstream +http:\/\/orders:8080\/v1\/42\n/)
    assert.match(out, /scope=api:\/\/orders\/\.default offline_access openid\n/)
    assert.match(out, /routes\[0\], path \/api\/orders, .*config\.yaml:31/)
    assert.match(out, /connect 2s, response 30s, idle 5m/)
  })

  test('exits with 1 when a request is refused, and says why', async () => {
    const { code, out } = await run(['DELETE', '/api/orders/42'])
    assert.equal(code, 1)
    assert.match(out, /405 method_not_allowed.*\n.*GET, POST/)
  })

  test('prints one object for one URL, and a list for several', async () => {
    const { out } = await run(['--json', 'get', '/api/billing'])
    const { route, request } = JSON.parse(out) as { route: { id: string }; request: object }
    assert.equal(route.id, 'billing')
    assert.deepEqual(request, { method: 'GET', target: '/api/billing' })
    const list = await run(['--json', 'POST', '/api/billing', '/a/../b'])
    assert.equal(list.code, 1)
    const objects = JSON.parse(list.out) as { code?: string }[]
    assert.deepEqual(
      objects.map(({ code }) => code),
      [undefined, 'path_rejected'],
    )
  })

  test('reads requests from standard input', async () => {
    const { code, out } = await run(['--json', '-'], '# mine\nPOST /api/orders\r\n\n/x\n')
    assert.equal(code, 0)
    const routes = (JSON.parse(out) as { route: { id: string }; request: { method: string } }[]).map(
      ({ route, request }) => [request.method, route.id],
    )
    assert.deepEqual(routes, [
      ['POST', 'orders'],
      ['GET', 'spa'],
    ])
  })

  test('reads the config from standard input', async () => {
    const { code, out } = await run(['--config', '-', '/'], changed('id: spa', 'id: pages'))
    assert.equal(code, 0)
    assert.match(out, /pages \(routes\[2\], path \/, <stdin>:44\)/)
  })

  test('says what is wrong with its arguments, and exits with 1', async () => {
    for (const args of [
      [],
      ['GET'],
      ['GET', 'api/orders'],
      ['G T', '/'],
      ['--nope'],
      ['--config', '-', '-'],
    ]) {
      const { code, err } = await run(args)
      assert.equal(code, 1, args.join(' '))
      assert.match(err, /^cloakroom explain: .+\n\nusage:/, args.join(' '))
    }
  })

  test('of a bad config prints its problems and exits with 78', async () => {
    const { code, err } = await run(['--config', '-', '/'], changed('basePath:', 'basePat:'))
    assert.equal(code, 78)
    assert.match(err, /^<stdin>:6:1 {2}basePat: is not a known key/)
  })
})
