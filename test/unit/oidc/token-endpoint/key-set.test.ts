import assert from 'node:assert/strict'
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { describe, test } from 'node:test'
import { importJWK, type JWK, SignJWT } from 'jose'
import { createProviderKeys } from '../../../../src/oidc/token-endpoint/key-set.ts'

const URI = 'https://id.example.com/keys'

const GENERATE: Readonly<
  Record<string, () => { readonly privateKey: KeyObject; readonly publicKey: KeyObject }>
> = {
  ES256: () => generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  RS256: () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
  ES384: () => generateKeyPairSync('ec', { namedCurve: 'P-384' }),
  ES512: () => generateKeyPairSync('ec', { namedCurve: 'P-521' }),
  Ed25519: () => generateKeyPairSync('ed25519'),
}

function keyPair(alg = 'ES256', kid = 'k1') {
  const { privateKey, publicKey } = GENERATE[alg]!()
  const jwk: JWK = { ...publicKey.export({ format: 'jwk' }), kid, alg, use: 'sig' }
  const privateJwk: JWK = { ...privateKey.export({ format: 'jwk' }), kid, alg, use: 'sig' }
  const sign = (header: { kid?: string | undefined; alg?: string } = {}) =>
    new SignJWT({ sub: 'ada' }).setProtectedHeader({ alg, kid, ...header }).sign(privateKey)
  return { jwk, privateJwk, sign }
}

const [own, other, rsa, ed] = [keyPair(), keyPair(), keyPair('RS256'), keyPair('Ed25519')]

/** A key set that may change, on a clock that stands still until the test moves it. */
function setUp(keys: unknown) {
  const at = { time: 1_800_000_000_000, body: { keys } as unknown, status: 200, isAway: false, reads: 0 }
  const { requireSigned } = createProviderKeys({
    async read() {
      at.reads += 1
      if (at.isAway) throw new TypeError('fetch failed')
      return new Response(typeof at.body === 'string' ? at.body : JSON.stringify(at.body), {
        status: at.status,
      })
    },
    monotonicNow: () => at.time,
  })
  return {
    at,
    serve(...next: unknown[]) {
      at.body = { keys: next }
    },
    /** `yes`, or why not. */
    isGood: (jws: string, uri: string | undefined = URI) =>
      requireSigned(jws, uri).then(
        () => 'yes',
        (error) => error.code ?? 'no',
      ),
  }
}

const without = ({ ...jwk }: JWK, ...names: (keyof JWK)[]): JWK => {
  for (const name of names) delete jwk[name]
  return jwk
}

describe('every key set that RFC 7517 allows verifies what its keys have signed', () => {
  const sets: Record<string, unknown[]> = {
    'the same key twice': [own.jwk, own.jwk],
    'two keys under one kid': [other.jwk, own.jwk],
    'a key without kid': [without(own.jwk, 'kid')],
    'a key without kid behind one of that kid': [other.jwk, without(own.jwk, 'kid')],
    'a key without use and alg': [without(own.jwk, 'use', 'alg')],
    'a key with nothing but itself': [without(own.jwk, 'use', 'alg', 'kid')],
    'an encryption key of the same kid': [{ ...other.jwk, use: 'enc', alg: 'ECDH-ES' }, own.jwk],
    'the same key for encryption first': [{ ...own.jwk, use: 'enc' }, own.jwk],
    'kinds of key that nobody knows': [{ kty: 'XYZ', kid: 'k1' }, { kty: 'oct', k: 'c2VjcmV0' }, own.jwk],
    'curves that nobody knows': [{ ...own.jwk, crv: 'secp999' }, own.jwk],
    'another algorithm under the same kid': [rsa.jwk, ed.jwk, own.jwk],
    'private members': [own.privateJwk],
    key_ops: [{ ...without(own.jwk, 'use'), key_ops: ['verify'] }],
    'key_ops beside another that may only sign': [{ ...own.jwk, key_ops: ['sign'] }, own.jwk],
    'x5c, x5t and members of tomorrow': [
      { ...own.jwk, x5c: ['bm8gY2VydA=='], x5t: 'x', ext: 1, tomorrow: {} },
    ],
    'a broken key of the same kid': [{ ...own.jwk, x: '!' }, { ...own.jwk, y: undefined }, own.jwk],
    'members that are no keys': [null, 'key', 7, [], own.jwk],
  }
  for (const [name, keys] of Object.entries(sets))
    test(name, async () => {
      const { isGood, at } = setUp(keys)
      assert.equal(await isGood(await own.sign()), 'yes')
      assert.equal(at.reads, 1)
    })

  test('a header without kid: every key that fits is tried', async () => {
    const { isGood } = setUp([other.jwk, rsa.jwk, own.jwk])
    assert.equal(await isGood(await own.sign({ kid: undefined })), 'yes')
  })

  for (const [signed, named] of [
    ['Ed25519', 'EdDSA'],
    ['EdDSA', 'Ed25519'],
  ] as const)
    test(`${signed} in the header and ${named} in the key are one algorithm`, async () => {
      const { isGood } = setUp([{ ...ed.jwk, alg: named }])
      const { privateJwk } = ed
      const key = await importJWK(privateJwk, signed)
      const jws = await new SignJWT({}).setProtectedHeader({ alg: signed, kid: 'k1' }).sign(key)
      assert.equal(await isGood(jws), 'yes')
    })

  // RFC 7518 §3.1. One RSA key is good for all of its kind.
  for (const alg of ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES384', 'ES512'])
    test(`a signature with ${alg} is verified, and one of another key is not`, async () => {
      const isRsa = alg.startsWith('RS') || alg.startsWith('PS')
      const { jwk, privateJwk } = isRsa ? rsa : keyPair(alg)
      const key = await importJWK({ ...privateJwk, alg }, alg)
      const jws = await new SignJWT({}).setProtectedHeader({ alg, kid: 'k1' }).sign(key)
      assert.equal(await setUp([without(jwk, 'alg')]).isGood(jws), 'yes')
      assert.equal(await setUp([own.jwk]).isGood(jws), 'no')
    })

  test('a key that is for something else verifies nothing', async () => {
    for (const keys of [
      [{ ...own.jwk, use: 'enc' }],
      [{ ...own.jwk, alg: 'ES384' }],
      [{ ...own.jwk, key_ops: ['sign'] }],
      [{ ...own.jwk, kid: 'another' }],
      [],
    ])
      assert.equal(await setUp(keys).isGood(await own.sign()), 'no')
  })

  test('nothing but an asymmetric signature is one', async () => {
    const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
    const { isGood, at } = setUp([own.jwk, { kty: 'oct', k: 'c2VjcmV0', kid: 'k1' }])
    for (const alg of ['none', 'HS256', 'constructor', '__proto__'])
      assert.equal(await isGood(`${part({ alg, kid: 'k1' })}.${part({})}.`), 'no')
    assert.equal(at.reads, 0)
  })
})

describe('after a change of the signing key', () => {
  test('what the new key has signed is good at once, and what the old one has while it is in the set', async () => {
    const { isGood, serve, at } = setUp([own.jwk])
    await isGood(await own.sign())
    const next = keyPair('ES256', 'k2')
    serve(own.jwk, next.jwk)
    assert.equal(await isGood(await next.sign()), 'yes')
    assert.equal(await isGood(await own.sign()), 'yes')
    assert.equal(at.reads, 2)
  })

  test('a new key under the old kid is good at once, and the old key is not', async () => {
    const { isGood, serve, at } = setUp([own.jwk])
    await isGood(await own.sign())
    serve(other.jwk)
    assert.equal(await isGood(await other.sign()), 'yes')
    assert.equal(await isGood(await own.sign()), 'no')
    assert.equal(at.reads, 3)
  })

  test('many who come with the new key at the same time share one read', async () => {
    const { isGood, serve, at } = setUp([own.jwk])
    await isGood(await own.sign())
    serve(other.jwk)
    const jws = await other.sign()
    assert.deepEqual(
      new Set(await Promise.all(Array.from({ length: 50 }, () => isGood(jws)))),
      new Set(['yes']),
    )
    assert.equal(at.reads, 2)
  })

  test('a change after a change is seen at once, too', async () => {
    const { isGood, serve } = setUp([own.jwk])
    for (let change = 0; change < 10; change += 1) {
      const [now, then] = change % 2 ? [own, other] : [other, own]
      serve(now.jwk)
      assert.equal(await isGood(await now.sign()), 'yes', `change ${change}`)
      assert.ok(then)
    }
  })
})

describe('keys that nobody knows', () => {
  test('make us read again after 10, 20, 40 and 60 s at most, and a change of key ends that', async () => {
    const { isGood, serve, at } = setUp([own.jwk])
    await isGood(await own.sign())
    const unknown = await other.sign({ kid: 'unknown' })
    const seen: number[] = []
    const start = at.time
    for (; at.time < start + 240_000; at.time += 500) {
      const before = at.reads
      assert.equal(await isGood(unknown), 'no')
      if (at.reads > before) seen.push((at.time - start) / 1_000)
    }
    assert.deepEqual(seen, [0, 10, 30, 70, 130, 190])
    serve(other.jwk)
    at.time += 60_000
    assert.equal(await isGood(await other.sign()), 'yes')
    serve(own.jwk)
    assert.equal(await isGood(await own.sign()), 'yes')
  })

  test('do not keep the keys that are known from verifying meanwhile', async () => {
    const { isGood, at } = setUp([own.jwk])
    for (let stranger = 0; stranger < 20; stranger += 1) {
      await isGood(await other.sign({ kid: `unknown-${stranger}` }))
      assert.equal(await isGood(await own.sign()), 'yes')
    }
    assert.equal(at.reads, 1)
  })
})

describe('a key set that cannot be read', () => {
  for (const [name, change, code] of [
    ['no answer', { isAway: true }, 'provider_unavailable'],
    ['status 503', { status: 503 }, 'provider_unavailable'],
    ['status 500', { status: 500 }, 'provider_unavailable'],
    ['status 429', { status: 429 }, 'provider_unavailable'],
    ['status 408', { status: 408 }, 'provider_unavailable'],
    ['a page', { body: '<html>' }, 'provider_unavailable'],
    ['no list of keys', { body: { keys: {} } }, 'provider_unavailable'],
    ['null', { body: null }, 'provider_unavailable'],
    ['status 404, which is a fault of the configuration', { status: 404 }, 'provider_rejected'],
  ] as const)
    test(`${name}: asked for again after 2, 4, 8 … 30 s`, async () => {
      const { isGood, at } = setUp([own.jwk])
      const good = at.body
      Object.assign(at, change)
      const jws = await own.sign()
      const seen: number[] = []
      const start = at.time
      for (; at.time < start + 64_000; at.time += 500) {
        const before = at.reads
        assert.equal(await isGood(jws), code)
        if (at.reads > before) seen.push((at.time - start) / 1_000)
      }
      assert.deepEqual(seen, [0, 2, 6, 14, 30, 60])
      Object.assign(at, { isAway: false, status: 200, body: good })
      at.time = start + 91_000
      assert.equal(await isGood(jws), 'yes')
    })

  test('leaves the keys as they are known for an hour; then they are trusted no more', async () => {
    const { isGood, at } = setUp([own.jwk])
    const jws = await own.sign()
    await isGood(jws)
    at.isAway = true
    at.time += 3_599_000
    assert.equal(await isGood(jws), 'yes')
    at.time += 60_000
    assert.equal(await isGood(jws), 'provider_unavailable')
  })

  test('a key that is taken out of the set verifies nothing after five minutes', async () => {
    const { isGood, serve, at } = setUp([own.jwk])
    const jws = await own.sign()
    await isGood(jws)
    serve(other.jwk)
    at.time += 300_000
    assert.equal(await isGood(jws), 'no')
  })

  test('and none at all is a fault of the configuration', async () => {
    const { isGood, at } = setUp([own.jwk])
    assert.equal(await isGood(await own.sign(), ''), 'provider_rejected')
    assert.equal(at.reads, 0)
  })
})
