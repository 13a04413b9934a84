import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BffError } from '../../../../src/errors.ts'
import { createLimiter } from '../../../../src/oidc/token-endpoint/limiter.ts'
import { seededRandom } from '../../../chaos/seeded-random.ts'
import { createTestClock, settled } from '../../../kit/clock.ts'

const SILENT = { inFlight() {}, queue() {}, breaker() {}, call() {} }
const STEP_MS = 25
const LATENCY_MS = 150
const LIMIT = 200

/** A provider that takes 200 calls a second in all, and says how long to stay away to whoever brings more. */
function createBucket(now: () => number, retryAfterSeconds: number) {
  let allowance = LIMIT
  let filledAt = now()
  const counts = { taken: 0, refused: 0 }
  return {
    counts,
    take(): number | undefined {
      allowance = Math.min(LIMIT, allowance + ((now() - filledAt) / 1_000) * LIMIT)
      filledAt = now()
      if (allowance < 1) {
        counts.refused += 1
        return retryAfterSeconds
      }
      allowance -= 1
      counts.taken += 1
      return undefined
    },
  }
}

class TooMany extends Error {
  readonly retryAfterSeconds: number
  constructor(retryAfterSeconds: number) {
    super('429')
    this.retryAfterSeconds = retryAfterSeconds
  }
}

type Played = { readonly replicas: number; readonly isPaced: boolean }

const SECONDS = 180
const USERS = 6_000
/** Each needs a token so often: 150 a second in all, when nobody is refused. */
const LIFE_SECONDS = 40
/** All come within so long at first, which is more than the provider takes. */
const RUSH_SECONDS = 10
/** The first refusals stop all replicas for 60 to 65 seconds, as they were asked to. */
const SETTLED_SECONDS = 80

/** A morning of users who come back when they are told to. Returns what the provider gave after the minute that it asked for at first. */
async function play({ replicas, isPaced }: Played) {
  const clock = createTestClock()
  const random = seededRandom(replicas)
  const bucket = createBucket(clock.monotonicNow, 60)
  const limiters = Array.from({ length: replicas }, () =>
    createLimiter({
      ...{ concurrency: 32, waitMs: 5_000, clock, observe: SILENT, isPaced },
      random: () => random.between(0, 1),
    }),
  )
  const steps = (SECONDS * 1_000) / STEP_MS
  const due: number[][] = Array.from({ length: steps }, () => [])
  let step = 0
  const comeIn = (user: number, seconds: number) =>
    due[step + 1 + Math.floor((seconds * 1_000) / STEP_MS)]?.push(user)
  const seen = { longestWaitMs: 0, order: [] as number[] }
  let asked = 0

  async function ask(user: number): Promise<void> {
    const at = clock.monotonicNow()
    const number = asked++
    const which = user % replicas
    const noteWait = () => {
      seen.longestWaitMs = Math.max(seen.longestWaitMs, clock.monotonicNow() - at)
    }
    const request = async () => {
      noteWait()
      if (which === 0) seen.order.push(number)
      const retryAfter = bucket.take()
      await new Promise<void>((resolve) => clock.after(LATENCY_MS, resolve))
      if (retryAfter !== undefined) throw new TooMany(retryAfter)
    }
    const findingOf = (error: unknown) =>
      ({ kind: 'fault', retryAfterSeconds: (error as TooMany).retryAfterSeconds }) as const
    try {
      await limiters[which]!.call('refresh_token', request, findingOf)
      comeIn(user, LIFE_SECONDS * random.between(0.75, 1.25))
    } catch (error) {
      if (error instanceof BffError) noteWait()
      comeIn(user, (error as BffError | TooMany).retryAfterSeconds! + random.between(0, 2))
    }
  }

  for (let user = 0; user < USERS; user += 1) comeIn(user, random.between(0, RUSH_SECONDS))
  let before = 0
  for (; step < steps; step += 1) {
    for (const user of due[step]!) void ask(user)
    clock.advance(STEP_MS)
    await settled()
    if (step * STEP_MS === SETTLED_SECONDS * 1_000) before = bucket.counts.taken
  }
  return { ...seen, perSecond: (bucket.counts.taken - before) / (SECONDS - SETTLED_SECONDS) }
}

test('without a pace, users who come back all at once get a third of what the provider would give', async () => {
  const { perSecond } = await play({ replicas: 3, isPaced: false })
  assert.ok(perSecond < 70, `${perSecond} of ${LIMIT} a second`)
})

for (const replicas of [3, 30])
  test(`behind a limit of ${LIMIT} calls a second with Retry-After: 60, ${replicas} replicas get what their users need`, async () => {
    const { perSecond, longestWaitMs, order } = await play({ replicas, isPaced: true })
    assert.ok(perSecond >= 140, `${perSecond} of ${LIMIT} a second`)
    assert.ok(longestWaitMs <= 5_000 + STEP_MS, `${longestWaitMs} ms`)
    const sorted = order.toSorted((a, b) => a - b)
    assert.deepEqual(order, sorted, 'in order of arrival')
  })
