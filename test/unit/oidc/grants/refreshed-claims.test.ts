import assert from 'node:assert/strict'
import { test } from 'node:test'
import { claimsAfterRefresh } from '../../../../src/oidc/grants/refreshed-claims.ts'

const SIGN_IN = { acr: 'mfa', amr: ['otp'], auth_time: 1, sid: 's-1' }
const BEFORE = {
  ...{ sub: 'ada', iss: 'https://op', aud: 'shop', iat: 100, exp: 200, nonce: 'n', ...SIGN_IN },
  ...{ name: 'Ada', email: 'ada@example.com', roles: ['admin'] },
}

test('an ID token with protocol claims alone changes nothing', () => {
  const protocol = {
    sub: 'ada',
    iss: 'https://op',
    aud: 'shop',
    iat: 150,
    exp: 250,
    at_hash: 'x',
    sid: 's-2',
  }
  const entra = { ver: '2.0', tid: 't', uti: 'u', aio: 'a', rh: 'r', nbf: 150 }
  assert.equal(
    claimsAfterRefresh(BEFORE, { ...protocol, ...entra, acr: '0', amr: [], typ: 'ID' }, undefined),
    undefined,
  )
})

test('one that carries others replaces all but what tells of the sign-in: a last role that was taken away goes', () => {
  const refreshed = { sub: 'ada', iat: 150, exp: 250, name: 'Ada L.', acr: '0', sid: 's-2', auth_time: 9 }
  assert.deepEqual(claimsAfterRefresh(BEFORE, refreshed, undefined), {
    ...{ sub: 'ada', iat: 150, exp: 250, name: 'Ada L.' },
    ...SIGN_IN,
  })
})

test('what tells of the sign-in and was not there is not added by a refresh', () => {
  const { acr, amr, auth_time, sid, ...before } = BEFORE
  assert.deepEqual(claimsAfterRefresh(before, { sub: 'ada', iat: 150, name: 'Ada', ...SIGN_IN }, undefined), {
    ...{ sub: 'ada', iat: 150, name: 'Ada' },
  })
})

test('a refresh that asked for openid without profile takes no name away, and takes roles all the same', () => {
  const refreshed = { sub: 'ada', iat: 150, department: 'R&D' }
  const after = claimsAfterRefresh(BEFORE, refreshed, ['orders', 'offline_access', 'openid'])
  assert.deepEqual(after, { ...refreshed, ...SIGN_IN, name: 'Ada', email: 'ada@example.com' })
  const asked = claimsAfterRefresh(BEFORE, refreshed, ['openid', 'profile', 'email'])
  assert.deepEqual(asked, { ...refreshed, ...SIGN_IN })
})

test("groups that come with a scope of the provider's own stay when the refresh did not ask for that scope", () => {
  const before = { ...BEFORE, groups: ['ops'], 'urn:zitadel:iam:user:metadata': { a: 'b' } }
  const scopes = ['openid', 'profile', 'groups', 'urn:zitadel:iam:user:metadata', 'orders', 'constructor']
  const signIn = { scopes }
  const refreshed = { sub: 'ada', iat: 150, department: 'R&D' }
  const after = claimsAfterRefresh(before, refreshed, ['orders', 'openid'], signIn)
  assert.deepEqual(after?.groups, ['ops'])
  assert.deepEqual(after?.['urn:zitadel:iam:user:metadata'], { a: 'b' })
  assert.equal(after?.roles, undefined)
  assert.equal(claimsAfterRefresh(before, refreshed, ['openid', 'groups'], signIn)?.groups, undefined)
  assert.equal(claimsAfterRefresh(before, refreshed, undefined, signIn)?.groups, undefined)
  const told = { ...refreshed, groups: [] }
  assert.deepEqual(claimsAfterRefresh(before, told, ['orders', 'openid'], signIn)?.groups, [])
})

test('claims of the UserInfo endpoint stay as they were at sign-in, because a refresh does not ask for them', () => {
  const before = { ...BEFORE, groups: ['ops'], name: 'Ada of UserInfo' }
  const refreshed = { sub: 'ada', iat: 150, name: 'Ada of the ID token', department: 'R&D' }
  const after = claimsAfterRefresh(before, refreshed, undefined, { userinfo: ['groups', 'name'] })
  assert.deepEqual([after?.groups, after?.name, after?.department], [['ops'], 'Ada of UserInfo', 'R&D'])
})

test('an ID token with what Okta and Cognito put into every one changes nothing', () => {
  const okta = {
    sub: 'ada',
    iat: 150,
    ver: 1,
    jti: 'ID.x',
    amr: ['pwd'],
    idp: '00o1',
    auth_time: 2,
    at_hash: 'x',
  }
  assert.equal(claimsAfterRefresh(BEFORE, okta, ['orders', 'openid']), undefined)
  const cognito = { sub: 'ada', iat: 150, token_use: 'id', event_id: 'e', origin_jti: 'o', auth_time: 2 }
  assert.equal(claimsAfterRefresh(BEFORE, cognito, undefined), undefined)
})

test("another user's ID token, and one from before, change nothing", () => {
  assert.equal(claimsAfterRefresh(BEFORE, { sub: 'eve', iat: 150, name: 'Eve' }, undefined), undefined)
  assert.equal(claimsAfterRefresh(BEFORE, { sub: 'ada', iat: 99, name: 'Old' }, undefined), undefined)
})

test('an ID token with the protocol claims of JWT, OpenID Connect and known providers alone changes nothing, whichever', () => {
  const protocol = [
    ...['iss', 'aud', 'exp', 'nbf', 'iat', 'jti', 'nonce', 'azp', 'at_hash', 'c_hash', 's_hash'],
    ...['auth_time', 'acr', 'amr', 'sid', 'typ', 'session_state', 'ver', 'tid', 'uti', 'aio', 'rh', 'rat'],
    ...['idp', 'token_use', 'event_id', 'origin_jti', 'pi.sri'],
  ]
  for (const name of protocol)
    assert.equal(claimsAfterRefresh(BEFORE, { sub: 'ada', [name]: 150 }, undefined), undefined, name)
})

test('what a scope of OpenID Connect asks for stays where the refresh did not ask for that scope, and goes where it did', () => {
  // OpenID Connect Core §5.4, and Entra ID's `oid` and `upn`.
  const ofScope = {
    profile: [
      ...['name', 'family_name', 'given_name', 'middle_name', 'nickname', 'preferred_username', 'profile'],
      ...['picture', 'website', 'gender', 'birthdate', 'zoneinfo', 'locale', 'updated_at', 'oid', 'upn'],
    ],
    ...{ email: ['email', 'email_verified'], address: ['address'] },
    phone: ['phone_number', 'phone_number_verified'],
  }
  const refreshed = { sub: 'ada', iat: 150, department: 'R&D' }
  for (const [scope, names] of Object.entries(ofScope))
    for (const name of names) {
      const before = { sub: 'ada', iat: 100, [name]: 'x' }
      assert.equal(claimsAfterRefresh(before, refreshed, ['openid'])?.[name], 'x', name)
      assert.equal(claimsAfterRefresh(before, refreshed, ['openid', scope])?.[name], undefined, name)
    }
})

test('an ID token of the same second is as new as the one before', () => {
  const refreshed = { sub: 'ada', iat: BEFORE.iat, name: 'Ada L.' }
  assert.equal(claimsAfterRefresh(BEFORE, refreshed, undefined)?.name, 'Ada L.')
})

test('session_expiry is taken from every newer ID token that says it, whatever else it says, and stays when it does not', () => {
  const before = { ...BEFORE, session_expiry: 1_000 }
  const protocol = { sub: 'ada', iss: 'https://op', iat: 150, exp: 250 }
  assert.deepEqual(claimsAfterRefresh(before, { ...protocol, session_expiry: 900 }, undefined), {
    ...before,
    ...{ iat: 150, session_expiry: 900 },
  })
  assert.equal(claimsAfterRefresh(before, protocol, undefined), undefined)
  assert.equal(
    claimsAfterRefresh(before, { ...protocol, iat: 50, session_expiry: 900 }, undefined),
    undefined,
  )
  const named = claimsAfterRefresh(before, { ...protocol, name: 'Ada' }, undefined)
  assert.equal(named?.session_expiry, 1_000)
  const both = claimsAfterRefresh(before, { ...protocol, name: 'Ada', session_expiry: 1_100 }, undefined)
  assert.equal(both?.session_expiry, 1_100)
})
