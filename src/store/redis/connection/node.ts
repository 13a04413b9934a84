// Over 400 lines, because one file alone imports ioredis, and what that does is translated where it comes in.

import { randomUUID } from 'node:crypto'
import { createConnection, Socket } from 'node:net'
import { type ConnectionOptions, connect as connectTls } from 'node:tls'
import { AbstractConnector, Redis, type RedisOptions } from 'ioredis'
import { systemClock } from '../../../async/clock.ts'
import type { Wait } from '../../../async/deadline.ts'
import { describeError } from '../../../errors.ts'
import type { Logger } from '../../../log.ts'
import { SCRIPTS, type ScriptName } from '../scripts.ts'
import { type CleanError, cleaned, notConnected, type RedisError } from './errors.ts'
import { createReplicaWait, type Replication } from './replica-wait.ts'

/** Host and port of one server; an IPv6 address has no brackets. */
export type Endpoint = { readonly host: string; readonly port: number }

/** Writes an endpoint as `host:port`. */
export const nameOf = ({ host, port }: Endpoint) =>
  host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`

/** Who we are at a server, read again at each attempt to connect, so that what was rotated is picked up. */
export type Credentials = {
  readonly username?: string | undefined
  readonly password?: (() => string) | undefined
  /** Absent: without TLS. */
  readonly tls?: (() => ConnectionOptions) | undefined
}

/** Where a connection leads. */
export type Target = Credentials & {
  /** Asked at each attempt to connect; rejects with the reason why no server is known. */
  readonly endpoint: () => Promise<Endpoint>
  readonly database?: number | undefined
  /** A server that says it is a replica is left at once. */
  readonly mustBePrimary?: boolean
  /** Longest pause between attempts, in ms. */
  readonly maxRetryDelayMs?: number
}

/** What one connection sends. Replies have RESP2 shapes. */
export type Link = {
  call(command: string, args: readonly (string | number)[]): Promise<unknown>
  run(script: ScriptName, keys: readonly string[], args: readonly (string | number)[]): Promise<unknown>
}

/** One command, and how it is sent. */
export type RedisRequest = {
  /** Its name in logs and metrics. */
  readonly label: string
  /** Decides on the node of a Redis Cluster; absent: any will do. */
  readonly key?: string | undefined
  /** Has the same result when it runs twice, so that it is sent once more after a lost answer. */
  readonly isRepeatable: boolean
  readonly send: (link: Link) => Promise<unknown>
}

/** One connection to one server, which reconnects by itself until it is closed. Rejects with a `CleanError`. */
export type RedisNode = {
  /** Resolves when the first attempt to connect has succeeded or failed; never rejects. */
  readonly attempted: Promise<void>
  readonly isThere: () => boolean
  /** Where the last attempt to connect led; undefined before the first. */
  readonly endpoint: () => Endpoint | undefined
  /** Why the last attempt to connect failed; undefined while there is a connection. */
  readonly outage: () => Error | undefined
  /**
   * Sends a request, once there is a connection; one that has been away for a second is not waited for. Sends it once more
   * where that can do no harm, unless `wait` is over.
   */
  send(request: RedisRequest, wait: Wait): Promise<unknown>
  /** Sends to the node that a slot is moving to (`ASK`), once. */
  sendAsking(request: RedisRequest, wait: Wait): Promise<unknown>
  /** The same as `send`, and whether one replica has said in time that it has what was written. */
  sendDurably(
    request: RedisRequest,
    wait: Wait,
  ): Promise<{ reply: unknown; replication: Promise<Replication> }>
  /** Subscribes this connection; after a reconnect it must be called again. */
  subscribe(channel: string, onMessage: (text: string) => void): Promise<void>
  /** Replaces this connection by a new one, which may lead to another server. */
  reconnect(): void
  /** Calls `listener` each time the connection becomes ready for commands. */
  onReady(listener: () => void): void
  /** Calls `listener` each time the connection, or an attempt to open it, has ended. */
  onClose(listener: () => void): void
  /** Lets commands in flight finish, for `graceMs` at most; those that wait for a connection reject. */
  close(graceMs: number): Promise<void>
}

/** What a connection needs beside where it leads. */
export type NodeDeps = {
  /** What the log calls this connection. */
  readonly name: string
  readonly log: Logger
  /** Called when the server turns out to be no primary, before a new connection is made. */
  readonly notPrimary?: (() => void) | undefined
  /** Called when a new connection leads to another server than the one before, or one that was started anew; before any command. */
  readonly otherServer?: (() => void) | undefined
}

/** How long after its loss commands wait for a connection. */
const WAITED_FOR_MS = 1000
const FIRST_RETRY_MS = 25
const MAX_RETRY_DELAY_MS = 800
/** Time for the last bytes of a connection that is being left. */
const DISCONNECT_MS = 100

const OPTIONS: RedisOptions = {
  lazyConnect: true,
  // ioredis sends a command only on a connection that is ready, and never twice: waiting happens here.
  enableOfflineQueue: false,
  maxRetriesPerRequest: 0,
  connectTimeout: 2000,
  // It runs only while an answer is due, so an idle connection stays open.
  socketTimeout: 2000,
  maxLoadingRetryTime: 1000,
  autoResubscribe: false,
  // It would be one more command that an access rule has to allow.
  disableClientInfo: true,
  scripts: SCRIPTS,
}

/** Opens a connection and keeps it open. The only file that imports ioredis. */
export function openNode(target: Target, deps: NodeDeps): RedisNode {
  const { username, password, database, maxRetryDelayMs = MAX_RETRY_DELAY_MS } = target
  let endpoint: Endpoint | undefined
  const located = {
    ...target,
    async endpoint() {
      endpoint = await target.endpoint()
      return endpoint
    },
  }
  const redis = new Redis({
    ...OPTIONS,
    ...(database === undefined ? {} : { db: database }),
    ...(username === undefined ? {} : { username }),
    password: freshPassword(password, undefined),
    // Tells ioredis which event of the socket to wait for; the connector reads what TLS is set up with.
    ...(target.tls ? { tls: {} } : {}),
    Connector: connectorTo(located, {
      failed: (error) => outage.becauseOf(error),
      found: noteServer,
    }),
    retryStrategy(attempt) {
      redis.options.password = freshPassword(password, redis.options.password)
      const delayMs = FIRST_RETRY_MS * 2 ** (attempt - 1)
      return Math.min(delayMs, maxRetryDelayMs) * (1 + Math.random() / 4)
    },
    reconnectOnError(error) {
      const isNoPrimary = /\b(READONLY|MASTERDOWN)\b/.test(error.message)
      if (isNoPrimary) deps.notPrimary?.()
      // After a failover the address leads to the new primary; after a password change the handshake sends the new one.
      const isOver = isNoPrimary || /\bNOAUTH\b/.test(error.message)
      if (isOver) outage.becauseOf(error)
      return isOver
    },
  })
  const outage = watchOutages(redis, deps)
  let serverId: string | undefined

  function noteServer({ run_id = randomUUID() }: ServerInfo): void {
    if (serverId !== undefined && serverId !== run_id) deps.otherServer?.()
    serverId = run_id
  }

  const { send, sendAsking } = createSender(redis, outage)
  const wait = createReplicaWait({
    waitForReplica: async (timeoutMs) => (await redis.wait(1, timeoutMs)) > 0,
    /** Another connection knows nothing of what was written over this one. */
    connection: () => redis.stream,
  })
  return {
    attempted: redis.connect().catch(() => undefined),
    isThere: () => isThere(redis),
    endpoint: () => endpoint,
    outage: outage.cause,
    send,
    sendAsking,
    sendDurably: (request, until) => wait.sendDurably(() => send(request, until)),
    async subscribe(channel, onMessage) {
      redis.removeAllListeners('message')
      redis.on('message', (_channel, text) => onMessage(text))
      await redis.subscribe(channel)
    },
    reconnect() {
      if (redis.status !== 'end') redis.disconnect(true)
    },
    onReady: (listener) => void redis.on('ready', listener),
    onClose: (listener) => void redis.on('close', listener),
    async close(graceMs) {
      // QUIT lets commands in flight finish. A Redis that does not answer it is disconnected.
      const quit = isThere(redis) ? redis.quit().catch(() => undefined) : undefined
      await Promise.race([quit, quit && systemClock.pause(graceMs)])
      redis.disconnect()
      outage.ended()
    },
  }
}

/** Between the end of a connection and its `close`, ioredis takes commands that it cannot send: the status alone is not enough. */
const isThere = (redis: Redis) => redis.status === 'ready' && redis.stream.writable

/** Keeps the previous password when the secret cannot be read just now, so that reconnecting goes on. */
function freshPassword(read: Target['password'], previous: string | undefined): string | undefined {
  try {
    return read?.()
  } catch {
    return previous
  }
}

/** What INFO says; nothing where it is forbidden. */
type ServerInfo = { readonly role?: string; readonly run_id?: string }

/** Makes the class by which ioredis opens its sockets: it asks for the address, and for what TLS needs, each time. */
function connectorTo(
  target: Target,
  { failed, found }: { failed: (error: Error) => void; found: (info: ServerInfo) => void },
): RedisOptions['Connector'] {
  return class TargetConnector extends AbstractConnector {
    constructor() {
      super(DISCONNECT_MS)
    }

    override check(info: ServerInfo): boolean {
      if (!target.mustBePrimary || info.role === undefined || info.role === 'master') {
        found(info)
        return true
      }
      failed(notConnected('the server is no primary yet, or not any more'))
      return false
    }

    async connect(): Promise<Socket> {
      this.connecting = true
      this.stream = await opened(target).catch((error: Error) => {
        // ioredis tries again after an error of the socket, and never again after one of its connector.
        this.firstError = error
        return new Socket().destroy()
      })
      if (!this.connecting) this.stream.destroy()
      this.stream.once('error', (error) => {
        this.firstError = error
      })
      return this.stream
    }
  }
}

async function opened({ endpoint, tls }: Target): Promise<Socket> {
  const { host, port } = await endpoint()
  return tls ? connectTls({ host, port, ...tls() }) : createConnection({ host, port })
}

/** What is known of a connection that is away. */
type Outage = {
  /** Returns why the last attempt failed; undefined while there is a connection. */
  readonly cause: () => Error | undefined
  /** Resolves when the connection is ready; rejects at once when it has been away for longer than commands wait. */
  readonly over: () => Promise<void>
  /** Notes why the connection is about to be closed. */
  readonly becauseOf: (error: RedisError) => void
  /** Nothing is waited for any more. */
  readonly ended: () => void
}

/**
 * Notes why the connection is away, and logs a line for each cause of an outage and one when it is over, not one for each
 * attempt. A connection whose set-up fails in any part counts as away: ioredis would go on with database 0 after a SELECT
 * that was refused.
 */
function watchOutages(redis: Redis, { log, name }: NodeDeps): Outage {
  let cause: Error | undefined
  let hasFailed = false
  let lostAt: number | undefined
  let ready = Promise.withResolvers<void>()
  const told = new Set<string>()
  noteLoss()

  function noteLoss(): void {
    if (lostAt !== undefined) return
    lostAt = systemClock.monotonicNow()
    ready = Promise.withResolvers()
    ready.promise.catch(() => undefined)
  }

  /** The first error of an attempt says why it failed; later ones come from closing it. */
  function becauseOf(error: RedisError): void {
    if (!hasFailed) cause = cleaned(error, redis.options.password)
    hasFailed = true
  }

  // Without a listener ioredis prints errors to the console.
  redis.on('error', (error: RedisError) => {
    becauseOf(error)
    if (redis.status === 'connect') redis.disconnect(true)
  })
  redis.on('connecting', () => {
    hasFailed = false
    // ioredis listens for the first error only. A TLS connection whose certificate was refused may emit a second one, the
    // alert of the other end, and an error without a listener ends this process.
    setImmediate(() => redis.stream?.on('error', () => undefined))
  })
  redis.on('ready', () => {
    cause = lostAt = undefined
    hasFailed = false
    told.clear()
    ready.resolve()
    log.info({ outcome: 'up' }, `redis ${name} connection is up`)
  })
  redis.on('close', () => {
    // No error was emitted: a load balancer without a server behind it, say, accepts connections and closes them.
    cause ??= notConnected('the connection was closed')
    noteLoss()
  })
  redis.on('reconnecting', () => {
    const text = cause?.message ?? ''
    if (told.has(text)) return
    told.add(text)
    log.warn({ outcome: 'down', err: cause && describeError(cause) }, `redis ${name} connection is down`)
  })
  return {
    cause: () => (isThere(redis) ? undefined : cause),
    becauseOf,
    async over() {
      noteLoss()
      const isLongAway = lostAt !== undefined && systemClock.monotonicNow() - lostAt > WAITED_FOR_MS
      if (isLongAway || redis.status === 'end') throw cause ?? notConnected()
      await ready.promise
    },
    ended: () => ready.reject(cause ?? notConnected('the connection is not used any more')),
  }
}

/** What is sent in one turn of the event loop goes out in one write: a system call costs more than a command. */
function createTogether(redis: Redis): () => void {
  let held: Redis['stream'] | undefined
  return function sendTogether() {
    if (held === redis.stream) return
    const stream = redis.stream
    held = stream
    stream.cork()
    setImmediate(() => {
      if (held === stream) held = undefined
      stream.uncork()
    })
  }
}

function createSender(redis: Redis, outage: Outage) {
  type Scripts = Record<ScriptName, (...args: (string | number)[]) => Promise<unknown>>
  const sendTogether = createTogether(redis)
  const link: Link = {
    call(command, args) {
      sendTogether()
      return redis.call(command, ...args)
    },
    run(script, keys, args) {
      sendTogether()
      return (redis as unknown as Scripts)[script](...keys, ...args)
    },
  }
  /** The leave to ask is for the next command alone, so nothing may be sent between, nor the text of a script after its name. */
  const askingLink: Link = {
    call(command, args) {
      redis.asking().catch(() => undefined)
      return redis.call(command, ...args)
    },
    run(script, keys, args) {
      redis.asking().catch(() => undefined)
      return redis.eval(SCRIPTS[script].lua, keys.length, ...keys, ...args)
    },
  }

  async function connected(wait: Wait): Promise<void> {
    try {
      while (!isThere(redis)) {
        await outage.over()
        if (wait.isOver) throw notConnected()
      }
    } catch (error) {
      throw Object.assign(translated(error), { isUnsent: true })
    }
  }

  /** The cause of the outage says more than a command that failed because of it. */
  function translated(thrown: unknown): CleanError {
    const error = cleaned(thrown as RedisError, redis.options.password)
    return error.isReply || isThere(redis) ? error : ((outage.cause() as CleanError | undefined) ?? error)
  }

  async function attempt({ send }: RedisRequest, over: Link, wait: Wait): Promise<unknown> {
    if (!isThere(redis)) await connected(wait)
    try {
      return await send(over)
    } catch (error) {
      throw translated(error)
    }
  }

  async function sendOnceConnected(request: RedisRequest, wait: Wait): Promise<unknown> {
    try {
      return await attempt(request, link, wait)
    } catch (error) {
      return sendAgain(request, wait, error as CleanError)
    }
  }

  function sendAgain(request: RedisRequest, wait: Wait, error: CleanError): Promise<unknown> {
    if (wait.isOver || !mayRepeat(error, request.isRepeatable)) throw error
    return attempt(request, link, wait)
  }

  return {
    send(request: RedisRequest, wait: Wait): Promise<unknown> {
      if (!isThere(redis)) return sendOnceConnected(request, wait)
      // Without an async function, because its promise adds to the cost of each read of a session.
      return request.send(link).catch((thrown) => sendAgain(request, wait, translated(thrown)))
    },
    sendAsking: (request: RedisRequest, wait: Wait) => attempt(request, askingLink, wait),
  }
}

/** A replica refuses every write, so a command that it refused did nothing; the next connection may lead to the primary. */
function mayRepeat({ isReply, code }: CleanError, isRepeatable: boolean): boolean {
  return isReply ? code === 'READONLY' : isRepeatable
}
