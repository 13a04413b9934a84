import { Redis, type RedisOptions } from 'ioredis'
import { createDeadline, type Deadline, type Wait } from '../../async/deadline.ts'
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

/**
 * One connection that looks after itself. Commands reject with `store_unavailable` within 600 ms, whatever Redis does. A
 * connection that was lost is waited for within that time; one that has been away for longer than a second is not.
 */
export type RedisConnection = {
  /** Settles, without ever rejecting, when the first attempt to connect has succeeded or failed. */
  readonly attempted: Promise<void>
  /** Sends one command, observed as `label`. Replies have RESP2 shapes. */
  call(label: string, command: string, ...args: (string | number)[]): Promise<unknown>
  /** Runs one script of scripts.ts. */
  run(script: ScriptName, keys: readonly string[], args: readonly (string | number)[]): Promise<unknown>
  /** Leaves this connection for a new one, which may lead to another server. */
  reconnect(): void
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
  /** Told when the server at the other end turns out to be no primary, before a new connection is made. */
  readonly notPrimary?: () => void
}

const COMMAND_TIMEOUT_MS = 500
/** For so long after its loss a connection is waited for. */
const WAITED_FOR_MS = 1000
const FIRST_RETRY_MS = 25
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
      const delayMs = FIRST_RETRY_MS * 2 ** (attempt - 1)
      return Math.min(delayMs, MAX_RETRY_DELAY_MS) * (1 + Math.random() / 4)
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
  const deadline = createDeadline(COMMAND_TIMEOUT_MS, timedOut)
  const observed = createObserved({ redis, outage, deadline }, deps.observe)
  const scripted = redis as unknown as Record<ScriptName, (...args: (string | number)[]) => Promise<unknown>>
  return {
    attempted: redis.connect().catch((error) => {
      // Only what cannot even be tried ends here, such as a TLS key that is no key; all else is tried again.
      if (redis.status === 'end')
        deps.log.error({ err: describeError(cleaned(error)) }, `redis ${deps.name} connection cannot be made`)
    }),
    call: (label, command, ...args) => observed(label, () => redis.call(command, ...args)),
    run: (script, keys, args) => observed(script, () => scripted[script](...keys, ...args)),
    reconnect() {
      if (redis.status === 'ready') redis.disconnect(true)
    },
    async subscribe(channel, onMessage) {
      redis.removeAllListeners('message')
      redis.on('message', (_channel, text) => onMessage(text))
      await observed('subscribe', () => redis.subscribe(channel))
    },
    onReady: (listener) => void redis.on('ready', listener),
    onClose: (listener) => void redis.on('close', listener),
    close: () => close(redis, deadline),
  }
}

const OPTIONS: RedisOptions = {
  lazyConnect: true,
  // A command is sent on a connection that is ready, and never twice: what waits for one waits in `observed`.
  enableOfflineQueue: false,
  maxRetriesPerRequest: 0,
  connectTimeout: 2000,
  // Counts only while an answer is owed, so that an idle connection lives.
  socketTimeout: 2000,
  disconnectTimeout: 500,
  maxLoadingRetryTime: 1000,
  autoResubscribe: false,
  // A command more that an access rule would have to allow.
  disableClientInfo: true,
  scripts: SCRIPTS,
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

type RedisError = Error & {
  readonly code?: string
  readonly command?: { readonly args?: readonly unknown[] }
}

/** The connection while it is not there. */
type Outage = {
  /** Why the last attempt failed; undefined while there is a connection. */
  readonly cause: () => Error | undefined
  /** Resolves when it is there; rejects at once when it has been away for so long that nobody should wait. */
  readonly over: () => Promise<void>
  /** Tells why the connection is about to be left. */
  readonly becauseOf: (error: RedisError) => void
}

/**
 * Knows why the connection is away, and tells the log: a line for each cause of an outage and one when it is over, however
 * many attempts lie between. A connection whose set-up fails in any part is away: ioredis would go on with database 0
 * after a SELECT that was refused.
 */
function watchOutages(redis: Redis, { log, name }: ConnectionDeps): Outage {
  let cause: Error | undefined
  let hasFailed = false
  let lostAt: number | undefined
  let ready = Promise.withResolvers<void>()
  const told = new Set<string>()
  noteLoss()

  function noteLoss(): void {
    if (lostAt !== undefined) return
    lostAt = performance.now()
    ready = Promise.withResolvers()
  }

  /** The first error of an attempt says why; those that come of hanging up do not. */
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
    // ioredis listens for one error only. A TLS connection whose certificate was refused may have a second one, the alert
    // of the other end, which nobody would answer for: the end of this process.
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
    // An address that takes connections and ends them says nothing else: a load balancer without a server behind it, say.
    cause ??= connectionClosed()
    noteLoss()
  })
  redis.on('reconnecting', () => {
    const text = cause?.message ?? ''
    if (told.has(text)) return
    told.add(text)
    log.warn({ outcome: 'down', err: cause && describeError(cause) }, `redis ${name} connection is down`)
  })
  return {
    cause: () => cause,
    becauseOf,
    async over() {
      noteLoss()
      const isLongAway = lostAt !== undefined && performance.now() - lostAt > WAITED_FOR_MS
      if (isLongAway || redis.status === 'end') throw cause ?? notConnected()
      await ready.promise
    },
  }
}

/**
 * What is the same done twice: sent once more when the connection was lost before its answer came. The others give or
 * count something, to one caller only.
 */
const REPEATABLE: ReadonlySet<string> = new Set([
  ...['readSession', 'slideSession', 'sessionTimeLeft', 'readTokens', 'readClientToken', 'ping', 'heartbeat'],
  ...['createSession', 'createTokens', 'writeTokens', 'keepToken', 'forgetTokens'],
  ...['lock', 'unlock', 'writeClientToken', 'putLogin'],
])

type Observed = (label: string, send: () => Promise<unknown>) => Promise<unknown>

function createObserved(
  { redis, outage, deadline }: { redis: Redis; outage: Outage; deadline: Deadline },
  observe: ObserveStore | undefined,
): Observed {
  /** Between the end of a connection and its `close`, ioredis takes commands that it cannot send. */
  const isThere = () => redis.status === 'ready' && redis.stream.writable

  async function sendOnceThere(label: string, send: () => Promise<unknown>, wait: Wait): Promise<unknown> {
    for (let tries = 1; ; tries += 1) {
      while (!isThere()) {
        await outage.over()
        if (wait.isOver) throw timedOut()
      }
      try {
        return await send()
      } catch (error) {
        if (tries > 1 || wait.isOver || !mayRepeat(label, error as RedisError)) throw error
      }
    }
  }

  return async function observed(label, send) {
    const startedAt = performance.now()
    const observeEnd = (outcome: 'ok' | 'error') =>
      observe?.(label, (performance.now() - startedAt) / 1000, outcome)
    try {
      const reply = await deadline.within((wait) => sendOnceThere(label, send, wait))
      observeEnd('ok')
      return reply
    } catch (error) {
      observeEnd('error')
      throw new BffError('store_unavailable', `redis did not serve ${label}`, {
        cause: saidAt(
          label,
          isThere() ? cleaned(error as RedisError, redis.options.password) : outageOr(error),
        ),
        retryAfterSeconds: RETRY_AFTER_SECONDS,
      })
    }
  }

  /** Why there is no connection says more than that a command failed for want of one. */
  function outageOr(error: unknown): Error {
    const isReply = (error as Error).name === 'ReplyError'
    return (isReply ? undefined : outage.cause()) ?? cleaned(error as RedisError, redis.options.password)
  }
}

/** Whether Redis has certainly not done it: a replica refuses whatever would write, and the next connection may be to the primary. */
function mayRepeat(label: string, { name, message }: RedisError): boolean {
  if (name === 'ReplyError') return errorCode(name, message) === 'READONLY'
  return REPEATABLE.has(label)
}

const timedOut = () => Object.assign(new Error('Command timed out'), { code: 'ETIMEDOUT' })
const connectionClosed = () => Object.assign(new Error('the connection was closed'), { code: 'ENOTCONN' })
const notConnected = () => Object.assign(new Error('not connected'), { code: 'ENOTCONN' })

/** What is shorter is in many words. */
const MIN_SECRET_LENGTH = 3

/**
 * The error, whole, and without what was sent: ioredis hangs a command's arguments on its errors, and Redis repeats them
 * in the text of some, of an AUTH or HELLO that it does not know too.
 */
function cleaned(error: RedisError, password?: string | null): Error {
  const { name, message, code, command } = error
  const sent = [password, ...(command?.args ?? [])]
    .map(String)
    .filter((text) => text.length >= MIN_SECRET_LENGTH)
  const text = sent.reduce((whole, secret) => whole.replaceAll(secret, '…'), message)
  const clean = new Error(text.replace(/,? with args beginning with.*/s, '').trimEnd())
  clean.name = name
  return Object.assign(clean, { code: code ?? errorCode(name, message) })
}

/** Redis names a line of the script, of a command that an access rule forbids not even its name: we know what is there. */
function saidAt(label: string, error: Error): Error {
  const [, line] = /@user_script:\s*(\d+)/.exec(error.message) ?? []
  if (line === undefined || !(label in SCRIPTS)) return error
  const text = SCRIPTS[label as ScriptName].lua.split('\n')[Number(line) - 1] ?? ''
  const commands = [...text.matchAll(/redis\.call\('(\w+)'/g)].map(([, command]) => command)
  error.message = `${error.message.replace(/\.$/, '')} (${commands.join(', ')})`
  return error
}

/** Redis begins an error with its code; ioredis has none for its own. */
function errorCode(name: string, message: string): string | undefined {
  if (name === 'ReplyError') return /^[A-Z]+/.exec(message)?.[0]
  return 'ENOTCONN'
}

async function close(redis: Redis, deadline: Deadline): Promise<void> {
  // QUIT lets commands in flight finish; a Redis that is away is simply left.
  await deadline.within(() => redis.quit()).catch(() => redis.disconnect())
}
