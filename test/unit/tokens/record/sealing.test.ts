import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import {
  bindToGrants,
  cookieSigningSecrets,
  createDefinitions,
  createPseudonyms,
  createSealing,
  type Grants,
  type SealedPurpose,
} from '../../../../src/tokens/record/sealing.ts'

const KEY_1 = randomBytes(32)
const KEY_2 = randomBytes(32)
const purpose: SealedPurpose = { id: 'session-id', kind: 'access_token', name: 'orders' }

test('what is sealed opens again, and never seals to the same text twice', () => {
  const sealing = createSealing([KEY_1])
  const sealed = sealing.seal(purpose, 'the token é')
  assert.equal(sealing.open(purpose, sealed), 'the token é')
  assert.notEqual(sealing.seal(purpose, 'the token é'), sealed)
})

test('a sealed text opens for no other session, kind or name', () => {
  const sealing = createSealing([KEY_1])
  const sealed = sealing.seal(purpose, 'secret')
  const others: SealedPurpose[] = [
    { ...purpose, id: 'another-session' },
    { ...purpose, kind: 'refresh_token' },
    { ...purpose, name: 'billing' },
    { id: purpose.id, kind: purpose.kind },
  ]
  for (const other of others) assert.equal(sealing.open(other, sealed), undefined)
})

test('the session keys alone open nothing: the session id is part of the key', () => {
  const sealed = createSealing([KEY_1]).seal(purpose, 'secret')
  for (const id of ['', 'x', KEY_1.toString('base64url')]) {
    assert.equal(createSealing([KEY_1]).open({ ...purpose, id }, sealed), undefined)
  }
})

test('every flipped byte, truncation or foreign key is refused, not thrown', () => {
  const sealing = createSealing([KEY_1])
  const sealed = sealing.seal(purpose, 'secret')
  const body = Buffer.from(sealed.split('.')[2] ?? '', 'base64url')
  for (let at = 0; at < body.length; at += 1) {
    const flipped = Buffer.from(body)
    flipped[at]! ^= 1
    const text = [...sealed.split('.').slice(0, 2), flipped.toString('base64url')].join('.')
    assert.equal(sealing.open(purpose, text), undefined)
  }
  for (let length = 0; length < sealed.length; length += 1) {
    assert.equal(sealing.open(purpose, sealed.slice(0, length)), undefined)
  }
  assert.equal(createSealing([KEY_2]).open(purpose, sealed), undefined)
})

test('the first key of the ring seals and all of them open, so that keys rotate without a logout', () => {
  const before = createSealing([KEY_1]).seal(purpose, 'old')
  const ring = createSealing([KEY_2, KEY_1])
  assert.equal(ring.open(purpose, before), 'old')
  assert.equal(createSealing([KEY_1]).open(purpose, ring.seal(purpose, 'new')), undefined)
  assert.equal(createSealing([KEY_2]).open(purpose, ring.seal(purpose, 'new')), 'new')
})

test('names that look alike when joined stay apart', () => {
  const sealing = createSealing([KEY_1])
  const sealed = sealing.seal({ id: 'a', kind: 'access_token', name: 'b","c' }, 'secret')
  assert.equal(sealing.open({ id: 'a","b', kind: 'access_token', name: 'c' }, sealed), undefined)
})

test('cookie signing secrets follow the order of the keys and are not the keys', () => {
  const secrets = cookieSigningSecrets([KEY_2, KEY_1])
  assert.equal(new Set(secrets).size, 2)
  assert.deepEqual(cookieSigningSecrets([KEY_1]), [secrets[1]])
  assert.ok(!secrets.includes(KEY_2.toString('base64url')))
})

test('a text of nothing but its nonce and tag opens, and one byte less is refused', () => {
  const sealing = createSealing([KEY_1])
  const empty = sealing.seal(purpose, '')
  const [version, kid, body = ''] = empty.split('.')
  assert.equal(Buffer.from(body, 'base64url').length, 12 + 16)
  assert.equal(sealing.open(purpose, empty), '')
  const shorter = Buffer.from(body, 'base64url').subarray(1).toString('base64url')
  assert.equal(sealing.open(purpose, `${version}.${kid}.${shorter}`), undefined)
  assert.equal(sealing.open(purpose, `2.${kid}.${body}`), undefined, 'of a version that we do not know')
})

test('without a session key nothing can be sealed or named', () => {
  assert.throws(() => createSealing([]), { name: 'RangeError' })
  assert.throws(() => createPseudonyms([]), { name: 'RangeError' })
})

test('a pseudonym is the same for the same text and key, and tells neither', () => {
  const [one, other] = [createPseudonyms([KEY_1, KEY_2]), createPseudonyms([KEY_2])]
  assert.match(one('10.0.0.1'), /^[\w-]{22}$/)
  assert.equal(one('10.0.0.1'), createPseudonyms([KEY_1])('10.0.0.1'), 'by the first key')
  assert.notEqual(one('10.0.0.1'), one('10.0.0.2'))
  assert.notEqual(one('10.0.0.1'), other('10.0.0.1'))
})

test('a secret that signs cookies has 256 bits', () => {
  const [secret = ''] = cookieSigningSecrets([KEY_1])
  assert.equal(Buffer.from(secret, 'base64url').length, 32)
})

const GRANTS = {
  provider: { issuer: 'https://id.example.com', clientId: 'shop' },
  resources: { orders: { name: 'orders', scopes: ['orders.read'] } },
} as unknown as Grants

test('what is bound to its grants opens under the same provider, client and resource only', () => {
  const sealing = createSealing([KEY_1])
  const bound = bindToGrants(sealing, GRANTS)
  const session: SealedPurpose = { id: 'id', kind: 'session' }
  const [token, of] = [bound.seal(purpose, 'token'), bound.seal(session, 'session')]
  assert.deepEqual([bound.open(purpose, token), bound.open(session, of)], ['token', 'session'])
  assert.deepEqual([sealing.open(purpose, token), sealing.open(session, of)], [undefined, undefined])
  const { provider, resources } = GRANTS
  const changed = (change: object) => ({ ...GRANTS, ...change }) as unknown as Grants
  for (const [name, grants, opens] of [
    ['issuer', changed({ provider: { ...provider, issuer: 'https://other.example.com' } }), []],
    ['client', changed({ provider: { ...provider, clientId: 'other' } }), []],
    ['resource', changed({ resources: { orders: { ...resources.orders, scopes: [] } } }), ['session']],
    ['other settings', changed({ provider: { ...provider, timeoutMs: 1 } }), ['token', 'session']],
  ] as const) {
    const later = bindToGrants(sealing, grants)
    const opened = [later.open(purpose, token), later.open(session, of)].filter((text) => text !== undefined)
    assert.deepEqual(opened, opens, name)
  }
})

test('a resource is defined by itself, its provider and its client; one that is not configured by its name', () => {
  const definitionOf = createDefinitions(GRANTS)
  assert.deepEqual(JSON.parse(definitionOf('orders')), [
    'https://id.example.com',
    'shop',
    GRANTS.resources.orders,
  ])
  assert.equal(definitionOf('unknown'), 'unknown')
})

test('a sealed text names its version and its key, by eight characters that do not tell the key', () => {
  const [version, kid = '', body] = createSealing([KEY_1]).seal(purpose, 'secret').split('.')
  assert.deepEqual([version, kid.length], ['1', 8])
  assert.match(body ?? '', /^[\w-]+$/)
  assert.ok(!KEY_1.toString('base64url').includes(kid))
  assert.equal(createSealing([KEY_1]).seal(purpose, 'another').split('.')[1], kid)
  assert.notEqual(createSealing([KEY_2]).seal(purpose, 'secret').split('.')[1], kid)
})
