import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import { calculateJwkThumbprint, decodeJwt, EmbeddedJWK, type JWK, jwtVerify } from 'jose'
import {
  createProofs,
  newProofKey,
  proofKeyFor,
  proofKeyFromJwk,
  proofKeyToJwk,
  thumbprintOf,
} from '../../../src/oidc/dpop.ts'

const NOW = Date.now()
const TOKEN_URL = 'https://id.test/token?tenant=a#x'

function setUp() {
  const at = { time: 0 }
  return { at, ...createProofs({ now: () => NOW, monotonicNow: () => at.time }) }
}

test('a proof is a JWT of RFC 9449 §4.2, signed by the key whose public half it has', async () => {
  const { proofFor } = setUp()
  const key = newProofKey()
  const proof = proofFor(key, { method: 'POST', url: TOKEN_URL, accessToken: 'at-1' })
  const { payload, protectedHeader } = await jwtVerify(proof, EmbeddedJWK)
  const { jwk, ...header } = protectedHeader
  assert.deepEqual(header, { typ: 'dpop+jwt', alg: 'ES256' })
  assert.deepEqual(Object.keys(jwk ?? {}).sort(), ['crv', 'kty', 'x', 'y'])
  assert.equal(await calculateJwkThumbprint(jwk as JWK), thumbprintOf(key))
  const { jti, ...claims } = payload
  assert.deepEqual(claims, {
    ...{ htm: 'POST', htu: 'https://id.test/token', iat: Math.floor(NOW / 1000) },
    ath: createHash('sha256').update('at-1').digest('base64url'),
  })
  assert.ok(String(jti).length >= 16)
  assert.notEqual(decodeJwt(proofFor(key, { method: 'POST', url: TOKEN_URL })).jti, jti)
})

test('each server has its own nonce, the last one that it gave', () => {
  const { proofFor, learn, at } = setUp()
  const key = newProofKey()
  const nonceFor = (url: string) => decodeJwt(proofFor(key, { method: 'GET', url })).nonce
  assert.equal(nonceFor(TOKEN_URL), undefined)
  assert.equal(learn(TOKEN_URL, 'n-1'), true)
  assert.equal(learn('https://id.test/par', 'n-1'), true, 'another request may have been refused for it, too')
  assert.equal(learn(TOKEN_URL, 'n-2'), true)
  learn('https://api.test', 'other')
  assert.deepEqual(
    ['https://id.test', 'https://id.test/par', 'https://api.test/x', 'https://api.test:444/x'].map(nonceFor),
    ['n-2', 'n-2', 'other', undefined],
  )
  const proof = proofFor(key, { method: 'GET', url: 'https://app.test/x', server: 'https://api.test' })
  assert.deepEqual([decodeJwt(proof).htu, decodeJwt(proof).nonce], ['https://app.test/x', 'other'])
  for (const nonce of [null, undefined, '', 'a b', 'a"b', 'ü', 'x'.repeat(1025)])
    assert.equal(learn(TOKEN_URL, nonce), false)
  assert.equal(nonceFor(TOKEN_URL), 'n-2')
  at.time += 3_600_001
  assert.equal(nonceFor(TOKEN_URL), undefined)
})

test('a key survives its record, and shows nothing of itself', () => {
  const key = newProofKey()
  const again = proofKeyFromJwk(JSON.parse(JSON.stringify(proofKeyToJwk(key))))
  assert.equal(thumbprintOf(again), thumbprintOf(key))
  assert.equal(JSON.stringify({ key }), '{"key":{}}')
})

test('a session that began without a key gets one, and switched off only a public client needs its own', () => {
  const key = newProofKey()
  const confidential = { method: 'client_secret_post' } as never
  assert.equal(proofKeyFor({ dpop: 'provider', clientAuth: confidential }, key), key)
  assert.ok(proofKeyFor({ dpop: 'provider', clientAuth: confidential }))
  assert.equal(proofKeyFor({ dpop: 'off', clientAuth: confidential }, key), undefined)
  assert.equal(proofKeyFor({ dpop: 'off', clientAuth: { method: 'none' } }, key), key)
  assert.equal(proofKeyFor({ dpop: 'off', clientAuth: { method: 'none' } }), undefined)
})
