import type { BffSession } from '../../session/bff-session.ts'
import type { LiveConnections } from './live-connections.ts'

export type SessionWatch = {
  /** Ms until the session ends if nothing more happens, without extending it; undefined when it has ended. Rejects when the store does not answer. */
  readonly timeLeft: () => Promise<number | undefined>
  /** Called once, when the session has ended. */
  readonly end: () => void
}

/** Pause after a look that the store did not answer. */
const LOOK_AGAIN_MS = 5_000
/** A timer of Node holds no longer delay. */
const LONGEST_DELAY_MS = 2 ** 31 - 1

/**
 * Ends something at the idle or absolute timeout of its session, which requests may move meanwhile; returns what stops
 * it. Looks at once, because a session can end while the answer that it lives is on its way.
 */
export function watchSession({ timeLeft, end }: SessionWatch): () => void {
  let timer: NodeJS.Timeout | undefined
  let isStopped = false

  function lookAfter(ms: number): void {
    timer = setTimeout(look, Math.min(ms, LONGEST_DELAY_MS)).unref()
  }

  function look(): void {
    timeLeft().then(
      (leftMs) => {
        if (isStopped) return
        if (leftMs !== undefined && leftMs > 0) lookAfter(leftMs)
        else end()
      },
      () => {
        if (!isStopped) lookAfter(LOOK_AGAIN_MS)
      },
    )
  }

  look()
  return function stop() {
    isStopped = true
    clearTimeout(timer)
  }
}

/** Connections by session, of one kind. */
export type SessionConnections = Pick<LiveConnections, 'hasSession' | 'sessions' | 'endSession'>

export type EndedSessionsDeps = {
  readonly connections: readonly SessionConnections[]
  /** Rejects when the store does not answer. */
  readonly exists: (session: BffSession['hash']) => Promise<boolean>
  /** Told of each session that changed or ended; undefined when any may have. Returns the unsubscriber. */
  readonly onInvalidate: (listener: (session: BffSession['hash'] | undefined) => void) => () => void
  /** False while nothing would be heard of. */
  readonly isLive: () => boolean
}

/** Pause between two rounds while nothing is heard of, or the store does not answer. */
const ROUND_MS = 2_000
const LOOKS_AT_A_TIME = 8

/**
 * Ends the connections of sessions that ended on any replica; returns what stops it. The store says which of those that
 * changed are over. While messages may be missed, it is asked for every session with a connection, a last time when
 * they come again.
 */
export function endWithSessions({
  connections,
  exists,
  onInvalidate,
  isLive,
}: EndedSessionsDeps): () => void {
  const doubtful = new Set<BffSession['hash']>()
  let looking = 0
  let isDeaf = false
  let nextRound: NodeJS.Timeout | undefined

  async function lookAtDoubtful(): Promise<void> {
    looking += 1
    for (const session of doubtful) {
      doubtful.delete(session)
      const isOver = await exists(session).then(
        (found) => !found,
        () => undefined,
      )
      if (isOver) for (const kind of connections) kind.endSession(session)
      if (isOver !== undefined) continue
      // Without the store nobody can say; the others wait for it too.
      doubtful.add(session)
      planRound()
      break
    }
    looking -= 1
  }

  function look(): void {
    while (looking < LOOKS_AT_A_TIME && looking < doubtful.size) lookAtDoubtful()
  }

  function lookAtAll(): void {
    for (const kind of connections) for (const session of kind.sessions()) doubtful.add(session)
    look()
  }

  function planRound(): void {
    nextRound ??= setTimeout(startRound, ROUND_MS).unref()
  }

  function startRound(): void {
    nextRound = undefined
    const wasDeaf = isDeaf
    isDeaf = !isLive()
    if (wasDeaf) lookAtAll()
    else look()
    if (isDeaf) planRound()
  }

  function turnDeaf(): void {
    isDeaf = true
    lookAtAll()
    planRound()
  }

  const unsubscribe = onInvalidate((session) => {
    if (session === undefined) turnDeaf()
    else if (connections.some((kind) => kind.hasSession(session))) doubtful.add(session)
    look()
  })
  if (!isLive()) turnDeaf()
  return function stop() {
    unsubscribe()
    clearTimeout(nextRound)
  }
}
