import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BffError } from '../../../src/errors.ts'
import { createRecentRefusals } from '../../../src/tokens/recent-refusals.ts'

function setUp() {
  let time = 0
  const refusals = createRecentRefusals(() => time)
  const isRemembered = (key: string) => {
    try {
      refusals.throwIfRecent(key)
      return false
    } catch {
      return true
    }
  }
  return { refusals, isRemembered, pass: (seconds: number) => (time += seconds * 1000) }
}
const refused = (retryAfterSeconds?: number) =>
  new BffError('provider_unavailable', 'no', retryAfterSeconds === undefined ? {} : { retryAfterSeconds })

test('a refusal is remembered for as long as it says, at most an hour, or for 5 s', () => {
  for (const [said, held] of [
    [undefined, 5],
    [300, 300],
    [86_400, 3_600],
  ] as const) {
    const { refusals, isRemembered, pass } = setUp()
    refusals.remember('a', refused(said))
    pass(held - 1)
    assert.equal(isRemembered('a'), true, `${said}`)
    assert.equal(isRemembered('b'), false)
    pass(1)
    assert.equal(isRemembered('a'), false, `${said}`)
  }
})

test('a refusal that asked for a pause tells what is left of it', () => {
  const { refusals, pass } = setUp()
  refusals.remember('a', refused(300))
  pass(290.5)
  assert.throws(() => refusals.throwIfRecent('a'), { code: 'provider_unavailable', retryAfterSeconds: 10 })
})

test('what the provider did not say is not remembered', () => {
  const { refusals, isRemembered } = setUp()
  refusals.remember('a', new BffError('store_unavailable', 'no'))
  refusals.remember('a', new Error('no'))
  assert.equal(isRemembered('a'), false)
})
