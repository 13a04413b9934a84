import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ResourceConfig } from '../../../../src/config/config.ts'
import { BffError } from '../../../../src/errors.ts'
import type { GrantResult } from '../../../../src/oidc/grants/config-faults.ts'
import { createDialect } from '../../../../src/oidc/grants/dialects.ts'
import { createResourceGrants } from '../../../../src/oidc/grants/resource-grants.ts'
import { judgeToken, resourcesOfCode } from '../../../../src/oidc/grants/scopes.ts'
import type { GrantedTokens } from '../../../../src/oidc/token-endpoint/token-requests.ts'

const orders: ResourceConfig = {
  name: 'orders',
  scopes: ['orders'],
  audience: 'api://orders',
  grant: 'refresh_token',
}
const billing: ResourceConfig = { name: 'billing', scopes: ['billing'], grant: 'refresh_token' }
const unscoped: ResourceConfig = {
  ...{ name: 'unscoped', scopes: [], resource: 'https://unscoped.example', grant: 'refresh_token' },
}
const resources = { orders, billing, unscoped }

function jwt(claims: object): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  return `${part({ alg: 'RS256', typ: 'at+jwt' })}.${part(claims)}.c2lnbmF0dXJl`
}

function judged(resource: ResourceConfig, accessToken: string, scope?: string): string {
  return judgeToken({ accessToken, resource: undefined, scope }, resource, resources)?.outcome ?? 'sent'
}

test('an opaque token is judged by the scope of its answer', () => {
  assert.equal(judged(billing, 'opaque'), 'sent')
  assert.equal(judged(billing, 'opaque', 'openid billing'), 'sent')
  assert.equal(judged(billing, 'opaque', 'openid offline_access orders'), 'scope_not_granted')
  assert.equal(judged(billing, 'opaque', 'openid offline_access'), 'scope_not_granted')
  assert.equal(judged(billing, 'opaque', ''), 'scope_not_granted')
})

test('a JWT is judged by the scope of its answer, whatever its audience says', () => {
  const token = jwt({ aud: 'api://orders' })
  assert.equal(judged(orders, token, 'orders'), 'sent')
  assert.equal(judged(orders, token, 'openid billing'), 'scope_not_granted')
  assert.equal(judged(orders, jwt({ aud: 'account' }), 'openid'), 'scope_not_granted')
  assert.equal(judged(orders, jwt({ aud: 'account' })), 'wrong_audience')
})

test("a JWT that carries another resource's scopes alone is not sent, though its answer says nothing of them", () => {
  for (const claims of [{ scope: 'openid orders' }, { scp: 'orders' }, { scp: ['orders'] }])
    assert.equal(judged(billing, jwt(claims)), 'scope_not_granted', JSON.stringify(claims))
  for (const claims of [{ scope: 'openid orders billing' }, { scp: 'Read.All' }, { roles: ['orders'] }])
    assert.equal(judged(billing, jwt(claims)), 'sent', JSON.stringify(claims))
})

test('a resource without scopes goes by its audience where the answer names the scopes of others', () => {
  assert.equal(judged(unscoped, 'opaque', 'openid orders'), 'scope_not_granted')
  assert.equal(judged(unscoped, jwt({ aud: 'https://unscoped.example' }), 'openid orders'), 'sent')
  assert.equal(judged(unscoped, jwt({ aud: 'api://orders' }), 'openid orders'), 'scope_not_granted')
  assert.equal(judged(unscoped, 'opaque', 'openid something'), 'sent')
})

test('the token of a code is good for those resources whose scopes or audiences it has', () => {
  const inUse = [orders, billing]
  const goodFor = (accessToken: string, scope?: string, asked?: string[]) =>
    resourcesOfCode({ accessToken, scope }, asked, inUse).map(({ name }) => name)
  const all = ['openid', 'orders', 'billing']
  assert.deepEqual(goodFor('opaque', undefined, all), ['orders', 'billing'])
  assert.deepEqual(goodFor('opaque', 'openid orders billing', all), ['orders', 'billing'])
  assert.deepEqual(goodFor('opaque', 'openid billing', all), ['billing'])
  assert.deepEqual(goodFor(jwt({ aud: ['api://orders', 'other'] })), ['orders'])
  const both = [orders, { ...billing, audience: 'api://billing' }]
  const token = { accessToken: jwt({ aud: ['api://orders', 'api://billing'] }), scope: 'openid' }
  assert.deepEqual(resourcesOfCode(token, undefined, both), both)
})

/** Every way to a token, at a provider whose answers say `scope: "orders"` whatever was asked for. */
function narrowing() {
  const noted: GrantResult[] = []
  const lines: [object, string][] = []
  const granted: GrantedTokens = {
    ...{ accessToken: 'opaque', obtainedAt: 0, expiresAt: 1, refreshToken: undefined, idToken: undefined },
    ...{ claims: undefined, resource: undefined, scope: 'openid orders' },
  }
  const grant = async () => granted
  const deps = {
    dialect: createDialect({ resourceDialect: 'scope', scopes: ['openid'], signInScopes: 'all' }, [
      orders,
      billing,
    ]),
    resources: {
      ...{ orders, billing },
      audit: { name: 'audit', scopes: ['audit'], grant: 'client_credentials' },
      stock: { name: 'stock', scopes: ['stock'], grant: 'token_exchange', subject: 'orders' },
    } as Record<string, ResourceConfig>,
    monotonicNow: () => 0,
    inUse: [orders, billing],
    clientCapabilities: [],
    log: { info() {}, error() {}, warn: (fields: object, text: string) => void lines.push([fields, text]) },
    relyingParty: {
      ...{ refreshGrant: grant, clientCredentialsGrant: grant, tokenExchangeGrant: grant },
    } as never,
    note: (result: GrantResult) => noted.push(result) < 0,
  }
  const grants = createResourceGrants(deps)
  return { ...grants, exchange: grants.tokenExchangeGrant, noted, lines }
}

test('a refresh that was narrowed in silence asks for consent, and tells what was expected and what came', async () => {
  const { refreshGrant, noted, lines } = narrowing()
  const request = { refreshToken: 'rt', keep: async () => undefined }
  const outcome = await refreshGrant({ ...request, resource: 'billing' })
  assert.equal(outcome.kind, 'refused')
  assert.ok(outcome.kind === 'refused' && outcome.error instanceof BffError)
  assert.deepEqual(
    [outcome.error.code, outcome.error.details?.reason, outcome.error.stepUp?.resource],
    ['reauthentication_required', 'scope_not_granted', 'billing'],
  )
  const [{ outcome: counted, isOfUser, expected, actual } = {} as GrantResult] = noted
  assert.deepEqual(
    [counted, isOfUser, expected, actual],
    ['scope_not_granted', true, 'billing', 'openid orders'],
  )
  assert.match(JSON.stringify(lines), /"expected":"billing","actual":"openid orders"/)
  assert.equal((await refreshGrant({ ...request, resource: 'orders' })).kind, 'renewed')
})

test('no consent of a user cures a token of the client, or one that was exchanged', async () => {
  const { clientCredentialsGrant, exchange, noted } = narrowing()
  const rejected = (error: unknown) =>
    error instanceof BffError &&
    error.code === 'provider_rejected' &&
    error.details?.reason === 'scope_not_granted'
  await assert.rejects(clientCredentialsGrant('audit'), rejected)
  await assert.rejects(exchange({ resource: 'stock', subjectToken: 'opaque' }), rejected)
  assert.deepEqual(
    noted.map(({ resource, outcome, isOfUser }) => [resource, outcome, isOfUser]),
    [
      ['audit', 'scope_not_granted', undefined],
      ['stock', 'scope_not_granted', undefined],
    ],
  )
})

const MICROSOFT_GRAPH_ID = '00000003-0000-0000-c000-000000000000'
const shop: ResourceConfig = { name: 'shop', scopes: ['api://shop/.default'], grant: 'refresh_token' }
const mail: ResourceConfig = {
  ...{ name: 'mail', scopes: ['https://graph.microsoft.com/User.Read'], grant: 'refresh_token' },
}

test("a token of Microsoft Graph is sent to no other API, whether its answer's bare names or its audience tell", () => {
  const verdict = (resource: ResourceConfig, scope: string, claims?: object) =>
    judgeToken({ accessToken: claims ? jwt(claims) : 'opaque', resource: undefined, scope }, resource, {
      shop,
      mail,
    })?.outcome ?? 'sent'
  assert.equal(verdict(shop, 'User.Read openid profile'), 'scope_not_granted')
  assert.equal(
    verdict(shop, 'Mail.Read openid', { aud: MICROSOFT_GRAPH_ID, scp: 'Mail.Read' }),
    'wrong_audience',
  )
  assert.equal(verdict(shop, 'Mail.Read', { aud: 'https://graph.microsoft.com/' }), 'wrong_audience')
  assert.equal(verdict(mail, 'User.Read', { aud: MICROSOFT_GRAPH_ID, scp: 'User.Read' }), 'sent')
  const aud = '6731de76-14a6-49ae-97bc-6eba6914391e'
  assert.equal(verdict(shop, 'api://shop/User.Read openid', { aud, scp: 'User.Read' }), 'sent')
  assert.equal(verdict(shop, 'access_as_user', { aud, scp: 'access_as_user' }), 'sent')
})

test('a JWT for the audience of another resource is not sent where nothing else tells, and is where its scope does', () => {
  const one: ResourceConfig = { name: 'one', scopes: [], resource: 'https://one', grant: 'refresh_token' }
  const other: ResourceConfig = { ...one, name: 'other', resource: 'https://other' }
  const verdict = (resource: ResourceConfig, aud: string | string[], scope?: string) =>
    judgeToken({ accessToken: jwt({ aud }), resource: undefined, scope }, resource, {
      one,
      other,
      orders,
      billing,
    })?.outcome ?? 'sent'
  assert.equal(verdict(one, 'https://other'), 'wrong_audience')
  assert.equal(verdict(one, ['https://other', 'https://one']), 'sent')
  assert.equal(verdict(one, 'https://elsewhere'), 'sent')
  assert.equal(verdict(billing, 'api://orders'), 'wrong_audience')
  assert.equal(verdict(billing, 'api://orders', 'openid billing'), 'sent')
  const code = { accessToken: jwt({ aud: ['https://one', 'https://other'] }), scope: undefined }
  assert.deepEqual(resourcesOfCode(code, undefined, [one, other]), [one, other])
})

test('an answer that names the resource asked for is not judged by scopes that were not asked for', () => {
  const one: ResourceConfig = {
    ...{ name: 'one', scopes: ['Orders.Read'], resource: 'https://one', grant: 'refresh_token' },
  }
  const other = { ...one, name: 'other', scopes: ['user_impersonation'], resource: 'https://other' } as const
  const verdict = (resource: string, aud: string) =>
    judgeToken({ accessToken: jwt({ aud }), resource, scope: 'user_impersonation' }, one, { one, other })
      ?.outcome
  assert.equal(verdict('https://one', 'https://one'), undefined)
  assert.equal(verdict('https://other', 'https://one'), 'scope_not_granted')
  assert.equal(verdict('https://one', 'https://other'), 'wrong_audience')
})

test('an answer that names another resource is for that one, unless none is configured to compare with', () => {
  const named = (one: ResourceConfig) =>
    judgeToken({ accessToken: 'opaque', resource: 'https://other', scope: undefined }, one, { one })
  assert.deepEqual(named({ ...billing, resource: 'https://one' }), {
    ...{ outcome: 'wrong_audience', expected: 'https://one', actual: 'https://other' },
  })
  assert.equal(named(billing), undefined)
})

test('what was expected and what came are told as the requests have them, blank between scopes', () => {
  const one = { ...billing, scopes: ['billing.read', 'billing.write'] }
  const told = (accessToken: string, scope?: string) =>
    judgeToken({ accessToken, resource: undefined, scope }, one, { one, orders })
  const outcome = 'scope_not_granted'
  const expected = 'billing.read billing.write'
  assert.deepEqual(told('opaque', 'openid orders'), { outcome, expected, actual: 'openid orders' })
  assert.deepEqual(told(jwt({ scp: ['orders', 'openid'] })), { outcome, expected, actual: 'orders openid' })
  const foreign = told(jwt({ aud: ['api://orders', 'x'] }))
  assert.deepEqual(foreign, { outcome: 'wrong_audience', expected, actual: 'api://orders x' })
})

test('of what a provider answers, the log gets 200 characters', () => {
  const scopes = ['x'.repeat(201)]
  const fault = judgeToken(
    { accessToken: 'opaque', resource: undefined, scope: 'y'.repeat(201) },
    { ...billing, scopes },
    {},
  )
  assert.deepEqual([fault?.expected, fault?.actual], ['x'.repeat(200), 'y'.repeat(200)])
})

test('api://ID and ID are one application of Entra ID, whichever its token and the configuration say', () => {
  const id = '6731de76-14a6-49ae-97bc-6eba6914391e'
  const verdict = (audience: string, aud: string) =>
    judgeToken(
      { accessToken: jwt({ aud }), resource: undefined, scope: undefined },
      { ...orders, audience },
      {},
    )?.outcome ?? 'sent'
  assert.equal(verdict(`api://${id}`, id), 'sent')
  assert.equal(verdict(id, `api://${id}`), 'sent')
  assert.equal(verdict(`api://${id}`, `api://${id}/orders`), 'wrong_audience')
  assert.equal(verdict('api://orders', 'orders'), 'wrong_audience')
  for (const longer of [`https://api.test/${id}`, `xapi://${id}`, `${id}/x`, `api://${id}0`])
    assert.equal(verdict(longer, id), 'wrong_audience', longer)
})

test('an aud that is no text names nobody', () => {
  for (const aud of [7, null, {}, [7], [{}, null], []]) {
    assert.equal(
      judged({ ...shop, audience: 'api://shop' }, jwt({ aud })),
      'wrong_audience',
      JSON.stringify(aud),
    )
    assert.equal(judged(shop, jwt({ aud })), 'sent', JSON.stringify(aud))
  }
})
