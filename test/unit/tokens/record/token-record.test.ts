import assert from 'node:assert/strict'
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { describe, test } from 'node:test'
import { sessionHash } from '../../../../src/session/session.ts'
import {
  createSealing,
  createTokenSealer,
  freshOrUndefined,
  packToken,
  type SealedPurpose,
  type Sealing,
  storedAccessToken,
  unpackToken,
} from '../../../../src/tokens/record/sealing.ts'

const OBTAINED_AT = 1_800_000_000_000
const owner = { id: 'id', hash: sessionHash('id') }

describe('the times of a granted token', () => {
  const timesOf = (lifetimeMs: number) => {
    const expiresAt = OBTAINED_AT + lifetimeMs
    const stored = storedAccessToken({ accessToken: 'at', obtainedAt: OBTAINED_AT, expiresAt })
    assert.equal(stored.value, 'at')
    return { renewedMs: expiresAt - stored.renewAt, expiredMs: expiresAt - stored.expiresAt }
  }
  for (const [name, lifetimeMs, renewedMs, expiredMs] of [
    ['an hour: renewed 300 s before its end, expired 5 s before it', 3_600_000, 300_000, 5_000],
    ['ten minutes: half of it is as much', 600_000, 300_000, 5_000],
    ['a minute: renewed from half of it on', 60_000, 30_000, 5_000],
    ['fifty seconds: a tenth is as much', 50_000, 25_000, 5_000],
    ['ten seconds: expired a tenth before its end', 10_000, 5_000, 1_000],
    ['none at all', 0, 0, 0],
    ['one that is over', -60_000, 0, 0],
  ] as const)
    test(`of ${name}`, () => assert.deepEqual(timesOf(lifetimeMs), { renewedMs, expiredMs }))

  test('say when it took the place of a rejected one, or nothing', () => {
    const granted = { accessToken: 'at', obtainedAt: 0, expiresAt: 10 }
    assert.deepEqual(storedAccessToken(granted, 7), { value: 'at', expiresAt: 9, renewAt: 5, forcedAt: 7 })
    assert.deepEqual(storedAccessToken(granted), { value: 'at', expiresAt: 9, renewAt: 5 })
  })
})

test('a token is fresh until it is to be renewed, unless it is the rejected one', () => {
  const token = { value: 'at', expiresAt: 20, renewAt: 10 }
  assert.equal(freshOrUndefined(token, undefined, 9), token)
  assert.equal(freshOrUndefined(token, 'another', 9), token)
  assert.equal(freshOrUndefined(token, 'at', 9), undefined)
  assert.equal(freshOrUndefined(token, undefined, 10), undefined)
  assert.equal(freshOrUndefined(undefined, undefined, 0), undefined)
})

test('what is packed of a token is what it was', () => {
  const token = { value: 'at', expiresAt: 20, renewAt: 10 }
  assert.equal(packToken(token), '["at",20,10,null]')
  assert.deepEqual(unpackToken(packToken(token)), token)
  assert.deepEqual(unpackToken(packToken({ ...token, forcedAt: 5 })), { ...token, forcedAt: 5 })
})

test('the key of a bound token is packed with it, and shown by nothing else', () => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const { d = '' } = privateKey.export({ format: 'jwk' })
  const token = storedAccessToken({ accessToken: 'at', obtainedAt: 0, expiresAt: 10, key: privateKey })
  assert.equal(token.key, privateKey)
  for (const one of [token, { ...token, scope: 'read' }]) {
    const unpacked = unpackToken(packToken(one))
    assert.deepEqual([unpacked.value, unpacked.scope], ['at', one.scope])
    assert.ok(unpacked.key?.equals(privateKey))
    assert.ok(!JSON.stringify(unpacked).includes(d))
  }
  const sealing = createSealing([randomBytes(32)])
  const sealer = createTokenSealer(sealing)
  const sealed = sealer.sealRefreshToken(owner, 'rt', privateKey)
  assert.equal(sealer.openRefreshToken(owner, sealed), 'rt')
  assert.ok(sealer.openRefreshKey(owner, sealed)?.equals(privateKey))
  const plain = sealer.sealRefreshToken(owner, 'rt')
  assert.deepEqual(
    [sealer.openRefreshToken(owner, plain), sealer.openRefreshKey(owner, plain)],
    ['rt', undefined],
  )
  assert.equal(sealer.openRefreshKey(owner, undefined), undefined)
})

describe('the sealer of token records', () => {
  /** Opens what it sealed for the same purpose, and nothing else. */
  function setUp() {
    const purposes: SealedPurpose[] = []
    const sealing: Sealing = {
      seal(purpose, text) {
        purposes.push(purpose)
        return JSON.stringify([purpose, text])
      },
      open(purpose, sealed) {
        const [made, text] = JSON.parse(sealed)
        return JSON.stringify(made) === JSON.stringify(purpose) ? text : undefined
      },
    }
    return { purposes, sealer: createTokenSealer(sealing) }
  }
  const token = { value: 'at', expiresAt: 20, renewAt: 10 }

  test('seals each part under its own name', () => {
    const { sealer, purposes } = setUp()
    const refreshToken = sealer.sealRefreshToken(owner, 'rt')
    const orders = sealer.sealAccessToken(owner, 'orders', token)
    assert.deepEqual(purposes, [
      { id: 'id', kind: 'refresh_token' },
      { id: 'id', kind: 'access_token', name: 'orders' },
    ])
    assert.equal(sealer.openRefreshToken(owner, refreshToken), 'rt')
    assert.equal(sealer.openRefreshToken(owner, orders), undefined)
    assert.equal(sealer.openRefreshToken(owner, undefined), undefined)
  })

  test('opens the token of one resource, and none that was sealed for another', () => {
    const { sealer } = setUp()
    const orders = sealer.sealAccessToken(owner, 'orders', token)
    const record = { version: 3, refreshToken: undefined, accessTokens: { orders, billing: orders } }
    assert.deepEqual(sealer.openAccessToken(owner, 'orders', record), token)
    assert.equal(sealer.openAccessToken(owner, 'billing', record), undefined)
    for (const none of ['stock', 'constructor', '__proto__'])
      assert.equal(sealer.openAccessToken(owner, none, record), undefined)
  })
})
