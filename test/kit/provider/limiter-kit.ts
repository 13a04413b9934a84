import assert from 'node:assert/strict'
import { BffError } from '../../../src/errors.ts'
import { type CircuitState, createLimiter, type Limiter } from '../../../src/oidc/token-endpoint/limiter.ts'
import { findingOf } from '../../../src/oidc/token-endpoint/provider-errors.ts'
import type { TokenAnswer } from '../../../src/oidc/token-endpoint/provider-fetch.ts'
import { createTestClock, settled as settle } from '../clock.ts'

export { settle }

/** Longest wait for a permit, in ms. */
export const WAIT_MS = 5_000
/** What `fetch` says of a provider that is away. */
export const NETWORK_ERROR = new TypeError('fetch failed')

/** A limiter whose clock stands still until the test moves it. */
export function setUp({ concurrency = 32, waitMs = WAIT_MS } = {}) {
  const clock = createTestClock()
  const seen = {
    mostInFlight: 0,
    longestQueue: 0,
    queue: 0,
    inFlight: 0,
    states: [] as CircuitState[],
    calls: [] as string[],
    seconds: [] as number[],
  }
  const limiter = createLimiter({
    concurrency,
    waitMs,
    clock,
    observe: {
      inFlight(calls) {
        seen.inFlight = calls
        seen.mostInFlight = Math.max(seen.mostInFlight, calls)
      },
      queue(waiting) {
        seen.queue = waiting
        seen.longestQueue = Math.max(seen.longestQueue, waiting)
      },
      breaker: (state) => void seen.states.push(state),
      call(grant, outcome, seconds) {
        seen.calls.push(`${grant} ${outcome}`)
        seen.seconds.push(seconds)
      },
    },
  })
  const tick = async (ms: number) => {
    clock.advance(ms)
    await settle()
  }
  return { limiter, seen, tick }
}

type Script = () => Promise<unknown>
/** Makes a call whose failure, if it fails, came with `answer`. */
export const ask = (limiter: Limiter, script: Script, answer?: Partial<TokenAnswer>) =>
  limiter.call('refresh_token', script, (error) =>
    findingOf(
      error,
      answer && { status: 400, body: undefined, retryAfterSeconds: undefined, isHtml: false, ...answer },
    ),
  )
/** A provider that is well. */
export const good = async () => 'token'
/** A provider that is away. */
export const bad = async () => {
  throw NETWORK_ERROR
}

/** A call that ends when the test says so. */
export function held() {
  const { promise, resolve, reject } = Promise.withResolvers<unknown>()
  let isSent = false
  const script = () => {
    isSent = true
    return promise
  }
  return { script, resolve, reject, isSent: () => isSent }
}

/** How a call was refused. */
export async function refusal(
  call: Promise<unknown>,
): Promise<{ code: string; retryAfter: number | undefined }> {
  const error = await call.then(
    () => assert.fail('was not refused'),
    (reason: unknown) => reason,
  )
  assert.ok(error instanceof BffError, String(error))
  // What a refusal has for its cause would look like a request that was sent.
  assert.equal(error.cause, undefined)
  return { code: error.code, retryAfter: error.retryAfterSeconds }
}

/** So many calls in a row that fail. */
export async function fail(limiter: Limiter, times: number, answer?: Partial<TokenAnswer>): Promise<void> {
  for (let time = 0; time < times; time += 1) {
    await assert.rejects(ask(limiter, bad, answer), (error) => error === NETWORK_ERROR)
  }
}
