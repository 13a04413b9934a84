// Over 400 lines, because what must end with its session is one story: connections, long answers, and the watch on both.

import type { IncomingMessage } from 'node:http'
import { type Clock, systemClock, type Timer } from '../../async/clock.ts'
import { BffError } from '../../errors.ts'
import { type BffSession, isOfBearer } from '../../session/session.ts'

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

/** A request in flight whose answer may outlive its session, or be without an end at a shutdown. */
export type LongAnswer = {
  readonly req: IncomingMessage
  readonly session: BffSession | undefined
  readonly response: {
    readonly isStarted: boolean
    /** It may never end: its length is not known, or it is an event stream. */
    readonly isEndless: boolean
    readonly isEventStream: boolean
    /** Its type says that it has no end of its own. */
    readonly isUnending: boolean
    /** Ends it in the middle. */
    stop(): void
    /** Cuts the client's connection. */
    cut(): void
  }
  /** When it is looked at because it takes long, by the monotonic clock; 0: not at all. */
  longAt: number
  /** Its neighbours among those that are looked at. */
  older: LongAnswer | undefined
  newer: LongAnswer | undefined
  /** Ends the request, and answers with the error if there is one. False when it had ended. */
  giveUp(error?: BffError): boolean
}

/** Calls `end` once when the session is over, also when it is already; returns what stops the watch. */
export type WatchSession = (session: BffSession, end: () => void) => () => void

/** Sees to it that no answer without an end of its own outlives its session, and that a shutdown waits for none. */
export type LongAnswers = {
  /** A request begins. May end it at once. */
  begin(answer: LongAnswer): void
  /** Its response has begun. */
  started(answer: LongAnswer): void
  /** It is over. */
  leave(answer: LongAnswer): void
  /** Ends every answer without an end of its own, and those to come, at shutdown. */
  endAll(): void
}

/** A request in flight for so long is bound to its session, if its answer may be endless. Most are over before. */
const LONG_MS = 2_000

export type LongAnswersDeps = {
  readonly watch: WatchSession
  readonly clock: Clock
  /** Told when an answer without an end of its own begins, and when it ends. */
  readonly observeStreams?: (change: 1 | -1) => void
}

/** Makes the register of long answers of one configuration. */
export function createLongAnswers(live: LiveConnections, deps: LongAnswersDeps): LongAnswers {
  const { watch, clock, observeStreams } = deps
  const looks = createLooks(clock, lookAt)
  const unbind = new Map<LongAnswer, () => void>()
  /** Answers without an end of their own, and requests that ask for one, with a session or without. */
  const unending = new Set<LongAnswer>()
  let isShuttingDown = false

  function begin(answer: LongAnswer): void {
    if (answer.session) looks.plan(answer)
    if (asksForEventStream(answer.req)) addUnending(answer)
  }

  function lookAt(answer: LongAnswer): void {
    const isEndless = mayBeEndless(answer)
    if (isEndless) bind(answer)
    else if (isEndless === undefined) looks.plan(answer)
  }

  function started(answer: LongAnswer): void {
    if (answer.session && answer.response.isEventStream) bind(answer)
    if (answer.response.isUnending) addUnending(answer)
  }

  /** On the register before the session is looked at: an end in between is noticed by one or the other. */
  function bind(answer: LongAnswer): void {
    if (unbind.has(answer)) return
    const session = answer.session!
    const end = () => endWithSession(answer)
    const forget = live.add(session.hash, end)
    const unwatch = watch(session, end)
    unbind.set(answer, () => {
      forget()
      unwatch()
    })
  }

  function addUnending(answer: LongAnswer): void {
    if (isShuttingDown) endAtShutdown(answer)
    else if (!unending.has(answer)) {
      unending.add(answer)
      observeStreams?.(1)
    }
  }

  function leave(answer: LongAnswer): void {
    looks.cancel(answer)
    if (unending.delete(answer)) observeStreams?.(-1)
    unbind.get(answer)?.()
    unbind.delete(answer)
  }

  function endAll(): void {
    isShuttingDown = true
    for (const answer of [...unending]) endAtShutdown(answer)
  }
  return { begin, started, leave, endAll }
}

/**
 * Calls `look` with each answer when it has taken `LONG_MS`, unless that is cancelled. One timer for all, because one for
 * each costs every request more than the rest of its register; and a list of neighbours, which an answer leaves without a
 * trace.
 */
function createLooks(clock: Pick<Clock, 'after' | 'monotonicNow'>, look: (answer: LongAnswer) => void) {
  let oldest: LongAnswer | undefined
  let newest: LongAnswer | undefined
  let isTimed = false

  function plan(answer: LongAnswer): void {
    answer.longAt = clock.monotonicNow() + LONG_MS
    answer.older = newest
    if (newest) newest.newer = answer
    else oldest = answer
    newest = answer
    startTimer(LONG_MS)
  }

  function cancel(answer: LongAnswer): void {
    if (answer.longAt === 0) return
    const { older, newer } = answer
    if (older) older.newer = newer
    else oldest = newer
    if (newer) newer.older = older
    else newest = older
    answer.longAt = 0
    answer.older = undefined
    answer.newer = undefined
  }

  /** It may come for one that has left: then it is started again for the oldest that has not. */
  function startTimer(ms: number): void {
    if (isTimed) return
    isTimed = true
    clock.after(ms, lookAtOldest).unref()
  }

  function lookAtOldest(): void {
    isTimed = false
    const now = clock.monotonicNow()
    // Each is taken off first, so that one which is looked at again later is the newest.
    for (let first = oldest; first && first.longAt <= now; first = oldest) {
      cancel(first)
      look(first)
    }
    if (oldest) startTimer(oldest.longAt - now)
  }
  return { plan, cancel }
}

/** RFC 9110 §9.2.1: when one of these is given up, no one is left in doubt whether something was done. */
const SAFE = new Set(['GET', 'HEAD', 'OPTIONS'])

/** An answer that did not announce its length, or a poll that waits for its answer; undefined when it is too early to tell. */
function mayBeEndless({ req, response }: LongAnswer): boolean | undefined {
  if (response.isStarted) return response.isEndless
  return SAFE.has(req.method!) || undefined
}

function endWithSession(answer: LongAnswer): void {
  const { response } = answer
  if (mayBeEndless(answer) !== true) return
  if (!response.isStarted) {
    const offersLogin = !answer.session || !isOfBearer(answer.session)
    answer.giveUp(new BffError('session_required', 'the session ended meanwhile', { offersLogin }))
  } else if (answer.giveUp()) response.stop()
}

/**
 * Without an answer yet, the connection is cut: an EventSource gives up after an error response, and a load balancer in
 * between asks another replica only when there was no response.
 */
function endAtShutdown(answer: LongAnswer): void {
  const { isStarted, isUnending } = answer.response
  if (isStarted && !isUnending) return
  if (!answer.giveUp()) return
  if (isStarted) answer.response.stop()
  else answer.response.cut()
}

/** Whether a request is an EventSource's (WHATWG HTML §9.2.3), whose answer may begin with its first event only. */
function asksForEventStream({ method, headers }: IncomingMessage): boolean {
  return method === 'GET' && headers.accept?.toLowerCase() === 'text/event-stream'
}
