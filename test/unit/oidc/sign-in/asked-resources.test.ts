import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ResourceConfig, ResourceDialect } from '../../../../src/config/config.ts'
import { BffError, stepUpFingerprint } from '../../../../src/errors.ts'
import { createDialect } from '../../../../src/oidc/grants/dialects.ts'
import { createResourceGrants } from '../../../../src/oidc/grants/resource-grants.ts'
import type { SessionGrant } from '../../../../src/store/port.ts'

const orders: ResourceConfig = { name: 'orders', scopes: ['orders'], grant: 'refresh_token' }
const billing: ResourceConfig = { name: 'billing', scopes: ['billing'], grant: 'refresh_token' }

type Settings = { signInScopes?: 'first'; resourceDialect?: ResourceDialect; inUse?: ResourceConfig[] }

/** What becomes of the wish for a token, before the refresh token is even looked at. */
function verdictFor(resource: ResourceConfig, signIn: SessionGrant, settings: Settings = {}) {
  const { signInScopes = 'all', resourceDialect = 'scope', inUse = [orders, billing] } = settings
  const noted: string[] = []
  const grants = createResourceGrants({
    dialect: createDialect({ resourceDialect, scopes: ['openid'], signInScopes }, inUse),
    resources: Object.fromEntries(inUse.map((one) => [one.name, one])),
    monotonicNow: () => 0,
    clientCapabilities: [],
    log: { info() {}, warn() {}, error() {} },
    relyingParty: {} as never,
    note: ({ outcome }) => noted.push(outcome) > 0,
  })
  try {
    grants.requireAsked(resource.name, signIn)
    return { verdict: 'offered', noted }
  } catch (error) {
    assert.ok(error instanceof BffError)
    return { verdict: `${error.code} ${error.details?.reason}`, stepUp: error.stepUp, noted }
  }
}

const NOT_ASKED = 'reauthentication_required resource_not_granted'

test('a refresh token is offered for what its sign-in asked for, and for nothing that a reload has added since', () => {
  const asked = { scopes: ['openid', 'orders'] }
  assert.equal(verdictFor(orders, asked).verdict, 'offered')
  assert.equal(verdictFor(billing, asked).verdict, NOT_ASKED)
  assert.equal(verdictFor(billing, { scopes: ['openid', 'orders', 'billing'] }).verdict, 'offered')
  const more = { ...orders, scopes: ['orders', 'orders.write'] }
  assert.equal(verdictFor(more, asked, { inUse: [more, billing] }).verdict, NOT_ASKED)
})

test('what is lacking tells one step-up from the next, so that a second reload asks again', () => {
  const more = { ...orders, scopes: ['orders', 'orders.write'] }
  const { stepUp } = verdictFor(more, { scopes: ['openid', 'orders'] }, { inUse: [more, billing] })
  const { stepUp: other } = verdictFor(orders, { scopes: ['openid'] })
  assert.notEqual(stepUpFingerprint(stepUp!), stepUpFingerprint(other!))
})

test('a session from before asked for the first resource only: for the others its refresh token is not offered', () => {
  assert.equal(verdictFor(orders, {}).verdict, 'offered')
  assert.equal(verdictFor(billing, {}).verdict, NOT_ASKED)
  assert.equal(verdictFor(billing, {}, { inUse: [billing] }).verdict, 'offered')
  assert.equal(verdictFor(orders, { steppedUp: ['a step-up, for whatever resource'] }).verdict, NOT_ASKED)
})

test('where refreshes widen, at Entra ID, a refresh token is offered for every resource', () => {
  const signInScopes = 'first'
  assert.equal(verdictFor(billing, {}, { signInScopes }).verdict, 'offered')
  assert.equal(
    verdictFor(billing, { scopes: ['openid', 'orders'], granted: ['orders'] }, { signInScopes }).verdict,
    'offered',
  )
})

test('with RFC 8707 it is the indicators that a sign-in asked for, and the scopes too', () => {
  const named = { ...orders, resource: 'https://orders.example.com' }
  const settings = { resourceDialect: 'resource-indicator', inUse: [named, billing] } as const
  const indicators = ['https://orders.example.com']
  assert.equal(
    verdictFor(named, { indicators }, { ...settings, inUse: [...settings.inUse] }).verdict,
    'offered',
  )
  assert.equal(
    verdictFor(named, { indicators, scopes: ['openid'] }, { ...settings, inUse: [...settings.inUse] })
      .verdict,
    NOT_ASKED,
  )
  assert.equal(
    verdictFor(named, { indicators: ['https://other.example'] }, { ...settings, inUse: [...settings.inUse] })
      .verdict,
    NOT_ASKED,
  )
})

test("what a user did not consent to is not asked for again without him: once with consent, then it is the operator's", () => {
  const signIn = { scopes: ['openid', 'orders', 'billing'], granted: ['openid', 'orders'] }
  assert.equal(verdictFor(orders, signIn).verdict, 'offered')
  const { verdict, stepUp, noted } = verdictFor(billing, signIn)
  assert.equal(verdict, 'reauthentication_required scope_not_granted')
  assert.equal(stepUp?.consent, true)
  assert.deepEqual(noted, ['scope_not_granted'])
  const again = verdictFor(billing, { ...signIn, steppedUp: [stepUpFingerprint(stepUp!)] })
  assert.equal(again.verdict, 'provider_rejected scope_not_granted')
})
