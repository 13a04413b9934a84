import { type TestContext, type TestOptions, test } from 'node:test'

const LOOK_EVERY_MS = 10
/** A pause counts as this much at most: a busy process is so late all by itself. */
const COUNTED_MS = 50
/** Longer than a process stands still on a machine that has time for it. */
const PAUSE_MS = 100
const MOST_TRIES = 3

/**
 * Milliseconds since some moment in which this process ran: like `performance.now()`, but while a busy machine lets the
 * process stand still, so does this clock. For bounds on what the code under test may take.
 */
export const steadyNow = createSteadyClock()

function createSteadyClock(): () => number {
  let ranMs = 0
  let lastMs = performance.now()
  function steadyNow(): number {
    const nowMs = performance.now()
    ranMs += Math.min(nowMs - lastMs, COUNTED_MS)
    lastMs = nowMs
    return ranMs
  }
  setInterval(steadyNow, LOOK_EVERY_MS).unref()
  return steadyNow
}

type Play = (t: TestContext) => Promise<void>

/** Called with each pause of another process, in ms; one of each running `steadyTest`. */
const listeners = new Set<(ms: number) => void>()

/** Tells the running steady tests that a server of theirs stood still for `ms`, as it does only on a busy machine. */
export function notePause(ms: number): void {
  for (const listener of listeners) listener(ms)
}

/**
 * A test of what short timeouts leave room for: one that fails after its process, or a server of it, stood still is tried
 * again, three times at most. What fails while the machine has time for it has failed.
 */
export function steadyTest(name: string, ...rest: [TestOptions, Play] | [Play]): void {
  const [options, play] = rest.length === 2 ? rest : [{}, rest[0]]
  test(name, options, async function played(t) {
    for (let tries = 1; ; tries += 1) {
      const longestPauseMs = watchPauses()
      try {
        await play(t)
        longestPauseMs()
        return
      } catch (error) {
        const pauseMs = longestPauseMs()
        if (tries === MOST_TRIES || pauseMs < PAUSE_MS) throw error
        t.diagnostic(`tried again, because a process stood still for ${Math.round(pauseMs)} ms`)
      }
    }
  })
}

function watchPauses(): () => number {
  let longestMs = 0
  let lastMs = performance.now()
  function look(): number {
    const nowMs = performance.now()
    longestMs = Math.max(longestMs, nowMs - lastMs)
    lastMs = nowMs
    return longestMs
  }
  const noteOther = (ms: number) => {
    longestMs = Math.max(longestMs, ms)
  }
  listeners.add(noteOther)
  const looking = setInterval(look, LOOK_EVERY_MS).unref()
  return function longestPauseMs() {
    listeners.delete(noteOther)
    clearInterval(looking)
    return look()
  }
}
