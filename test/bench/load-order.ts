import { nextMessage, startChild } from './child.ts'

/** One round of load. */
export type LoadOrder = {
  readonly port: number
  /** A whole request as it goes over the wire. */
  readonly request: string
  readonly requests: number
  readonly connections: number
}

/** How a round went. */
export type LoadResult = {
  readonly elapsedMs: number
  /** Answers by status. */
  readonly statuses: Readonly<Record<string, number>>
}

/** Starts the load generator. */
export function startLoad() {
  const child = startChild('load.ts')
  return {
    stop: child.stop,
    /** Carries out one order. Rejects when an answer is not 200 or the generator breaks. */
    async run(order: LoadOrder): Promise<LoadResult> {
      child.process.send(order)
      const result = await nextMessage<LoadResult>(child)
      if (result.statuses[200] !== order.requests) {
        throw new Error(`not every answer was 200: ${JSON.stringify(result.statuses)}`)
      }
      return result
    },
  }
}
