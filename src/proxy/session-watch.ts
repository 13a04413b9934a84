import type { BffSession } from '../session/bff-session.ts'

export type SessionWatch = {
  /** The session as it is now, without extending it; rejects when the store does not answer. */
  readonly peek: () => Promise<BffSession | undefined>
  /** Epoch ms. */
  readonly now: () => number
  /** Called once, when the session is over. */
  readonly end: () => void
}

/** Pause after a look that the store did not answer. */
const LOOK_AGAIN_MS = 5_000
/** A timer of Node holds no longer delay. */
const LONGEST_DELAY_MS = 2 ** 31 - 1

/** Ends something at the idle or absolute timeout of its session, which requests may move meanwhile; returns what stops it. */
export function watchSession(session: BffSession, { peek, now, end }: SessionWatch): () => void {
  let timer: NodeJS.Timeout
  let isStopped = false

  function lookAt(expiresAt: number): void {
    const delay = Math.min(Math.max(expiresAt - now(), 0), LONGEST_DELAY_MS)
    timer = setTimeout(look, delay).unref()
  }

  function look(): void {
    peek().then(
      (found) => {
        if (isStopped) return
        if (found && found.expiresAt > now()) lookAt(found.expiresAt)
        else end()
      },
      () => {
        if (!isStopped) lookAt(now() + LOOK_AGAIN_MS)
      },
    )
  }

  lookAt(session.expiresAt)
  return function stop() {
    isStopped = true
    clearTimeout(timer)
  }
}
