import assert from 'node:assert/strict'
import { test } from 'node:test'
import { changed, load, problemsOf } from '../../../kit/config/base-config.ts'
import { describeMutations } from '../../../kit/config/mutations.ts'

describeMutations('what the contract has and this version does not', [
  [
    'url: rediss://redis:6379',
    'cluster: [a:1, b:2]',
    'session.store.cluster',
    /not supported by this version yet/,
  ],
])

test('sentinels are refused with one problem for each of their keys', () => {
  const text = changed('url: rediss://redis:6379', 'sentinels: [a:1]\n    masterName: m')
  assert.deepEqual(
    problemsOf(text).map(({ path }) => path),
    ['session.store.sentinels', 'session.store.masterName'],
  )
})

test('what is built of the same keys is accepted', () => {
  const issuer = 'issuer: https://id.example.com'
  const text = changed(issuer, `${issuer}\n  dpop: off\n  responseMode: query\n  clientCapabilities: [cp1]`)
  assert.deepEqual(load(text).warnings, [])
})
