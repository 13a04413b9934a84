import assert from 'node:assert/strict'
import { createHash, createPublicKey } from 'node:crypto'
import { describe, test } from 'node:test'
import { exportJWK, generateKeyPair, jwtVerify, SignJWT } from 'jose'
import { BffError } from '../../../../src/errors.ts'
import { newProofKey, proofKeyToJwk } from '../../../../src/oidc/dpop.ts'
import { ISSUER, NOW, type Script, scriptedProvider } from '../../../kit/provider/scripted-provider.ts'

const { privateKey, publicKey } = await generateKeyPair('ES256')
const stranger = await generateKeyPair('ES256')
const keys = { keys: [{ ...(await exportJWK(publicKey)), kid: 'k1', alg: 'ES256' }] }

/** What the Relying Party makes of one answer of the UserInfo endpoint, asked for the user `ada`. */
async function answered(script: Script, metadata: object = {}) {
  const scene = scriptedProvider({ metadata: { userinfo_endpoint: `${ISSUER}/userinfo`, ...metadata } })
  scene.scripts.set('/userinfo', script)
  scene.scripts.set('/keys', () => Response.json(keys))
  const claims: Readonly<Record<string, unknown>> = await scene.relyingParty
    .userInfo('the-token', 'ada')
    .catch((error) => {
      assert.ok(error instanceof BffError)
      return { code: error.code, ...error.logged }
    })
  return { claims, requests: scene.requests.filter(({ path }) => path === '/userinfo') }
}

const signedAnswer = async (claims: object, key = privateKey, alg = 'ES256') => {
  const jwt = await new SignJWT({ ...claims }).setProtectedHeader({ alg, kid: 'k1' }).sign(key)
  return () => new Response(jwt, { headers: { 'content-type': 'application/jwt' } })
}

describe('the UserInfo endpoint', () => {
  test('is asked with the access token in the header, and in no other place', async () => {
    const { claims, requests } = await answered(() => Response.json({ sub: 'ada', groups: ['ops'] }))
    assert.deepEqual(claims, { sub: 'ada', groups: ['ops'] })
    const [{ method, headers, form } = assert.fail()] = requests
    assert.deepEqual([method, headers.get('authorization')], ['GET', 'Bearer the-token'])
    assert.deepEqual([...form], [])
  })

  test('a token that is bound to a key goes with a proof of it, made again when the server wants its nonce in it', async () => {
    const scene = scriptedProvider({ metadata: { userinfo_endpoint: `${ISSUER}/userinfo` } })
    const key = newProofKey()
    const seen: unknown[] = []
    scene.scripts.set('/userinfo', async ({ headers }) => {
      const { payload, protectedHeader } = await jwtVerify(headers.get('dpop') ?? '', createPublicKey(key))
      const { htm, htu, ath, nonce } = payload
      seen.push([headers.get('authorization'), protectedHeader.typ, htm, htu, ath, nonce])
      if (nonce === 'n-1') return Response.json({ sub: 'ada', groups: ['ops'] })
      const refusal = { 'www-authenticate': 'DPoP error="use_dpop_nonce"', 'dpop-nonce': 'n-1' }
      return new Response(null, { status: 401, headers: refusal })
    })
    const claims = await scene.relyingParty.userInfo('the-token', 'ada', proofKeyToJwk(key))
    assert.deepEqual(claims.groups, ['ops'])
    const ath = createHash('sha256').update('the-token').digest('base64url')
    const usual = ['DPoP the-token', 'dpop+jwt', 'GET', `${ISSUER}/userinfo`, ath]
    assert.deepEqual(seen, [
      [...usual, undefined],
      [...usual, 'n-1'],
    ])
  })

  test('claims of another user, or of none, are not used', async () => {
    const other = { code: 'invalid_callback', step: 'userinfo', claim: 'sub' }
    assert.deepEqual((await answered(() => Response.json({ sub: 'eve' }))).claims, other)
    const { code } = (await answered(() => Response.json({ groups: ['ops'] }))).claims
    assert.equal(code, 'provider_rejected')
    const signed = await answered(await signedAnswer({ sub: 'eve', iss: ISSUER, aud: 'shop' }))
    assert.deepEqual(signed.claims, other)
  })

  test('a signed answer is verified with the keys of the provider, and is for this client', async () => {
    const own = { sub: 'ada', iss: ISSUER, aud: 'shop', groups: ['ops'] }
    assert.deepEqual((await answered(await signedAnswer(own))).claims, own)
    for (const answer of [
      await signedAnswer(own, stranger.privateKey),
      await signedAnswer({ ...own, aud: 'other' }),
      await signedAnswer({ ...own, iss: 'https://evil.test' }),
      await signedAnswer({ ...own, exp: NOW / 1000 - 3600 }),
    ]) {
      const { claims } = await answered(answer)
      assert.deepEqual([claims.code, claims.step], ['invalid_callback', 'userinfo'])
    }
    const unsigned = `${Buffer.from('{"alg":"none"}').toString('base64url')}.${Buffer.from(JSON.stringify(own)).toString('base64url')}.`
    const none = () => new Response(unsigned, { headers: { 'content-type': 'application/jwt' } })
    assert.equal((await answered(none)).claims.code, 'provider_rejected')
  })

  test('that is away is waited for, one that refuses the token is a fault of the configuration', async () => {
    const challenge = { 'www-authenticate': 'Bearer error="invalid_token"' }
    for (const [script, code] of [
      [() => new Response(null, { status: 503 }), 'provider_unavailable'],
      [() => new Response(null, { status: 429 }), 'provider_unavailable'],
      [() => Promise.reject(new TypeError('fetch failed')), 'provider_unavailable'],
      [() => new Response('x'.repeat(1_100_000)), 'provider_unavailable'],
      [() => new Response(null, { status: 401, headers: challenge }), 'provider_rejected'],
      [() => new Response(null, { status: 403 }), 'provider_rejected'],
      [() => Response.json([]), 'provider_rejected'],
      [() => new Response('<p>hello', { headers: { 'content-type': 'text/html' } }), 'provider_unavailable'],
    ] as const) {
      const { claims } = await answered(script)
      assert.deepEqual([claims.code, claims.step], [code, 'userinfo'], String(script))
    }
    const missing = await answered(() => Response.json({}), { userinfo_endpoint: undefined })
    assert.equal(missing.claims.code, 'provider_rejected')
  })
})
