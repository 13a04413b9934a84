import { BffError } from '../../errors.ts'
import type { BffSession } from '../../session/bff-session.ts'
import type { Exchange } from '../upstream/exchange.ts'
import type { LiveConnections } from './live-connections.ts'

/** Calls `end` once when the session is over, also when it is already; returns what stops the watch. */
export type WatchSession = (session: BffSession, end: () => void) => () => void

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

/** Something that is noted while it is under way, in a place of its own. */
type Noted = { place: number }

/**
 * What is under way now. Not a Set: V8 leaves its outgrown tables behind, and what they name outlives every collection
 * of the young. With one place after the other for each request that tripled the time spent on collecting.
 */
function createUnderWay<T extends Noted>() {
  const places: (T | undefined)[] = []
  const free: number[] = []
  return {
    places,
    add(one: T): void {
      one.place = free.pop() ?? places.length
      places[one.place] = one
    },
    /** False when it is not noted, or not any more. */
    remove(one: T): boolean {
      if (places[one.place] !== one) return false
      places[one.place] = undefined
      free.push(one.place)
      return true
    },
  }
}

/**
 * One look at all requests now and then, because most are over before it: a timer for each would be dear. A request
 * is on the register before its session is looked at: an end in between is heard of by one or the other.
 */
export function createSessionStreams(live: LiveConnections, watch: WatchSession): SessionStreams {
  const underWay = createUnderWay<Exchange>()
  const unbind = new Map<Exchange, () => void>()
  let round = 0
  let isRoundPlanned = false

  function begin(exchange: Exchange): void {
    exchange.round = round
    underWay.add(exchange)
    if (!isRoundPlanned) planRound()
  }

  function planRound(): void {
    isRoundPlanned = true
    setTimeout(startRound, ROUND_MS).unref()
  }

  function startRound(): void {
    isRoundPlanned = false
    for (const exchange of underWay.places) {
      if (!exchange) continue
      isRoundPlanned = true
      if (exchange.round < round && mayBeEndless(exchange)) bind(exchange)
    }
    round += 1
    if (isRoundPlanned) planRound()
  }

  function bind(exchange: Exchange): void {
    if (unbind.has(exchange)) return
    underWay.remove(exchange)
    const session = exchange.outbound.session!
    const end = () => endWithSession(exchange)
    const forget = live.add(session.hash, end)
    const unwatch = watch(session, end)
    unbind.set(exchange, () => {
      forget()
      unwatch()
    })
  }

  function leave(exchange: Exchange): void {
    if (underWay.remove(exchange)) return
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
