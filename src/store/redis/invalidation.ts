import { randomUUID } from 'node:crypto'
import { every, systemClock } from '../../async/clock.ts'
import { createDeadline } from '../../async/deadline.ts'
import { BffError, describeError } from '../../errors.ts'
import type { Logger } from '../../log.ts'
import { type Invalidations, onInvalidateOf, type SessionChanges, type SessionHash } from '../port.ts'
import { cleaned, type RedisError, timedOut } from './connection/errors.ts'
import type { RedisNode, RedisRequest } from './connection/node.ts'

type SubscriptionDeps = {
  /** A connection for this alone: a subscribed one takes no other commands. */
  readonly connection: RedisNode
  /**
   * What publishes over the connection of the commands, for each server that takes writes: the channel of a cluster is
   * live when all of its primaries are heard. Each rejects when that fails.
   */
  readonly publishers: () => readonly ((text: string) => Promise<unknown>)[]
  readonly channel: string
  readonly changes: SessionChanges
  readonly log: Logger
}

/** The subscription to the invalidation channel. */
export type InvalidationSubscription = Invalidations & {
  /** Resolves when the first attempt to subscribe has succeeded or failed; never rejects. */
  readonly attempted: Promise<void>
  /** Rejects with `store_unavailable`, and the cause, while heartbeats are not heard. */
  requireLive(): Promise<void>
  /** Reconnects, because the server turned out to be no primary. */
  reconnect(): void
  /** Ends the heartbeats; the connection is closed by its owner. */
  close(): void
}

const HEARTBEAT_MS = 1000
/** Time that a command on this connection may take. */
const COMMAND_TIMEOUT_MS = 500
/** Longest time from when Redis has accepted a heartbeat until it is heard; only time in which this process runs counts. */
const HEARD_WITHIN_MS = 500
/** The hash of a session never begins like this. */
const HEARTBEAT = 'heartbeat '

const PING: RedisRequest = {
  ...{ label: 'heartbeat', isRepeatable: true },
  send: (link) => link.call('PING', []),
}

/**
 * Listens for sessions that changed on any replica. It is live while heartbeats that are published over the command
 * connection are heard on this one: after a failover that left the old primary running, both connections may work and
 * lead to two servers. When a heartbeat is not heard every copy is dropped, because messages that were missed are never
 * sent again.
 */
export function subscribeToInvalidations(deps: SubscriptionDeps): InvalidationSubscription {
  const { connection, changes } = deps
  const liveness = createLiveness(changes)
  const subscriber = createSubscriber(deps, liveness)
  const firstAttempt = Promise.withResolvers<void>()
  connection.onReady(() => subscriber.connected().then(firstAttempt.resolve))
  connection.onClose(subscriber.lost)
  connection.attempted.then(() => subscriber.isConnected() || firstAttempt.resolve())
  const heartbeat = every(systemClock, HEARTBEAT_MS, subscriber.beat).unref()
  return {
    attempted: firstAttempt.promise,
    isLive: liveness.isLive,
    onInvalidate: onInvalidateOf(changes),
    async requireLive() {
      if (!liveness.isLive()) await subscriber.beat()
      if (!liveness.isLive()) throw notLive(subscriber.refusal())
    },
    reconnect() {
      subscriber.lost()
      connection.reconnect()
    },
    close() {
      heartbeat.cancel()
      subscriber.lost()
    },
  }
}

type Liveness = { isLive(): boolean; set(live: boolean): void }

function createLiveness(changes: SessionChanges): Liveness {
  let live = false
  return {
    isLive: () => live,
    set(next) {
      const lost = live && !next
      live = next
      if (lost) changes.emit('changed', undefined)
    },
  }
}

function createSubscriber(deps: SubscriptionDeps, liveness: Liveness) {
  const { connection, channel, changes, log } = deps
  const heartbeats = createHeartbeats(deps.publishers)
  const deadline = createDeadline(COMMAND_TIMEOUT_MS, timedOut)
  let isConnected = false
  let isSubscribed = false
  let refusal: unknown
  let deafnessLogged = false

  function heard(text: string): void {
    if (!text.startsWith(HEARTBEAT)) changes.emit('changed', text as SessionHash)
    else heartbeats.heard(text)
  }

  async function subscribe(): Promise<void> {
    try {
      await deadline.within(() => connection.subscribe(channel, heard))
      isSubscribed = isConnected
      refusal = undefined
    } catch (error) {
      const cause = cleaned(error as RedisError)
      if (!refusal) log.warn({ err: describeError(cause) }, 'redis refuses the invalidation channel')
      refusal = cause
      return
    }
    await beat()
  }

  async function beat(): Promise<void> {
    if (!isConnected) return
    // The subscription was refused, by an access rule most likely: the connection works, so only this is tried again.
    if (!isSubscribed) return subscribe()
    // Asks for an answer on this connection: one whose other end is gone would wait for messages for ever.
    deadline.within((wait) => connection.send(PING, wait)).catch(() => undefined)
    const outcome = await heartbeats.send()
    // The connection was lost or replaced meanwhile: the next one is looked at on its own.
    if (!isSubscribed) return
    liveness.set(outcome === 'heard')
    if (outcome === 'heard') deafnessLogged = false
    if (outcome !== 'unheard') return
    if (!deafnessLogged)
      log.warn({}, 'redis invalidation connection hears nothing of what is published: made anew')
    deafnessLogged = true
    connection.reconnect()
  }

  return {
    beat,
    isConnected: () => isConnected,
    refusal: () => refusal,
    async connected(): Promise<void> {
      isConnected = true
      await subscribe()
    },
    lost(): void {
      isConnected = false
      isSubscribed = false
      liveness.set(false)
    },
  }
}

function notLive(cause: unknown): BffError {
  return new BffError('store_unavailable', 'the invalidation channel is not heard', { cause })
}

/** Messages to ourselves. Those of one server come in order: when one is heard, everything before it was delivered. */
function createHeartbeats(publishers: SubscriptionDeps['publishers']) {
  const sender = randomUUID()
  const awaited = new Map<string, () => void>()
  const deadline = createDeadline(HEARD_WITHIN_MS, () => new Error('not heard'))
  let sent = 0

  async function sendOne(
    publish: (text: string) => Promise<unknown>,
  ): Promise<'heard' | 'unheard' | 'unsent'> {
    const text = `${HEARTBEAT}${sender} ${++sent}`
    const heard = Promise.withResolvers<void>()
    awaited.set(text, heard.resolve)
    try {
      await publish(text)
      return await deadline
        .within(() => heard.promise)
        .then(
          () => 'heard',
          () => 'unheard',
        )
    } catch {
      return 'unsent'
    } finally {
      awaited.delete(text)
    }
  }

  return {
    heard: (text: string) => awaited.get(text)?.(),

    /** `unheard` only when all could be sent: one that could not says nothing of the subscription. */
    async send(): Promise<'heard' | 'unheard' | 'unsent'> {
      const outcomes = await Promise.all(publishers().map(sendOne))
      if (outcomes.length === 0 || outcomes.includes('unsent')) return 'unsent'
      return outcomes.includes('unheard') ? 'unheard' : 'heard'
    },
  }
}
