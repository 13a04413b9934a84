import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  createLimiters,
  type HeldLimiter,
  type LimiterSettings,
} from '../../../../src/oidc/token-endpoint/limiter.ts'
import { captureLog } from '../../../kit/cloakroom.ts'
import { createTestClock } from '../../../kit/clock.ts'
import { bad, held, settle } from '../../../kit/provider/limiter-kit.ts'

const SETTINGS: LimiterSettings = { issuer: 'https://op.test', concurrency: 2, timeoutMs: 5_000 }

function setUp() {
  const clock = createTestClock()
  const seen = { inFlight: 0, queue: 0, breaker: 'closed', calls: 0 }
  const { log, lines } = captureLog()
  const limiters = createLimiters({
    log,
    clock,
    observe: {
      inFlight: (inFlight) => void Object.assign(seen, { inFlight }),
      queue: (queue) => void Object.assign(seen, { queue }),
      breaker: (breaker) => void Object.assign(seen, { breaker }),
      call() {
        seen.calls += 1
      },
    },
  })
  return { limiters, seen, lines, clock }
}

const ask = (limiter: HeldLimiter, script: () => Promise<unknown>) =>
  limiter.call('refresh_token', script, () => ({ kind: 'fault' }))
const fail = async (limiter: HeldLimiter, times: number) => {
  for (let time = 0; time < times; time += 1) await ask(limiter, bad).catch(() => undefined)
}

test('a reload that leaves the limits as they are keeps the limiter: who is in flight counts, and open stays open', async () => {
  const { limiters, seen } = setUp()
  const before = limiters.limiterFor(SETTINGS)
  const calls = [held(), held()]
  const inFlight = calls.map(({ script }) => ask(before, script))
  const after = limiters.limiterFor({ ...SETTINGS })
  after.takeOver()
  const next = held()
  const waiting = ask(after, next.script)
  await settle()
  assert.deepEqual([next.isSent(), seen.inFlight, seen.queue], [false, 2, 1])
  for (const { resolve } of [...calls, next]) resolve('token')
  await Promise.all([...inFlight, waiting])
  await fail(after, 5)
  const third = limiters.limiterFor({ ...SETTINGS })
  third.takeOver()
  assert.equal(seen.breaker, 'open')
  await assert.rejects(
    ask(third, async () => assert.fail()),
    { code: 'provider_unavailable' },
  )
})

for (const [what, change] of [
  ['limit', { concurrency: 3 }],
  ['time limit', { timeoutMs: 1_000 }],
  ['provider', { issuer: 'https://other.test' }],
  ['token endpoint', { endpoints: { token: 'https://op.test/token' } }],
] as const)
  test(`another ${what} is another limiter; the metrics tell of it, and of what comes late to the one before no more`, async () => {
    const { limiters, seen, lines, clock } = setUp()
    const before = limiters.limiterFor(SETTINGS)
    await fail(before, 5)
    assert.equal(seen.breaker, 'open')
    const after = limiters.limiterFor({ ...SETTINGS, ...change })
    assert.equal(seen.breaker, 'open', 'it is not in use yet')
    assert.notEqual(after, before)
    after.takeOver()
    assert.equal(seen.breaker, 'closed')
    assert.equal(limiters.limiterFor({ ...SETTINGS, ...change }), after)
    const linesBefore = lines.length
    clock.advance(2_000)
    await fail(before, 1)
    assert.deepEqual([seen.breaker, seen.inFlight, lines.length], ['closed', 0, linesBefore])
    assert.equal(seen.calls, 6, 'it was asked all the same')
  })

test('a limiter whose configuration was refused after all leaves no trace', async () => {
  const { limiters, seen } = setUp()
  const before = limiters.limiterFor(SETTINGS)
  await fail(limiters.limiterFor({ ...SETTINGS, concurrency: 7 }), 5)
  assert.equal(seen.breaker, 'closed')
  assert.equal(limiters.limiterFor(SETTINGS), before)
})
