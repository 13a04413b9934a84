import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { bearerChallenge } from '../../../../src/proxy/headers/www-authenticate.ts'
import { RECORDED, RECORDED_CLAIMS } from '../../../kit/upstream/recorded-challenge.ts'

const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64')
const claimsField = (claims: string, scheme = 'Bearer') =>
  `${scheme} error="insufficient_claims", claims="${claims}"`
const CLAIMS = { access_token: { acrs: { essential: true, value: 'c1' } } }
const CLAIMS_CHALLENGE = { kind: 'insufficient_claims', claims: JSON.stringify(CLAIMS) }
/** Its base64 has `+`, `/` and padding. */
const ODD = { access_token: { a: '~~~???>>>\u00ff' } }
const ODD_CHALLENGE = { kind: 'insufficient_claims', claims: JSON.stringify(ODD) }
/** Claims of so many bytes. */
const sized = (bytes: number) => ({ access_token: 'x'.repeat(bytes - 33), id_token: {} })

const INVALID = { kind: 'invalid_token' }
const STEP_UP = 'Bearer error="insufficient_user_authentication"'
const KINDS: [what: string, fields: string[], challenge: unknown][] = [
  ['no field', [], undefined],
  ['no error', ['Bearer realm="x"'], undefined],
  ['invalid_token', ['Bearer realm="x", error="invalid_token", error_description="expired"'], INVALID],
  ['invalid_token for DPoP', ['dpop algs="ES256", error=invalid_token'], INVALID],
  [
    'invalid_token in the last of several fields',
    ['Negotiate', 'Basic realm="a"', 'BEARER Error="invalid_token"'],
    INVALID,
  ],
  ['invalid_token of another scheme', ['Basic error="invalid_token"'], undefined],
  ['invalid_token in a description', ['Bearer error_description="error=\\"invalid_token\\", x"'], undefined],
  ['invalid_token as a scheme', ['Bearer realm="x, error="invalid_token"'], undefined],
  ['an error in another case', ['Bearer error="Invalid_Token"'], undefined],
  ['insufficient_scope', ['Bearer error="insufficient_scope", scope="a b"'], undefined],
  ['invalid_request', ['Bearer error="invalid_request"'], undefined],
  ['what was recorded', [RECORDED], { kind: 'insufficient_claims', claims: RECORDED_CLAIMS }],
  ['an authentication context', [claimsField(encode(CLAIMS))], CLAIMS_CHALLENGE],
  ['claims for DPoP', [claimsField(encode(CLAIMS), 'DPoP')], CLAIMS_CHALLENGE],
  [
    'claims for the ID token',
    [claimsField(encode({ id_token: {} }))],
    { kind: 'insufficient_claims', claims: '{"id_token":{}}' },
  ],
  ['claims without padding', [claimsField(encode(ODD).replace(/=+$/, ''))], ODD_CHALLENGE],
  ['claims with padding', [claimsField(encode(ODD))], ODD_CHALLENGE],
  [
    'claims in base64url',
    [claimsField(Buffer.from(JSON.stringify(ODD)).toString('base64url'))],
    ODD_CHALLENGE,
  ],
  [
    'claims in base64url with padding',
    [claimsField(encode(ODD).replaceAll('+', '-').replaceAll('/', '_'))],
    ODD_CHALLENGE,
  ],
  ['unquoted claims', [`Bearer error=insufficient_claims, claims=${encode(ODD)}`], ODD_CHALLENGE],
  [
    'claims in another challenge',
    [`Bearer error="insufficient_claims", Bearer claims="${encode(CLAIMS)}"`],
    undefined,
  ],
  [
    'claims in another field',
    ['Bearer error="insufficient_claims"', `Bearer claims="${encode(CLAIMS)}"`],
    undefined,
  ],
  ['the error in a challenge of another scheme', [`PoP ${claimsField(encode(CLAIMS)).slice(7)}`], undefined],
  ['claims without the error', [`Bearer claims="${encode(CLAIMS)}"`], undefined],
  ['claims that are missing', ['Bearer error="insufficient_claims"'], undefined],
  ['claims that are empty', [claimsField('')], undefined],
  [
    'claims in plain JSON',
    ['Bearer error="insufficient_claims", claims="{\\"access_token\\":{}}"'],
    undefined,
  ],
  ['claims with a stray character', [claimsField(`${encode(CLAIMS)}%`)], undefined],
  ['claims that are no JSON', [claimsField(Buffer.from('{access_token:{}}').toString('base64'))], undefined],
  [
    'claims that are no UTF-8',
    [claimsField(Buffer.from('{"access_token":{"a":"\u00ff"}}', 'latin1').toString('base64'))],
    undefined,
  ],
  ['claims that are an array', [claimsField(encode([CLAIMS]))], undefined],
  ['claims that are null', [claimsField(encode(null))], undefined],
  ['claims that are text', [claimsField(encode('access_token'))], undefined],
  ['claims for nothing', [claimsField(encode({ userinfo: {} }))], undefined],
  [
    'claims whose access_token is no object',
    [claimsField(encode({ access_token: 'x', id_token: [] }))],
    undefined,
  ],
  [
    'claims of 8 KiB',
    [claimsField(encode(sized(8_192)))],
    { kind: 'insufficient_claims', claims: JSON.stringify(sized(8_192)) },
  ],
  ['claims of more', [claimsField(encode(sized(8_193)))], undefined],
  [
    'step-up',
    [`${STEP_UP}, acr_values="urn:a urn:b", max_age="300"`],
    { kind: 'insufficient_user_authentication', acrValues: 'urn:a urn:b', maxAge: 300 },
  ],
  ['step-up to a token', [`${STEP_UP}, max_age=0`], { kind: 'insufficient_user_authentication', maxAge: 0 }],
  ['step-up to nothing', [STEP_UP], { kind: 'insufficient_user_authentication' }],
  [
    'step-up that makes no sense',
    [`${STEP_UP}, acr_values=" ", max_age="-1"`],
    { kind: 'insufficient_user_authentication' },
  ],
  [
    'step-up in a strange alphabet',
    [`${STEP_UP}, acr_values="a\u00e9", max_age="1e9"`],
    { kind: 'insufficient_user_authentication' },
  ],
  [
    'invalid_token before claims',
    ['Bearer error="invalid_token"', claimsField(encode(CLAIMS))],
    CLAIMS_CHALLENGE,
  ],
  ['unusable claims before invalid_token', [claimsField('%'), 'Bearer error="invalid_token"'], INVALID],
]

describe('what a 401 has against our token', () => {
  for (const [what, fields, challenge] of KINDS) {
    test(what, () => assert.deepEqual(bearerChallenge(fields), challenge))
  }
})
