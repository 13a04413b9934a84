import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  createTokenScopes,
  grantedScopes,
  isMicrosoftGraph,
  isOtherThanGraph,
  judgeScopes,
  ownersOf,
  scopeList,
} from '../../../../src/oidc/grants/scopes.ts'

const GRAPH = 'https://graph.microsoft.com'
const GRAPH_ID = '00000003-0000-0000-c000-000000000000'

/** Asked for, answered, verdict; another resource has the scopes `billing` and `api://billing/read`. */
const LINES: readonly [asked: string, answered: string | undefined, verdict: string][] = [
  ['orders', undefined, 'granted'],
  ['orders', 'openid offline_access orders', 'granted'],
  ['orders', 'openid orders billing', 'granted'],
  ['orders', 'openid profile email offline_access', 'missing'],
  ['orders', '', 'missing'],
  ['orders', 'shipping', 'missing'],
  ['orders', 'openid billing', 'foreign'],
  ['orders', 'Orders', 'granted'],
  ['orders', 'orders.read', 'missing'],
  ['orders', 'api://orders/orders', 'missing'],
  ['orders.read orders.write', 'orders.write', 'granted'],
  ['api://orders/.default', 'api://orders/orders.read openid', 'granted'],
  ['api://orders/.default', 'api://orders/.default', 'granted'],
  ['api://orders/.default', 'api://Orders/Orders.Read', 'granted'],
  ['api://orders/.default', 'orders.read', 'granted'],
  ['api://orders/.default', 'api://billing/read', 'foreign'],
  ['api://orders/.default', 'api://billing/other', 'missing'],
  ['api://orders/.default', 'api://orders2/orders.read', 'missing'],
  ['api://orders/.default', 'openid profile', 'missing'],
  ['api://orders/orders.read', 'orders.read', 'granted'],
  ['api://orders/orders.read', 'api://orders/orders.write', 'missing'],
  [
    '6731de76-14a6-49ae-97bc-6eba6914391e/.default',
    'api://6731de76-14a6-49ae-97bc-6eba6914391e/read',
    'granted',
  ],
  ['https://management.azure.com//.default', 'https://management.azure.com/user_impersonation', 'granted'],
  ['https://management.azure.com//.default', 'https://management.azure.com//user_impersonation', 'granted'],
  [
    'https://management.azure.com/.default',
    'https://management.core.windows.net/user_impersonation',
    'missing',
  ],
  ['User.Read', `${GRAPH}/User.Read openid`, 'granted'],
  [`${GRAPH}/User.Read`, 'openid User.Read', 'granted'],
  [`${GRAPH}/.default`, 'User.Read profile openid email', 'granted'],
  ['User.Read', 'https://evil.example/User.Read', 'missing'],
  [`${GRAPH_ID}/.default`, `${GRAPH}/User.Read openid`, 'granted'],
  ['orders', 'openid,orders', 'granted'],
  ['orders', 'openid,billing', 'foreign'],
  [`${GRAPH}/User.Read`, 'https%3A%2F%2Fgraph.microsoft.com%2FUser.Read', 'granted'],
  ['orders,new', 'orders,new', 'granted'],
  ['100%/%2F', '100%/%2F', 'granted'],
  ['', 'billing', 'foreign'],
  ['', 'openid', 'granted'],
  ['', 'shipping', 'granted'],
  ['profile', 'openid profile', 'granted'],
]

for (const [asked, answered, verdict] of LINES) {
  test(`asked for ${asked || 'no scope'} and answered ${answered ?? 'without scope'}: ${verdict}`, () => {
    const orders = { name: 'orders', scopes: asked.split(' ').filter(Boolean) }
    const billing = { name: 'billing', scopes: ['billing', 'api://billing/read'] }
    assert.equal(judgeScopes(scopeList(answered), orders, [billing, orders]), verdict)
  })
}

test("another resource's own scope, to the letter, is not ours because it is like one of ours", () => {
  const lower = { name: 'lower', scopes: ['orders'] }
  const upper = { name: 'upper', scopes: ['ORDERS'] }
  assert.deepEqual(ownersOf('ORDERS', [lower, upper]), [upper])
  assert.equal(judgeScopes(['ORDERS'], lower, [lower, upper]), 'foreign')
  const all = { name: 'all', scopes: ['api://shop/.default'] }
  const graph = { name: 'graph', scopes: ['User.Read'] }
  assert.equal(judgeScopes(['User.Read'], all, [all, graph]), 'foreign')
})

test('resources with the same scope share its token', () => {
  const one = { name: 'one', scopes: ['api'] }
  const other = { name: 'other', scopes: ['api'] }
  assert.equal(judgeScopes(['api'], one, [one, other]), 'granted')
})

test('of a resource, the scopes that the sign-in was granted', () => {
  const orders = { name: 'orders', scopes: ['orders.read', 'orders.write'] }
  assert.deepEqual(grantedScopes(orders, undefined), orders.scopes)
  assert.deepEqual(grantedScopes(orders, ['openid', 'orders.read']), ['orders.read'])
  assert.deepEqual(grantedScopes(orders, ['openid']), [])
})

test('Microsoft Graph is known in every cloud, by its URL in any spelling and by its id', () => {
  const clouds = [
    ...['https://graph.microsoft.com', 'https://graph.microsoft.us', 'https://dod-graph.microsoft.us'],
    'https://microsoftgraph.chinacloudapi.cn',
  ]
  for (const cloud of clouds) {
    for (const spelling of [cloud, `${cloud}/`, cloud.toUpperCase()])
      assert.equal(isMicrosoftGraph(spelling), true, spelling)
    const graph = { name: 'graph', scopes: [`${cloud}/User.Read`] }
    assert.equal(judgeScopes(['User.Read'], graph, [graph]), 'granted', cloud)
    assert.equal(isOtherThanGraph(graph), false, cloud)
  }
  assert.equal(isMicrosoftGraph(GRAPH_ID), true)
  for (const other of [`${GRAPH_ID}1`, `1${GRAPH_ID}`, 'https://graph.microsoft.com.evil.test', ''])
    assert.equal(isMicrosoftGraph(other), false, other)
})

test('a resource is other than Microsoft Graph only when each of its scopes names another API', () => {
  assert.equal(isOtherThanGraph({ scopes: ['openid', 'api://shop/.default'] }), true)
  assert.equal(isOtherThanGraph({ scopes: ['api://shop/read', 'User.Read'] }), false)
  assert.equal(isOtherThanGraph({ scopes: ['api://shop/read', `${GRAPH}/User.Read`] }), false)
  assert.equal(isOtherThanGraph({ scopes: ['api://shop/read', `${GRAPH_ID}/User.Read`] }), false)
  assert.equal(isOtherThanGraph({ scopes: ['openid'] }), false, 'it names no API at all')
})

test('the scopes of OpenID Connect are granted without a word, in any spelling', () => {
  const resource = {
    name: 'orders',
    scopes: ['openid', 'Profile', 'email', 'address', 'phone', 'offline_access', 'orders'],
  }
  assert.deepEqual(grantedScopes(resource, ['shipping']), resource.scopes.slice(0, -1))
  assert.deepEqual(grantedScopes(resource, ['ORDERS']), resource.scopes)
})

test('a scope is read in each spelling that providers have', () => {
  assert.equal(scopeList(undefined), undefined)
  assert.equal(scopeList(['orders']), undefined)
  assert.deepEqual(scopeList(''), [])
  assert.deepEqual(scopeList('  a\tb  c '), ['a', 'b', 'c'])
  assert.deepEqual(scopeList('a,b,'), ['a,b,', 'a', 'b'])
  assert.deepEqual(scopeList('https%3A%2F%2Fa.test%2Fb'), ['https%3A%2F%2Fa.test%2Fb', 'https://a.test/b'])
  assert.deepEqual(scopeList('a%2fb'), ['a%2fb', 'a/b'])
  assert.deepEqual(scopeList('a%20b'), ['a%20b'])
})

test('the scopes of a token have every name that an operator may give them for its resource', () => {
  const resource = (parts: object) => ({
    ...{ name: 'orders', scopes: [] as string[], grant: 'refresh_token' as const, ...parts },
  })
  const scopesOf = createTokenScopes({
    orders: resource({ audience: 'api://orders/', resource: 'https://orders.test' }),
    billing: resource({ scopes: ['api://billing/read', 'openid'] }),
    plain: resource({}),
  })
  const names = (name: string, scope: string) => scopesOf({ value: 'opaque', scope }, name)
  assert.deepEqual(names('orders', 'read'), ['read', 'api://orders/read', 'https://orders.test/read'])
  assert.deepEqual(names('orders', 'api://orders/read'), ['api://orders/read', 'read'])
  assert.deepEqual(names('orders', 'api://billing/read'), ['api://billing/read'], 'another API is another')
  assert.deepEqual(names('billing', 'read'), ['read', 'api://billing/read'])
  assert.deepEqual(names('plain', 'read write'), ['read', 'write'])
  assert.deepEqual(names('unknown', 'read'), ['read'])
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const value = `${part({ alg: 'RS256' })}.${part({ scp: 'carried' })}.c2ln`
  assert.deepEqual(scopesOf({ value, scope: 'told' }, 'plain'), ['carried'], 'what it carries comes first')
  assert.deepEqual(scopesOf({ value: 'opaque' }, 'plain'), [])
})
