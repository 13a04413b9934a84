import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ProviderConfig, ResourceConfig, ResourceDialect } from '../../../src/config/config.ts'
import { createDialect, type Parameters } from '../../../src/oidc/dialects.ts'

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

function dialect(resourceDialect: ResourceDialect, scopes = ['openid', 'offline_access']) {
  return createDialect({ resourceDialect, scopes } as unknown as ProviderConfig, [orders, billing])
}

const LINES: readonly {
  dialect: ResourceDialect
  authorization: Parameters
  code: Parameters
  refresh: Parameters
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
  test(`the ${line.dialect} dialect names resources exactly as contract section 3 says`, () => {
    assert.deepEqual(dialect(line.dialect).authorizationRequest(orders), line.authorization)
    assert.deepEqual(dialect(line.dialect).codeGrant(orders), line.code)
    assert.deepEqual(dialect(line.dialect).refreshGrant(billing), line.refresh)
  })
}

test('the scope dialect asks for openid at a refresh only if the login had it', () => {
  assert.deepEqual(dialect('scope', ['offline_access']).refreshGrant(orders), [
    ['scope', 'api://orders/.default offline_access'],
  ])
})

test('a grant without refresh token never asks for a user or a new refresh token', () => {
  assert.deepEqual(dialect('scope').otherGrant(orders), [['scope', 'api://orders/.default']])
})
