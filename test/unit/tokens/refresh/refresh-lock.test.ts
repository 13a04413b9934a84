import assert from 'node:assert/strict'
import { test } from 'node:test'
import { clockWaiting } from '../../../../src/async/clock.ts'
import { BffError } from '../../../../src/errors.ts'
import { sessionHash } from '../../../../src/session/bff-session.ts'
import { createRefreshTurns, type TurnOutcome } from '../../../../src/tokens/refresh/refresh-lock.ts'

const hash = sessionHash('a session')

/** Turns whose steps are written down; `locks` says what each try for the lock gives. */
function setUp(locks: readonly boolean[], admit?: () => void) {
  const steps: string[] = []
  const outcomes: TurnOutcome[] = []
  const results = locks.values()
  const takeTurn = createRefreshTurns({
    records: {
      async lock() {
        const isHad = results.next().value ?? false
        steps.push(isHad ? 'locked' : 'not locked')
        return isHad
      },
      async unlock() {
        steps.push('unlocked')
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
    waiting: clockWaiting,
    lockTtlMs: 1_000,
    waitMs: 1_000,
    observe: (outcome) => void outcomes.push(outcome),
  })
  const turn = {
    hash,
    resource: 'orders',
    settled: async (): Promise<string | undefined> => undefined,
    work: async () => {
      steps.push('worked')
      return 'token'
    },
  }
  return { takeTurn, turn, steps, outcomes }
}

test('the place towards the provider is taken before the lock, and given back after it', async () => {
  const { takeTurn, turn, steps, outcomes } = setUp([true])
  assert.equal(await takeTurn(turn), 'token')
  assert.deepEqual(steps, ['in', 'locked', 'worked', 'unlocked', 'out'])
  assert.deepEqual(outcomes, ['worked'])
})

test('no place is held while another replica has the lock', async () => {
  const { takeTurn, turn, steps } = setUp([false, false, true])
  assert.equal(await takeTurn(turn), 'token')
  const tried = ['in', 'not locked', 'out']
  assert.deepEqual(steps, [...tried, ...tried, 'in', 'locked', 'worked', 'unlocked', 'out'])
})

test('what another replica brought meanwhile is taken without another place', async () => {
  const { takeTurn, turn, steps, outcomes } = setUp([false])
  assert.equal(await takeTurn({ ...turn, settled: async () => 'theirs' }), 'theirs')
  assert.deepEqual(steps, ['in', 'not locked', 'out'])
  assert.deepEqual(outcomes, ['settled_elsewhere'])
})

test('without a place the lock is not even tried', async () => {
  const refused = new BffError('provider_unavailable', 'no place')
  const { takeTurn, turn, steps } = setUp([true], () => {
    throw refused
  })
  await assert.rejects(takeTurn(turn), (error) => error === refused)
  assert.deepEqual(steps, [])
})
