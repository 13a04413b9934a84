import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createSingleUseReferences } from '../../../../src/oidc/sign-in/single-use-references.ts'
import { loginRecordsInSight } from '../../../kit/store/login-records.ts'

function setUp() {
  const store = loginRecordsInSight()
  const make = (kind: string) =>
    createSingleUseReferences<{ url: string }>(store.deps, { kind, lifetimeMs: 5_000 })
  return { ...store, make, references: make('page') }
}

test('a reference is 256 random bits, and leads to its value until it is used', async () => {
  const { references } = setUp()
  const reference = await references.keep({ url: '/a' })
  const other = await references.keep({ url: '/b' })
  assert.match(reference, /^[\w-]{43}$/)
  assert.notEqual(reference, other)
  assert.deepEqual(await references.look(reference), { url: '/a' })
  assert.deepEqual(await references.look(reference), { url: '/a' }, 'a look uses nothing up')
  assert.deepEqual(await references.take(reference), { url: '/a' })
  assert.equal(await references.take(reference), undefined)
  assert.equal(await references.look(reference), undefined)
  assert.deepEqual(await references.take(other), { url: '/b' })
})

test('of two who use a reference at the same time, one gets the value', async () => {
  const { references } = setUp()
  const reference = await references.keep({ url: '/a' })
  const got = await Promise.all([references.take(reference), references.take(reference)])
  assert.equal(got.filter((value) => value !== undefined).length, 1)
})

test('the value is stored sealed under its reference, for the lifetime of its kind', async () => {
  const { references, kept } = setUp()
  const reference = await references.keep({ url: '/secret' })
  const [[key, { value, ttlMs }] = ['', { value: '', ttlMs: 0 }]] = [...kept]
  assert.equal(ttlMs, 5_000)
  assert.equal(JSON.parse(value).sealedUnder, reference)
  assert.ok(!key.includes(reference))
})

test('a reference of one kind is good for no other', async () => {
  const { make, references } = setUp()
  const reference = await references.keep({ url: '/a' })
  assert.equal(await make('form').take(reference), undefined)
  assert.deepEqual(await references.take(reference), { url: '/a' })
})

test('what cannot be a reference costs no look at the store', async () => {
  const { references, asked } = setUp()
  for (const value of [
    ...[undefined, null, 7, {}, ['x'.repeat(43)], '', 'x'.repeat(42), 'x'.repeat(44)],
    ...[`${'x'.repeat(42)}=`, `${'x'.repeat(43)}\n`, '!'.repeat(43)],
  ]) {
    assert.equal(await references.look(value), undefined)
    assert.equal(await references.take(value), undefined)
  }
  assert.deepEqual(asked, [])
  assert.equal(await references.look('x'.repeat(43)), undefined)
  assert.equal(asked.length, 1)
})
