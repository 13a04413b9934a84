import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { BASE, changed, ENV, load, problemsOf } from '../../../kit/config/base-config.ts'
import { rsaKey } from '../../../kit/self-signed.ts'

const TENANT = '72f988bf-86f1-41af-91ab-2d7cd011db47'
const ISSUER = 'https://id.example.com'
const V2 = `https://login.microsoftonline.com/${TENANT}/v2.0`

const entra = BASE.replace(ISSUER, V2)
const warningsOf = (text: string) => load(text).warnings.map(({ path, message }) => `${path}: ${message}`)

/** A config of Entra with these scopes for the resource `orders`. */
const withScopes = (...scopes: string[]) =>
  entra.replace(
    'orders: { scopes: [api://orders/.default], audience: api://orders }',
    `orders: { scopes: ${JSON.stringify(scopes)} }`,
  )

describe('the issuer of an Entra tenant', () => {
  test('is accepted as it should be written, in every cloud', () => {
    for (const issuer of [
      V2,
      `https://login.microsoftonline.us/${TENANT}/v2.0`,
      `https://login.partner.microsoftonline.cn/${TENANT}/v2.0`,
      'https://login.microsoftonline.com/contoso.onmicrosoft.com/v2.0',
    ]) {
      assert.deepEqual(warningsOf(BASE.replace(ISSUER, issuer)), [], issuer)
    }
  })

  test('without /v2.0 is warned about in dialect "scope" only, with the right one', () => {
    for (const issuer of [
      `https://login.microsoftonline.com/${TENANT}`,
      `https://login.microsoftonline.com/${TENANT}/`,
      `https://sts.windows.net/${TENANT}/`,
      `https://login.microsoftonline.us/${TENANT}`,
    ]) {
      const [warning = '', ...more] = warningsOf(BASE.replace(ISSUER, issuer))
      assert.deepEqual(more, [])
      assert.match(warning, /^provider\.issuer: is that of Entra's v1 endpoints/)
      assert.ok(warning.includes(`/${TENANT}/v2.0`), warning)
      const v1 = BASE.replace(ISSUER, issuer)
        .replace('resourceDialect: scope', 'resourceDialect: resource')
        .replace('{ scopes: [api://billing/.default] }', '{ resource: api://billing }')
        .replace('{ scopes: [api://orders/.default], audience', '{ resource: api://orders, audience')
      assert.deepEqual(warningsOf(v1), [], issuer)
    }
  })

  test('with /v2.0 is warned about in every other dialect, which its endpoints refuse', () => {
    for (const dialect of ['resource', 'resource-indicator', 'audience']) {
      const text = entra
        .replace('resourceDialect: scope', `resourceDialect: ${dialect}`)
        .replace('{ scopes: [api://billing/.default] }', '{ resource: api://billing }')
        .replace('{ scopes: [api://orders/.default], audience', '{ resource: api://orders, audience')
      assert.match(warningsOf(text).join(), /^provider\.issuer: .*AADSTS901002.*"scope"$/)
    }
  })

  test('with a placeholder in the place of the tenant is warned about', () => {
    for (const tenant of [
      'TENANT_ID',
      'TENANT',
      'tenant-id',
      '{tenantid}',
      '{tenant}',
      '%7Btenantid%7D',
      '<tenant>',
      'YOUR_TENANT',
      'your-tenant-id',
      '00000000-0000-0000-0000-000000000000',
      'xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx',
    ]) {
      const [warning = '', ...more] = warningsOf(
        BASE.replace(ISSUER, `https://login.microsoftonline.com/${tenant}/v2.0`),
      )
      assert.deepEqual(more, [], tenant)
      assert.match(warning, /^provider\.issuer: still has the placeholder ".*" of an example/)
      assert.ok(warning.includes(decodeURIComponent(tenant)), warning)
    }
    assert.match(
      warningsOf(BASE.replace(ISSUER, 'https://login.microsoftonline.com/contoso/v2.0')).join(),
      /names no tenant: "contoso" is none/,
    )
  })

  test('is not alone: a placeholder in another provider, an endpoint or the client id is warned about too', () => {
    const rows: [string, string][] = [
      [BASE.replace(ISSUER, 'https://id.example.com/realms/REALM'), 'provider.issuer'],
      [BASE.replace(ISSUER, 'https://YOUR_DOMAIN.eu.auth0.com/'), 'provider.issuer'],
      [BASE.replace('clientId: spa', 'clientId: <client-id>'), 'provider.clientId'],
      [BASE.replace('clientId: spa', 'clientId: 00000000-0000-0000-0000-000000000000'), 'provider.clientId'],
      [
        BASE.replace(
          '  clientId: spa',
          `  endpoints: { token: "https://id.example.com/{tenant}/token" }\n  clientId: spa`,
        ),
        'provider.endpoints.token',
      ],
    ]
    for (const [text, path] of rows) {
      assert.deepEqual(
        load(text).warnings.map((warning) => warning.path),
        [path],
      )
    }
    for (const issuer of [
      'https://id.example.com/realms/tenant',
      'https://tenant.example.com',
      'https://id.example.com/my-realm',
    ]) {
      assert.deepEqual(warningsOf(BASE.replace(ISSUER, issuer)), [], issuer)
    }
  })

  test('for many tenants needs allowedTenants, by their ids', () => {
    for (const tenant of ['common', 'organizations', 'Organizations']) {
      const text = BASE.replace(ISSUER, `https://login.microsoftonline.com/${tenant}/v2.0`)
      assert.match(warningsOf(text).join(), /^provider\.issuer: lets users of every Entra tenant sign in/)
      const allowing = (list: string) =>
        text.replace('  timeout: 5s', `  timeout: 5s\n  allowedTenants: [${list}]`)
      assert.deepEqual(warningsOf(allowing(TENANT)), [])
      assert.match(warningsOf(allowing('contoso.com')).join(), /allowedTenants\[0\]: is no tenant id/)
    }
    const bare = BASE.replace(ISSUER, 'https://login.microsoftonline.com/common')
    assert.match(warningsOf(bare).join(), /lets users of every Entra tenant sign in/)
  })

  test('for one tenant is warned about when allowedTenants leaves that one out', () => {
    const other = 'c0ffee00-86f1-41af-91ab-2d7cd011db47'
    const allowing = (list: string) =>
      entra.replace('  timeout: 5s', `  timeout: 5s\n  allowedTenants: [${list}]`)
    assert.match(warningsOf(allowing(other)).join(), /lacks the issuer's own tenant/)
    assert.deepEqual(warningsOf(allowing(`${other}, ${TENANT.toUpperCase()}`)), [])
  })
})

test('a client of Entra ID that signs without a certificate is warned about', () => {
  const key = rsaKey()
  const written = 'method: client_secret_post\n    secret: { env: CLIENT_SECRET }'
  const signs = entra.replace(written, 'method: private_key_jwt\n    key: { env: CLIENT_KEY }')
  const env = { ...ENV, CLIENT_KEY: key }
  const [warning, ...more] = load(signs, { env }).warnings
  assert.deepEqual(more, [])
  assert.match(
    `${warning?.path} ${warning?.message}`,
    /^provider\.clientAuth\.method should be "certificate"/,
  )
  assert.deepEqual(load(signs.replace(V2, ISSUER), { env }).warnings, [])
})

test('tenants are compared by their ids, in whatever letters they are written', () => {
  const text = entra.replace(V2, `${V2}\n  allowedTenants: [${TENANT.toUpperCase()}]`)
  const { config, warnings } = load(text)
  assert.deepEqual([config.provider.allowedTenants, warnings], [[TENANT], []])
})

describe('the scopes of a resource on Entra', () => {
  const problems = (...scopes: string[]) =>
    problemsOf(withScopes(...scopes)).map(({ path, message }) => `${path}: ${message}`)

  test('may be several of one API, beside those of OpenID Connect', () => {
    for (const scopes of [
      ['api://orders/read', 'api://orders/write'],
      ['api://orders/.default', 'offline_access', 'openid'],
      ['https://graph.microsoft.com/User.Read', 'https://graph.microsoft.com/Mail.Read'],
      ['https://graph.microsoft.com/User.Read', '00000003-0000-0000-c000-000000000000/Mail.Read'],
      [`api://${TENANT}/read`, `${TENANT}/write`],
      ['https://management.azure.com//.default'],
    ]) {
      assert.deepEqual(warningsOf(withScopes(...scopes)), [], scopes.join())
    }
  })

  test('of two APIs are refused, because the token would be for the first', () => {
    for (const scopes of [
      ['api://orders/read', 'api://billing/read'],
      ['api://orders/.default', 'https://graph.microsoft.com/User.Read'],
      ['api://orders/.default', 'User.Read'],
      [`api://${TENANT}/read`, 'api://c0ffee00-86f1-41af-91ab-2d7cd011db47/read'],
      ['openid', 'api://orders/read', 'offline_access', 'api://billing/read'],
    ]) {
      const [problem, ...more] = problems(...scopes)
      assert.deepEqual(more, [], scopes.join())
      assert.match(problem!, /^resources\.orders\.scopes: name two APIs, .*; make a resource of each$/)
    }
    const paths = warningsOf(withScopes('api://contoso.com/orders/read', 'api://contoso.com/billing/read'))
    assert.match(
      paths.join(),
      /name two APIs, api:\/\/contoso\.com\/orders and api:\/\/contoso\.com\/billing/,
    )
  })

  test('must not have .default beside another scope of the same API', () => {
    for (const scopes of [
      ['api://orders/.default', 'api://orders/read'],
      ['api://orders/read', 'api://ORDERS/.default'],
      ['https://graph.microsoft.com/.default', 'User.Read'],
      ['https://management.azure.com//.default', 'https://management.azure.com/user_impersonation'],
    ]) {
      const [problem, ...more] = problems(...scopes)
      assert.deepEqual(more, [], scopes.join())
      assert.match(
        problem!,
        /^resources\.orders\.scopes: must not have ".*\/\.default" beside other scopes .*AADSTS70011/,
      )
    }
  })

  test('must name a scope, not an API alone', () => {
    for (const scope of ['api://orders', 'https://orders.example.com', 'https://orders.example.com/']) {
      const [warning = '', ...more] = warningsOf(withScopes(scope))
      assert.deepEqual(more, [])
      assert.match(warning, /^resources\.orders\.scopes: have .*none of its scopes.*orders.*\/\.default$/)
    }
    assert.match(problems('api://orders', 'api://billing/read').join(), /name two APIs, api:\/\/orders and/)
  })

  test('are not asked for by one sign-in: `signInScopes` should be first', () => {
    const signIn = (issuer: string, mode: string) =>
      BASE.replace(ISSUER, issuer).replace('  timeout: 5s', `  timeout: 5s\n  signInScopes: ${mode}`)
    assert.match(
      warningsOf(signIn(V2, 'all')).join(),
      /^provider\.signInScopes: should be "first": .*AADSTS70011/,
    )
    for (const issuer of [V2, `https://${TENANT}.ciamlogin.com/${TENANT}/v2.0`]) {
      assert.deepEqual(warningsOf(signIn(issuer, 'first')), [])
    }
    const customers = warningsOf(BASE.replace(ISSUER, `https://contoso.b2clogin.com/${TENANT}/v2.0/`))
    assert.match(customers.join(), /^provider\.signInScopes: should be "first" for this host/)
    assert.deepEqual(warningsOf(signIn(ISSUER, 'all')), [])
  })

  test('belong into resources, not into the scopes of the sign-in', () => {
    const text = entra.replace('profile, offline_access]', 'profile, offline_access, User.Read]')
    assert.match(
      warningsOf(text).join(),
      /^provider\.scopes\[3\]: is a scope of an API, https:\/\/graph.*resource of its own/,
    )
  })

  test('are judged so for External ID and B2C too, and for no other provider or dialect', () => {
    const two = (issuer: string) =>
      changed(
        'orders: { scopes: [api://orders/.default], audience: api://orders }',
        'orders: { scopes: [api://a/.default, api://a/x, api://b/y] }',
      ).replace(ISSUER, issuer)
    for (const issuer of [
      `https://${TENANT}.ciamlogin.com/${TENANT}/v2.0`,
      `https://contoso.b2clogin.com/${TENANT}/v2.0/`,
    ]) {
      assert.match(problemsOf(two(issuer))[0]!.message, /AADSTS70011/)
    }
    assert.deepEqual(warningsOf(two(ISSUER)), [])
    assert.deepEqual(warningsOf(two('https://microsoftonline.com/x')), [])
  })
})

test('a bearer of Entra ID that needs neither scope nor role is any application of the tenant', () => {
  const withBearer = (text: string, bearer: string) =>
    text.replace('headers: { x-user-id: "{claims.sub}" }', bearer)
  const open = 'bearer: { audience: api://orders }'
  assert.match(warningsOf(withBearer(entra, open)).join(), /^routes\[0\]\.bearer: lets every application/)
  for (const closed of [
    'bearer: { audience: api://orders, scopes: [read] }',
    `${open}\n    require: { claims: { roles: [reader] } }`,
    `${open}\n    require: { scopes: [read] }`,
  ])
    assert.deepEqual(warningsOf(withBearer(entra, closed)), [])
  assert.deepEqual(warningsOf(withBearer(BASE, open)), [])
})
