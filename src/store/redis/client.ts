import { Redis, type RedisOptions } from 'ioredis'
import { BffError, describeError } from '../../errors.ts'
import type { Logger } from '../../log.ts'
import type { ObserveStore } from '../port.ts'
import { SCRIPTS, type ScriptName } from './scripts.ts'

/** A secret that is read at each use. */
type Revealable = { reveal(): string }

/** Where Redis is and who we are there. */
export type RedisAddress = {
  /** `redis://` or `rediss://` URL; may hold credentials, so it is never logged. */
  readonly url: string
  readonly username?: string
  /** Read again at each reconnect, so that a rotated one is picked up. */
  readonly password?: Revealable
  readonly tls?: {
    readonly ca?: string
    readonly cert?: string
    readonly key?: Revealable
    readonly servername?: string
  }
}

/** One connection that looks after itself. Commands reject with `store_unavailable` within 600 ms, whatever Redis does. */
export type RedisConnection = {
  /** Settles, without ever rejecting, when the first attempt to connect has succeeded or failed. */
  readonly attempted: Promise<void>
  /** Sends one command, observed as `label`. Replies have RESP2 shapes. */
  call(label: string, command: string, ...args: (string | number)[]): Promise<unknown>
  /** Runs one script of scripts.ts. */
  run(script: ScriptName, keys: readonly string[], args: readonly (string | number)[]): Promise<unknown>
  /** Subscribes this connection as long as it lasts: a later one must subscribe again. */
  subscribe(channel: string, onMessage: (text: string) => void): Promise<void>
  /** Calls back whenever the connection is ready for commands. */
  onReady(listener: () => void): void
  /** Calls back whenever the connection, or an attempt to open it, has come to an end. */
  onClose(listener: () => void): void
  close(): Promise<void>
}

type ConnectionDeps = {
  /** What the log calls this connection. */
  readonly name: string
  readonly log: Logger
  readonly observe?: ObserveStore
}

const COMMAND_TIMEOUT_MS = 500
const MAX_RETRY_DELAY_MS = 800
const RETRY_AFTER_SECONDS = 2

/** Opens a connection and keeps it open: reconnects by itself until it is closed. */
export function openRedis(address: RedisAddress, deps: ConnectionDeps): RedisConnection {
  const { url, username, password } = credentials(address)
  const redis = new Redis(url, {
    ...OPTIONS,
    username,
    password: password(),
    tls: tlsOptions(address.tls),
    retryStrategy(attempt) {
      redis.options.password = freshPassword(password, redis.options.password)
      return Math.min(50 * 2 ** (attempt - 1), MAX_RETRY_DELAY_MS) + Math.random() * 200
    },
  })
  reportOutages(redis, deps)
  const observed = createObserved(deps.observe)
  const scripted = redis as unknown as Record<ScriptName, (...args: (string | number)[]) => Promise<unknown>>
  return {
    attempted: redis.connect().catch((error) => {
      // Only what cannot even be tried ends here, such as a TLS key that is no key; all else is tried again.
      if (redis.status === 'end')
        deps.log.error(
          { err: describeError(withoutArguments(error)) },
          `redis ${deps.name} connection cannot be made`,
        )
    }),
    call: (label, command, ...args) => observed(label, () => redis.call(command, ...args)),
    run: (script, keys, args) => observed(script, () => scripted[script](...keys, ...args)),
    async subscribe(channel, onMessage) {
      redis.removeAllListeners('message')
      redis.on('message', (_channel, text) => onMessage(text))
      await observed('subscribe', () => redis.subscribe(channel))
    },
    onReady: (listener) => void redis.on('ready', listener),
    onClose: (listener) => void redis.on('close', listener),
    close: () => close(redis),
  }
}

const OPTIONS: RedisOptions = {
  lazyConnect: true,
  // A command waits for nothing: not for a connection, not for a reconnect, and never runs twice.
  enableOfflineQueue: false,
  maxRetriesPerRequest: 0,
  connectTimeout: 2000,
  // Counts only while an answer is owed, so that an idle connection lives.
  socketTimeout: 2000,
  disconnectTimeout: 500,
  maxLoadingRetryTime: 1000,
  autoResubscribe: false,
  scripts: SCRIPTS,
  // After a failover the address leads to the new primary; after a password change the handshake sends the new one.
  reconnectOnError: (error) => /\b(READONLY|NOAUTH)\b/.test(error.message),
}

function credentials(address: RedisAddress) {
  const url = new URL(address.url)
  const inUrl = { username: decodeURIComponent(url.username), password: decodeURIComponent(url.password) }
  // ioredis lets the URL win; here the named settings do.
  url.username = ''
  url.password = ''
  return {
    url: url.href,
    username: address.username ?? inUrl.username,
    password: () => address.password?.reveal() ?? inUrl.password,
  }
}

/** A secret that cannot be read just now must not end the reconnecting. */
function freshPassword(read: () => string, previous: string | undefined): string | undefined {
  try {
    return read()
  } catch {
    return previous
  }
}

function tlsOptions(tls: RedisAddress['tls']): RedisOptions['tls'] {
  return tls && { ca: tls.ca, cert: tls.cert, key: tls.key?.reveal(), servername: tls.servername }
}

/** One line when the connection goes and one when it is back, however many attempts lie between. */
function reportOutages(redis: Redis, { log, name }: ConnectionDeps): void {
  let lastError: unknown
  let reported = false
  // Without a listener ioredis prints errors to the console.
  redis.on('error', (error) => {
    lastError = error
  })
  redis.on('ready', () => {
    reported = false
    lastError = undefined
    log.info({ outcome: 'up' }, `redis ${name} connection is up`)
  })
  redis.on('reconnecting', () => {
    if (reported) return
    reported = true
    log.warn(
      { outcome: 'down', err: lastError ? describeError(withoutArguments(lastError)) : undefined },
      `redis ${name} connection is down`,
    )
  })
}

function createObserved(observe: ObserveStore | undefined) {
  return async function observed(label: string, send: () => Promise<unknown>): Promise<unknown> {
    const startedAt = performance.now()
    try {
      const reply = await answeredInTime(send())
      observe?.(label, (performance.now() - startedAt) / 1000, 'ok')
      return reply
    } catch (error) {
      observe?.(label, (performance.now() - startedAt) / 1000, 'error')
      throw new BffError('store_unavailable', `redis did not serve ${label}`, {
        cause: withoutArguments(error),
        retryAfterSeconds: RETRY_AFTER_SECONDS,
      })
    }
  }
}

/** After a pause of this process its timers come first: what has arrived meanwhile is read before giving up. */
async function answeredInTime<T>(answer: Promise<T>): Promise<T> {
  const tooLate = Promise.withResolvers<never>()
  const giveUp = () => tooLate.reject(new Error('Command timed out'))
  const timer = setTimeout(() => setImmediate(giveUp), COMMAND_TIMEOUT_MS)
  try {
    return await Promise.race([answer, tooLate.promise])
  } finally {
    clearTimeout(timer)
  }
}

/**
 * ioredis hangs a command's arguments on its errors, and Redis repeats them in quotes, of an AUTH or HELLO that it does
 * not know too: what is quoted ends here, and all that comes after it.
 */
function withoutArguments(error: unknown): Error {
  const { name, message, code } = error as Error & { code?: string }
  const clean = new Error(message.replace(/(?:,? with args|["'`]).*/s, '').trimEnd())
  clean.name = name
  return Object.assign(clean, { code: code ?? errorCode(name, message) })
}

/** Redis begins an error with its code; ioredis has none for its own. */
function errorCode(name: string, message: string): string | undefined {
  if (name === 'ReplyError') return /^[A-Z]+/.exec(message)?.[0]
  return message === 'Command timed out' ? 'ETIMEDOUT' : 'ENOTCONN'
}

async function close(redis: Redis): Promise<void> {
  // QUIT lets commands in flight finish; a Redis that is away is simply left.
  await answeredInTime(redis.quit()).catch(() => redis.disconnect())
}
