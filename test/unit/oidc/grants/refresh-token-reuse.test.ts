import assert from 'node:assert/strict'
import { test } from 'node:test'
import { reusesRefreshTokens } from '../../../../src/oidc/grants/dialects.ts'

const TENANT = '11111111-2222-3333-4444-555555555555'

for (const [issuer, expected] of [
  [`https://login.microsoftonline.com/${TENANT}/v2.0`, true],
  [`https://login.microsoftonline.us/${TENANT}/v2.0`, true],
  [`https://contoso.b2clogin.com/${TENANT}/v2.0/`, true],
  [`https://login.contoso.com/${TENANT.toUpperCase()}/v2.0`, true],
  [`https://sts.windows.net/${TENANT}/`, true],
  ['https://sts.contoso.com/adfs', true],
  ['https://contoso.okta.com/oauth2/default', 'auto'],
  ['https://login.microsoftonline.com.example.net/common', 'auto'],
  [`https://id.example.com/${TENANT}/v2.0/realm`, 'auto'],
  ['https://id.example.com/realms/adfs-users', 'auto'],
] as const) {
  test(`whether ${issuer} takes a refresh token again is ${expected === true ? 'known' : 'to be learned'}`, () => {
    assert.equal(reusesRefreshTokens({ issuer, reusesRefreshTokens: 'auto' }), expected)
    for (const setting of [true, false]) {
      assert.equal(reusesRefreshTokens({ issuer, reusesRefreshTokens: setting }), setting)
    }
  })
}
