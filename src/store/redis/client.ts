import { Redis, type RedisOptions } from 'ioredis'
import { systemClock } from '../../async/clock.ts'
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
 * One connection that reconnects by itself. Commands reject with `store_unavailable` within 600 ms, also when Redis hangs.
 * Within that time they wait for a connection that was just lost; once it has been away for a second they fail at once.
 */
export type RedisConnection = {
  /** Resolves when the first attempt to connect has succeeded or failed; never rejects. */
  readonly attempted: Promise<void>
  /** Sends one command, observed as `label`. Replies have RESP2 shapes. */
  call(label: string, command: string, ...args: (string | number)[]): Promise<unknown>
  /** Runs one script of scripts.ts. */
  run(script: ScriptName, keys: readonly string[], args: readonly (string | number)[]): Promise<unknown>
  /** Replaces this connection by a new one, which may lead to another server. */
  reconnect(): void
  /** Subscribes this connection; after a reconnect it must be called again. */
  subscribe(channel: string, onMessage: (text: string) => void): Promise<void>
  /** Calls `listener` each time the connection becomes ready for commands. */
  onReady(listener: () => void): void
  /** Calls `listener` each time the connection, or an attempt to open it, has ended. */
  onClose(listener: () => void): void
  close(): Promise<void>
}

type ConnectionDeps = {
  /** What the log calls this connection. */
  readonly name: string
  readonly log: Logger
  readonly observe?: ObserveStore
  /** Called when the server turns out to be no primary, before a new connection is made. */
  readonly notPrimary?: () => void
}

const COMMAND_TIMEOUT_MS = 500
/** How long after its loss commands wait for a connection. */
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
      // Only what cannot be tried at all ends here, such as a TLS key that is no key; everything else is tried again.
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
  // ioredis sends a command only on a connection that is ready, and never twice: waiting happens in `observed`.
  enableOfflineQueue: false,
  maxRetriesPerRequest: 0,
  connectTimeout: 2000,
  // It runs only while an answer is due, so an idle connection stays open.
  socketTimeout: 2000,
  disconnectTimeout: 500,
  maxLoadingRetryTime: 1000,
  autoResubscribe: false,
  // It would be one more command that an access rule has to allow.
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

/** Keeps the previous password when the secret cannot be read just now, so that reconnecting goes on. */
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

/** What is known of a connection that is away. */
type Outage = {
  /** Returns why the last attempt failed; undefined while there is a connection. */
  readonly cause: () => Error | undefined
  /** Resolves when the connection is ready; rejects at once when it has been away for longer than commands wait. */
  readonly over: () => Promise<void>
  /** Notes why the connection is about to be closed. */
  readonly becauseOf: (error: RedisError) => void
}

/**
 * Notes why the connection is away, and logs a line for each cause of an outage and one when it is over, not one for each
 * attempt. A connection whose set-up fails in any part counts as away: ioredis would go on with database 0 after a SELECT
 * that was refused.
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
    lostAt = systemClock.monotonicNow()
    ready = Promise.withResolvers()
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
      const isLongAway = lostAt !== undefined && systemClock.monotonicNow() - lostAt > WAITED_FOR_MS
      if (isLongAway || redis.status === 'end') throw cause ?? notConnected()
      await ready.promise
    },
  }
}

/**
 * Commands with the same result when they run twice: they are sent once more when the connection was lost before the
 * answer came. The others hand out or count something, for one caller only.
 */
const REPEATABLE: ReadonlySet<string> = new Set([
  ...['readSession', 'slideSession', 'sessionTimeLeft', 'readTokens', 'readClientToken', 'ping', 'heartbeat'],
  ...['indexUser', 'indexIdpSession', 'forgetSessions', 'forgetUserSession', 'forgetIdpSession'],
  ...['readUserIndex', 'readIdpSessionIndex', 'sampleIdpSessionIndex'],
  ...['createSession', 'noteAbout', 'readAbout', 'createTokens', 'writeTokens', 'keepToken', 'forgetTokens'],
  'forgetAllTokens',
  ...['lock', 'unlock', 'writeClientToken', 'putLogin', 'firstUse', 'keepUsed', 'forgetUsed'],
  ...['lastEnding', 'nextEnding', 'noteEnding', 'readEnding'],
])

type Observed = (label: string, send: () => Promise<unknown>) => Promise<unknown>

function createObserved(
  { redis, outage, deadline }: { redis: Redis; outage: Outage; deadline: Deadline },
  observe: ObserveStore | undefined,
): Observed {
  /** The status alone is not enough: between the end of a connection and its `close`, ioredis takes commands that it cannot send. */
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
    const startedAt = systemClock.monotonicNow()
    const observeEnd = (outcome: 'ok' | 'error', error?: RedisError) =>
      observe?.(label, (systemClock.monotonicNow() - startedAt) / 1000, outcome, error && codeOf(error))
    try {
      const reply = await deadline.within((wait) => sendOnceThere(label, send, wait))
      observeEnd('ok')
      return reply
    } catch (error) {
      observeEnd('error', error as RedisError)
      throw new BffError('store_unavailable', `redis did not serve ${label}`, {
        cause: saidAt(
          label,
          isThere() ? cleaned(error as RedisError, redis.options.password) : outageOr(error),
        ),
        retryAfterSeconds: RETRY_AFTER_SECONDS,
      })
    }
  }

  /** The cause of the outage says more than a command that failed because of it. */
  function outageOr(error: unknown): Error {
    const isReply = (error as Error).name === 'ReplyError'
    return (isReply ? undefined : outage.cause()) ?? cleaned(error as RedisError, redis.options.password)
  }
}

/** A replica refuses every write, so a command that it refused did nothing; the next connection may lead to the primary. */
function mayRepeat(label: string, { name, message }: RedisError): boolean {
  if (name === 'ReplyError') return errorCode(name, message) === 'READONLY'
  return REPEATABLE.has(label)
}

const timedOut = () => Object.assign(new Error('Command timed out'), { code: 'ETIMEDOUT' })
const connectionClosed = () => Object.assign(new Error('the connection was closed'), { code: 'ENOTCONN' })
const notConnected = () => Object.assign(new Error('not connected'), { code: 'ENOTCONN' })

/** Shorter texts occur in ordinary words. */
const MIN_SECRET_LENGTH = 3

/**
 * Copies the error without what was sent: ioredis attaches the arguments of a command to its errors, and Redis repeats
 * them in the text of some, also of an AUTH or HELLO that it does not know.
 */
function cleaned(error: RedisError, password?: string | null): Error {
  const { name, message, command } = error
  const sent = [password, ...(command?.args ?? [])]
    .map(String)
    .filter((text) => text.length >= MIN_SECRET_LENGTH)
  const text = sent.reduce((whole, secret) => whole.replaceAll(secret, '…'), message)
  const clean = new Error(text.replace(/,? with args beginning with.*/s, '').trimEnd())
  clean.name = name
  return Object.assign(clean, { code: codeOf(error) })
}

/** Redis names only the line of the script in which a command failed, also where an access rule forbids it: adds that command's name. */
function saidAt(label: string, error: Error): Error {
  const [, line] = /@user_script:\s*(\d+)/.exec(error.message) ?? []
  if (line === undefined || !(label in SCRIPTS)) return error
  const text = SCRIPTS[label as ScriptName].lua.split('\n')[Number(line) - 1] ?? ''
  const commands = [...text.matchAll(/redis\.call\('(\w+)'/g)].map(([, command]) => command)
  error.message = `${error.message.replace(/\.$/, '')} (${commands.join(', ')})`
  return error
}

const codeOf = ({ name, message, code }: RedisError) => code ?? errorCode(name, message)

/** Redis begins the text of an error with its code; ioredis has no code for its own errors. */
function errorCode(name: string, message: string): string | undefined {
  if (name === 'ReplyError') return /^[A-Z]+/.exec(message)?.[0]
  return 'ENOTCONN'
}

async function close(redis: Redis, deadline: Deadline): Promise<void> {
  // QUIT lets commands in flight finish. A Redis that does not answer it is disconnected.
  await deadline.within(() => redis.quit()).catch(() => redis.disconnect())
}
