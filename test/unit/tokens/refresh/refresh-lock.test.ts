import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Clock } from '../../../../src/async/clock.ts'
import { BffError } from '../../../../src/errors.ts'
import { sessionHash } from '../../../../src/session/session.ts'
import {
  createRefreshLock,
  type LockedWork,
  type RefreshLockOutcome,
} from '../../../../src/tokens/refresh/refresh-lock.ts'

const LOCK_TTL_MS = 1_000
const hash = sessionHash('a session')

type LockClock = Pick<Clock, 'monotonicNow' | 'pause'>
type Observed = [outcome: RefreshLockOutcome, resource: string, waitedMs: number]

/** Time that passes when somebody polls; what only ends another wait never happens by itself. */
function passingTime() {
  const time = { ms: 0, pauses: [] as number[] }
  const clock: LockClock = {
    monotonicNow: () => time.ms,
    async pause(ms, signal) {
      if (signal) return new Promise(() => undefined)
      time.ms += ms
      time.pauses.push(ms)
    },
  }
  return { time, clock }
}

/** A lock whose steps are written down; `locks` says what each try for it gives. */
function setUp(
  locks: readonly (boolean | Error)[],
  {
    admit,
    unlockFails = false,
    clock,
  }: { admit?: () => void; unlockFails?: boolean; clock?: LockClock } = {},
) {
  const { time, clock: passing } = passingTime()
  const steps: string[] = []
  const observed: Observed[] = []
  const inFlight: Promise<unknown>[] = []
  const asked: [hash: string, owner: string, ttlMs?: number][] = []
  const results = locks.values()
  const withRefreshLock = createRefreshLock<string>({
    records: {
      async lock(...request) {
        asked.push(request)
        const result = results.next().value ?? false
        if (result instanceof Error) throw result
        steps.push(result ? 'locked' : 'not locked')
        return result
      },
      async unlock(...request) {
        asked.push(request)
        steps.push('unlocked')
        if (unlockFails) throw new BffError('store_unavailable', 'away')
      },
    },
    async admit(work) {
      admit?.()
      steps.push('in')
      try {
        return await work()
      } finally {
        steps.push('out')
      }
    },
    clock: clock ?? passing,
    lockTtlMs: LOCK_TTL_MS,
    observe: (...observation) => void observed.push(observation),
    inFlight: (refresh) => void inFlight.push(refresh),
  })
  const locked: LockedWork<string> = {
    ...{ hash, resource: 'orders', key: 'orders' },
    doneElsewhere: async () => undefined,
    async work(lease) {
      lease.observe('worked')
      steps.push('worked')
      return 'token'
    },
  }
  return { withRefreshLock, locked, steps, observed, inFlight, asked, time }
}

const stillBusy = (error: unknown) => {
  assert.ok(error instanceof BffError)
  assert.deepEqual([error.code, error.retryAfterSeconds], ['provider_unavailable', 2])
  return true
}

test('the permit of the token endpoint is taken before the lock, and given back after it', async () => {
  const { withRefreshLock, locked, steps, observed, asked } = setUp([true])
  assert.equal(await withRefreshLock(locked), 'token')
  assert.deepEqual(steps, ['in', 'locked', 'worked', 'unlocked', 'out'])
  assert.deepEqual(observed, [['worked', 'orders', 0]])
  const [lock, unlock] = asked
  assert.deepEqual([lock?.[0], lock?.[2]], [hash, LOCK_TTL_MS])
  assert.deepEqual(unlock, [hash, lock?.[1]], 'by the same owner')
})

test('no permit is held while another replica has the lock', async () => {
  const { withRefreshLock, locked, steps, observed, asked, time } = setUp([false, false, true])
  assert.equal(await withRefreshLock(locked), 'token')
  const tried = ['in', 'not locked', 'out']
  assert.deepEqual(steps, [...tried, ...tried, 'in', 'locked', 'worked', 'unlocked', 'out'])
  assert.deepEqual(observed, [['worked', 'orders', time.ms]], 'with the time that it waited for the lock')
  assert.ok(time.pauses.length === 2 && time.pauses.every((ms) => ms >= 25 && ms < 50), `${time.pauses}`)
  assert.equal(new Set(asked.map(([, owner]) => owner)).size, 1, 'one owner for all tries')
})

test('what another replica brought meanwhile is taken without another permit', async () => {
  const { withRefreshLock, locked, steps, observed } = setUp([false])
  assert.equal(await withRefreshLock({ ...locked, doneElsewhere: async () => 'theirs' }), 'theirs')
  assert.deepEqual(steps, ['in', 'not locked', 'out'])
  assert.deepEqual(observed, [['settled_elsewhere', 'orders', 0]])
})

test('without a permit the lock is not even tried', async () => {
  const refused = new BffError('provider_unavailable', 'no permit')
  const { withRefreshLock, locked, steps } = setUp([true], {
    admit() {
      throw refused
    },
  })
  await assert.rejects(withRefreshLock(locked), (error) => error === refused)
  assert.deepEqual(steps, [])
})

test('a lock that another replica does not give back is waited for as long as it lasts', async () => {
  const { withRefreshLock, locked, observed, time } = setUp([])
  await assert.rejects(withRefreshLock(locked), stillBusy)
  assert.ok(time.ms > LOCK_TTL_MS && time.ms <= LOCK_TTL_MS + 50, `${time.ms} ms`)
  assert.deepEqual(observed, [['lock_timeout', 'orders', time.ms]])
})

test('the time in the queue for a permit does not count as waiting for the lock', async () => {
  let isFirst = true
  const found = setUp([false, true], {
    admit() {
      if (isFirst) found.time.ms += 10 * LOCK_TTL_MS
      isFirst = false
    },
  })
  assert.equal(await found.withRefreshLock(found.locked), 'token')
  const [[outcome, , waitedMs] = []] = found.observed
  assert.equal(outcome, 'worked')
  assert.ok(waitedMs! >= 25 && waitedMs! < 50, `${waitedMs} ms`)
})

test('how a caller was served is counted once, by the first word', async () => {
  const { withRefreshLock, locked, observed } = setUp([true])
  const work: typeof locked.work = async (lease) => {
    lease.observe('worked')
    lease.observe('settled_elsewhere')
    return 'token'
  }
  await withRefreshLock({ ...locked, work })
  assert.deepEqual(observed, [['worked', 'orders', 0]])
})

test('callers with one key share the work, and the next one works anew', async () => {
  const { withRefreshLock, locked, steps, observed } = setUp([true, true, true])
  const both = [withRefreshLock(locked), withRefreshLock(locked)]
  assert.equal(both[0], both[1])
  await Promise.all(both)
  assert.deepEqual(observed, [
    ['coalesced', 'orders', 0],
    ['worked', 'orders', 0],
  ])
  await withRefreshLock(locked)
  assert.equal(steps.filter((step) => step === 'worked').length, 2)
  const failed = withRefreshLock({ ...locked, work: () => Promise.reject(new Error('failed')) })
  await assert.rejects(failed, { message: 'failed' })
  assert.notEqual(withRefreshLock(locked), failed, 'a failure is not shared with later callers')
})

test('callers with different keys of one session take turns, those of two sessions do not', async () => {
  const { withRefreshLock, locked } = setUp([true, true, true])
  const answer = Promise.withResolvers<string>()
  const begun: string[] = []
  const begin = (resource: string, of = hash) =>
    withRefreshLock({
      ...{ ...locked, resource, key: of + resource, hash: of },
      work() {
        begun.push(resource)
        return answer.promise
      },
    })
  const all = [begin('orders'), begin('billing'), begin('stock', sessionHash('another'))]
  await new Promise(setImmediate)
  assert.deepEqual(begun, ['orders', 'stock'])
  answer.resolve('token')
  await Promise.all(all)
  assert.deepEqual(begun, ['orders', 'stock', 'billing'])
})

test('what the work holds keeps the lock and the next refresh of the session, but not its caller', async () => {
  const { withRefreshLock, locked, steps, inFlight } = setUp([true, true])
  const written = Promise.withResolvers<void>()
  const first = withRefreshLock({
    ...locked,
    async work(lease) {
      lease.hold(written.promise)
      return 'first'
    },
  })
  assert.equal(await first, 'first')
  let isOver = false
  inFlight[0]!.then(() => {
    isOver = true
  })
  const next = withRefreshLock({ ...locked, key: 'billing' })
  await new Promise(setImmediate)
  assert.deepEqual(steps, ['in', 'locked', 'out'])
  assert.equal(isOver, false)
  written.reject(new Error('a write that fails is over, too'))
  assert.equal(await next, 'token')
  assert.deepEqual(steps, ['in', 'locked', 'out', 'unlocked', 'in', 'locked', 'worked', 'unlocked', 'out'])
  assert.equal(isOver, true)
})

test('a refresh of this process that never ends is waited for as long as a lock lasts', async () => {
  let late: (() => void) | undefined
  const clock: LockClock = {
    monotonicNow: () => 0,
    pause: (ms, signal) =>
      new Promise((resolve) => {
        assert.equal(ms, LOCK_TTL_MS)
        signal?.addEventListener('abort', () => resolve())
        late = resolve
      }),
  }
  const { withRefreshLock, locked, steps } = setUp([true, true], { clock })
  withRefreshLock({ ...locked, work: () => new Promise(() => undefined) })
  await new Promise(setImmediate)
  const next = withRefreshLock({ ...locked, key: 'billing' })
  late?.()
  await assert.rejects(next, stillBusy)
  assert.deepEqual(steps, ['in', 'locked'])
})

test('a lock whose answer was lost is given back, and its caller is told', async () => {
  const away = new BffError('store_unavailable', 'no answer')
  const { withRefreshLock, locked, steps } = setUp([away], { unlockFails: true })
  await assert.rejects(withRefreshLock(locked), (error) => error === away)
  assert.deepEqual(steps, ['in', 'unlocked', 'out'])
})

test('a lock that cannot be given back takes nothing from its caller', async () => {
  const { withRefreshLock, locked, steps } = setUp([true], { unlockFails: true })
  assert.equal(await withRefreshLock(locked), 'token')
  assert.deepEqual(steps, ['in', 'locked', 'worked', 'unlocked', 'out'])
})
