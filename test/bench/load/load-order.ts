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
        throw new Error(`not every answer was 200: ${JSON.stringify(result.statuses)}`)
      }
      return result
    },
  }
}
