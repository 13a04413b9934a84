import { describeError } from '../../errors.ts'
import type { Logger } from '../../log.ts'
import type { InvalidationListeners } from '../invalidation-listeners.ts'
import type { Invalidations, SessionHash } from '../port.ts'
import type { RedisConnection } from './client.ts'

type SubscriptionDeps = {
  /** A connection of its own: an answer owed to somebody else must not hold up its heartbeat. */
  readonly connection: RedisConnection
  readonly channel: string
  readonly listeners: InvalidationListeners
  readonly log: Logger
}

/** The subscription to the invalidation channel. */
export type InvalidationSubscription = Invalidations & {
  /** Settles, without rejecting, when the first attempt to subscribe has succeeded or failed. */
  readonly attempted: Promise<void>
  close(): Promise<void>
}

const HEARTBEAT_MS = 1000

/**
 * Listens for sessions that changed on any replica. Live while subscribed and a heartbeat on the same connection is
 * answered; the moment it is not, every copy is dropped, because what is missed meanwhile is never sent again.
 */
export function subscribeToInvalidations(deps: SubscriptionDeps): InvalidationSubscription {
  const { connection, listeners } = deps
  const liveness = createLiveness(listeners)
  const subscriber = createSubscriber(deps, liveness)
  const firstAttempt = Promise.withResolvers<void>()
  connection.onReady(() => subscriber.connected().then(firstAttempt.resolve))
  connection.onClose(subscriber.lost)
  connection.attempted.then(() => subscriber.isConnected() || firstAttempt.resolve())
  const heartbeat = setInterval(subscriber.beat, HEARTBEAT_MS)
  heartbeat.unref()
  return {
    attempted: firstAttempt.promise,
    isLive: liveness.isLive,
    onInvalidate: listeners.onInvalidate,
    async close() {
      clearInterval(heartbeat)
      subscriber.lost()
      await connection.close()
    },
  }
}

type Liveness = { isLive(): boolean; set(live: boolean): void }

function createLiveness(listeners: InvalidationListeners): Liveness {
  let live = false
  return {
    isLive: () => live,
    set(next) {
      const lost = live && !next
      live = next
      if (lost) listeners.tell(undefined)
    },
  }
}

function createSubscriber({ connection, channel, listeners, log }: SubscriptionDeps, liveness: Liveness) {
  let isConnected = false
  let isSubscribed = false
  let refusalLogged = false

  async function subscribe(): Promise<void> {
    try {
      await connection.subscribe(channel, (text) => listeners.tell(text as SessionHash))
      isSubscribed = isConnected
      refusalLogged = false
      liveness.set(isSubscribed)
    } catch (error) {
      if (!refusalLogged) log.warn({ err: describeError(error) }, 'redis refuses the invalidation channel')
      refusalLogged = true
    }
  }

  return {
    isConnected: () => isConnected,
    async connected(): Promise<void> {
      isConnected = true
      await subscribe()
    },
    lost(): void {
      isConnected = false
      isSubscribed = false
      liveness.set(false)
    },
    async beat(): Promise<void> {
      if (!isConnected) return
      // Refused, by an access rule most likely: the connection is sound, so only this is tried again.
      if (!isSubscribed) return subscribe()
      // Messages come in order: when this is answered, however late, everything before it was delivered.
      const answered = await connection.call('heartbeat', 'PING').then(Boolean, () => false)
      liveness.set(answered && isSubscribed)
    },
  }
}
