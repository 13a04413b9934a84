import assert from 'node:assert/strict'
import { createHash, createPublicKey } from 'node:crypto'
import { before, beforeEach, describe, test } from 'node:test'
import { SignJWT } from 'jose'
import { createSigner, type Signer, unsignedJwt } from '../../../src/demo/scripted/signing.ts'
import { BffError } from '../../../src/errors.ts'
import { createVerifyBearer } from '../../../src/oidc/bearer-token.ts'
import { createProviderKeys } from '../../../src/oidc/token-endpoint/key-set.ts'

const ISSUER = 'https://id.example.com'
const AUDIENCE = 'api://orders'
const TENANT = '11112222-3333-4444-5555-666677778888'
const OTHER_TENANT = '99992222-3333-4444-5555-666677778888'
const CLIENT = '6731de76-14a6-49ae-97bc-6eba6914391e'
const NOW = 1_800_000_000

type Claims = Record<string, unknown>
let signer: Signer
let stranger: Signer

const sound = (changes: Claims = {}): Claims => ({
  ...{ iss: ISSUER, aud: AUDIENCE, sub: 'alice', scope: 'orders.read orders.write' },
  ...{ iat: NOW - 10, exp: NOW + 300, jti: 'jti-1', ...changes },
})
const typed = { typ: 'at+jwt' }
const tokenOf = (changes: Claims = {}, header: Record<string, string> = typed) =>
  signer.sign(sound(changes), header)

/** A check whose clock, issuer and key set can be changed. */
function setUp({ issuer = ISSUER, clientId = 'shop', allowedTenants = [] as string[] } = {}) {
  const clock = { seconds: NOW }
  const set = { keys: signer.jwks().keys, reads: 0, tries: 0, isAway: false }
  const monotonicNow = () => clock.seconds * 1000
  const keys = createProviderKeys({
    async read() {
      set.reads += 1
      if (set.isAway) throw new TypeError('away')
      return Response.json({ keys: set.keys })
    },
    monotonicNow,
  })
  const verifyBearer = createVerifyBearer({
    provider: { issuer, clientId, allowedTenants, clockToleranceMs: 60_000 },
    relyingParty: {
      issuer: async () => issuer,
      async requireSignedAccessToken(jws) {
        set.tries += 1
        await keys.requireSigned(jws, `${ISSUER}/jwks`)
      },
    },
    ...{ now: monotonicNow, monotonicNow },
  })
  const verify = (
    token: string,
    { audience = AUDIENCE, scopes = [] as string[], client = '203.0.113.7' } = {},
  ) => verifyBearer(token, { audience, scopes }, client)
  const refusal = async (token: string, rules: Parameters<typeof verify>[1] = {}) => {
    const error = await verify(token, rules).then(
      () => assert.fail('it was taken'),
      (reason) => reason,
    )
    assert.ok(error instanceof BffError, String(error))
    return error
  }
  return { verify, refusal, clock, set }
}

let scene: ReturnType<typeof setUp>
before(async () => {
  signer = await createSigner()
  stranger = await createSigner({ ownKey: true })
})
beforeEach(() => {
  scene = setUp()
})

describe('an access token that a client brings', () => {
  const GOOD: [what: string, changes: Claims, header?: Record<string, string>][] = [
    ['with the type of RFC 9068', {}],
    ['with the media type in full, in other letters', {}, { typ: 'application/AT+JWT' }],
    ['with the type JWT', {}, { typ: 'JWT' }],
    ['with several audiences', { aud: ['api://billing', AUDIENCE] }],
    ['without iat, nbf and jti', { iat: undefined, jti: undefined }],
    ['that ended within the tolerance', { exp: NOW - 59 }],
    ['that begins within the tolerance', { nbf: NOW + 59, iat: NOW + 59 }],
    ['of Keycloak, which says that it is a bearer token', { typ: 'Bearer' }, { typ: 'JWT' }],
    ['of Cognito, which says that it is an access token', { token_use: 'access' }, { typ: 'JWT' }],
    ['of RFC 9068 that carries a nonce of its own', { nonce: 'n' }],
  ]
  for (const [what, changes, header] of GOOD) {
    test(`${what} is taken`, async () => {
      const bearer = await scene.verify(await tokenOf(changes, header ?? typed))
      assert.equal(bearer.claims.sub, 'alice')
    })
  }

  test('is named by its hash, and ends when it says', async () => {
    const token = await tokenOf()
    const { value, hash, expiresAt } = await scene.verify(token)
    assert.deepEqual([value, expiresAt], [token, (NOW + 300) * 1000])
    assert.equal(hash, createHash('sha256').update(token).digest('base64url'))
  })

  const BAD: [what: string, token: () => string | Promise<string>, claim: string][] = [
    ['alg none', () => unsignedJwt(sound()), 'form'],
    ['alg none with a signature', () => `${unsignedJwt(sound())}AAAA`, 'signature'],
    ['HS256 with the public key as PEM', () => hmac(pem()), 'signature'],
    ['HS256 with the modulus', () => hmac(Buffer.from(String(jwk().n), 'base64url')), 'signature'],
    ['a key of somebody else', () => stranger.sign(sound(), typed), 'signature'],
    [
      "a key of somebody else under the provider's kid",
      () => stranger.sign(sound(), { ...typed, kid: jwk().kid! }),
      'signature',
    ],
    ['a payload that was changed', () => tampered(sound({ sub: 'admin' })), 'signature'],
    ['a critical header that is not understood', () => tampered(sound(), { crit: ['x'], x: 1 }), 'signature'],
    ['five parts, as encrypted ones have', async () => `${await tokenOf()}.e30.e30`, 'form'],
    ['an opaque one', () => 'opaque-token', 'form'],
    ['nothing in it', () => '', 'form'],
    ['another issuer', () => tokenOf({ iss: 'https://evil.example' }), 'iss'],
    ['the issuer with a slash', () => tokenOf({ iss: `${ISSUER}/` }), 'iss'],
    ['no issuer', () => tokenOf({ iss: undefined }), 'iss'],
    ['a list of issuers', () => tokenOf({ iss: [ISSUER] }), 'iss'],
    ['another audience', () => tokenOf({ aud: 'api://billing' }), 'aud'],
    ['an audience that only begins like ours', () => tokenOf({ aud: `${AUDIENCE}/x` }), 'aud'],
    ['no audience', () => tokenOf({ aud: undefined }), 'aud'],
    ['an audience that is an object', () => tokenOf({ aud: { [AUDIENCE]: true } }), 'aud'],
    ['an end that is over', () => tokenOf({ exp: NOW - 61 }), 'exp'],
    ['no end', () => tokenOf({ exp: undefined }), 'exp'],
    ['an end that is a text', () => tokenOf({ exp: String(NOW + 300) }), 'exp'],
    ['an end in a thousand years', () => tokenOf({ exp: 1e300 }), 'exp'],
    ['a beginning in the future', () => tokenOf({ nbf: NOW + 61 }), 'nbf'],
    ['an issue in the future', () => tokenOf({ iat: NOW + 61 }), 'iat'],
    ['an issue that is a text', () => tokenOf({ iat: 'now' }), 'iat'],
    ['no sub', () => tokenOf({ sub: undefined }), 'sub'],
    ['a sub that is a number', () => tokenOf({ sub: 7 }), 'sub'],
    ['the type of a logout token', () => tokenOf({}, { typ: 'logout+jwt' }), 'typ'],
    ['the type of a security event', () => tokenOf({}, { typ: 'secevent+jwt' }), 'typ'],
    ['the type of a DPoP proof', () => tokenOf({}, { typ: 'dpop+jwt' }), 'typ'],
    ['the nonce of an ID token', () => tokenOf({ nonce: 'n' }, { typ: 'JWT' }), 'nonce'],
    ['the at_hash of an ID token', () => tokenOf({ at_hash: 'h' }, { typ: 'JWT' }), 'at_hash'],
    ['the events of a logout token', () => tokenOf({ events: {} }, { typ: 'JWT' }), 'events'],
    ['an ID token of Keycloak', () => tokenOf({ typ: 'ID' }, { typ: 'JWT' }), 'typ'],
    ['a refresh token of Keycloak', () => tokenOf({ typ: 'Refresh' }, { typ: 'JWT' }), 'typ'],
    ['an ID token of Cognito', () => tokenOf({ token_use: 'id' }, { typ: 'JWT' }), 'token_use'],
    ['a key that it is bound to (DPoP)', () => tokenOf({ cnf: { jkt: 'x' } }), 'cnf'],
    ['a certificate that it is bound to', () => tokenOf({ cnf: { 'x5t#S256': 'x' } }), 'cnf'],
  ]
  for (const [what, token, claim] of BAD) {
    test(`with ${what} is refused, and only the log is told why`, async () => {
      const error = await scene.refusal(await token())
      assert.deepEqual([error.code, error.details], ['session_required', { reason: 'invalid_token' }])
      assert.deepEqual(error.headers, { 'www-authenticate': 'Bearer error="invalid_token"' })
      assert.equal(error.offersLogin, false)
      assert.equal(error.logged?.claim, claim)
    })
  }

  test('an ID token whose audience is the client is no access token, where the route takes that audience', async () => {
    const { verify, refusal } = setUp({ clientId: CLIENT })
    const rules = { audience: `api://${CLIENT}` }
    const idToken = await tokenOf({ aud: CLIENT, scope: undefined }, { typ: 'JWT' })
    assert.equal((await refusal(idToken, rules)).logged?.claim, 'scope')
    await verify(await tokenOf({ aud: CLIENT, scope: undefined, scp: 'access' }, { typ: 'JWT' }), rules)
    await verify(await tokenOf({ aud: CLIENT, scope: undefined, appidacr: '1' }, { typ: 'JWT' }), rules)
    await verify(await tokenOf({ aud: CLIENT, scope: undefined }), rules)
  })

  test('must have every scope of the route, in `scope` or in `scp`', async () => {
    const scopes = ['orders.read', 'orders.write']
    await scene.verify(await tokenOf(), { scopes })
    await scene.verify(await tokenOf({ scope: undefined, scp: scopes }), { scopes })
    await scene.verify(await tokenOf({ scope: undefined, scp: scopes.join(' ') }), {
      scopes: scopes.map((scope) => `${AUDIENCE}/${scope}`),
    })
    const error = await scene.refusal(await tokenOf({ scope: 'orders.read' }), { scopes })
    assert.deepEqual([error.code, error.details], ['access_denied', { reason: 'insufficient_scope' }])
    assert.deepEqual(error.headers, {
      'www-authenticate': 'Bearer error="insufficient_scope", scope="orders.read orders.write"',
    })
  })
})

describe('access tokens of Entra ID', () => {
  const V1 = `https://sts.windows.net/${TENANT}/`
  const V2 = `https://login.microsoftonline.com/${TENANT}/v2.0`
  const issuedBy = (iss: string, tid: unknown = TENANT) => tokenOf({ iss, tid }, { typ: 'JWT' })

  test('are of either version, by the tenant of the issuer alone', async () => {
    for (const issuer of [V1, V2]) {
      const { verify, refusal } = setUp({ issuer })
      await verify(await issuedBy(V1))
      await verify(await issuedBy(V2))
      for (const iss of [V1, V2]) {
        const foreign = await issuedBy(iss.replace(TENANT, OTHER_TENANT), OTHER_TENANT)
        assert.equal((await refusal(foreign)).logged?.claim, 'iss')
      }
      assert.equal(
        (await refusal(await issuedBy(V1.replace('sts.windows.net', 'evil.test')))).logged?.claim,
        'iss',
      )
    }
  })

  test('of several tenants are of one that is allowed', async () => {
    const issuer = 'https://login.microsoftonline.com/{tenantid}/v2.0'
    const { verify, refusal } = setUp({ issuer, allowedTenants: [TENANT] })
    await verify(await issuedBy(V2))
    await verify(await issuedBy(V1))
    const foreign = await issuedBy(V2.replace(TENANT, OTHER_TENANT), OTHER_TENANT)
    assert.equal((await refusal(foreign)).logged?.claim, 'tid')
    for (const tid of ['../evil', '{tenantid}', undefined, 7])
      assert.equal(
        (await refusal(await issuedBy(`https://login.microsoftonline.com/${tid}/v2.0`, tid))).logged?.claim,
        'iss',
      )
  })

  test('of other providers are not of Entra ID because they have a tid', async () => {
    assert.equal((await scene.refusal(await issuedBy(V2))).logged?.claim, 'iss')
  })
})

describe('what strangers can cause with made-up tokens', () => {
  test('a good token is verified once for a while, and not beyond its end', async () => {
    const { verify, refusal, clock, set } = scene
    const token = await tokenOf({ exp: NOW + 200 })
    await Promise.all(Array.from({ length: 20 }, () => verify(token)))
    for (let n = 0; n < 5; n += 1) await verify(token)
    assert.deepEqual([set.tries, set.reads], [1, 1])
    assert.equal((await refusal(token, { audience: 'api://billing' })).logged?.claim, 'aud')
    clock.seconds += 199
    await verify(token)
    clock.seconds += 62
    assert.equal((await refusal(token)).logged?.claim, 'exp')
  })

  test('a key that was withdrawn verifies nothing after five minutes', async () => {
    const { verify, refusal, clock, set } = scene
    const token = await tokenOf({ exp: NOW + 3_600 })
    await verify(token)
    set.keys = stranger.jwks().keys
    clock.seconds += 299
    await verify(token)
    clock.seconds += 2
    assert.equal((await refusal(token)).logged?.claim, 'signature')
  })

  test('a forged token is verified once, and what is wrong in its claims costs no verification', async () => {
    const { refusal, set } = scene
    const forged = await stranger.sign(sound(), { ...typed, kid: jwk().kid! })
    for (let n = 0; n < 20; n += 1) assert.equal((await refusal(forged)).code, 'session_required')
    for (let n = 0; n < 20; n += 1) await refusal(await tokenOf({ exp: NOW - 100, jti: String(n) }))
    assert.equal(set.tries, 1)
  })

  test('one client can cause so many verifications in a minute, and keeps no other out', async () => {
    const { refusal, verify, clock, set } = scene
    const forge = (n: number) => stranger.sign(sound({ jti: String(n) }), { ...typed, kid: jwk().kid! })
    const outcomes = new Map<string, number>()
    for (let n = 0; n < 100; n += 1) {
      const { code, retryAfterSeconds } = await refusal(await forge(n))
      outcomes.set(code, (outcomes.get(code) ?? 0) + 1)
      if (code === 'rate_limited') assert.equal(retryAfterSeconds, 60)
    }
    assert.deepEqual(
      [...outcomes],
      [
        ['session_required', 60],
        ['rate_limited', 40],
      ],
    )
    assert.equal(set.tries, 60)
    const good = await tokenOf()
    assert.equal((await refusal(good)).code, 'rate_limited')
    await verify(good, { client: '198.51.100.1' })
    // Known by now, and good for everybody.
    await verify(good)
    clock.seconds += 61
    assert.equal((await refusal(await forge(100))).code, 'session_required')
  })

  test('unknown keys make the key set be read now and then, and not each time', async () => {
    const { refusal, set } = scene
    for (let n = 0; n < 30; n += 1) await refusal(await stranger.sign(sound({ jti: String(n) }), typed))
    assert.ok(set.reads <= 2, `${set.reads} reads`)
  })

  test('a good token of a new key is taken as soon as the keys are read, however often it came too early', async () => {
    const { refusal, verify, set, clock } = scene
    await verify(await tokenOf())
    await refusal(await stranger.sign(sound(), { ...typed, kid: 'made-up' }))
    const next = await createSigner({ ownKey: true })
    set.keys = [...signer.jwks().keys, { ...next.jwks().keys[0]!, kid: 'next' }]
    const token = await next.sign(sound({ jti: 'next' }), { ...typed, kid: 'next' })
    clock.seconds += 2
    const reads = set.reads
    for (let n = 0; n < 100; n += 1) assert.equal((await refusal(token)).code, 'session_required')
    assert.equal(set.reads, reads)
    clock.seconds += 9
    await verify(token)
  })

  test('while the keys cannot be read, nobody is told that the token is bad', async () => {
    const { refusal, verify, set, clock } = scene
    set.isAway = true
    const token = await tokenOf()
    assert.equal((await refusal(token)).code, 'provider_unavailable')
    set.isAway = false
    clock.seconds += 31
    await verify(token)
  })
})

function jwk() {
  return signer.jwks().keys[0]!
}

function pem(): Buffer {
  const key = createPublicKey({ key: jwk() as never, format: 'jwk' })
  return Buffer.from(key.export({ type: 'spki', format: 'pem' }))
}

function hmac(secret: Uint8Array): Promise<string> {
  return new SignJWT(sound()).setProtectedHeader({ alg: 'HS256', ...typed, kid: jwk().kid! }).sign(secret)
}

async function tampered(claims: Claims, header: Record<string, unknown> = {}): Promise<string> {
  const [, , signature] = (await tokenOf()).split('.')
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  return `${part({ alg: 'RS256', kid: jwk().kid, ...typed, ...header })}.${part(claims)}.${signature}`
}
