import type { Scope } from '../contenders/contender.ts'
import { nextMessage, startChild } from '../process/child.ts'

/** One round of load: so many requests and not one more, over connections that stay for the next round. */
export type LoadOrder = {
  readonly port: number
  /** Whole requests as they go over the wire, sent in turn. */
  readonly requests: readonly string[]
  readonly count: number
  readonly connections: number
}

/** How a round went. */
export type LoadResult = {
  readonly elapsedMs: number
  /** Answers by status. */
  readonly statuses: Readonly<Record<string, number>>
  /** The first answer that was not 200, whole. */
  readonly refusal: string | undefined
}

/** A load generator in a process of its own. */
export type Load = {
  /** Carries out one order. Rejects when an answer is not 200 or the generator breaks. */
  run(order: LoadOrder): Promise<LoadResult>
  stop(): Promise<void>
}

/** Starts the load generator. */
export function startLoad(): Load {
  const child = startChild('load/load.ts')
  return {
    stop: child.stop,
    async run(order) {
      child.process.send(order)
      const result = await nextMessage<LoadResult>(child)
      if (result.statuses[200] !== order.count) {
        throw new Error(`not every answer was 200: ${JSON.stringify(result.statuses)}\n${result.refusal}`)
      }
      return result
    },
  }
}

/** Clients with a session and a connection each. */
export type CrowdOrder = {
  readonly port: number
  /** One for each client. */
  readonly requests: readonly string[]
  /** All ask in the same moment unless given. */
  readonly perSecond?: number
}

/** What the clients were answered. */
export type CrowdResult = {
  /** Until all had their 200. */
  readonly elapsedMs: number
  /** Answers by status and, of problems, code. */
  readonly answers: Readonly<Record<string, number>>
  /** The first answer that was neither 200 nor 503 with Retry-After, whole: its client gave up. */
  readonly refusal: string | undefined
}

/** Opens the connections; `ask` then lets all clients ask, and again when they were told to come back. */
export async function gather(
  t: Scope,
  order: CrowdOrder,
): Promise<{ ask(): Promise<CrowdResult>; leave(): Promise<void> }> {
  const child = startChild('load/crowd.ts')
  t.after(child.stop)
  child.process.send(order)
  await nextMessage<'open'>(child)
  return {
    leave: child.stop,
    ask() {
      child.process.send('ask')
      return nextMessage<CrowdResult>(child, CROWD_PATIENCE_MS)
    },
  }
}

const CROWD_PATIENCE_MS = 120_000

/** Requests at a steady rate, sent whether or not those before are answered, on as many connections as that takes. */
export type SteadyOrder = CrowdOrder & { readonly perSecond: number }

/** Of the requests answered since the last look, in ms. */
export type Latencies = { readonly ms: readonly number[]; readonly refusal: string | undefined }

/** Begins to ask at a steady rate; `look` tells the latencies since the last one. */
export function askSteadily(
  t: Scope,
  order: SteadyOrder,
): { look(): Promise<Latencies>; stop(): Promise<void> } {
  const child = startChild('load/steady.ts')
  t.after(child.stop)
  child.process.send(order)
  return {
    stop: child.stop,
    look() {
      child.process.send('look')
      return nextMessage<Latencies>(child)
    },
  }
}
