import assert from 'node:assert/strict'
import { createHash, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { describe, test } from 'node:test'
import { decodeJwt, exportJWK, exportPKCS8, generateKeyPair, importJWK, jwtVerify, SignJWT } from 'jose'
import type { ProviderConfig } from '../../../../src/config/config.ts'
import { Secret } from '../../../../src/config/secrets/secret.ts'
import { BffError } from '../../../../src/errors.ts'
import { newProofKey } from '../../../../src/oidc/dpop.ts'
import { IdTokenError } from '../../../../src/oidc/token-endpoint/id-token.ts'
import { ISSUER, NOW, type Script, scriptedProvider } from '../../../kit/provider/scripted-provider.ts'

const SECONDS = NOW / 1000
const CHECKS = { state: 'the-state', nonce: 'the-nonce', codeVerifier: 'v'.repeat(43) }
const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const stranger = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const keys = { keys: [{ ...publicKey.export({ format: 'jwk' }), kid: 'k1', alg: 'ES256' }] }

function idToken(claims: object = {}, key = privateKey): Promise<string> {
  const usual = { iss: ISSUER, aud: 'shop', sub: 'ada', iat: SECONDS, exp: SECONDS + 300 }
  return new SignJWT({ ...usual, ...claims }).setProtectedHeader({ alg: 'ES256', kid: 'k1' }).sign(key)
}

const TOKENS = { access_token: 'at', token_type: 'Bearer', expires_in: 300 }
const gives =
  (body: object, status = 200): Script =>
  () =>
    Response.json(body, { status })

function setUp(script: Script, provider = {}) {
  const scene = scriptedProvider({ provider })
  scene.scripts.set('/token', script)
  scene.scripts.set('/keys', () => Response.json(keys))
  const kept: string[] = []
  const ignored: unknown[] = []
  const hooks = {
    async keep(refreshToken: string) {
      kept.push(refreshToken)
    },
    ignoredIdToken: (error: unknown) => void ignored.push(error),
  }
  const refresh = (more: Partial<typeof hooks> & { key?: KeyObject } = {}) =>
    scene.relyingParty.refreshGrant('rt-1', [['scope', 'orders openid']], { ...hooks, ...more })
  const tokenRequests = () => scene.requests.filter(({ path }) => path === '/token')
  return { ...scene, kept, ignored, refresh, tokenRequests }
}

describe('a refresh', () => {
  test('sends its parameters, and tells what came in our words', async () => {
    const { refresh, tokenRequests, limited, kept, ignored } = setUp(
      gives({ ...TOKENS, refresh_token: 'rt-2', scope: 'orders', resource: 'https://a.test' }),
    )
    assert.deepEqual(await refresh(), {
      ...{ accessToken: 'at', obtainedAt: SECONDS * 1000, expiresAt: (SECONDS + 300) * 1000 },
      ...{ refreshToken: 'rt-2', idToken: undefined, claims: undefined },
      ...{ resource: 'https://a.test', scope: 'orders' },
    })
    assert.deepEqual(Object.fromEntries(tokenRequests()[0]!.form), {
      ...{ grant_type: 'refresh_token', refresh_token: 'rt-1', scope: 'orders openid', client_id: 'shop' },
    })
    assert.deepEqual([kept, ignored], [['rt-2'], []])
    assert.deepEqual(limited, [{ grant: 'refresh_token', finding: undefined }])
  })

  test('tells when the refresh token ends, as number or text; 0 and what is no number tell nothing', async () => {
    for (const [seconds, expected] of [
      [600, SECONDS * 1000 + 600_000],
      ['600', SECONDS * 1000 + 600_000],
      ...[0, '0', -1, 'never', '', null, true, [600], undefined, '1e999', 1e306].map(
        (one) => [one, undefined] as const,
      ),
    ] as const) {
      const { refresh } = setUp(
        gives({ ...TOKENS, refresh_token: 'rt-2', refresh_token_expires_in: seconds }),
      )
      const granted = (await refresh()) as { refreshTokenExpiresAt?: number }
      assert.equal(granted.refreshTokenExpiresAt, expected, String(seconds))
    }
  })

  test('keeps a rotated refresh token before anything else is judged, and only one that is new', async () => {
    for (const [body, status, expected] of [
      [{ ...TOKENS, refresh_token: 'rt-2', token_type: 'DPoP' }, 200, ['rt-2']],
      [{ ...TOKENS, refresh_token: 'rt-1' }, 200, []],
      [{ ...TOKENS, refresh_token: 7 }, 200, []],
      [TOKENS, 200, []],
      [{ error: 'invalid_grant', refresh_token: 'rt-2' }, 400, []],
    ] as const) {
      const { refresh, kept } = setUp(gives(body, status))
      await refresh()
      assert.deepEqual(kept, expected, JSON.stringify(body))
    }
  })

  test('that cannot be kept fails with the reason why', async () => {
    const { refresh, limited } = setUp(gives({ ...TOKENS, refresh_token: 'rt-2' }))
    const gone = new BffError('session_required', 'the session has ended')
    const failed = await refresh({ keep: () => Promise.reject(gone) })
    assert.ok('error' in failed)
    assert.deepEqual([failed.error, failed.wasSent, failed.answer?.status], [gone, true, 200])
    assert.equal(limited[0]?.finding?.kind, 'refused')
  })

  test('that is refused comes back with its answer; the limiter learns whose it was by a pseudonym', async () => {
    const { refresh, limited } = setUp(gives({ error: 'invalid_grant', error_codes: [70008] }, 400))
    const failed = await refresh()
    assert.ok('error' in failed)
    assert.deepEqual(
      [failed.error.code, failed.wasSent, failed.answer?.status],
      ['session_required', true, 400],
    )
    const holder = createHash('sha256').update('rt-1').digest('base64url')
    assert.deepEqual(limited[0]?.finding, { kind: 'refused', holder })
  })

  test('that gets no answer says whether it was sent', async () => {
    const { refresh, scripts } = setUp(() => {
      throw new TypeError('fetch failed')
    })
    const sent = await refresh()
    assert.ok('error' in sent)
    assert.deepEqual([sent.error.code, sent.answer, sent.wasSent], ['provider_unavailable', undefined, true])
    scripts.clear()
    const undiscovered = scriptedProvider()
    undiscovered.scripts.clear()
    const unsent = await undiscovered.relyingParty.clientCredentialsGrant([])
    assert.ok('error' in unsent)
    assert.deepEqual([unsent.error.code, unsent.wasSent], ['provider_unavailable', false])
  })

  test('never takes a token that is bound to a key', async () => {
    const { refresh } = setUp(gives({ ...TOKENS, token_type: 'DPoP' }))
    const failed = await refresh()
    assert.ok('error' in failed)
    assert.equal(failed.error.code, 'provider_rejected')
  })

  test('with a key takes only a token that is bound, in whatever letter case that is said', async () => {
    const key = newProofKey()
    const bound = setUp(gives({ ...TOKENS, token_type: 'dpOP', refresh_token: 'rt-2' }))
    const granted = await bound.refresh({ key })
    assert.ok('accessToken' in granted)
    assert.equal(granted.key, key)
    const unbound = setUp(gives({ ...TOKENS, refresh_token: 'rt-2' }))
    const failed = await unbound.refresh({ key })
    assert.ok('error' in failed)
    assert.equal(failed.error.code, 'provider_rejected')
    assert.match(failed.error.message, /bound to no key/)
    assert.deepEqual(unbound.kept, ['rt-2'])
  })

  test('is sent once more with the nonce that a refusal brings, and no third time', async () => {
    const key = newProofKey()
    let nonces = 0
    const refusal = (nonce?: string) =>
      Response.json(
        { error: 'use_dpop_nonce' },
        { status: 400, headers: nonce === undefined ? {} : { 'dpop-nonce': nonce } },
      )
    const loop = setUp(() => refusal(`n-${++nonces}`))
    const failed = await loop.refresh({ key })
    assert.ok('error' in failed)
    assert.equal(failed.error.code, 'provider_rejected')
    assert.equal(loop.tokenRequests().length, 2)
    for (const nonce of [undefined, '', 'not a nonce']) {
      const silent = setUp(() => refusal(nonce))
      await silent.refresh({ key })
      assert.equal(silent.tokenRequests().length, 1)
    }
    const keyless = setUp(() => refusal('n'))
    await keyless.refresh()
    assert.equal(keyless.tokenRequests().length, 1)
  })

  test('of several that learn of a nonce at the same time, each is sent once more', async () => {
    const waiting: (() => void)[] = []
    const scene = setUp(async ({ headers }) => {
      if (decodeJwt(headers.get('dpop') ?? '').nonce === 'n-1')
        return Response.json({ ...TOKENS, token_type: 'DPoP' })
      // None is answered before all have been sent.
      await new Promise<void>((resolve) => {
        waiting.push(resolve)
        if (waiting.length === 3) for (const go of waiting) go()
      })
      return Response.json({ error: 'use_dpop_nonce' }, { status: 400, headers: { 'dpop-nonce': 'n-1' } })
    })
    const outcomes = await Promise.all([1, 2, 3].map(() => scene.refresh({ key: newProofKey() })))
    for (const outcome of outcomes) assert.ok('accessToken' in outcome)
    assert.equal(scene.tokenRequests().length, 6)
  })

  test('brings the claims of an ID token that passes every check', async () => {
    const { refresh, ignored, requests } = setUp(
      gives({ ...TOKENS, id_token: await idToken({ name: 'Ada' }) }),
    )
    const granted = await refresh()
    assert.ok('claims' in granted)
    assert.deepEqual([granted.claims?.sub, granted.claims?.name], ['ada', 'Ada'])
    assert.ok(granted.idToken)
    assert.deepEqual(ignored, [])
    const ofKeys = requests.find(({ path }) => path === '/keys')
    assert.equal(ofKeys?.headers.get('accept'), 'application/json, application/jwk-set+json')
  })

  test('is good without an ID token that fails a check; only its sub is told', async () => {
    for (const [what, token, message, subject = 'ada'] of [
      ['of a stranger’s key', await idToken({}, stranger.privateKey), /no key of the provider/],
      ['for another client', await idToken({ azp: 'another' }), /azp of another client/],
      // A user of another issuer is another user, whatever the sub.
      ['of another issuer', await idToken({ iss: 'https://evil.test' }), /./, 'https://evil.test\0ada'],
      ['that has expired', await idToken({ exp: SECONDS - 3600 }), /exp \d+ s in the past/],
    ] as const) {
      const { refresh, ignored, tokenRequests } = setUp(gives({ ...TOKENS, id_token: token }))
      const granted = await refresh()
      assert.ok('accessToken' in granted, what)
      assert.deepEqual(
        [granted.accessToken, granted.idToken, granted.claims, granted.unverifiedSubject],
        ['at', undefined, undefined, subject],
        what,
      )
      assert.equal(ignored.length, 1, what)
      assert.ok(ignored[0] instanceof IdTokenError, what)
      assert.match(ignored[0].message, message, what)
      assert.equal(ignored[0].facts.keyId, 'k1', what)
      assert.equal(tokenRequests().length, 1, what)
    }
  })
})

describe('a client that is refused', () => {
  type Refusing = { tookMs?: number; rotates?: boolean; error?: string; status?: number; refusals?: number }
  function refusing(more: Refusing = {}) {
    const { tookMs = 0, rotates = true, error = 'invalid_client', status = 401, refusals = 1 } = more
    let value = 'old'
    let asked = 0
    const scene = setUp(
      () => {
        asked += 1
        if (asked > refusals) return Response.json(TOKENS)
        if (rotates) value = `new ${asked}`
        scene.clock.at += tookMs
        return Response.json({ error }, { status })
      },
      { clientAuth: { method: 'client_secret_post', secret: new Secret(() => value) } },
    )
    return { ...scene, status }
  }
  const secrets = ({ tokenRequests }: ReturnType<typeof refusing>) =>
    tokenRequests().map(({ form }) => form.get('client_secret'))

  test('is tried once more, if its secret was replaced meanwhile', async () => {
    const scene = refusing()
    assert.ok('accessToken' in (await scene.relyingParty.clientCredentialsGrant([])))
    assert.deepEqual(secrets(scene), ['old', 'new 1'])
    assert.equal(scene.limited[0]?.finding?.holder, undefined)
  })

  test('is tried once more at Keycloak, too, which says unauthorized_client with the status for it', async () => {
    const scene = refusing({ error: 'unauthorized_client' })
    assert.ok('accessToken' in (await scene.relyingParty.clientCredentialsGrant([])))
    assert.deepEqual(secrets(scene), ['old', 'new 1'])
  })

  test('is tried once more only', async () => {
    const scene = refusing({ refusals: 9 })
    assert.ok('error' in (await scene.relyingParty.clientCredentialsGrant([])))
    assert.deepEqual(secrets(scene), ['old', 'new 1'])
  })

  test('is not tried again with the same secret, after half a second, or for another reason', async () => {
    for (const more of [{ rotates: false }, { tookMs: 500 }, { error: 'unauthorized_client', status: 400 }]) {
      const scene = refusing(more)
      const failed = await scene.relyingParty.clientCredentialsGrant([])
      assert.ok('error' in failed)
      assert.deepEqual([failed.error.code, failed.answer?.status], ['provider_rejected', scene.status])
      assert.deepEqual(secrets(scene), ['old'])
    }
    const quick = refusing({ tookMs: 499 })
    assert.ok('accessToken' in (await quick.relyingParty.clientCredentialsGrant([])))
  })
})

test('a client authenticates as it is registered: by Basic, in the form, or with a signed assertion', async () => {
  const sent = async (clientAuth: ProviderConfig['clientAuth']) => {
    const { relyingParty, tokenRequests } = setUp(gives(TOKENS), { clientAuth })
    assert.ok('accessToken' in (await relyingParty.clientCredentialsGrant([])))
    const { headers, form } = tokenRequests()[0]!
    return { basic: headers.get('authorization'), form: Object.fromEntries(form) }
  }
  const secret = new Secret('s-e.c_r+t')
  const basic = await sent({ method: 'client_secret_basic', secret })
  // RFC 6749 §2.3.1 and appendix B.
  assert.equal(basic.basic, `Basic ${Buffer.from('shop:s-e.c_r%2Bt').toString('base64')}`)
  assert.equal(basic.form.client_secret, undefined)
  const post = await sent({ method: 'client_secret_post', secret })
  assert.deepEqual([post.basic, post.form.client_id, post.form.client_secret], [null, 'shop', 's-e.c_r+t'])
  const key = new Secret(await exportPKCS8(privateKey))
  const signed = await sent({
    method: 'private_key_jwt',
    key,
    algorithm: 'ES256',
    keyId: 'key-1',
    audience: 'issuer',
  })
  const assertion = String(signed.form.client_assertion)
  const { payload, protectedHeader } = await jwtVerify(assertion, publicKey, { audience: ISSUER })
  assert.deepEqual([payload.iss, payload.sub, protectedHeader.kid], ['shop', 'shop', 'key-1'])
  assert.equal(signed.basic, null)
})

test('a key that was replaced while the client was refused is tried once more, as a secret is', async () => {
  const pems = [await exportPKCS8(privateKey), await exportPKCS8(stranger.privateKey)]
  let current = 0
  const { relyingParty, tokenRequests } = setUp(
    () => {
      current += 1
      return current === 1
        ? Response.json({ error: 'invalid_client' }, { status: 401 })
        : Response.json(TOKENS)
    },
    {
      clientAuth: {
        ...{ method: 'private_key_jwt', algorithm: 'ES256', keyId: 'key-1', audience: 'issuer' },
        key: new Secret(() => pems[Math.min(current, 1)]!),
      },
    },
  )
  assert.ok('accessToken' in (await relyingParty.clientCredentialsGrant([])))
  const assertions = tokenRequests().map(({ form }) => String(form.get('client_assertion')))
  assert.equal(assertions.length, 2)
  await jwtVerify(assertions[1]!, stranger.publicKey)
})

test('without discovery an ID token may be signed with any algorithm that is known here, and with no secret', async () => {
  const endpoints = {
    ...{ authorization: `${ISSUER}/authorize`, token: `${ISSUER}/token`, jwks: `${ISSUER}/keys` },
  }
  const { refresh, requests } = setUp(gives({ ...TOKENS, id_token: await idToken() }), { endpoints })
  const granted = await refresh()
  assert.ok('claims' in granted)
  assert.equal(granted.claims?.sub, 'ada')
  assert.ok(!requests.some(({ path }) => path.includes('well-known')))
  const symmetric = await new SignJWT({
    iss: ISSUER,
    aud: 'shop',
    sub: 'ada',
    iat: SECONDS,
    exp: SECONDS + 300,
  })
    .setProtectedHeader({ alg: 'HS256', kid: 'k1' })
    .sign(Buffer.alloc(32))
  const forged = setUp(gives({ ...TOKENS, id_token: symmetric }), { endpoints })
  const answer = await forged.refresh()
  assert.ok('accessToken' in answer)
  assert.deepEqual([answer.claims, forged.ignored.length], [undefined, 1])
})

test('without discovery each algorithm that providers sign ID tokens with is accepted', async () => {
  const endpoints = {
    ...{ authorization: `${ISSUER}/authorize`, token: `${ISSUER}/token`, jwks: `${ISSUER}/keys` },
  }
  const rsa = await generateKeyPair('RS256', { extractable: true })
  const claims = { iss: ISSUER, aud: 'shop', sub: 'ada', iat: SECONDS, exp: SECONDS + 300 }
  for (const alg of ['RS256', 'PS256', 'ES256', 'ES384', 'PS384', 'RS384', 'EdDSA', 'Ed25519']) {
    const isRsa = alg.startsWith('RS') || alg.startsWith('PS')
    const pair = isRsa ? rsa : await generateKeyPair(alg, { extractable: true })
    const key = await importJWK({ ...(await exportJWK(pair.privateKey)), alg }, alg)
    const id_token = await new SignJWT(claims).setProtectedHeader({ alg, kid: 'k1' }).sign(key)
    const { refresh, scripts } = setUp(gives({ ...TOKENS, id_token }), { endpoints })
    const jwk = { ...(await exportJWK(pair.publicKey)), kid: 'k1' }
    scripts.set('/keys', () => Response.json({ keys: [jwk] }))
    const granted = await refresh()
    assert.ok('claims' in granted)
    assert.equal(granted.claims?.sub, 'ada', alg)
  }
})

test('client credentials and extension grants name their grant type', async () => {
  const { relyingParty, tokenRequests, limited } = setUp(gives(TOKENS))
  await relyingParty.clientCredentialsGrant([['scope', 'audit']])
  await relyingParty.tokenExchangeGrant('urn:x', [['subject_token', 'at-1']])
  const [own, exchange] = tokenRequests().map(({ form }) => Object.fromEntries(form))
  assert.deepEqual(own, { grant_type: 'client_credentials', scope: 'audit', client_id: 'shop' })
  assert.deepEqual(exchange, { grant_type: 'urn:x', subject_token: 'at-1', client_id: 'shop' })
  assert.deepEqual(
    limited.map(({ grant }) => grant),
    ['client_credentials', 'token_exchange'],
  )
})

describe('a code grant', () => {
  const callback = (query: string) => new URL(`https://shop.example.com/bff/callback?${query}`)
  const good = `code=abc&state=the-state&iss=${encodeURIComponent(ISSUER)}`
  async function failure(work: Promise<unknown>) {
    const error = await work.then(
      () => assert.fail('it succeeded'),
      (reason) => reason,
    )
    assert.ok(error instanceof BffError)
    return { code: error.code, step: error.logged?.step, logged: error.logged }
  }

  test('whose ID token names another access token by its at_hash is refused, that of a refresh is not', async () => {
    const hashOf = (token: string) =>
      createHash('sha256').update(token).digest().subarray(0, 16).toString('base64url')
    const outcome = async (atHash: string) => {
      const signed = await idToken({ nonce: 'the-nonce', at_hash: atHash })
      const { relyingParty } = setUp(gives({ ...TOKENS, id_token: signed }))
      return relyingParty.codeGrant(callback(good), CHECKS, []).then(
        ({ claims }) => claims?.sub,
        ({ code, logged }) => [code, logged?.claim],
      )
    }
    assert.equal(await outcome(hashOf('at')), 'ada')
    assert.deepEqual(await outcome(hashOf('another')), ['invalid_callback', 'at_hash'])
    const old = await idToken({ at_hash: hashOf('that of the sign-in') })
    const refreshed = await setUp(gives({ ...TOKENS, id_token: old })).refresh()
    assert.ok('claims' in refreshed && refreshed.claims?.sub === 'ada')
  })

  test('with max_age needs an auth_time, and one that is young enough', async () => {
    const outcome = async (claims: object) => {
      const answer = gives({ ...TOKENS, id_token: await idToken({ nonce: 'the-nonce', ...claims }) })
      const { relyingParty } = setUp(answer)
      const checks = { ...CHECKS, maxAge: 600 }
      return relyingParty.codeGrant(callback(good), checks, []).then(
        ({ claims: found }) => found?.sub,
        ({ code, logged }) => [code, logged?.claim ?? logged?.step],
      )
    }
    assert.equal(await outcome({ auth_time: SECONDS - 600 }), 'ada')
    assert.deepEqual(await outcome({ auth_time: SECONDS - 900 }), ['invalid_callback', 'auth_time'])
    for (const claims of [{}, { auth_time: 'now' }])
      assert.deepEqual((await outcome(claims))?.[0], 'invalid_callback')
  })

  test('redeems the code with its verifier, and verifies the ID token', async () => {
    const { relyingParty, tokenRequests, limited } = setUp(
      gives({ ...TOKENS, id_token: await idToken({ nonce: 'the-nonce' }) }),
    )
    const granted = await relyingParty.codeGrant(callback(good), CHECKS, [['resource', 'https://a.test']])
    assert.deepEqual([granted.accessToken, granted.claims?.sub], ['at', 'ada'])
    assert.deepEqual(Object.fromEntries(tokenRequests()[0]!.form), {
      ...{ grant_type: 'authorization_code', code: 'abc', code_verifier: CHECKS.codeVerifier },
      ...{ redirect_uri: 'https://shop.example.com/bff/callback', resource: 'https://a.test' },
      client_id: 'shop',
    })
    assert.deepEqual(limited, [{ grant: 'authorization_code', finding: undefined }])
  })

  test('may bring no access token: then it tells who the user is', async () => {
    const id_token = await idToken({ nonce: 'the-nonce' })
    for (const access_token of [undefined, '', null]) {
      const { relyingParty } = setUp(gives({ id_token, access_token }))
      const granted = await relyingParty.codeGrant(callback(good), CHECKS, [])
      assert.deepEqual([granted.accessToken, granted.claims?.sub], ['', 'ada'])
    }
  })

  test('fails with an ID token that fails a check, and says where', async () => {
    for (const claims of [{ nonce: 'another' }, { nonce: 'the-nonce', azp: 'another' }]) {
      const { relyingParty, ignored } = setUp(gives({ ...TOKENS, id_token: await idToken(claims) }))
      const { code, step } = await failure(relyingParty.codeGrant(callback(good), CHECKS, []))
      assert.deepEqual([code, step, ignored], ['invalid_callback', 'id_token', []])
    }
    const forged = setUp(
      gives({ ...TOKENS, id_token: await idToken({ nonce: 'the-nonce' }, stranger.privateKey) }),
    )
    const { code, step } = await failure(forged.relyingParty.codeGrant(callback(good), CHECKS, []))
    assert.deepEqual([code, step], ['invalid_callback', 'id_token'])
  })

  test('with a code that no provider makes is not sent', async () => {
    const { relyingParty, limited, requests } = setUp(gives(TOKENS))
    for (const made of ['a%0Ab', '%C3%BC', 'a&code=%7F']) {
      const { code, step } = await failure(
        relyingParty.codeGrant(callback(`code=${made}&state=the-state`), CHECKS, []),
      )
      assert.deepEqual([code, step], ['invalid_callback', 'authorization'])
    }
    assert.deepEqual([limited, requests], [[], []])
  })

  test('without a code asks the provider nothing, and tells what its response says', async () => {
    const { relyingParty, limited } = setUp(gives(TOKENS))
    const iss = `iss=${encodeURIComponent(ISSUER)}`
    const refused = await failure(
      relyingParty.codeGrant(callback(`error=login_required&state=the-state&${iss}`), CHECKS, []),
    )
    assert.deepEqual([refused.code, refused.logged?.oauthError], ['invalid_callback', 'login_required'])
    const wrongState = await failure(
      relyingParty.codeGrant(callback(`error=access_denied&state=another&${iss}`), CHECKS, []),
    )
    assert.deepEqual(
      [wrongState.code, wrongState.step, wrongState.logged?.oauthError],
      ['invalid_callback', 'authorization', 'access_denied'],
    )
    assert.deepEqual(limited, [])
  })

  test('with the wrong state is not sent', async () => {
    const { relyingParty, tokenRequests } = setUp(gives(TOKENS))
    const { code, step, logged } = await failure(
      relyingParty.codeGrant(callback('code=abc&state=another'), CHECKS, []),
    )
    assert.deepEqual([code, step, logged?.oauthError], ['invalid_callback', 'authorization', undefined])
    assert.equal(tokenRequests().length, 0)
  })

  test('of another issuer is not sent, although the metadata announce no iss (RFC 9207 §2.4)', async () => {
    const { relyingParty, tokenRequests } = setUp(gives(TOKENS))
    const iss = `iss=${encodeURIComponent('https://evil.example')}`
    for (const query of [`code=abc&state=the-state&${iss}`, `error=access_denied&state=the-state&${iss}`]) {
      const { code, step } = await failure(relyingParty.codeGrant(callback(query), CHECKS, []))
      assert.deepEqual([code, step], ['invalid_callback', 'authorization'], query)
    }
    assert.equal(tokenRequests().length, 0)
  })

  test('that the provider refuses is told by its step', async () => {
    const { relyingParty, limited } = setUp(gives({ error: 'invalid_client' }, 401))
    const { code, step } = await failure(relyingParty.codeGrant(callback(good), CHECKS, []))
    assert.deepEqual([code, step], ['provider_rejected', 'code'])
    assert.equal(limited[0]?.finding?.kind, 'refused')
  })
})
