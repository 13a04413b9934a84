import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { Clock } from '../../../../src/async/clock.ts'
import { BffError } from '../../../../src/errors.ts'
import { sessionHash } from '../../../../src/session/session.ts'
import type { AttemptMark, TokenWrite, TokenWriteOutcome } from '../../../../src/store/port.ts'
import {
  type AttemptDeps,
  beginAttempt,
  createReusePolicy,
  isInFlight,
  takenOver,
} from '../../../../src/tokens/refresh/attempt.ts'

const HOUR_MS = 3_600_000
const holder = { id: 'id', hash: sessionHash('id'), claims: { sub: 'ada' } }
const other = sessionHash('another session')

describe('whether a refresh token with a mark may be offered', () => {
  const policy = (setting: boolean | 'auto', ...rotations: boolean[]) => {
    const reuse = createReusePolicy(setting, { monotonicNow: () => 0 })
    for (const hasRotated of rotations) reuse.learn(hasRotated)
    return reuse
  }
  const marks: AttemptMark[] = ['open:a', 'open:rotates:a', 'lost', 'burnt']
  for (const [name, reuse, allowed] of [
    ['when the operator forbids it', policy(false), []],
    ['when the operator allows it', policy(true, true), marks],
    ['when nothing is known of the provider', policy('auto'), ['open:a', 'lost']],
    ['when the provider was seen to rotate', policy('auto', true), ['lost']],
    ['when the provider was seen to rotate once, and not since', policy('auto', true, false), ['lost']],
    ['when the provider leaves its refresh tokens', policy('auto', false), ['open:a', 'lost', 'burnt']],
    ['when it did so until it rotated one', policy('auto', false, true), ['lost']],
  ] as const)
    test(`${name}: ${allowed.join(', ') || 'never'}`, () => {
      assert.deepEqual(
        marks.filter((mark) => reuse.allows(mark)),
        allowed,
      )
    })

  test('a mark says who began, and whether that replica has seen the provider rotate', () => {
    assert.equal(policy('auto').markOf('a'), 'open:a')
    assert.equal(policy('auto', false).markOf('a'), 'open:a')
    assert.equal(policy('auto', true).markOf('a'), 'open:rotates:a')
    assert.deepEqual(
      [...marks, undefined].map((mark) => isInFlight(mark)),
      [true, true, false, false, false],
    )
  })

  test('an owner that had its time is not waited for again, for an hour, by session and mark', () => {
    let now = 0
    const reuse = createReusePolicy('auto', { monotonicNow: () => now })
    assert.equal(reuse.isOutlived(holder.hash, 'open:a'), false)
    reuse.outlive(holder.hash, 'open:a')
    now = HOUR_MS - 1
    assert.equal(reuse.isOutlived(holder.hash, 'open:a'), true)
    assert.equal(reuse.isOutlived(holder.hash, 'open:b'), false)
    assert.equal(reuse.isOutlived(other, 'open:a'), false)
    now = HOUR_MS
    assert.equal(reuse.isOutlived(holder.hash, 'open:a'), false)
  })

  test('so many owners are remembered, and no more', () => {
    const reuse = createReusePolicy('auto', { monotonicNow: () => 0 })
    const hashes = Array.from({ length: 10_001 }, (_, index) => sessionHash(String(index)))
    for (const hash of hashes) reuse.outlive(hash, 'open:a')
    assert.equal(hashes.filter((hash) => reuse.isOutlived(hash, 'open:a')).length, 10_000)
  })
})

type Answer = TokenWriteOutcome | Error

/** An attempt over a store that answers each write as it is told, and `written` when nothing is left to say. */
function setUp(answers: readonly Answer[] = [], { isOver = () => false }: { isOver?: () => boolean } = {}) {
  const writes: TokenWrite[] = []
  const pauses: number[] = []
  const revoked: string[] = []
  const added: Promise<unknown>[] = []
  const held: Promise<unknown>[] = []
  const left = answers.values()
  const clock: Pick<Clock, 'pause'> = {
    async pause(ms, signal) {
      if (signal) return new Promise((resolve) => signal.addEventListener('abort', () => resolve()))
      pauses.push(ms)
      await new Promise(setImmediate)
    },
  }
  const deps: AttemptDeps = {
    records: {
      async write(hash, change) {
        assert.equal(hash, holder.hash)
        writes.push(change)
        const answer = left.next().value ?? 'written'
        if (answer instanceof Error) throw answer
        return answer
      },
    },
    sealer: {
      sealRefreshToken: (_, token) => `sealed ${token}`,
      sealAccessToken: (_, resource, { value }) => `sealed ${resource} ${value}`,
    },
    revoke: async (token) => void revoked.push(token),
    clock,
    inFlight: { add: (work) => void added.push(work), isOver },
  }
  const target = {
    ...{ holder, version: 7, mark: 'open:me' as const },
    hold: (write: Promise<unknown>) => void held.push(write),
  }
  return { deps, target, writes, pauses, revoked, added, held, begin: () => beginAttempt(deps, target) }
}

const away = new BffError('store_unavailable', 'away')
const token = { value: 'at', expiresAt: 2, renewAt: 1 }
const sessionEnded = { code: 'session_required' }

describe('the mark of an attempt', () => {
  test('is written over the version that was read', async () => {
    const { begin, writes, added } = setUp()
    assert.ok(await begin())
    assert.deepEqual(writes, [{ expectedVersion: 7, attempt: 'open:me' }])
    assert.deepEqual(added, [])
  })

  test('is not there when another replica was first, or the session has ended', async () => {
    assert.equal(await setUp(['superseded']).begin(), undefined)
    await assert.rejects(setUp(['gone']).begin(), sessionEnded)
  })

  test('is taken back when its write was not answered: the same words again, and then that it has ended', async () => {
    const { begin, writes, added, pauses } = setUp([away, away, 'written', away, 'written'])
    await assert.rejects(begin(), (error) => error === away)
    assert.equal(added.length, 1, 'the end of the process waits for it')
    await added[0]
    const mark = { expectedVersion: 7, attempt: 'open:me' }
    const ended = { expectedVersion: 8, attempt: 'ended' }
    assert.deepEqual(writes, [mark, mark, mark, ended, ended])
    assert.deepEqual(pauses, [50, 50])
  })

  test('is not taken back when it turns out to be that of another', async () => {
    const { begin, writes, added } = setUp([away, 'superseded'])
    await assert.rejects(begin(), (error) => error === away)
    await added[0]
    assert.equal(writes.length, 2)
  })
})

describe('the writes of an attempt', () => {
  test('come in order, each over the version before it, and each ends the attempt', async () => {
    const { begin, writes, held } = setUp()
    const attempt = (await begin())!
    await attempt.storeRefreshToken('rt-2')
    await attempt.storeAccessToken('orders', token)
    assert.deepEqual(writes.slice(1), [
      { expectedVersion: 8, refreshToken: 'sealed rt-2', attempt: 'ended' },
      {
        expectedVersion: 9,
        accessToken: { resource: 'orders', sealed: 'sealed orders at' },
        attempt: 'ended',
      },
    ])
    assert.equal(held.length, 2)
  })

  for (const [outcome, mark] of [
    ['unused', 'ended'],
    ['unanswered', 'lost'],
    ['maybe_used', 'burnt'],
  ] as const)
    test(`say ${mark} of a refresh token that is ${outcome}`, async () => {
      const { begin, writes } = setUp()
      await (await begin())!.end(outcome)
      assert.deepEqual(writes[1], { expectedVersion: 8, attempt: mark })
    })

  test('are tried again, twice as long after each failure and half a second at most', async () => {
    const { begin, pauses, writes } = setUp(['written', ...Array.from({ length: 6 }, () => away)])
    const attempt = (await begin())!
    await attempt.storeRefreshToken('rt-2')
    assert.deepEqual(pauses, [50, 100, 200, 400, 500, 500])
    assert.equal(new Set(writes.slice(1).map((write) => JSON.stringify(write))).size, 1, 'word for word')
  })

  test('are not tried again once nothing is to be', async () => {
    let isOver = false
    const { begin, pauses } = setUp(['written', away], { isOver: () => isOver })
    const attempt = (await begin())!
    isOver = true
    await assert.rejects(attempt.storeRefreshToken('rt-2'), (error) => error === away)
    assert.deepEqual(pauses, [])
    assert.equal(await attempt.written(), undefined, 'which is no failure of those who wait for the end')
  })

  test('are refused once another replica took over, but the access token is as good as stored', async () => {
    const { begin } = setUp(['written', 'superseded', 'superseded'])
    const attempt = (await begin())!
    await assert.rejects(attempt.storeRefreshToken('rt-2'), {
      code: 'provider_unavailable',
      retryAfterSeconds: 1,
    })
    const late = (await setUp(['written', 'superseded']).begin())!
    await late.storeAccessToken('orders', token)
    const ended = (await setUp(['written', 'superseded']).begin())!
    await assert.rejects(ended.end('unused'), { code: 'provider_unavailable' })
  })

  test('that come after the end of the session have the rotated refresh token revoked', async () => {
    const { begin, revoked } = setUp(['written', 'gone'])
    await assert.rejects((await begin())!.storeRefreshToken('rt-2'), sessionEnded)
    assert.deepEqual(revoked, ['rt-2'])
    const steady = setUp(['written', 'gone'])
    await assert.rejects((await steady.begin())!.storeAccessToken('orders', token), sessionEnded)
    assert.deepEqual(steady.revoked, [], 'there is none')
  })

  test('keep their caller for a second, and go on without it', async () => {
    const { deps, target, held } = setUp()
    const answered = Promise.withResolvers<TokenWriteOutcome>()
    let isFirst = true
    const waits: number[] = []
    const slow: AttemptDeps = {
      ...deps,
      records: {
        async write() {
          if (!isFirst) return answered.promise
          isFirst = false
          return 'written'
        },
      },
      clock: { pause: async (ms) => void waits.push(ms) },
    }
    const attempt = (await beginAttempt(slow, target))!
    await attempt.storeRefreshToken('rt-2')
    assert.deepEqual(waits, [1_000])
    let isWritten = false
    const written = Promise.all([attempt.written(), ...held]).then(() => {
      isWritten = true
    })
    await new Promise(setImmediate)
    assert.equal(isWritten, false)
    answered.resolve('written')
    await written
  })
})

test('a caller whose session another replica refreshes is told to come back in a second', () => {
  const error = takenOver()
  assert.deepEqual([error.code, error.retryAfterSeconds], ['provider_unavailable', 1])
})
