import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  IdTokenError,
  idTokenError,
  requireSoundClaims,
} from '../../../../src/oidc/token-endpoint/id-token.ts'

const NOW = 1_800_000_000_000
const SECONDS = NOW / 1000
const YEAR = 365 * 24 * 3600
const rules = { clientId: 'us', clockToleranceMs: 60_000, now: NOW }
const sound = { sub: 'ada', iat: SECONDS, exp: SECONDS + 300 }

function factsOf(claims: object): unknown {
  try {
    requireSoundClaims({ ...sound, ...claims }, rules)
    return 'sound'
  } catch (error) {
    assert.ok(error instanceof IdTokenError)
    assert.equal(error.name, 'IdTokenError')
    return { message: error.message, ...error.facts }
  }
}

test('claims that break no rule are given back as they are', () => {
  const claims = { ...sound, azp: 'us', name: 'Ada' }
  assert.equal(requireSoundClaims(claims, rules), claims)
})

test('an empty sub names nobody', () => {
  assert.deepEqual(factsOf({ sub: '' }), { message: 'the ID token has an empty sub', claim: 'sub' })
})

test('azp names this client, or is absent (OpenID Connect Core §3.1.3.7 rule 5)', () => {
  const message = 'the ID token has the azp of another client'
  assert.deepEqual(factsOf({ azp: 'another' }), { message, claim: 'azp' })
  assert.deepEqual(factsOf({ azp: null }), { message, claim: 'azp' })
  assert.equal(factsOf({ azp: undefined }), 'sound')
})

test('iat may be ahead of our clock by the tolerance, and by no more', () => {
  assert.equal(factsOf({ iat: SECONDS + 60 }), 'sound')
  assert.deepEqual(factsOf({ iat: SECONDS + 61 }), {
    message: 'the ID token has an iat 61 s in the future, and provider.clockTolerance is 60 s',
    claim: 'iat',
    offsetSeconds: 61,
  })
})

test('an exp more than a year away was not meant as one', () => {
  assert.equal(factsOf({ exp: SECONDS + 60 + YEAR }), 'sound')
  assert.deepEqual(factsOf({ exp: SECONDS + 61 + YEAR }), {
    message: 'the ID token has an exp that is no date',
    claim: 'exp',
  })
})

function coded(message: string, cause?: object): Error {
  return Object.assign(new Error(message), { code: 'OAUTH_JWT_CLAIM_COMPARISON_FAILED', cause })
}

test('what openid-client found wrong is told with the claim, its distance from our clock, and the key', () => {
  const idToken = `${Buffer.from('{"alg":"RS256","kid":"key-1"}').toString('base64url')}.e30.c2ln`
  const late = coded('unexpected exp', {
    ...{ claim: 'exp', claims: { exp: SECONDS - 90 }, now: SECONDS, tolerance: 60 },
  })
  const error = idTokenError(coded('invalid response', late), idToken)
  assert.equal(error.message, 'the ID token has an exp 90 s in the past, and provider.clockTolerance is 60 s')
  assert.deepEqual(error.facts, { claim: 'exp', offsetSeconds: -90, keyId: 'key-1' })
  assert.ok(error.cause instanceof Error)
})

test('a claim that is no time is named, without its value', () => {
  const wrong = coded('unexpected "iss"', {
    claim: 'iss',
    claims: { iss: 'https://evil.test' },
    now: SECONDS,
  })
  const error = idTokenError(coded('invalid response', wrong), 'no JWT')
  assert.deepEqual(error.facts, { claim: 'iss', keyId: undefined })
  assert.doesNotMatch(error.message, /evil/)
  const alone = coded('missing "exp"', { claim: 'exp', now: SECONDS })
  assert.deepEqual(idTokenError(coded('invalid response', alone), '').facts, {
    claim: 'exp',
    keyId: undefined,
  })
  const text = coded('unexpected "exp"', {
    claim: 'exp',
    claims: { exp: 'soon' },
    now: SECONDS,
    tolerance: 60,
  })
  assert.deepEqual(idTokenError(coded('invalid response', text), '').facts.offsetSeconds, undefined)
})

test('one of our own rules keeps its words, and gets the key', () => {
  const idToken = `${Buffer.from('{"alg":"RS256","kid":"key-2"}').toString('base64url')}.e30.c2ln`
  const error = idTokenError(new IdTokenError('the ID token has an empty sub', { claim: 'sub' }), idToken)
  assert.equal(error.message, 'the ID token has an empty sub')
  assert.deepEqual(error.facts, { claim: 'sub', keyId: 'key-2' })
})

test('a failure without any hint is told as such', () => {
  assert.equal(idTokenError('no error at all', '').message, 'the ID token is not sound')
  assert.deepEqual(idTokenError(new Error('odd'), '').facts, { keyId: undefined })
  assert.equal(idTokenError(new Error('odd'), '').message, 'odd')
})
