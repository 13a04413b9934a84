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
  err?: { name: string; code?: string; message: string; cause?: string }
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

/** Writes JSON lines to `destination` (default: standard output). */
export function createLogger(
  options: { level?: string; destination?: { write(line: string): void } } = {},
): Logger {
  const settings = {
    level: options.level ?? 'info',
    base: undefined,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: {
      level: (label: string) => ({ level: label }),
      log: (fields: object) =>
        Object.fromEntries(Object.entries(fields).filter(([name]) => ALLOWED.has(name))),
    },
    // Our own `err` is already reduced to safe fields; pino's serializer would look for a stack.
    serializers: { err: (err: unknown) => err },
  }
  const log = options.destination ? pino(settings, options.destination) : pino(settings)
  return {
    info: (fields, message) => log.info(fields, message),
    warn: (fields, message) => log.warn(fields, message),
    error: (fields, message) => log.error(fields, message),
  }
}

/** What of an unknown error may be logged: its name, code, one-line message and the cause's code; never its properties. */
export function describeError(error: unknown): NonNullable<LogFields['err']> {
  if (!(error instanceof Error)) return { name: 'unknown', message: typeof error }
  const code = codeOf(error)
  const cause = error.cause instanceof Error ? (codeOf(error.cause) ?? error.cause.name) : undefined
  return {
    name: error.name,
    message: error.message.replace(/[\r\n]+/g, ' ').slice(0, 300),
    ...(code ? { code } : {}),
    ...(cause ? { cause } : {}),
  }
}

function codeOf(error: Error): string | undefined {
  const { code } = error as Error & { code?: unknown }
  return typeof code === 'string' ? code : undefined
}
