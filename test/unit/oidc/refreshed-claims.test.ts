import assert from 'node:assert/strict'
import { test } from 'node:test'
import { claimsAfterRefresh } from '../../../src/oidc/refreshed-claims.ts'

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
  assert.deepEqual(claimsAfterRefresh(before, { sub: 'ada', iat: 150, name: 'Ada' }, undefined), {
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

test("another user's ID token, and one from before, change nothing", () => {
  assert.equal(claimsAfterRefresh(BEFORE, { sub: 'eve', iat: 150, name: 'Eve' }, undefined), undefined)
  assert.equal(claimsAfterRefresh(BEFORE, { sub: 'ada', iat: 99, name: 'Old' }, undefined), undefined)
})
