import type { IncomingMessage } from 'node:http'
import type { Clock, Timer } from '../../async/clock.ts'
import { BffError } from '../../errors.ts'
import type { BffSession } from '../../session/bff-session.ts'
import type { LiveConnections } from './live-connections.ts'

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
  /** Looks at it when it takes long. */
  longTimer: Timer | undefined
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

/** Makes it for the requests of one configuration. */
export function createLongAnswers(live: LiveConnections, watch: WatchSession, clock: Clock): LongAnswers {
  const unbind = new Map<LongAnswer, () => void>()
  /** Answers without an end of their own, and requests that ask for one, with a session or without. */
  const unending = new Set<LongAnswer>()
  let isShuttingDown = false

  function begin(answer: LongAnswer): void {
    if (answer.session) answer.longTimer = clock.after(LONG_MS, () => lookAt(answer)).unref()
    if (asksForEventStream(answer.req)) addUnending(answer)
  }

  function lookAt(answer: LongAnswer): void {
    const isEndless = mayBeEndless(answer)
    if (isEndless) bind(answer)
    else if (isEndless === undefined) answer.longTimer?.restart()
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
    else unending.add(answer)
  }

  function leave(answer: LongAnswer): void {
    answer.longTimer?.cancel()
    unending.delete(answer)
    unbind.get(answer)?.()
    unbind.delete(answer)
  }

  function endAll(): void {
    isShuttingDown = true
    for (const answer of [...unending]) endAtShutdown(answer)
  }
  return { begin, started, leave, endAll }
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
  if (!response.isStarted) answer.giveUp(new BffError('session_required', 'the session ended meanwhile'))
  else if (answer.giveUp()) response.stop()
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
