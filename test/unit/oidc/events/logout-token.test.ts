import assert from 'node:assert/strict'
import { createPublicKey } from 'node:crypto'
import { suite, test } from 'node:test'
import { exportJWK, generateKeyPair, type JWTPayload, SignJWT } from 'jose'
import { createSigner, unsignedJwt } from '../../../../src/demo/scripted/signing.ts'
import { actOnce, EventTokenError } from '../../../../src/oidc/events/event-token.ts'
import { createVerifyLogoutToken } from '../../../../src/oidc/events/logout-token.ts'
import { createMemoryStore } from '../../../../src/store/memory/memory-store.ts'
import { ISSUER, NOW, scriptedProvider } from '../../../kit/provider/scripted-provider.ts'

const EVENT = 'http://schemas.openid.net/event/backchannel-logout'
const signer = await createSigner()
const seconds = NOW / 1000
const GOOD = {
  ...{ iss: ISSUER, aud: 'shop', sub: 'ada', sid: 's-1', jti: 'j-1' },
  ...{ iat: seconds, exp: seconds + 120, events: { [EVENT]: {} } },
}
type Claims = Record<string, unknown>

function setUp({
  logoutToken = {},
  metadata = {},
}: {
  logoutToken?: Partial<{ requireExp: boolean; requireType: boolean }>
  metadata?: object
} = {}) {
  const scripted = scriptedProvider({
    metadata: { id_token_signing_alg_values_supported: ['RS256', 'PS256'], ...metadata },
  })
  const { relyingParty, clock, scripts, requests } = scripted
  const keys = { set: signer.jwks() as unknown }
  scripts.set('/keys', () => Response.json(keys.set))
  const verify = createVerifyLogoutToken({
    provider: {
      ...{ clientId: 'shop', clockToleranceMs: 60_000 },
      logoutToken: { requireExp: true, requireType: false, ...logoutToken },
    },
    isIssuer: (iss) => iss === ISSUER,
    relyingParty,
    now: () => clock.at,
  })
  /** `good`, or what is wrong. */
  const verdict = (jws: string) =>
    verify(jws).then(
      () => 'good',
      (error) => (error instanceof EventTokenError ? error.fault : error.code),
    )
  return { verify, verdict, clock, keys, scripts, requests }
}

const signed = (
  change: (claims: Claims) => Claims,
  header: Record<string, unknown> = { typ: 'logout+jwt' },
) => signer.sign(change(GOOD), header as Record<string, string>)
const having = (claims: Claims, header?: Record<string, unknown>) =>
  signed((good) => ({ ...good, ...claims }), header)
const without = (...names: string[]) =>
  signed((good) => Object.fromEntries(Object.entries(good).filter(([name]) => !names.includes(name))))

const publicJwk = signer.jwks().keys[0]!
const hmac = (secret: Uint8Array) =>
  new SignJWT(GOOD as JWTPayload).setProtectedHeader({ alg: 'HS256', typ: 'logout+jwt' }).sign(secret)
async function byStranger(alg: string, header: object = {}) {
  const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true })
  const jwk = await exportJWK(publicKey)
  return new SignJWT(GOOD as JWTPayload)
    .setProtectedHeader({
      alg,
      typ: 'logout+jwt',
      kid: publicJwk.kid!,
      ...header,
      ...('jwk' in header ? { jwk } : {}),
    })
    .sign(privateKey)
}

const FORGED: Record<string, [fault: string, token: string | Promise<string>]> = {
  'no JWT at all': ['invalid_request', 'not-a-token'],
  'an empty token': ['invalid_request', ''],
  'five parts, as an encrypted token has': ['invalid_request', 'eyJhbGciOiJkaXIifQ..aaaa.bbbb.cccc'],
  'a payload that is no object': [
    'invalid_request',
    `${Buffer.from('{"alg":"RS256"}').toString('base64url')}.${Buffer.from('[]').toString('base64url')}.AAAA`,
  ],
  'blanks around it': ['invalid_request', having({}).then((token) => ` ${token}`)],
  'alg none': ['invalid_request', unsignedJwt(GOOD)],
  'alg none with a signature that is none': ['invalid_key', `${unsignedJwt(GOOD)}AAAA`],
  'HS256 with the public key': [
    'invalid_key',
    hmac(
      Buffer.from(
        createPublicKey({ key: publicJwk as never, format: 'jwk' }).export({ type: 'spki', format: 'pem' }),
      ),
    ),
  ],
  'HS256 with the modulus': ['invalid_key', hmac(Buffer.from(String(publicJwk.n), 'base64url'))],
  'HS256 with the client secret': [
    'invalid_key',
    hmac(Buffer.from('a client secret that we know of'.padEnd(32))),
  ],
  "somebody else's key under the same kid": ['invalid_key', byStranger('RS256')],
  'an algorithm that the provider does not use': ['invalid_key', byStranger('ES256')],
  'another algorithm than the key is for': ['invalid_key', byStranger('PS256')],
  'a key that the header brings': ['invalid_key', byStranger('RS256', { jwk: true })],
  'a payload changed after signing': [
    'invalid_key',
    having({}).then((token) => {
      const [header, , signature] = token.split('.')
      return `${header}.${Buffer.from(JSON.stringify({ ...GOOD, sub: 'bob' })).toString('base64url')}.${signature}`
    }),
  ],
  'the type of an access token': ['invalid_request', having({}, { typ: 'at+jwt' })],
  'the type of a security event': ['invalid_request', having({}, { typ: 'application/secevent+jwt' })],
  'a type that is no text': ['invalid_request', having({}, { typ: 5 })],
  'another issuer': ['invalid_issuer', having({ iss: 'https://evil.example' })],
  'the issuer with a slash more': ['invalid_issuer', having({ iss: `${ISSUER}/` })],
  'no issuer': ['invalid_issuer', without('iss')],
  'a list for an issuer': ['invalid_issuer', having({ iss: [ISSUER] })],
  'another audience': ['invalid_audience', having({ aud: 'another' })],
  'a list of other audiences': ['invalid_audience', having({ aud: ['another', 'SHOP', 5] })],
  'no audience': ['invalid_audience', without('aud')],
  'the azp of another client': ['invalid_request', having({ azp: 'another' })],
  'no iat': ['invalid_request', without('iat')],
  'an iat that is a text': ['invalid_request', having({ iat: String(seconds) })],
  'an iat in 70 s': ['invalid_request', having({ iat: seconds + 70, exp: seconds + 200 })],
  'an old iat, whatever exp says': [
    'invalid_request',
    having({ iat: seconds - 3_600, exp: seconds + 3_600 }),
  ],
  'an iat beyond all dates': ['invalid_request', having({ iat: 1e300 })],
  'no exp': ['invalid_request', without('exp')],
  'an exp that is null': ['invalid_request', having({ exp: null })],
  'an exp 70 s ago': ['invalid_request', having({ iat: seconds - 200, exp: seconds - 70 })],
  'an nbf in 70 s': ['invalid_request', having({ nbf: seconds + 70 })],
  'no jti': ['invalid_request', without('jti')],
  'an empty jti': ['invalid_request', having({ jti: '' })],
  'no events': ['invalid_request', without('events')],
  'events in a list': ['invalid_request', having({ events: [EVENT] })],
  'another event': ['invalid_request', having({ events: { 'https://schemas.example/other': {} } })],
  'an event that is no object': ['invalid_request', having({ events: { [EVENT]: true } })],
  'an event that is a list': ['invalid_request', having({ events: { [EVENT]: [] } })],
  'a nonce': ['invalid_request', having({ nonce: 'n' })],
  'a nonce that is null': ['invalid_request', having({ nonce: null })],
  'neither sub nor sid': ['invalid_request', without('sub', 'sid')],
  'a sub that is a number': ['invalid_request', having({ sub: 5 })],
  'an empty sid': ['invalid_request', having({ sid: '' })],
}

suite('a logout token is refused for', () => {
  const { verdict } = setUp()
  for (const [name, [fault, token]] of Object.entries(FORGED)) {
    test(name, async () => assert.equal(await verdict(await token), fault))
  }
})

suite('a logout token', () => {
  test('says whom it is about: a session of a user, all sessions of a user, or a session', async () => {
    const { verify } = setUp()
    const about = async (token: Promise<string>) => {
      const { sub, sid } = await verify(await token)
      return [sub, sid]
    }
    assert.deepEqual(await about(having({})), ['ada', 's-1'])
    assert.deepEqual(await about(without('sid')), ['ada', undefined])
    assert.deepEqual(await about(without('sub')), [undefined, 's-1'])
  })

  test('may have its audience in a list, an event with members, a clock near ours and other claims', async () => {
    const { verdict } = setUp()
    for (const claims of [
      { aud: ['another', 'shop'] },
      { aud: ['shop'], azp: 'shop' },
      { events: { [EVENT]: { reason: 'x' }, 'https://example.com/other': {} } },
      { iat: seconds + 50, exp: seconds + 170 },
      { iat: seconds - 170, exp: seconds - 50 },
      { iat: seconds, exp: seconds + 86_400, typ: 'Logout', nbf: seconds },
    ])
      assert.equal(await verdict(await having(claims)), 'good', JSON.stringify(claims))
  })

  test('may have the type JWT or none, unless the type is required', async () => {
    const types = [
      { typ: 'logout+jwt' },
      { typ: 'application/Logout+JWT' },
      { typ: 'JWT' },
      { typ: undefined },
    ]
    const verdicts = async ({ verdict }: ReturnType<typeof setUp>) =>
      Promise.all(types.map(async (header) => verdict(await having({}, header))))
    assert.deepEqual(await verdicts(setUp()), ['good', 'good', 'good', 'good'])
    const strict = setUp({ logoutToken: { requireType: true } })
    assert.deepEqual(await verdicts(strict), ['good', 'good', 'invalid_request', 'invalid_request'])
  })

  test('without exp is taken where the configuration says so, for five minutes', async () => {
    const { verdict, verify, clock } = setUp({ logoutToken: { requireExp: false } })
    const token = await without('exp')
    assert.equal((await verify(token)).goodForMs, 360_000)
    clock.at += 359_000
    assert.equal(await verdict(token), 'good')
    clock.at += 1_000
    assert.equal(await verdict(token), 'invalid_request')
  })

  test('is good until exp or five minutes after iat, whichever is first, and the tolerance', async () => {
    const { verify } = setUp()
    assert.equal((await verify(await having({}))).goodForMs, 180_000)
    assert.equal((await verify(await having({ exp: seconds + 86_400 }))).goodForMs, 360_000)
  })

  test('of a provider that announces weak algorithms is judged as ever', async () => {
    const { verdict } = setUp({
      metadata: { id_token_signing_alg_values_supported: ['RS256', 'none', 'HS256'] },
    })
    assert.equal(await verdict(unsignedJwt(GOOD)), 'invalid_request')
    assert.equal(await verdict(await hmac(Buffer.from(String(publicJwk.n), 'base64url'))), 'invalid_key')
    assert.equal(await verdict(await having({})), 'good')
  })

  test('signed with a new key is good after one more look at the key set, and unknown keys cause no second one', async () => {
    const { verdict, keys, requests } = setUp()
    const reads = () => requests.filter(({ path }) => path === '/keys').length
    assert.equal(await verdict(await having({})), 'good')
    const next = await createSigner({ ownKey: true })
    keys.set = next.jwks()
    assert.equal(await verdict(await next.sign(GOOD)), 'good')
    assert.equal(reads(), 2)
    const stranger = await createSigner({ ownKey: true })
    for (let count = 0; count < 20; count += 1) {
      assert.equal(await verdict(await stranger.sign(GOOD)), 'invalid_key')
    }
    assert.equal(reads(), 3)
  })

  test('signed with a key that may be new is not refused while strangers keep the keys from being read again', async () => {
    const { verdict, keys, clock } = setUp()
    assert.equal(await verdict(await having({})), 'good')
    for (let count = 0; count < 3; count += 1) {
      const stranger = await createSigner({ ownKey: true })
      const forged = await stranger.sign(GOOD)
      assert.equal(await verdict(forged), count === 0 ? 'invalid_key' : 'provider_unavailable')
      assert.equal(await verdict(await stranger.sign(GOOD, { kid: publicJwk.kid! })), 'invalid_key')
    }
    const next = await createSigner({ ownKey: true })
    keys.set = next.jwks()
    const token = await next.sign(GOOD)
    assert.equal(await verdict(token), 'provider_unavailable', 'a provider that is told 400 gives up')
    clock.at += 60_000
    assert.equal(await verdict(token), 'good')
  })

  test('cannot be judged while the keys cannot be read, which is no fault of the token', async () => {
    const { verdict, scripts } = setUp()
    scripts.set('/keys', () => new Response('', { status: 503 }))
    assert.equal(await verdict(await having({})), 'provider_unavailable')
  })
})

suite('what is good once', () => {
  const message = { kind: 'logout', id: 'j-1', goodForMs: 60_000 }
  function store() {
    let time = 0
    const { replays } = createMemoryStore({ idleTimeoutMs: () => 60_000, monotonicNow: () => time })
    const elapse = (ms: number) => {
      time += ms
    }
    const pause = async (ms: number) => elapse(ms)
    return { replays, elapse, pause }
  }

  test('is done once, also when it comes twice at the same time, for as long as it is good', async () => {
    const { elapse, ...records } = store()
    let done = 0
    const act = async () => {
      done += 1
    }
    const both = await Promise.all([actOnce(records, message, act), actOnce(records, message, act)])
    assert.deepEqual([both.sort(), done], [[false, true], 1])
    elapse(59_800)
    assert.equal(await actOnce(records, message, act), false)
    elapse(200)
    assert.equal(await actOnce(records, message, act), true)
  })

  test('may come again when it could not be done, at once or, if nobody was left to say so, 10 s later', async () => {
    const { elapse, ...records } = store()
    const fail = () => Promise.reject(new Error('away'))
    await assert.rejects(actOnce(records, message, fail), /away/)
    const dying = { ...records.replays, forget: () => Promise.reject(new Error('away, too')) }
    await assert.rejects(actOnce({ ...records, replays: dying }, message, fail), /^Error: away$/)
    // Neither "done before", which would lose it, nor done while the first one may still be at it.
    const again = actOnce(records, message, async () => assert.fail('the first one may still act'))
    await assert.rejects(again, { code: 'store_unavailable' })
    elapse(10_000)
    assert.equal(await actOnce(records, message, async () => {}), true)
  })

  test('that comes again while it is acted on waits, and is done by the repetition when the first one fails', async () => {
    const { elapse: _, ...records } = store()
    const first = Promise.withResolvers<void>()
    const failing = actOnce(records, message, () => first.promise)
    let looks = 0
    const pause = async (ms: number) => {
      looks += 1
      if (looks === 3) first.reject(new Error('away'))
      await records.pause(ms)
      await new Promise(setImmediate)
    }
    const repeated = actOnce({ ...records, pause }, message, async () => {})
    await assert.rejects(failing, /away/)
    assert.equal(await repeated, true)
    assert.equal(await actOnce(records, message, async () => {}), false)
  })
})
