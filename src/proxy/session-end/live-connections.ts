import { type Clock, systemClock, type Timer } from '../../async/clock.ts'
import type { BffSession } from '../../session/bff-session.ts'

/** Why we end a connection: its session is over, or this process is. */
export type EndReason = 'session_over' | 'shutdown'

/** Connections that outlast a request and must end with their session. */
export type LiveConnections = {
  /** Notes a connection, of a session or of an anonymous client; `end` ends it. Returns what forgets it again. */
  add(
    session: BffSession['hash'] | undefined,
    end: (reason: EndReason) => void,
    anonymousClient?: string,
  ): () => void
  /** Whether any connection of the session is open. */
  hasSession(session: BffSession['hash']): boolean
  /** How many connections of the session are open. */
  countOf(session: BffSession['hash']): number
  /** How many connections of an anonymous client are open. */
  countOfClient(client: string): number
  /** Every session that has a connection open. */
  sessions(): BffSession['hash'][]
  /** Ends every connection of a session that ended. */
  endSession(session: BffSession['hash']): void
  /** Ends everything, at shutdown. */
  endAll(): void
  /** How many are open. */
  count(): number
}

/** Makes a register without connections; it holds nothing of a session whose connections have all closed. */
export function createLiveConnections(): LiveConnections {
  const bySession = new Map<BffSession['hash'] | undefined, Set<(reason: EndReason) => void>>()
  const ofClient = new Map<string, number>()

  function countClient(client: string | undefined, change: 1 | -1): void {
    if (client === undefined) return
    const open = (ofClient.get(client) ?? 0) + change
    if (open > 0) ofClient.set(client, open)
    else ofClient.delete(client)
  }

  function add(
    session: BffSession['hash'] | undefined,
    end: (reason: EndReason) => void,
    anonymousClient?: string,
  ): () => void {
    const open = bySession.get(session) ?? new Set()
    bySession.set(session, open.add(end))
    countClient(anonymousClient, 1)
    return function forget() {
      if (!open.delete(end)) return
      countClient(anonymousClient, -1)
      if (open.size === 0 && bySession.get(session) === open) bySession.delete(session)
    }
  }

  function endSession(session: BffSession['hash']): void {
    for (const end of [...(bySession.get(session) ?? [])]) end('session_over')
  }

  function endAll(): void {
    for (const open of [...bySession.values()]) for (const end of [...open]) end('shutdown')
  }

  function count(): number {
    let open = 0
    for (const ends of bySession.values()) open += ends.size
    return open
  }
  return {
    add,
    hasSession: (session) => bySession.has(session),
    countOf: (session) => bySession.get(session)?.size ?? 0,
    countOfClient: (client) => ofClient.get(client) ?? 0,
    sessions: () => [...bySession.keys()].filter((session) => session !== undefined),
    endSession,
    endAll,
    count,
  }
}

/** What one session is watched by. */
export type SessionWatch = {
  /** Ms until the session ends if nothing more happens; undefined when it has ended. Rejects when the store does not answer. */
  readonly timeLeft: () => Promise<number | undefined>
  /** Called once, when the session has ended. */
  readonly end: () => void
  /** The machine's unless given. */
  readonly clock?: Pick<Clock, 'after'>
}

/** Until the next look, when the store did not answer. */
const LOOK_AGAIN_MS = 5_000
/** The longest delay of a Node timer. */
const LONGEST_DELAY_MS = 2 ** 31 - 1

/**
 * Calls `end` at the idle or absolute timeout of a session, which requests may move meanwhile; returns what stops the
 * watch. Looks at once, because the session may have ended since it was read.
 */
export function watchSession({ timeLeft, end, clock = systemClock }: SessionWatch): () => void {
  let timer: Timer | undefined
  let isStopped = false

  function lookAfter(ms: number): void {
    timer = clock.after(Math.min(ms, LONGEST_DELAY_MS), look).unref()
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
    timer?.cancel()
  }
}

/** Connections of one kind, by session. */
export type SessionConnections = Pick<LiveConnections, 'hasSession' | 'sessions' | 'endSession'>

/** How the ends of sessions become known. */
export type EndedSessionsDeps = {
  readonly connections: readonly SessionConnections[]
  /** Rejects when the store does not answer. */
  readonly exists: (session: BffSession['hash']) => Promise<boolean>
  /** Told of each session that changed or ended; undefined when any may have. Returns the unsubscriber. */
  readonly onInvalidate: (listener: (session: BffSession['hash'] | undefined) => void) => () => void
  /** False while messages may be missed. */
  readonly isLive: () => boolean
  /** The machine's unless given. */
  readonly clock?: Pick<Clock, 'after'>
}

/** Until the store is asked again, while messages may be missed or the store does not answer. */
const CHECK_AGAIN_MS = 2_000
const LOOKS_AT_A_TIME = 8

/**
 * Ends the connections of sessions that ended on any replica; returns what stops it. The store says which of the changed
 * sessions are over. While messages may be missed, the store is asked for every session with a connection, and once more
 * when they come again.
 */
export function endWithSessions({
  connections,
  exists,
  onInvalidate,
  isLive,
  clock = systemClock,
}: EndedSessionsDeps): () => void {
  const doubtful = new Set<BffSession['hash']>()
  let looking = 0
  let isDeaf = false
  let nextRound: Timer | undefined

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
      // The store does not answer; the other sessions wait for it too.
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
    nextRound ??= clock.after(CHECK_AGAIN_MS, startRound).unref()
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
    nextRound?.cancel()
  }
}
