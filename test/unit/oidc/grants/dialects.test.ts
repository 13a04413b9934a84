import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ResourceConfig, ResourceDialect } from '../../../../src/config/config.ts'
import { claimsParameter, createDialect } from '../../../../src/oidc/grants/dialects.ts'
import type { Parameters as FormParameters } from '../../../../src/oidc/token-endpoint/openid-client.ts'

const orders: ResourceConfig = {
  name: 'orders',
  resource: 'https://orders.example.com/',
  scopes: ['api://orders/.default'],
  grant: 'refresh_token',
}
const billing: ResourceConfig = {
  name: 'billing',
  resource: 'https://billing.example.com',
  scopes: ['api://billing/read', 'api://billing/write'],
  grant: 'refresh_token',
}

type Settings = Partial<Parameters<typeof createDialect>[0]>

function dialect(resourceDialect: ResourceDialect, settings: Settings = {}) {
  const scopes = ['openid', 'offline_access']
  const signInScopes = ['resource', 'audience'].includes(resourceDialect) ? 'first' : 'all'
  return createDialect({ resourceDialect, scopes, signInScopes, ...settings }, [orders, billing])
}

const LINES: readonly {
  dialect: ResourceDialect
  signInScopes?: 'first'
  authorization: FormParameters
  code: FormParameters
  refresh: FormParameters
}[] = [
  {
    dialect: 'resource',
    authorization: [
      ['scope', 'openid offline_access'],
      ['resource', 'https://orders.example.com/'],
    ],
    code: [['resource', 'https://orders.example.com/']],
    refresh: [['resource', 'https://billing.example.com']],
  },
  {
    dialect: 'scope',
    authorization: [
      ['scope', 'openid offline_access api://orders/.default api://billing/read api://billing/write'],
    ],
    code: [],
    refresh: [['scope', 'api://billing/read api://billing/write offline_access openid']],
  },
  {
    dialect: 'scope',
    signInScopes: 'first',
    authorization: [['scope', 'openid offline_access api://orders/.default']],
    code: [['scope', 'api://orders/.default openid offline_access']],
    refresh: [['scope', 'api://billing/read api://billing/write offline_access openid']],
  },
  {
    dialect: 'resource-indicator',
    authorization: [
      ['scope', 'openid offline_access api://orders/.default api://billing/read api://billing/write'],
      ['resource', 'https://orders.example.com/'],
      ['resource', 'https://billing.example.com'],
    ],
    code: [['resource', 'https://orders.example.com/']],
    refresh: [
      ['resource', 'https://billing.example.com'],
      ['scope', 'api://billing/read api://billing/write'],
    ],
  },
  {
    dialect: 'audience',
    authorization: [
      ['scope', 'openid offline_access api://orders/.default'],
      ['audience', 'https://orders.example.com/'],
    ],
    code: [],
    refresh: [
      ['audience', 'https://billing.example.com'],
      ['scope', 'api://billing/read api://billing/write'],
    ],
  },
]

for (const line of LINES) {
  const where = line.signInScopes === undefined ? '' : ' on Entra ID'
  test(`the ${line.dialect} dialect names resources exactly as contract section 3 says${where}`, () => {
    const spoken = dialect(line.dialect, line.signInScopes && { signInScopes: line.signInScopes })
    assert.deepEqual(spoken.authorizationRequest(orders), line.authorization)
    assert.deepEqual(spoken.codeGrant(orders), line.code)
    assert.deepEqual(spoken.refreshGrant(billing), line.refresh)
  })
}

test('a refresh asks for openid and offline_access only if its sign-in did, whatever the configuration says by now', () => {
  assert.deepEqual(dialect('scope', { scopes: ['offline_access'] }).refreshGrant(orders), [
    ['scope', 'api://orders/.default offline_access'],
  ])
  assert.deepEqual(dialect('scope').refreshGrant(orders, { scopes: ['openid', 'profile'] }), [
    ['scope', 'api://orders/.default openid'],
  ])
  assert.deepEqual(dialect('scope', { scopes: ['openid'] }).refreshGrant(orders), [
    ['scope', 'api://orders/.default openid'],
  ])
})

test('a refresh asks for those scopes of its resource that the sign-in was granted, and at Entra ID for all', () => {
  const signIn = { scopes: ['openid'], granted: ['openid', 'api://billing/read'] }
  const entra = dialect('scope', { signInScopes: 'first' })
  assert.deepEqual(dialect('scope').refreshGrant(billing, signIn), [['scope', 'api://billing/read openid']])
  assert.deepEqual(entra.refreshGrant(billing, signIn), [
    ['scope', 'api://billing/read api://billing/write openid'],
  ])
})

test('where it is told so, a sign-in asks for the scopes of the first resource alone, or of all', () => {
  const first = [['scope', 'openid offline_access api://orders/.default']]
  const all = [
    ['scope', 'openid offline_access api://orders/.default api://billing/read api://billing/write'],
  ]
  assert.deepEqual(dialect('scope', { signInScopes: 'first' }).authorizationRequest(orders), first)
  assert.equal(dialect('scope', { signInScopes: 'first' }).notAskedFor(billing, { scopes: [] }), undefined)
  assert.deepEqual(dialect('scope', { signInScopes: 'all' }).authorizationRequest(orders), all)
  assert.deepEqual(dialect('audience', { signInScopes: 'all' }).authorizationRequest(orders)[0], all[0])
  assert.equal(dialect('resource', { signInScopes: 'all' }).notAskedFor(billing, { scopes: [] }), undefined)
  assert.equal(
    dialect('scope', { signInScopes: 'all' }).notAskedFor(billing, { scopes: [] }),
    'api://billing/read api://billing/write',
  )
})

test('a step-up for another resource asks for its scopes first, and for all the same', () => {
  assert.deepEqual(dialect('scope').authorizationRequest(billing), [
    ['scope', 'openid offline_access api://billing/read api://billing/write api://orders/.default'],
  ])
})

test('what a sign-in asked for is remembered: scopes always, and indicators where a grant is limited to them', () => {
  const all = [
    ...['openid', 'offline_access', 'api://orders/.default', 'api://billing/read', 'api://billing/write'],
  ]
  assert.deepEqual(dialect('resource-indicator').signInGrant(orders), {
    indicators: ['https://orders.example.com/', 'https://billing.example.com'],
    scopes: all,
  })
  assert.deepEqual(dialect('scope').signInGrant(orders), { scopes: all })
  assert.deepEqual(dialect('audience').signInGrant(orders), {
    scopes: ['openid', 'offline_access', 'api://orders/.default'],
  })
})

test('a resource that a sign-in was not limited to is not asked for again, nor is one that needs no scope', () => {
  const limited = dialect('resource-indicator')
  const indicators = ['https://orders.example.com/']
  const scopes = ['openid', ...orders.scopes, ...billing.scopes]
  assert.equal(limited.notAskedFor(orders, { indicators, scopes }), undefined)
  assert.equal(limited.notAskedFor(billing, { indicators, scopes }), 'https://billing.example.com')
  const unscoped: ResourceConfig = { name: 'unscoped', scopes: ['openid'], grant: 'refresh_token' }
  assert.equal(dialect('scope').notAskedFor(unscoped, { scopes: [] }), undefined)
  assert.equal(dialect('scope').notAskedFor(unscoped, {}), undefined)
})

test('a session of a version that remembered no scopes was for the first resource, unless a step-up was for another', () => {
  const { notAskedFor } = dialect('scope')
  assert.equal(notAskedFor(orders, {}), undefined)
  assert.equal(notAskedFor(billing, {}), 'api://billing/read api://billing/write')
  assert.equal(notAskedFor(orders, { steppedUp: ['billing'] }), 'api://orders/.default')
  const settings = { scopes: [], signInScopes: 'all', resourceDialect: 'scope' } as const
  assert.equal(createDialect(settings, [orders]).notAskedFor(orders, { steppedUp: ['any'] }), undefined)
})

test('a resource is denied when the code answer named scopes, and none of its own', () => {
  const { isDenied } = dialect('scope')
  assert.equal(isDenied(billing, {}), false)
  assert.equal(isDenied(billing, { granted: ['openid'] }), true)
  assert.equal(isDenied(billing, { granted: ['openid', 'api://billing/read'] }), false)
  assert.equal(dialect('audience').isDenied(billing, { granted: ['openid'] }), false)
  const unscoped: ResourceConfig = { name: 'unscoped', scopes: ['openid'], grant: 'refresh_token' }
  assert.equal(isDenied(unscoped, { granted: [] }), false)
})

test('with one resource alone, its token may be asked for by the code too', () => {
  const common = { scopes: ['openid'], signInScopes: 'all' } as const
  const alone = createDialect({ ...common, resourceDialect: 'scope' }, [orders])
  assert.deepEqual(alone.codeGrant(orders), [['scope', 'api://orders/.default openid']])
})

test('a grant without refresh token never asks for a user or a new refresh token', () => {
  assert.deepEqual(dialect('scope').otherGrant(orders), [['scope', 'api://orders/.default']])
})

test('the claims parameter is what a challenge asks for, with our client capabilities', () => {
  const cp1 = '"xms_cc":{"values":["cp1"]}'
  assert.deepEqual(claimsParameter([]), [])
  assert.deepEqual(claimsParameter([], '{"a":1}'), [['claims', '{"a":1}']])
  assert.deepEqual(claimsParameter(['cp1']), [['claims', `{"access_token":{${cp1}}}`]])
  assert.deepEqual(claimsParameter(['cp1'], '{"a":1}'), [['claims', `{"a":1,"access_token":{${cp1}}}`]])
  assert.deepEqual(claimsParameter(['cp1'], '{"access_token":{"nbf":{}}}'), [
    ['claims', `{"access_token":{"nbf":{},${cp1}}}`],
  ])
  assert.deepEqual(claimsParameter(['cp1'], '{"access_token":[7]}'), [
    ['claims', `{"access_token":{${cp1}}}`],
  ])
  for (const none of ['', 'null', '[]', '7', '{'])
    assert.deepEqual(
      [claimsParameter([], none), claimsParameter(['cp1'], none)],
      [[], [['claims', `{"access_token":{${cp1}}}`]]],
      none,
    )
})
