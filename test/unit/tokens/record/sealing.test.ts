import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import {
  cookieSigningSecrets,
  createSealing,
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
