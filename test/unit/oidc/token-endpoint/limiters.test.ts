import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  createLimiters,
  type HeldLimiter,
  type LimiterSettings,
  type SignInCall,
} from '../../../../src/oidc/token-endpoint/limiter.ts'
import { captureLog } from '../../../kit/cloakroom.ts'
import { createTestClock } from '../../../kit/clock.ts'
import { bad, held, settle } from '../../../kit/provider/limiter-kit.ts'

const SETTINGS: LimiterSettings = { issuer: 'https://op.test', concurrency: 2, timeoutMs: 5_000 }

function setUp() {
  const ofSignIn: [string, SignInCall, unknown][] = []
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
    observeSignIn: {
      inFlight: (call, value) => void ofSignIn.push(['inFlight', call, value]),
      queue: (call, value) => void ofSignIn.push(['queue', call, value]),
      breaker: (call, value) => void ofSignIn.push(['breaker', call, value]),
    },
  })
  return { limiters, seen, ofSignIn, lines, clock }
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

for (const [grant, call, place] of [
  ['authorization_code', 'code', 'asked with codes'],
  ['pushed_authorization', 'par', 'pushed authorization requests'],
] as const)
  test(`what a stranger makes of ${grant} takes no permit of users who are signed in, and opens no circuit of theirs`, async () => {
    const { limiters, seen, ofSignIn, lines } = setUp()
    const limiter = limiters.limiterFor(SETTINGS)
    const failing = () => limiter.call(grant, bad, () => ({ kind: 'fault' })).catch(() => undefined)
    const calls = [held(), held(), held()]
    const signIns = calls.map(({ script }) => limiter.call(grant, script, () => ({ kind: 'nothing' })))
    await settle()
    assert.deepEqual(
      calls.map(({ isSent }) => isSent()),
      [true, true, false],
    )
    assert.deepEqual(ofSignIn.splice(0), [
      ['inFlight', call, 1],
      ['inFlight', call, 2],
      ['queue', call, 1],
    ])
    assert.equal(await ask(limiter, async () => 'token'), 'token')
    for (const { resolve } of calls) resolve('token')
    await Promise.all(signIns)
    ofSignIn.splice(0)
    for (let time = 0; time < 5; time += 1) await failing()
    assert.deepEqual(ofSignIn.at(-1), ['breaker', call, 'open'])
    assert.deepEqual([seen.breaker, seen.inFlight], ['closed', 0])
    assert.equal(await ask(limiter, async () => 'token'), 'token')
    assert.ok(lines.some((line) => line.includes(place)))
  })

test('a sign-in circuit stays open for ten seconds at most by our choice, and for thirty because the provider asks', async () => {
  const { limiters, clock } = setUp()
  const limiter = limiters.limiterFor(SETTINGS)
  const call = (retryAfterSeconds?: number) =>
    limiter
      .call('authorization_code', bad, () => ({ kind: 'fault', retryAfterSeconds }))
      .catch((error) => error.retryAfterSeconds)
  for (let time = 0; time < 5; time += 1) await call()
  const pauses: number[] = []
  for (let probe = 0; probe < 5; probe += 1) {
    const pause = await call()
    pauses.push(pause)
    clock.advance(pause * 1_000)
    await call()
  }
  assert.deepEqual(pauses, [2, 4, 8, 10, 10])
  clock.advance(10_000)
  await call(3_600)
  assert.equal(await call(), 30)
})

test('the log has one line when a circuit opens and one when it closes, however many probes fail in between', async () => {
  const { limiters, clock, lines } = setUp()
  const limiter = limiters.limiterFor(SETTINGS)
  const told = () => lines.splice(0).map((line) => [JSON.parse(line).level, JSON.parse(line).url])
  await fail(limiter, 5)
  assert.deepEqual(told(), [['warn', 'https://op.test']])
  for (let probe = 0; probe < 3; probe += 1) {
    clock.advance(30_000)
    await fail(limiter, 1)
  }
  assert.deepEqual(told(), [])
  clock.advance(30_000)
  await ask(limiter, async () => 'token')
  assert.deepEqual(told(), [['info', 'https://op.test']])
  await fail(limiter, 5)
  assert.deepEqual(told(), [['warn', 'https://op.test']])
})

test('coming into use tells everything as it stands: what is in flight, what waits, and the circuit', async () => {
  const { limiters, seen } = setUp()
  limiters.limiterFor(SETTINGS)
  const next = limiters.limiterFor({ ...SETTINGS, concurrency: 1 })
  const calls = [held(), held(), held()]
  const work = calls.map(({ script }) => ask(next, script))
  await settle()
  assert.deepEqual([seen.inFlight, seen.queue], [0, 0])
  next.takeOver()
  assert.deepEqual([seen.inFlight, seen.queue, seen.breaker], [1, 2, 'closed'])
  for (const { resolve } of calls) resolve('token')
  await Promise.all(work)
  assert.deepEqual([seen.inFlight, seen.queue], [0, 0])
})
