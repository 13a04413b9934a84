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
  /** A value of `Host` that was refused. */
  host?: string | undefined
  /** First 12 characters of the session's hashed key. */
  session?: string
  outcome?: string
  oauthError?: string
  suberror?: string
  errorCodes?: string
  correlationId?: string
  /** Scopes or audience of a token that were asked for, and those that came. */
  expected?: string
  actual?: string
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
  'host',
  'session',
  'outcome',
  'oauthError',
  'suberror',
  'errorCodes',
  'correlationId',
  'expected',
  'actual',
  'url',
  'config',
  'signal',
  'count',
  'err',
])

/**
 * Writes JSON lines to `destination`, or to standard output: `info` within 100 ms, `warn` and `error` at once, and
 * everything before the process exits.
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
  const output = options.destination ? undefined : gatheredOutput()
  const log = pino(settings, options.destination ?? output!)
  return {
    info: (fields, message) => log.info(fields, message),
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

const GATHERED_LINES = 64
const GATHERED_MS = 100

/** Standard output, some lines at a time: under load a write to it costs more than all the rest of a line. */
function gatheredOutput() {
  const output = pino.destination({ dest: 1, sync: true })
  let lines: string[] = []
  let timer: NodeJS.Timeout | undefined

  function flush(): void {
    clearTimeout(timer)
    timer = undefined
    if (lines.length === 0) return
    const text = lines.join('')
    lines = []
    output.write(text)
  }
  // Comes after an uncaught exception too.
  process.on('exit', flush)
  return {
    flush,
    write(line: string): void {
      if (lines.push(line) === GATHERED_LINES) flush()
      else timer ??= setTimeout(flush, GATHERED_MS).unref()
    },
  }
}

function onlyAllowed(fields: Record<string, unknown>): Record<string, unknown> {
  for (const name in fields) {
    if (!ALLOWED.has(name)) {
      return Object.fromEntries(Object.entries(fields).filter(([known]) => ALLOWED.has(known)))
    }
  }
  return fields
}
