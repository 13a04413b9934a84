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

for (const code of ['provider_rejected', 'reauthentication_required', 'access_denied'] as const)
  test(`${code} is an answer of the provider, and remembered`, () => {
    const { refusals, isRemembered } = setUp()
    refusals.remember('a', new BffError(code, 'no'))
    assert.equal(isRemembered('a'), true)
  })

test('a remembered refusal says all that it said, but holds on to nothing', () => {
  const { refusals, pass } = setUp()
  const below = Object.assign(new Error('refused'), { code: 'ECONNREFUSED', answer: 'a large one' })
  const cause = Object.assign(new TypeError('fetch failed', { cause: below }), { code: 'OAUTH_FAILED' })
  const details = { reason: 'why' }
  const stepUp = { resource: 'orders' }
  const headers = { 'x-a': 'b' }
  refusals.remember(
    'a',
    new BffError('access_denied', 'the message', {
      ...{ cause, details, stepUp, headers, status: 418, retryAfterSeconds: 10 },
    }),
  )
  pass(9.5)
  const found = caught(() => refusals.throwIfRecent('a'))
  assert.deepEqual(
    [found.code, found.message, found.details, found.stepUp, found.headers, found.status],
    ['access_denied', 'the message', details, stepUp, headers, 418],
  )
  assert.equal(found.retryAfterSeconds, 1)
  const kept = found.cause as Error & { code?: string; cause: Error }
  assert.deepEqual(
    [kept.name, kept.message, kept.code, kept.stack],
    ['TypeError', 'fetch failed', 'OAUTH_FAILED', undefined],
  )
  assert.deepEqual([kept.cause.name, kept.cause.stack], ['ECONNREFUSED', undefined])
  assert.ok(!('answer' in kept.cause))
})

test('a cause without a code or a cause of its own is summed up by its name and message', () => {
  const { refusals } = setUp()
  refusals.remember('a', new BffError('access_denied', 'no', { cause: new RangeError('too much') }))
  const { cause, retryAfterSeconds } = caught(() => refusals.throwIfRecent('a'))
  const kept = cause as Error
  assert.deepEqual([kept.name, kept.message, kept.stack], ['RangeError', 'too much', undefined])
  assert.ok(!('code' in kept) && !('cause' in kept))
  assert.equal(retryAfterSeconds, undefined)
})

test('a cause that is no error stays as it is', () => {
  const { refusals } = setUp()
  const error = new BffError('access_denied', 'no', { cause: 'text' })
  refusals.remember('a', error)
  assert.equal(
    caught(() => refusals.throwIfRecent('a')),
    error,
  )
})

test('so many refusals are remembered, and no more', () => {
  const { refusals, isRemembered } = setUp()
  for (let key = 0; key <= 10_000; key += 1) refusals.remember(String(key), refused())
  assert.deepEqual([isRemembered('0'), isRemembered('1'), isRemembered('10000')], [false, true, true])
})

function caught(work: () => void): BffError {
  try {
    work()
  } catch (error) {
    if (error instanceof BffError) return error
  }
  return assert.fail('nothing was thrown')
}
