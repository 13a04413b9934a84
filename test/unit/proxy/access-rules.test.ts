import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { AccessRules } from '../../../src/config/config.ts'
import { BffError } from '../../../src/errors.ts'
import { createAccessCheck, unmetRule } from '../../../src/proxy/access-rules.ts'
import type { BffSession } from '../../../src/session/session.ts'
import type { AccessToken } from '../../../src/tokens/record/sealing.ts'
import { routeWith } from '../../kit/upstream/routes.ts'

const NOW = 1_800_000_000_000
const AT = { now: NOW, clockToleranceMs: 60_000 }
const secondsAgo = (seconds: number) => NOW / 1000 - seconds

type Claims = Record<string, unknown>
const claim = (name: string, ...values: string[]): AccessRules => ({ claims: [{ name, values }] })

function verdict(rules: AccessRules, claims: Claims, scopes: readonly string[] = []): string {
  const unmet = unmetRule(rules, { claims, scopes: () => scopes }, AT)
  return unmet === undefined ? 'met' : [unmet.reason, 'claim' in unmet ? unmet.claim : ''].join(' ').trim()
}

describe('a claim rule', () => {
  const ROWS: [what: string, rules: AccessRules, claims: Claims, verdict: string][] = [
    ['is met by one item of a list', claim('groups', 'ops'), { groups: ['dev', 'ops'] }, 'met'],
    ['is met by one of its values', claim('groups', 'ops', 'dev'), { groups: ['dev'] }, 'met'],
    ['is met by a text', claim('department', 'IT'), { department: 'IT' }, 'met'],
    ['is met by a boolean, as a text too', claim('email_verified', 'true'), { email_verified: true }, 'met'],
    ['is met by a text that says true', claim('email_verified', 'true'), { email_verified: 'true' }, 'met'],
    ['is met by a number', claim('level', '3'), { level: 3 }, 'met'],
    ['is met by a number in a list', claim('levels', '3'), { levels: [1, 3] }, 'met'],
    ['is not met by another letter case', claim('groups', 'ops'), { groups: ['Ops'] }, 'claims groups'],
    ['is not met by a part of a text', claim('groups', 'ops'), { groups: 'devops' }, 'claims groups'],
    ['does not split a text', claim('groups', 'ops'), { groups: 'dev ops' }, 'claims groups'],
    ['does not join a list', claim('groups', 'dev,ops'), { groups: ['dev', 'ops'] }, 'claims groups'],
    ['is not met without the claim', claim('groups', 'ops'), { sub: 'u1' }, 'claims groups'],
    ['is not met by an empty list', claim('groups', 'ops'), { groups: [] }, 'claims groups'],
    ['is not met by null, whose text is null', claim('groups', 'null'), { groups: null }, 'claims groups'],
    [
      'is not met by an absent claim, whose text is undefined',
      claim('groups', 'undefined'),
      {},
      'claims groups',
    ],
    ['is not met by an object', claim('groups', '[object Object]'), { groups: {} }, 'claims groups'],
    ['is not met by a list in a list', claim('groups', 'ops'), { groups: [['ops']] }, 'claims groups'],
    ['is not met by what every object inherits', claim('constructor', 'ops'), {}, 'claims constructor'],
    [
      'is not met by a path into what every object inherits',
      claim('constructor.name', 'Object'),
      {},
      'claims constructor.name',
    ],
    [
      'is not met by the length of a list',
      claim('groups.length', '1'),
      { groups: ['ops'] },
      'claims groups.length',
    ],
    [
      'reads a path into objects',
      claim('realm_access.roles', 'ops'),
      { realm_access: { roles: ['ops'] } },
      'met',
    ],
    [
      'reads a path past names with dots',
      claim('resource_access.my.app.roles', 'ops'),
      { resource_access: { 'my.app': { roles: ['ops'] } } },
      'met',
    ],
    [
      'takes the whole name first, whatever a path would find',
      claim('a.b', 'inner'),
      { 'a.b': 'outer', a: { b: 'inner' } },
      'claims a.b',
    ],
    [
      'knows a name that is a URL',
      claim('https://x.test/roles', 'ops'),
      { 'https://x.test/roles': ['ops'] },
      'met',
    ],
    [
      'must be met for every claim that is named',
      { claims: [...claim('groups', 'ops').claims!, ...claim('tier', 'gold').claims!] },
      { groups: ['ops'], tier: 'silver' },
      'claims tier',
    ],
    [
      'cannot be judged when Entra ID left the groups out',
      claim('groups', 'ops'),
      { _claim_names: { groups: 'src1' }, _claim_sources: { src1: { endpoint: 'https://graph' } } },
      'groups_overage groups',
    ],
    [
      'cannot be judged when a token says hasgroups',
      claim('groups', 'ops'),
      { hasgroups: true },
      'groups_overage groups',
    ],
    [
      'goes by the claim when there is one all the same',
      claim('groups', 'ops'),
      { groups: ['ops'], _claim_names: { groups: 'src1' } },
      'met',
    ],
    [
      'is not excused by the overage of another claim',
      claim('roles', 'ops'),
      { hasgroups: true },
      'claims roles',
    ],
    [
      'is not confused by names that are no object',
      claim('groups', 'ops'),
      { _claim_names: 'groups' },
      'claims groups',
    ],
  ]
  for (const [what, rules, claims, expected] of ROWS)
    test(what, () => assert.equal(verdict(rules, claims), expected))
})

describe('the other rules', () => {
  test('a scope rule is met by one of its scopes, letter by letter', () => {
    const rules = { scopes: ['orders.write', 'orders.admin'] }
    assert.equal(verdict(rules, {}, ['openid', 'orders.admin']), 'met')
    assert.equal(verdict(rules, {}, ['orders.Write', 'orders.write2', 'write']), 'insufficient_scope')
    assert.equal(verdict(rules, { scope: 'orders.write' }), 'insufficient_scope')
  })

  test('an acr rule is met by one of its classes; a number is one, too', () => {
    assert.equal(verdict({ acr: ['mfa', 'hwk'] }, { acr: 'hwk' }), 'met')
    assert.equal(verdict({ acr: ['2'] }, { acr: 2 }), 'met')
    for (const acr of ['pwd', 'MFA', '', undefined])
      assert.equal(verdict({ acr: ['mfa'] }, { acr }), 'insufficient_user_authentication acr')
  })

  test('the age of the sign-in goes by auth_time, and without one it is not met', () => {
    const rules = { maxAgeMs: 900_000 }
    for (const seconds of [0, 900, -60])
      assert.equal(verdict(rules, { auth_time: secondsAgo(seconds) }), 'met', `${seconds}`)
    const others = [
      secondsAgo(901),
      secondsAgo(-61),
      undefined,
      null,
      String(secondsAgo(5)),
      Number.NaN,
      1e300,
    ]
    for (const authTime of others)
      assert.equal(
        verdict(rules, { auth_time: authTime }),
        'insufficient_user_authentication auth_time',
        `${authTime}`,
      )
  })

  test('all are needed, and what signing in again cannot cure is told first', () => {
    const rules = { ...claim('groups', 'ops'), acr: ['mfa'], maxAgeMs: 900_000, scopes: ['w'] }
    const all = { groups: ['ops'], acr: 'mfa', auth_time: secondsAgo(5) }
    assert.equal(verdict(rules, all, ['w']), 'met')
    assert.equal(verdict(rules, {}, []), 'claims groups')
    assert.equal(verdict(rules, { groups: ['ops'] }, []), 'insufficient_scope')
    assert.equal(verdict(rules, { groups: ['ops'] }, ['w']), 'insufficient_user_authentication acr')
  })
})

describe('the check of a session', () => {
  const token: AccessToken = { value: 'at', expiresAt: 0, renewAt: 0 }

  function refusal(rules: AccessRules, claims: Claims, createdAt = NOW) {
    const leftOut: string[] = []
    const check = createAccessCheck({
      ...{ now: () => NOW, clockToleranceMs: 0, scopesOf: ({ value }, resource) => [`${value} ${resource}`] },
      leftOut: (...told) => leftOut.push(told.join(' ')),
    })
    const route = { ...routeWith({ path: '/x', id: 'x', resource: 'orders' }), require: rules }
    const error = check(route, { claims, createdAt } as unknown as BffSession, token)
    return { error, leftOut }
  }

  test('a denial has its reason for the browser, and the name of the claim for the log, but no value', () => {
    const { error } = refusal(claim('groups', 'ops'), { groups: ['dev'] })
    assert.ok(error instanceof BffError)
    assert.deepEqual(
      [error.code, error.details, error.logged],
      ['access_denied', { reason: 'claims' }, { claim: 'groups' }],
    )
    assert.doesNotMatch(error.message, /dev|ops/)
  })

  test("scopes are those of the route's own token", () => {
    assert.equal(refusal({ scopes: ['at orders'] }, {}).error, undefined)
    assert.deepEqual(refusal({ scopes: ['at'] }, {}).error?.details, { reason: 'insufficient_scope' })
  })

  test('the overage of groups is told with the route', () => {
    const { error, leftOut } = refusal(claim('groups', 'ops'), { hasgroups: true })
    assert.deepEqual(error?.details, { reason: 'groups_overage' })
    assert.deepEqual(leftOut, ['x groups'])
  })

  test('a weak sign-in leads to one that brings everything at once', () => {
    const { error } = refusal({ acr: ['mfa', 'hwk'], maxAgeMs: 900_500 }, { acr: 'pwd' })
    assert.equal(error?.code, 'reauthentication_required')
    assert.deepEqual(error?.stepUp, { resource: 'orders', ofRoute: true, acrValues: 'mfa hwk', maxAge: 900 })
  })

  test('a sign-in that was good enough and has grown old may be asked for again, and no other', () => {
    const rules = { acr: ['mfa'], maxAgeMs: 900_000 }
    const signIn = secondsAgo(3_600)
    const old = { acr: 'mfa', auth_time: signIn }
    assert.equal(refusal(rules, old, signIn * 1000).error?.stepUp?.hasAged, true)
    assert.equal(refusal(rules, old, NOW).error?.stepUp?.hasAged, undefined)
    assert.equal(refusal(rules, { ...old, acr: 'pwd' }, signIn * 1000).error?.stepUp?.hasAged, undefined)
    assert.equal(refusal(rules, { acr: 'mfa' }, signIn * 1000).error?.stepUp?.hasAged, undefined)
  })
})
