import type { IncomingMessage } from 'node:http'
import { BffError } from '../errors.ts'
import type { Exchange } from './exchange.ts'
import type { LiveConnections } from './live-connections.ts'

/** Calls `end` once when the request's session is over, also when it is already; returns what stops the watch. */
export type WatchRequest = (req: IncomingMessage, end: () => void) => () => void

/** Sees to it that no answer without an end of its own outlives the session it was asked for. */
export type SessionStreams = {
  /** A request of a signed-in session is under way: it is looked at again when it takes long. */
  begin(exchange: Exchange): void
  /** Its answer is an event stream: from now on it ends with its session. */
  bind(exchange: Exchange): void
  /** It is over. */
  leave(exchange: Exchange): void
}

/** What is under way for one to two rounds takes long. */
const ROUND_MS = 2_000

/**
 * One look at all requests now and then, because most are over before it: a timer for each would be dear. A request
 * is on the register before its session is looked at: an end in between is heard of by one or the other.
 */
export function createSessionStreams(live: LiveConnections, watch: WatchRequest): SessionStreams {
  let younger = new Set<Exchange>()
  let older = new Set<Exchange>()
  const unbind = new Map<Exchange, () => void>()
  let isRoundPlanned = false

  function begin(exchange: Exchange): void {
    younger.add(exchange)
    if (!isRoundPlanned) planRound()
  }

  function planRound(): void {
    isRoundPlanned = true
    setTimeout(startRound, ROUND_MS).unref()
  }

  function startRound(): void {
    for (const exchange of older) {
      const isEndless = mayBeEndless(exchange)
      if (isEndless === undefined) younger.add(exchange)
      else if (isEndless) bind(exchange)
    }
    older = younger
    younger = new Set()
    isRoundPlanned = older.size > 0
    if (isRoundPlanned) planRound()
  }

  function bind(exchange: Exchange): void {
    if (unbind.has(exchange)) return
    leave(exchange)
    const end = () => endWithSession(exchange)
    const forget = live.add(exchange.outbound.session!.hash, end)
    const unwatch = watch(exchange.req, end)
    unbind.set(exchange, () => {
      forget()
      unwatch()
    })
  }

  function leave(exchange: Exchange): void {
    if (younger.delete(exchange) || older.delete(exchange)) return
    unbind.get(exchange)?.()
    unbind.delete(exchange)
  }
  return { begin, bind, leave }
}

/** RFC 9110 §9.2.1: giving these up leaves nobody in doubt whether something was done. */
const SAFE = new Set(['GET', 'HEAD', 'OPTIONS'])

/** An answer that did not announce its length, or a poll that waits for its answer; undefined while it cannot be told. */
function mayBeEndless({ req, response }: Exchange): boolean | undefined {
  if (response.isStarted) return response.isEndless
  return SAFE.has(req.method!) || undefined
}

function endWithSession(exchange: Exchange): void {
  const { response } = exchange
  if (mayBeEndless(exchange) !== true) return
  if (!response.isStarted) exchange.giveUp(new BffError('session_required', 'the session ended meanwhile'))
  else if (exchange.giveUp()) response.stop()
}
