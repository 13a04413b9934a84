import assert from 'node:assert/strict'
import { createPublicKey } from 'node:crypto'
import { describe, type TestContext, test } from 'node:test'
import { exportJWK, generateKeyPair, type JWTPayload, SignJWT } from 'jose'
import { unsignedJwt } from '../../src/demo/scripted/signing.ts'
import { callbackOf, setUp } from '../kit/attack/sign-in.ts'
import type { RotatingProvider } from '../kit/provider/rotating-provider.ts'

type Claims = Record<string, unknown>
type Forge = (claims: Claims, provider: RotatingProvider) => string | undefined | Promise<string | undefined>

/** A forger signs the claims with the provider's own key. */
const withClaims =
  (change: (claims: Claims) => Claims): Forge =>
  (claims, { signer }) =>
    signer.sign(change(claims))
const without = (name: string) => withClaims(({ [name]: _, ...rest }) => rest)
const seconds = () => Math.floor(Date.now() / 1000)
const publicJwk = ({ signer }: RotatingProvider) => signer.jwks().keys[0]!

async function signedBy(algorithm: string, claims: Claims, header: { kid?: string; jwk?: boolean }) {
  const { privateKey, publicKey } = await generateKeyPair(algorithm, { extractable: true })
  const jwk = header.jwk ? await exportJWK(publicKey) : undefined
  return new SignJWT(claims as JWTPayload)
    .setProtectedHeader({
      alg: algorithm,
      typ: 'JWT',
      ...(header.kid ? { kid: header.kid } : {}),
      ...(jwk ? { jwk } : {}),
    })
    .sign(privateKey)
}

function hmacSigned(secret: Uint8Array, claims: Claims, kid: string | undefined) {
  return new SignJWT(claims as JWTPayload)
    .setProtectedHeader({ alg: 'HS256', typ: 'JWT', ...(kid ? { kid } : {}) })
    .sign(secret)
}

const FORGERIES: Record<string, Forge> = {
  'no ID token': () => undefined,
  'alg none': (claims) => unsignedJwt(claims),
  'alg none in other letters': (claims) => {
    const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
    return `${part({ alg: 'nOnE' })}.${part(claims)}.`
  },
  'HS256 with the public key as PEM': (claims, provider) => {
    const pem = createPublicKey({ key: publicJwk(provider) as never, format: 'jwk' }).export({
      type: 'spki',
      format: 'pem',
    })
    return hmacSigned(Buffer.from(pem), claims, publicJwk(provider).kid)
  },
  'HS256 with the modulus': (claims, provider) =>
    hmacSigned(Buffer.from(String(publicJwk(provider).n), 'base64url'), claims, publicJwk(provider).kid),
  'HS256 with the client secret': (claims, { clientSecret }) =>
    hmacSigned(Buffer.from(clientSecret.padEnd(32, '0')), claims, undefined),
  'signed with another key under the same kid': (claims, provider) =>
    signedBy('RS256', claims, { kid: publicJwk(provider).kid! }),
  'an unknown kid': (claims) => signedBy('RS256', claims, { kid: 'unknown' }),
  'a key that the header brings itself': (claims, provider) =>
    signedBy('RS256', claims, { kid: publicJwk(provider).kid!, jwk: true }),
  'another algorithm than the key is for': (claims, provider) =>
    signedBy('PS256', claims, { kid: publicJwk(provider).kid! }),
  'a signature with a bit turned': async (claims, { signer }) => {
    const [header, payload, signature = ''] = (await signer.sign(claims)).split('.')
    const bytes = Buffer.from(signature, 'base64url')
    bytes[0]! ^= 1
    return `${header}.${payload}.${bytes.toString('base64url')}`
  },
  'a payload changed after signing': async (claims, { signer }) => {
    const [header, , signature] = (await signer.sign(claims)).split('.')
    const payload = Buffer.from(JSON.stringify({ ...claims, sub: 'admin' })).toString('base64url')
    return `${header}.${payload}.${signature}`
  },
  'a critical header that we do not understand': (claims, { signer }) =>
    signer.sign(claims, { crit: ['b64x'], b64x: 'x' } as never).catch(async () => {
      const [, payload, signature] = (await signer.sign(claims)).split('.')
      const header = { alg: 'RS256', crit: ['b64x'], b64x: 'x' }
      return `${Buffer.from(JSON.stringify(header)).toString('base64url')}.${payload}.${signature}`
    }),
  'something that is no JWT': () => 'not-a-jwt',
  'five parts, as an encrypted token has': () => 'eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..aaaa.bbbb.cccc',
  'another issuer': withClaims((claims) => ({ ...claims, iss: 'https://evil.test' })),
  'the issuer with a slash more': withClaims((claims) => ({ ...claims, iss: `${claims.iss}/` })),
  'no issuer': without('iss'),
  'another audience': withClaims((claims) => ({ ...claims, aud: 'another-client' })),
  'no audience': without('aud'),
  'several audiences without azp': withClaims((claims) => ({
    ...claims,
    aud: [claims.aud, 'another-client'],
  })),
  'several audiences and another azp': withClaims((claims) => ({
    ...claims,
    aud: [claims.aud, 'another-client'],
    azp: 'another-client',
  })),
  'one audience and another azp': withClaims((claims) => ({ ...claims, azp: 'another-client' })),
  'another nonce': withClaims((claims) => ({ ...claims, nonce: 'another' })),
  'no nonce': without('nonce'),
  expired: withClaims((claims) => ({ ...claims, iat: seconds() - 7200, exp: seconds() - 3600 })),
  'no exp': without('exp'),
  'exp that is a text': withClaims((claims) => ({ ...claims, exp: String(claims.exp) })),
  'exp at the end of all numbers': withClaims((claims) => ({ ...claims, exp: 1e300 })),
  'no iat': without('iat'),
  'iat that is a text': withClaims((claims) => ({ ...claims, iat: 'now' })),
  'iat in an hour': withClaims((claims) => ({ ...claims, iat: seconds() + 3600, exp: seconds() + 7200 })),
  'iat in 70 s': withClaims((claims) => ({ ...claims, iat: seconds() + 70 })),
  'nbf in 70 s': withClaims((claims) => ({ ...claims, nbf: seconds() + 70 })),
  'exp 70 s ago': withClaims((claims) => ({ ...claims, iat: seconds() - 400, exp: seconds() - 70 })),
  'nbf in an hour': withClaims((claims) => ({ ...claims, nbf: seconds() + 3600 })),
  'no sub': without('sub'),
  'an empty sub': withClaims((claims) => ({ ...claims, sub: '' })),
  'a sub that is no text': withClaims((claims) => ({ ...claims, sub: 42 })),
}

async function assertRefused(t: TestContext, forge: Forge, metadata: Claims = {}) {
  const setup = await setUp(t, { provider: { control: { metadata } } })
  setup.provider.control.forgeIdToken = (claims) => forge(claims, setup.provider)
  const callback = await callbackOf(setup)
  const answer = await setup.browser.fetch(callback.pathname + callback.search)
  assert.equal(setup.provider.tokenRequests().length, 1)
  assert.deepEqual([answer.status, answer.json().code], [400, 'invalid_callback'])
  assert.equal((await setup.browser.fetch('/bff/user')).status, 401)
  assert.equal(setup.browser.cookies.filter(({ name }) => !name.includes('-login-')).length, 0)
}

describe('no session begins with an ID token that has', () => {
  for (const [name, forge] of Object.entries(FORGERIES)) test(name, (t) => assertRefused(t, forge))
})

describe('a provider that announces weak algorithms is not believed for', () => {
  const weak = { id_token_signing_alg_values_supported: ['RS256', 'none', 'HS256'] }
  for (const name of ['alg none', 'HS256 with the public key as PEM', 'HS256 with the client secret']) {
    test(name, (t) => assertRefused(t, FORGERIES[name]!, weak))
  }
})

describe('a session does begin with an ID token that has', () => {
  const good: Record<string, Forge> = {
    'its audience in a list': withClaims((claims) => ({ ...claims, aud: [claims.aud] })),
    'several audiences and us as azp': withClaims((claims) => ({
      ...claims,
      aud: [claims.aud, 'another-client'],
      azp: claims.aud,
    })),
    'a clock 50 s ahead of ours': withClaims((claims) => ({
      ...claims,
      iat: seconds() + 50,
      nbf: seconds() + 50,
      exp: seconds() + 600,
    })),
    'a clock 50 s behind ours': withClaims((claims) => ({
      ...claims,
      iat: seconds() - 350,
      exp: seconds() - 50,
    })),
    'no kid, when there is one key only': async (claims, { signer }) =>
      signer.sign(claims, { kid: undefined } as never),
  }
  for (const [name, forge] of Object.entries(good)) {
    test(name, async (t) => {
      const { provider, browser } = await setUp(t)
      provider.control.forgeIdToken = (claims) => forge(claims, provider)
      await browser.signIn()
      assert.equal((await browser.fetch('/bff/user')).status, 200)
    })
  }
})

test('a key that is new since discovery is fetched once, and unknown kids cannot make us fetch more', async (t) => {
  const setup = await setUp(t)
  await setup.browser.signIn()
  const keyFetches = () => setup.provider.requests.filter(({ path }) => path === '/jwks').length
  assert.equal(keyFetches(), 1)
  setup.provider.control.forgeIdToken = (claims) => signedBy('RS256', claims, { kid: 'unknown' })
  for (let n = 0; n < 5; n += 1) {
    const callback = await callbackOf(setup)
    assert.equal((await setup.browser.fetch(callback.pathname + callback.search)).status, 400)
  }
  assert.ok(keyFetches() <= 2, `${keyFetches()} fetches`)
})

describe('a refresh that brings an ID token', () => {
  async function signedInAndExpired(t: TestContext) {
    const control = { accessTokenSeconds: 60, idTokenOnRefresh: true }
    const setup = await setUp(t, { provider: { control } })
    await setup.browser.signIn()
    assert.equal((await setup.browser.fetch('/api/orders')).status, 200)
    setup.advance(61_000)
    return setup
  }
  const onRefresh = (provider: RotatingProvider, forge: Forge) => {
    provider.control.forgeIdToken = (claims) => forge(claims, provider)
  }
  const liveOnes = ({ issuedSecrets, isRefreshTokenLive }: RotatingProvider) =>
    issuedSecrets.filter((secret) => secret.startsWith('rt_') && isRefreshTokenLive(secret))

  test('of another sub ends the session and the grant, and its access token reaches no API', async (t) => {
    const { provider, browser, api } = await signedInAndExpired(t)
    onRefresh(
      provider,
      withClaims((claims) => ({ ...claims, sub: 'mallory' })),
    )
    const before = api.requests.length
    assert.equal((await browser.fetch('/api/orders')).status, 401)
    assert.equal(api.requests.length, before)
    assert.equal((await browser.fetch('/bff/user')).status, 401)
    assert.deepEqual(liveOnes(provider), [])
  })

  for (const name of ['another issuer', 'the issuer with a slash more'])
    test(`with ${name} ends the session and the grant: a user is one of an issuer`, async (t) => {
      const { provider, browser, api } = await signedInAndExpired(t)
      onRefresh(provider, FORGERIES[name]!)
      const before = api.requests.length
      assert.equal((await browser.fetch('/api/orders')).status, 401)
      assert.equal(api.requests.length, before)
      assert.equal((await browser.fetch('/bff/user')).status, 401)
      assert.deepEqual(liveOnes(provider), [])
    })

  for (const name of ['signed with another key under the same kid', 'another audience', 'alg none']) {
    test(`with ${name}: its claims are not used, the access token is, and the log raises an alarm`, async (t) => {
      const { cloakroom, provider, browser } = await signedInAndExpired(t)
      const before = (await browser.fetch('/bff/user?slide=false')).json()
      onRefresh(provider, FORGERIES[name]!)
      assert.equal((await browser.fetch('/api/orders')).status, 200)
      assert.equal((await browser.fetch('/api/orders')).status, 200)
      assert.deepEqual((await browser.fetch('/bff/user?slide=false')).json().claims, before.claims)
      assert.equal(liveOnes(provider).length, 1)
      assert.equal(provider.counters.reuseDetected, 0)
      const alarms = cloakroom.logs.map((line) => JSON.parse(line)).filter(({ level }) => level === 'error')
      assert.deepEqual(
        alarms.map(({ resource, outcome }) => [resource, outcome]),
        [['orders', 'id_token_ignored']],
      )
      const metrics = await (await fetch(`${cloakroom.adminUrl}/metrics`)).text()
      assert.match(metrics, /^cloakroom_refreshes_total\{resource="orders",outcome="id_token_ignored"\} 1$/m)
    })

    test(`with ${name}, for another sub, ends the session: no API gets its access token`, async (t) => {
      const { provider, browser, api } = await signedInAndExpired(t)
      provider.control.forgeIdToken = (claims) => FORGERIES[name]!({ ...claims, sub: 'mallory' }, provider)
      const before = api.requests.length
      assert.equal((await browser.fetch('/api/orders')).status, 401)
      assert.equal(api.requests.length, before)
      assert.equal((await browser.fetch('/bff/user')).status, 401)
      assert.deepEqual(liveOnes(provider), [])
    })
  }

  test('whose key cannot be fetched is left out: the access token is used', async (t) => {
    const { provider, browser } = await signedInAndExpired(t)
    onRefresh(provider, (claims) => signedBy('RS256', claims, { kid: 'unknown' }))
    provider.control.intercept = ({ path }, res) => {
      if (path !== '/jwks') return false
      res.destroy()
      return true
    }
    assert.equal((await browser.fetch('/api/orders')).status, 200)
    assert.equal(liveOnes(provider).length, 1)
  })

  test('that is sound renews the access token', async (t) => {
    const { browser } = await signedInAndExpired(t)
    assert.equal((await browser.fetch('/api/orders')).status, 200)
  })
})
