import { pino } from 'pino'

/** The fields a log line may have. Allow-listed: a token, cookie, claim or body has no field to land in. */
export type LogFields = {
  requestId?: string
  method?: string
  /** Path without query; only of Cloakroom's own endpoints and of routes. */
  path?: string
  route?: string
  resource?: string
  upstream?: string
  status?: number
  code?: string
  reason?: string
  durationMs?: number
  bytes?: number
  clientIp?: string
  /** First 12 characters of the session's hashed key. */
  session?: string
  outcome?: string
  oauthError?: string
  suberror?: string
  errorCodes?: string
  correlationId?: string
  url?: string
  config?: string
  signal?: string
  count?: number
  /** What `describeError` leaves of an error. */
  err?: { readonly name: string; readonly message: string; readonly code?: string; readonly cause?: string }
}

/** One structured line per call; the only way this program writes to its log. */
export type Logger = {
  info(fields: LogFields, message: string): void
  warn(fields: LogFields, message: string): void
  error(fields: LogFields, message: string): void
}

const ALLOWED = new Set([
  'requestId',
  'method',
  'path',
  'route',
  'resource',
  'upstream',
  'status',
  'code',
  'reason',
  'durationMs',
  'bytes',
  'clientIp',
  'session',
  'outcome',
  'oauthError',
  'suberror',
  'errorCodes',
  'correlationId',
  'url',
  'config',
  'signal',
  'count',
  'err',
])

/** Lines are gathered up to this size, or for this long, before they are written: a write costs more than a line. */
const GATHERED_BYTES = 8192
const GATHERED_MS = 100
/** When nobody reads the log, what exceeds this is lost rather than the service. */
const HELD_BYTES = 32 * 1024 * 1024

/**
 * Writes JSON lines to `destination`, or to standard output in the background: `info` within 100 ms, `warn` and
 * `error` at once, everything before an orderly exit.
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
  const output = options.destination ? undefined : standardOutput()
  const log = pino(settings, options.destination ?? output!)
  const flush = () => output?.flush()
  return {
    info: (fields, message) => log.info(fields, message),
    warn(fields, message) {
      log.warn(fields, message)
      flush()
    },
    error(fields, message) {
      log.error(fields, message)
      flush()
    },
  }
}

function standardOutput() {
  return pino.destination({
    dest: 1,
    sync: false,
    minLength: GATHERED_BYTES,
    periodicFlush: GATHERED_MS,
    maxLength: HELD_BYTES,
  })
}

function onlyAllowed(fields: Record<string, unknown>): Record<string, unknown> {
  for (const name in fields) {
    if (!ALLOWED.has(name)) {
      return Object.fromEntries(Object.entries(fields).filter(([known]) => ALLOWED.has(known)))
    }
  }
  return fields
}
