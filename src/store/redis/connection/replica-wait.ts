import { createDeadline } from '../../../async/deadline.ts'

/** How long a write waits for a replica: it goes on without one then. */
export const REPLICA_WAIT_MS = 500
/** More than that, for the way there and back: Redis itself answers when the time is over. */
const ANSWERED_WITHIN_MS = 700

type ReplicaWaitDeps = {
  /** Resolves with whether one replica has everything that was written over this connection; `WAIT`. */
  readonly waitForReplica: (timeoutMs: number) => Promise<boolean>
  /** The connection of this moment. */
  readonly connection: () => unknown
}

/** `refused`: Redis does not let us wait, because of an access rule most likely. */
export type Replication = { readonly isReplicated: boolean; readonly refused?: unknown }

type Batch = {
  /** Resolves when the connection is free for the writes of this batch. */
  readonly begun: Promise<unknown>
  readonly writes: Promise<unknown>[]
  /** What came of the WAIT, and over which connection it was sent. */
  readonly outcome: Promise<Replication & { readonly over?: unknown }>
}

/**
 * Writes that wait until one replica has them. WAIT holds up the connection that it is sent on, so that writes which come
 * meanwhile would each wait for all before them: they are collected, sent together after it, and share the next one.
 */
export function createReplicaWait({ waitForReplica, connection }: ReplicaWaitDeps) {
  const deadline = createDeadline(ANSWERED_WITHIN_MS, () => new Error('no replica in time'))
  let last: Promise<unknown> = Promise.resolve()
  let next: Batch | undefined

  function openBatch(): Batch {
    const writes: Promise<unknown>[] = []
    const begun = last
    const outcome = begun.then(async () => {
      // The writes that are in the batch by now are sent in this same turn; later ones begin another batch.
      next = undefined
      await Promise.allSettled(writes)
      const over = connection()
      try {
        return { over, isReplicated: await deadline.within(() => waitForReplica(REPLICA_WAIT_MS)) }
      } catch (error) {
        const isReply = (error as Error).name === 'ReplyError'
        return { isReplicated: false, ...(isReply ? { refused: error } : {}) }
      }
    })
    last = outcome
    return { begun, writes, outcome }
  }

  return {
    async sendDurably<T>(send: () => Promise<T>): Promise<{ reply: T; replication: Promise<Replication> }> {
      next ??= openBatch()
      const { begun, writes, outcome } = next
      const write = begun.then(async () => ({ reply: await send(), sentOver: connection() }))
      writes.push(write)
      const { reply, sentOver } = await write
      const replication = outcome.then(({ over, isReplicated, refused }) => ({
        // A new connection may lead to another server, and knows nothing of what was written over the one before.
        isReplicated: isReplicated && over === sentOver,
        ...(refused === undefined ? {} : { refused }),
      }))
      return { reply, replication }
    },
  }
}
