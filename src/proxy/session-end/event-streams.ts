import type { IncomingMessage } from 'node:http'

/** An exchange whose answer may be an event stream. */
export type Stoppable = {
  /** Ends it, unless its answer turned out to have an end of its own. */
  stop(): void
}

/** The answers that go on until somebody ends them, whoever asked for them: a shutdown does not wait for one. */
export type EventStreams = {
  /** Notes an exchange that is one, or asks for one; after `endAll` it is ended at once. */
  add(exchange: Stoppable): void
  /** It is over. */
  remove(exchange: Stoppable): void
  /** Ends them all, and those to come. */
  endAll(): void
}

/** Makes an empty register. */
export function createEventStreams(): EventStreams {
  const open = new Set<Stoppable>()
  let isEnding = false
  return {
    add(exchange) {
      if (isEnding) exchange.stop()
      else open.add(exchange)
    },
    remove: (exchange) => void open.delete(exchange),
    endAll() {
      isEnding = true
      for (const exchange of [...open]) exchange.stop()
    },
  }
}

/** Whether a request is an EventSource's (WHATWG HTML §9.2.3), whose answer may begin with its first event only. */
export function asksForEventStream({ method, headers }: IncomingMessage): boolean {
  return method === 'GET' && headers.accept?.toLowerCase() === 'text/event-stream'
}
