import { constants, fstatSync, openSync, write, writeSync } from 'node:fs'
import { pino } from 'pino'

/** The fields a log line may have. Allow-listed: a token, cookie, claim or body has no field to land in. */
export type LogFields = {
  /** As a problem has it (`request_id`), and `X-Request-Id` of the answer. */
  request_id?: string | undefined
  /** W3C Trace Context of the request. */
  traceparent?: string | undefined
  method?: string
  /** Path without query; only of Cloakroom's own endpoints and of routes. */
  path?: string
  route?: string
  resource?: string
  upstream?: string
  status?: number
  /** Of the provider's answer, where it refused. */
  providerStatus?: number | undefined
  code?: string
  reason?: string
  durationMs?: number
  /** From the head of a request to the head of its answer. */
  firstByteMs?: number | undefined
  bytes?: number
  clientIp?: string
  /** A value of `Host` that was refused. */
  host?: string | undefined
  /** First 12 characters of the session's hashed key. */
  session?: string
  outcome?: string
  /** `audit`: the line belongs to the audit stream. */
  stream?: 'audit'
  /** What an audit line tells of. */
  action?: AuditAction
  /** A pseudonym of the user. */
  subject?: string
  /** Who ended a session. */
  by?: string
  /** Type of a security event. */
  event?: string
  oauthError?: string
  suberror?: string
  errorCodes?: string
  correlationId?: string
  /** Scopes or audience of a token that were asked for, and those that came. */
  expected?: string
  actual?: string
  traceId?: string
  /** The provider's own, of its refusal. */
  timestamp?: string
  /** Where a sign-in failed. */
  step?: string
  /** Name of a claim that fails a check, never its value. */
  claim?: string
  /** How far a time claim is from our clock: positive in the future. */
  offsetSeconds?: number
  /** How far our clock is from the provider's: positive when ours is ahead. */
  clockOffsetSeconds?: number
  /** `kid` of a JWT, or the thumbprint of a certificate. */
  keyId?: string
  /** How the client authenticates at the provider. */
  clientAuth?: string
  /** The end of a certificate, as an ISO date. */
  notAfter?: string
  /** What ends a fault that is told. */
  cure?: string
  url?: string
  config?: string
  /** Names a configuration, as `cloakroom_config_info` does. */
  hash?: string
  signal?: string
  count?: number
  /** Of Cloakroom. */
  version?: string
  /** What is wrong in a config file, without secrets. */
  problems?: readonly { readonly line: number; readonly path: string; readonly message: string }[]
  /** What `describeError` leaves of an error. */
  err?: { readonly name: string; readonly message: string; readonly code?: string; readonly cause?: string }
}

/** What the audit stream tells of; a closed list, whose members stay. */
export type AuditAction =
  | 'sign_in'
  | 'step_up'
  | 'sign_in_failed'
  | 'session_ended'
  | 'access_denied'
  | 'token_revocation'
  | 'config_reloaded'

/** One structured line per call; the only way this program writes to its log. */
export type Logger = {
  /** A line of the audit stream (`stream: "audit"`), whatever the level of the log. */
  audit?(action: AuditAction, fields: LogFields): void
  info(fields: LogFields, message: string): void
  warn(fields: LogFields, message: string): void
  error(fields: LogFields, message: string): void
}

/** A warning, an error, or the line of a request that was refused. */
export type TroubleLine = {
  readonly level: 'info' | 'warn' | 'error'
  readonly fields: LogFields
  readonly message: string
}

/** The same log; `listener` also gets its warnings, errors and refusals. Of other lines only `code` is looked at. */
export function withListener(log: Logger, listener: (line: TroubleLine) => void): Logger {
  return {
    ...log,
    info(fields, message) {
      log.info(fields, message)
      if (fields.code !== undefined) listener({ level: 'info', fields, message })
    },
    warn(fields, message) {
      log.warn(fields, message)
      listener({ level: 'warn', fields, message })
    },
    error(fields, message) {
      log.error(fields, message)
      listener({ level: 'error', fields, message })
    },
  }
}

const ALLOWED = new Set([
  'request_id',
  'traceparent',
  'method',
  'path',
  'route',
  'resource',
  'upstream',
  'status',
  'providerStatus',
  'code',
  'reason',
  'durationMs',
  'firstByteMs',
  'bytes',
  'clientIp',
  'host',
  'session',
  'outcome',
  'event',
  'stream',
  'action',
  'subject',
  'by',
  'oauthError',
  'suberror',
  'errorCodes',
  'correlationId',
  'expected',
  'actual',
  'traceId',
  'timestamp',
  'step',
  'claim',
  'offsetSeconds',
  'clockOffsetSeconds',
  'keyId',
  'clientAuth',
  'notAfter',
  'cure',
  'url',
  'config',
  'hash',
  'signal',
  'count',
  'version',
  'problems',
  'err',
])

/**
 * Writes JSON lines to `destination`, or to standard output: `info` within 100 ms, `warn` and `error` at once, and
 * everything before the process exits. No request waits for standard output, and an error there ends nothing: lines that
 * it does not take are dropped and counted, and one line gives their number when it takes lines again.
 */
export function createLogger(
  options: { level?: string; destination?: { write(line: string): void } } = {},
): Logger {
  const settings = {
    level: options.level ?? 'info',
    base: undefined,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }), log: onlyAllowed },
    // Our own `err` is already reduced to safe fields; pino's serializer would look for a stack.
    serializers: { err: (err: unknown) => err },
  }
  const lineOf = (count: number) => {
    let line = ''
    pino(settings, { write: (text) => (line = text) }).warn({ count }, 'log lines dropped: nobody took them')
    return line
  }
  const output = options.destination ? undefined : standardOutput(lineOf)
  const destination = options.destination ?? output!
  const log = pino(settings, destination)
  const audit = pino({ ...settings, level: 'info' }, destination)
  return {
    audit: (action, fields) => audit.info({ stream: 'audit', action, ...fields }, 'audit'),
    info: log.isLevelEnabled('info')
      ? (fields, message) => destination.write(infoLine(fields, message))
      : () => undefined,
    warn(fields, message) {
      log.warn(fields, message)
      output?.flush()
    },
    error(fields, message) {
      log.error(fields, message)
      output?.flush()
    },
  }
}

/**
 * The line that pino would write, byte for byte (`test/unit/log.test.ts` compares them). Every request writes one at this
 * level, and in pino it costs three times as much: 2.9 µs against 0.9.
 */
function infoLine(fields: LogFields, message: string): string {
  const members = JSON.stringify(onlyAllowed(fields)).slice(1, -1)
  const comma = members === '' ? '' : ','
  return `{"level":"info"${timeMember()}${comma}${members},"msg":${JSON.stringify(message)}}\n`
}

const { epochTime } = pino.stdTimeFunctions
let second = 'none'
let upToSecond = ''

/** The member `time` with its comma. Made anew once a second, because as a whole it costs as much as half a line. */
function timeMember(): string {
  const now = epochTime().slice(',"time":'.length)
  if (!now.startsWith(second)) {
    second = now.slice(0, -3)
    upToSecond = `,"time":"${new Date(Number(now)).toISOString().slice(0, -'000Z'.length)}`
  }
  return `${upToSecond}${now.slice(-3)}Z"`
}

let dropped = 0

/** How many lines standard output did not take since the process began. */
export function droppedLogLines(): number {
  return dropped
}

const STDOUT = 1
const GATHERED_LINES = 64
const GATHERED_MS = 100
/** Characters that may wait while standard output is not read: as many as Docker's non-blocking mode holds. */
const MOST_WAITING = 1_048_576
const RETRY_MS = { first: 10, longest: 250 }
/** How long the last lines may take when the process exits. */
const LAST_LINES_MS = 1_000

/**
 * Standard output, some lines at a time: under load a write to it costs more than all the rest of a line. Written here
 * and not by sonic-boom, which comes with pino: at the exit it tries again for ever what cannot be written.
 */
function standardOutput(lineOf: (dropped: number) => string) {
  const { fd, mayBlock } = openStandardOutput()
  let waiting: string[] = []
  let waitingLength = 0
  /** What is being written, with the number of dropped lines that it tells of. */
  let current: { bytes: Buffer; tells: number } | undefined
  let isWriting = false
  let untold = 0
  let isMidLine = false
  let gathering: NodeJS.Timeout | undefined
  let isRetryPlanned = false
  let retryMs = RETRY_MS.first

  function drop(lines: number): void {
    dropped += lines
    untold += lines
  }

  /** The next bytes to write; undefined when there are none. */
  function take(): typeof current {
    if (waiting.length === 0) return undefined
    // Half a line that could not be finished must not run into the next one.
    const text = (isMidLine ? '\n' : '') + waiting.join('') + (untold > 0 ? lineOf(untold) : '')
    const tells = untold
    waiting = []
    waitingLength = 0
    untold = 0
    return { bytes: Buffer.from(text), tells }
  }

  /** Tells whether writing may go on at once. */
  function written(error: NodeJS.ErrnoException | null, count: number): boolean {
    const { bytes, tells } = current!
    if (error?.code === 'EAGAIN') return false
    if (error) {
      current = undefined
      untold += tells
      const notOfOurCallers = (tells > 0 ? 1 : 0) + (isMidLine && bytes[0] === NEWLINE ? 1 : 0)
      drop(linesIn(bytes) - notOfOurCallers)
      return true
    }
    retryMs = RETRY_MS.first
    if (count > 0) isMidLine = bytes[count - 1] !== NEWLINE
    current = count < bytes.length ? { bytes: bytes.subarray(count), tells } : undefined
    return true
  }

  function retryLater(): void {
    if (isRetryPlanned) return
    isRetryPlanned = true
    setTimeout(() => {
      isRetryPlanned = false
      flush()
    }, retryMs).unref()
    retryMs = Math.min(retryMs * 2, RETRY_MS.longest)
  }

  function flush(): void {
    clearTimeout(gathering)
    gathering = undefined
    while (!isWriting) {
      current ??= take()
      if (!current) return
      if (mayBlock) {
        isWriting = true
        write(fd, current.bytes, (error, count) => {
          isWriting = false
          if (written(error, count)) flush()
          else retryLater()
        })
      } else if (!written(...tryWriting(fd, current.bytes))) {
        retryLater()
        return
      }
    }
  }

  // Comes after an uncaught exception too.
  process.on('exit', () => {
    const until = performance.now() + LAST_LINES_MS
    // What a thread is writing will be written.
    if (isWriting) current = undefined
    for (current ??= take(); current; current ??= take()) {
      if (written(...tryWriting(fd, current.bytes))) continue
      if (performance.now() > until) return
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, RETRY_MS.first)
    }
  })
  return {
    flush,
    write(line: string): void {
      if (waitingLength + (current?.bytes.length ?? 0) + line.length > MOST_WAITING) {
        drop(1)
        return
      }
      waitingLength += line.length
      if (waiting.push(line) === GATHERED_LINES) flush()
      else gathering ??= setTimeout(flush, GATHERED_MS).unref()
    },
  }
}

/** Where to write, and whether that keeps its caller waiting, as a disk does. */
function openStandardOutput(): { fd: number; mayBlock: boolean } {
  // The getter does it: libuv makes a pipe or socket non-blocking when Node makes a stream of it.
  const { isTTY } = process.stdout
  if (!isTTY) return { fd: STDOUT, mayBlock: fstatSync(STDOUT).isFile() }
  try {
    // A terminal stays blocking. Otherwise a stopped one (Ctrl-S) would hold a thread, and the process could not exit.
    const flags = constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY
    return { fd: openSync('/proc/self/fd/1', flags), mayBlock: false }
  } catch {
    return { fd: STDOUT, mayBlock: true }
  }
}

function tryWriting(fd: number, bytes: Buffer): [error: NodeJS.ErrnoException | null, count: number] {
  try {
    return [null, writeSync(fd, bytes)]
  } catch (error) {
    return [error as NodeJS.ErrnoException, 0]
  }
}

const NEWLINE = 0x0a

function linesIn(bytes: Buffer): number {
  let lines = 0
  for (const byte of bytes) if (byte === NEWLINE) lines += 1
  return lines
}

function onlyAllowed(fields: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  for (const name in fields) {
    if (!ALLOWED.has(name)) {
      return Object.fromEntries(Object.entries(fields).filter(([known]) => ALLOWED.has(known)))
    }
  }
  return fields
}
