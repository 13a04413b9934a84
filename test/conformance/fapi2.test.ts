import assert from 'node:assert/strict'
import { createHash, generateKeyPairSync } from 'node:crypto'
import { after, before, describe, test } from 'node:test'
import { jwtClaims, unsignedJwt } from '../../src/demo/scripted/signing.ts'
import type { RunningCloakroom } from '../kit/cloakroom.ts'
import {
  type Behaviour,
  type Conformance,
  type Played,
  signingKey,
  startConformance,
} from '../kit/provider/conformance-provider.ts'

/*
 * The OpenID Foundation's plan fapi2-security-profile-final-client-test-plan: private_key_jwt, pushed requests and DPoP, at
 * the token endpoint and at the API. Its JARM modules are those of message signing; the last ones come from FAPI 1.
 */

const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })

let system: Conformance
let providerKey: Awaited<ReturnType<typeof signingKey>>
const cleanUps: (() => unknown)[] = []
before(async () => {
  providerKey = await signingKey('PS256', 'fapi')
  system = await startConformance(
    { after: (cleanUp) => void cleanUps.unshift(cleanUp) },
    {
      isFapi: true,
      provider: {
        publicKeyPem: publicKey.export({ type: 'spki', format: 'pem' }).toString(),
        control: {
          metadata: { id_token_signing_alg_values_supported: ['PS256'] },
          forgeIdToken: (claims) => providerKey.sign(claims),
          editAnswer(answer) {
            answer.token_type = 'DPoP'
          },
        },
      },
      settings: {
        clientAuth: {
          ...{ method: 'private_key_jwt', keyId: 'client', algorithm: 'ES256' },
          key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
        },
        ...{ par: 'required', dpop: 'end-to-end' },
      },
    },
  )
})
after(async () => {
  for (const cleanUp of cleanUps) await cleanUp()
})

const keys = () => ({ keys: [providerKey.jwk] })
const play = (behaviour: Behaviour = {}, at?: RunningCloakroom) => system.play({ keys, ...behaviour }, at)
const seconds = () => Math.floor(Date.now() / 1000)

function assertSignedIn({ status, isSignedIn }: Played) {
  assert.deepEqual([status, isSignedIn], [200, true])
  const last = system.api.requests.at(-1)
  assert.match(last?.headers.authorization ?? '', /^DPoP /)
  assert.equal(jwtClaims(String(last?.headers.dpop))?.htu, `${system.api.url}/api/orders`)
}

/** No session, no call to the API, nothing asked of the provider beyond `last`, and a line that says why. */
function assertRefused({ status, isSignedIn, asked, calls, log }: Played, why: RegExp, last = '/token') {
  assert.deepEqual([status, isSignedIn, calls], [400, false, 0])
  assert.equal(asked.at(-1), last)
  assert.match(log, why)
}

describe('a sign-in by the profile', () => {
  test('fapi2-security-profile-final-client-test-happy-path: pushed request, private_key_jwt, bound token, proof at the API', async () => {
    const played = await play()
    assertSignedIn(played)
    assert.deepEqual([...new Set(played.asked)], ['/par', '/authorize', '/token'])
    const pushed = system.provider.requests.findLast(({ path }) => path === '/par')!
    const form = Object.fromEntries(pushed.form)
    assert.deepEqual(
      [form.response_type, form.code_challenge_method, form.client_secret],
      ['code', 'S256', undefined],
    )
    // Only the last one has the nonce that both servers want.
    assert.equal(played.calls, 2)
  })

  test('fapi2-security-profile-final-client-test-happy-path-no-dpop-nonce: servers that want no nonce are asked once', async () => {
    const played = await play({ nonceScheme: 'none' })
    assertSignedIn(played)
    assert.deepEqual([played.asked, played.calls], [['/par', '/authorize', '/token'], 1])
  })

  test('fapi2-security-profile-final-client-test-rs-dpop-auth-scheme-case-insensitivity: the API may write the scheme of its challenge in any case', async () => {
    for (const nonceScheme of ['dpop', 'dPOP', 'DPOP']) {
      // Another Cloakroom knows no nonce yet.
      const played = await play({ nonceScheme }, await system.start())
      assertSignedIn(played)
      assert.equal(played.calls, 2)
    }
  })

  test('fapi2-security-profile-final-client-test-valid-aud-as-array: an audience in a list of one is good', async () => {
    assertSignedIn(await play({ claims: (claims) => ({ ...claims, aud: [claims.aud] }) }))
  })

  test('fapi2-security-profile-final-client-test-token-endpoint-response-without-expires_in: a token of unknown life is used', async () => {
    const answer: Behaviour['answer'] = (json) => void delete json.expires_in
    assertSignedIn(await play({ answer }))
  })

  test('fapi2-security-profile-final-client-test-token-type-case-insensitivity: the token type may be in any case', async () => {
    for (const type of ['dpop', 'dPoP', 'DPOP'])
      assertSignedIn(await play({ answer: (json) => Object.assign(json, { token_type: type }) }))
  })

  test('fapi2-security-profile-final-client-refresh-token-test: two refreshes in a row, the second with the rotated token', async () => {
    const { browser } = await play()
    const { provider, api } = system
    const used: unknown[] = []
    for (let n = 0; n < 2; n += 1) {
      const from = provider.tokenRequests().length
      Object.assign(api.answer, { status: 401, times: 1 })
      api.answer.headers = { 'www-authenticate': 'DPoP error="invalid_token"' }
      system.tick(61_000)
      assert.equal((await browser.fetch('/api/orders')).status, 200)
      const [refresh] = provider.tokenRequests().slice(from)
      const form = Object.fromEntries(refresh?.form ?? [])
      assert.equal(form.grant_type, 'refresh_token')
      used.push(form.refresh_token)
    }
    assert.notEqual(used[0], used[1])
    assert.equal(provider.counters.reuseDetected, 0)
  })

  test('fapi1-advanced-final-client-test-no-scope-in-token-endpoint-response: an answer without scope granted what was asked for', async () => {
    assertSignedIn(await play({ answer: (json) => void delete json.scope }))
  })
})

const without =
  (name: string): Behaviour['claims'] =>
  ({ [name]: _, ...claims }) =>
    claims
const withClaims = (changes: object): Behaviour => ({ claims: (claims) => ({ ...claims, ...changes }) })

/** What the provider does, what the log says, and the last endpoint that is asked. */
const REFUSED: Record<string, [behaviour: () => Behaviour, why: RegExp, last?: string]> = {
  'fapi2-security-profile-final-client-test-invalid-iss: another issuer in the ID token is refused': [
    () => withClaims({ iss: 'https://evil.test' }),
    /"claim":"iss"/,
  ],
  'fapi2-security-profile-final-client-test-invalid-missing-iss: no issuer in the ID token is refused': [
    () => ({ claims: without('iss') }),
    /"iss\\?"/,
  ],
  'fapi2-security-profile-final-client-test-invalid-aud: another audience is refused': [
    () => withClaims({ aud: 'another-client' }),
    /"claim":"aud"/,
  ],
  'fapi2-security-profile-final-client-test-invalid-missing-aud: no audience is refused': [
    () => ({ claims: without('aud') }),
    /"aud\\?"/,
  ],
  'fapi2-security-profile-final-client-test-invalid-secondary-aud: a second audience that is not trusted is refused':
    [
      () => ({ claims: (claims) => ({ ...claims, aud: [claims.aud, 'another-client'] }) }),
      /"claim":"a(?:zp|ud)"|"azp\\?"/,
    ],
  'fapi2-security-profile-final-client-test-invalid-null-alg: an unsigned ID token is refused': [
    () => ({ sign: unsignedJwt }),
    /alg/,
  ],
  'fapi2-security-profile-final-client-test-invalid-alternate-alg: an algorithm that the provider does not name is refused':
    [() => ({ sign: (claims) => system.provider.signer.sign({ ...claims }) }), /alg/],
  'fapi2-security-profile-final-client-test-invalid-expired-exp: an ID token that has expired is refused': [
    () => withClaims({ exp: seconds() - 300 }),
    /"claim":"exp"/,
  ],
  'fapi2-security-profile-final-client-test-invalid-missing-exp: an ID token without exp is refused': [
    () => ({ claims: without('exp') }),
    /"exp\\?"/,
  ],
  'fapi2-security-profile-final-client-test-invalid-nonce: another nonce is refused': [
    () => withClaims({ nonce: 'another' }),
    /"claim":"nonce"/,
  ],
  'fapi2-security-profile-final-client-test-invalid-missing-nonce: no nonce is refused': [
    () => ({ claims: without('nonce') }),
    /"nonce\\?"/,
  ],
  'fapi2-security-profile-final-client-test-invalid-authorization-response-iss: a response of another issuer is refused':
    [() => ({ response: (response) => ({ ...response, iss: 'https://evil.test' }) }), /iss/, '/authorize'],
  'fapi2-security-profile-final-client-test-remove-authorization-response-iss: a response without iss is refused':
    [() => ({ response: ({ iss: _, ...response }) => response }), /iss/, '/authorize'],
  'fapi2-security-profile-final-client-test-ensure-authorization-response-with-invalid-state-fails: another state is refused':
    [() => ({ response: (response) => ({ ...response, state: 'x'.repeat(43) }) }), /./, '/authorize'],
  'fapi2-security-profile-final-client-test-ensure-authorization-response-with-invalid-missing-state-fails: no state is refused':
    [() => ({ response: ({ state: _, ...response }) => response }), /./, '/authorize'],
  'fapi1-advanced-final-client-test-encrypted-idtoken-usingrsa15: an ID token encrypted with RSA1_5 is refused':
    [() => ({ sign: () => 'eyJhbGciOiJSU0ExXzUiLCJlbmMiOiJBMTI4Q0JDLUhTMjU2In0.AAAA.AAAA.AAAA.AAAA' }), /./],
}

describe('no session begins, nothing more is asked, and the log says why', () => {
  for (const [title, [behaviour, why, last]] of Object.entries(REFUSED))
    test(title, async () => assertRefused(await play(behaviour()), why, last))

  test('fapi2-security-profile-final-client-test-discovery-issuer-mismatch: a document of another issuer is not used', async () => {
    const { control, issuer } = system.provider
    const sound = control.metadata
    control.metadata = { ...sound, issuer: `${issuer}/other` }
    const cloakroom = await system.start()
    const from = system.provider.requests.length
    const answer = await cloakroom.browser().open('/bff/login')
    control.metadata = sound
    assert.deepEqual([answer.status, answer.json().code], [502, 'provider_rejected'])
    assert.ok(!system.provider.requests.slice(from).some(({ path }) => path === '/par'))
  })

  test('a token that is bound to no key is refused', async () => {
    const { isSignedIn, log } = await play({
      answer: (json) => Object.assign(json, { token_type: 'Bearer' }),
    })
    assert.equal(isSignedIn, false)
    assert.match(log, /bound to no key/)
  })
})

describe('signed responses (JARM)', () => {
  let signed: RunningCloakroom
  before(async () => {
    const { control } = system.provider
    control.metadata = { ...control.metadata, authorization_signing_alg_values_supported: ['PS256'] }
    signed = await system.start({ responseMode: 'jwt' })
  })

  type Claims = Record<string, unknown>
  const response =
    (change: (claims: Claims) => Claims, sign = (claims: Claims) => providerKey.sign(claims)) =>
    async (parameters: Readonly<Record<string, string>>) => {
      const { issuer: iss, clientId: aud } = system.provider
      return { response: await sign(change({ ...parameters, iss, aud, exp: seconds() + 600 })) }
    }
  const drop =
    (name: string) =>
    ({ [name]: _, ...claims }: Claims) =>
      claims
  const same = (claims: Claims) => claims

  test('a sound one signs in', async () => {
    assertSignedIn(await play({ response: response(same) }, signed))
  })

  const [ISS, AUD] = [/the iss of the signed response/, /the aud of the signed response/]
  const [EXP, SIGNATURE] = [
    /the signed response has expired, or has no exp/,
    /the signature of the signed response/,
  ]
  const JARM: Record<string, [response: NonNullable<Behaviour['response']>, why: RegExp]> = {
    'fapi2-security-profile-final-client-test-ensure-jarm-without-iss-fails: no iss is refused': [
      response(drop('iss')),
      ISS,
    ],
    'fapi2-security-profile-final-client-test-ensure-jarm-with-invalid-iss-fails: another iss is refused': [
      response((claims) => ({ ...claims, iss: 'https://evil.test' })),
      ISS,
    ],
    'fapi2-security-profile-final-client-test-ensure-jarm-without-aud-fails: no aud is refused': [
      response(drop('aud')),
      AUD,
    ],
    'fapi2-security-profile-final-client-test-ensure-jarm-with-invalid-aud-fails: another aud is refused': [
      response((claims) => ({ ...claims, aud: 'another-client' })),
      AUD,
    ],
    'fapi2-security-profile-final-client-test-ensure-jarm-without-exp-fails: no exp is refused': [
      response(drop('exp')),
      EXP,
    ],
    'fapi2-security-profile-final-client-test-ensure-jarm-with-expired-exp-fails: one that has expired is refused':
      [response((claims) => ({ ...claims, exp: seconds() - 300 })), EXP],
    'fapi2-security-profile-final-client-test-ensure-jarm-with-invalid-sig-fails: one by another key is refused':
      [response(same, async (claims) => (await signingKey('PS256', 'fapi')).sign(claims)), SIGNATURE],
    'fapi2-security-profile-final-client-test-ensure-jarm-signature-is-not-none: an unsigned one is refused':
      [response(same, async (claims) => unsignedJwt(claims)), SIGNATURE],
  }
  for (const [title, [changed, why]] of Object.entries(JARM))
    test(title, async () => assertRefused(await play({ response: changed }, signed), why, '/authorize'))
})

describe('an ID token beside the code', () => {
  test('fapi1-advanced-final-client-test-iat-is-week-in-past: one of last week is refused, and its code not redeemed', async () => {
    const hybrid = await system.start({ responseType: 'code id_token', responseMode: 'form_post' })
    const iat = seconds() - 7 * 24 * 3600
    const response = (age: object) => async (parameters: Readonly<Record<string, string>>) => {
      const { nonce } = Object.fromEntries(
        system.provider.requests.findLast(({ path }) => path === '/par')!.form,
      )
      const half = createHash('sha256')
        .update(parameters.code ?? '')
        .digest()
        .subarray(0, 16)
      const { issuer: iss, clientId: aud, control } = system.provider
      const claims = { iss, aud, nonce, sub: control.user, iat: seconds(), exp: seconds() + 600, ...age }
      return {
        ...parameters,
        id_token: await providerKey.sign({ ...claims, c_hash: half.toString('base64url') }),
      }
    }
    assertSignedIn(await play({ response: response({}) }, hybrid))
    const played = await play({ response: response({ iat }) }, hybrid)
    assertRefused(played, /"claim":"iat"/, '/authorize')
  })
})
