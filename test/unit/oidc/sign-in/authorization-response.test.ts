import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { describe, test } from 'node:test'
import { createSigner, unsignedJwt } from '../../../../src/demo/scripted/signing.ts'
import { BffError } from '../../../../src/errors.ts'
import { requireSameUser, verifiedResponse } from '../../../../src/oidc/sign-in/authorization-response.ts'
import { IdTokenError } from '../../../../src/oidc/token-endpoint/id-token.ts'
import { createProviderKeys } from '../../../../src/oidc/token-endpoint/key-set.ts'

const ISSUER = 'https://id.test'
const CLIENT = 'shop'
const NOW = 1_800_000_000
const CHECKS = { state: 'the-state', nonce: 'the-nonce', codeVerifier: 'v' }

const signer = await createSigner()
const stranger = await createSigner({ ownKey: true })
const half = (text: string) =>
  createHash('sha256').update(text).digest().subarray(0, 16).toString('base64url')

type Claims = Record<string, unknown>

/** OpenID Connect Core §3.1.3.7 rule 4. */
const SEVERAL = { aud: [CLIENT, 'other'], azp: CLIENT }

function verify(query: Record<string, string> | URLSearchParams, checks: object, metadata: object = {}) {
  const callback = new URL(`https://app.test/bff/callback?${new URLSearchParams(query)}`)
  const known = {
    ...{ issuer: ISSUER, hasIssParameter: true, jwksUri: `${ISSUER}/jwks`, endSessionEndpoint: undefined },
    ...{ revocationEndpoint: undefined, pushedRequestEndpoint: undefined, proofSigningAlgorithms: undefined },
    clientAuthMethods: undefined,
    document: {},
    ...{
      authorizationEndpoint: undefined,
      signingAlgorithms: ['RS256'],
      responseSigningAlgorithms: undefined,
      ...metadata,
    },
  }
  const keys = createProviderKeys({
    read: async () => Response.json(signer.jwks()),
    monotonicNow: () => 0,
  })
  const provider = { clientId: CLIENT, clockToleranceMs: 60_000 }
  const response = { callback, checks: { ...CHECKS, ...checks } }
  return verifiedResponse({ provider, keys, now: () => NOW * 1000 }, known, response)
}

/** What a failed sign-in is taken for: never a fault of the network, which a TypeError would be. */
function isRefusal(error: unknown): boolean {
  return error instanceof Error && !(error instanceof TypeError) && !(error instanceof BffError)
}

describe('a signed response (JARM)', () => {
  const jwt = { responseMode: 'jwt' }
  const claims = { iss: ISSUER, aud: CLIENT, exp: NOW + 300, code: 'c', state: CHECKS.state }

  test('gives its parameters as a plain query would, whatever stands beside it', async () => {
    const response = await signer.sign({ ...claims, iat: NOW, extra: 7 })
    const { callback } = await verify({ response, code: 'forged', iss: 'https://evil.test' }, jwt)
    assert.deepEqual(Object.fromEntries(callback.searchParams), {
      ...{ iss: ISSUER, code: 'c', state: CHECKS.state },
    })
    const error = await signer.sign({ ...claims, code: undefined, error: 'access_denied' })
    assert.equal((await verify({ response: error }, jwt)).callback.searchParams.get('error'), 'access_denied')
  })

  const forgeries: Record<string, () => Promise<string> | string> = {
    'signed by another key': () => stranger.sign(claims),
    'not signed': () => unsignedJwt(claims),
    'signed with a MAC': () => signer.sign(claims).then((good) => good.replace(/^[^.]+/, header('HS256'))),
    'with claims changed after signing': async () => {
      const [head, , signature] = (await signer.sign(claims)).split('.')
      return `${head}.${Buffer.from(JSON.stringify({ ...claims, code: 'other' })).toString('base64url')}.${signature}`
    },
    'of another issuer': () => signer.sign({ ...claims, iss: 'https://evil.test' }),
    'without an issuer': () => signer.sign({ ...claims, iss: undefined }),
    'for another client': () => signer.sign({ ...claims, aud: 'other' }),
    'for no client': () => signer.sign({ ...claims, aud: undefined }),
    expired: () => signer.sign({ ...claims, exp: NOW - 61 }),
    'without an end': () => signer.sign({ ...claims, exp: undefined }),
    'whose end is text': () => signer.sign({ ...claims, exp: String(NOW + 300) }),
    'not good yet': () => signer.sign({ ...claims, nbf: NOW + 61 }),
    encrypted: () => 'a.b.c.d.e',
    'no JWT': () => 'nonsense',
    'with a head that is none': () => signer.sign(claims).then((good) => good.replace(/^[^.]+/, 'x')),
  }
  for (const [what, forge] of Object.entries(forgeries))
    test(`${what} is refused`, async () => {
      await assert.rejects(verify({ response: await forge() }, jwt), isRefusal)
    })

  test('with an algorithm that the provider does not name is refused, and so is a plain response', async () => {
    const response = await signer.sign(claims)
    await assert.rejects(verify({ response }, jwt, { responseSigningAlgorithms: ['ES256'] }), isRefusal)
    await assert.rejects(verify({ code: 'c', state: CHECKS.state }, jwt), /no JWT/)
    const twice = new URLSearchParams([
      ['response', response],
      ['response', response],
    ])
    await assert.rejects(verify(twice, jwt), /several signed responses/)
  })
})

describe('a response with an ID token beside the code', () => {
  const hybrid = { responseMode: 'form_post', responseType: 'code id_token' }
  const claims = {
    ...{ iss: ISSUER, aud: CLIENT, sub: 'ada', iat: NOW, exp: NOW + 300, nonce: CHECKS.nonce },
    c_hash: half('the-code'),
  }
  const responseWith = async (changes: Claims, by = signer) => ({
    ...{ code: 'the-code', state: CHECKS.state },
    id_token: await by.sign({ ...claims, ...changes }),
  })

  test('is bound to code, state and request; the ID token goes no further', async () => {
    for (const changes of [{}, { s_hash: half(CHECKS.state) }, { aud: [CLIENT] }, SEVERAL]) {
      const { callback, user } = await verify(await responseWith(changes), hybrid)
      assert.deepEqual(Object.fromEntries(callback.searchParams), {
        ...{ code: 'the-code', state: CHECKS.state, iss: ISSUER },
      })
      assert.deepEqual(user, { iss: ISSUER, sub: 'ada' })
    }
  })

  const wrong: Record<string, Claims> = {
    c_hash: { c_hash: half('another-code') },
    'no c_hash': { c_hash: undefined },
    s_hash: { s_hash: half('another-state') },
    nonce: { nonce: 'another' },
    'no nonce': { nonce: undefined },
    iss: { iss: 'https://evil.test' },
    aud: { aud: 'other' },
    'aud of several without azp': { aud: [CLIENT, 'other'] },
    azp: { azp: 'other' },
    exp: { exp: NOW - 61 },
    'no exp': { exp: undefined },
    iat: { iat: NOW + 61 },
    'no iat': { iat: undefined },
    'no sub': { sub: undefined },
    'empty sub': { sub: '' },
  }
  for (const [what, changes] of Object.entries(wrong))
    test(`with a wrong ID token is refused: ${what}`, async () => {
      await assert.rejects(verify(await responseWith(changes), hybrid), IdTokenError)
    })

  test('without ID token or code, or with one that another key has signed or none, is refused', async () => {
    const good = await responseWith({})
    const unsigned = unsignedJwt(claims)
    for (const changes of [{ id_token: '' }, { code: '' }, { id_token: unsigned }, { id_token: 'x' }])
      await assert.rejects(verify({ ...good, ...changes }, hybrid), isRefusal)
    await assert.rejects(verify(await responseWith({}, stranger), hybrid), IdTokenError)
    await assert.rejects(verify(good, hybrid, { signingAlgorithms: ['ES256'] }), IdTokenError)
  })

  test('that is an error needs no ID token', async () => {
    const { callback, user } = await verify({ error: 'login_required', state: CHECKS.state }, hybrid)
    assert.equal(callback.searchParams.get('error'), 'login_required')
    assert.equal(user, undefined)
  })

  test('must be of the user of the second ID token', async () => {
    const verified = await verify(await responseWith({}), hybrid)
    requireSameUser(verified, { iss: ISSUER, sub: 'ada' })
    for (const claims of [{ iss: ISSUER, sub: 'eve' }, { iss: 'https://evil.test', sub: 'ada' }, undefined])
      assert.throws(() => requireSameUser(verified, claims), { code: 'invalid_callback' })
  })
})

function header(alg: string): string {
  return Buffer.from(JSON.stringify({ alg, typ: 'JWT' })).toString('base64url')
}
