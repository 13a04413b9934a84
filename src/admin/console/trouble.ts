import type { Clock } from '../../async/clock.ts'
import type { LogFields, TroubleLine } from '../../log.ts'

/**
 * What is kept of a warning, an error or a refusal. The allow-list leaves out the client's path, address, Host and session.
 * The `oauthError` of a failed sign-in is a word that a client can forge.
 */
export type Trouble = {
  /** ISO 8601. */
  readonly at: string
  readonly request_id?: string
  readonly route?: string
  readonly resource?: string
  readonly upstream?: string
  readonly status?: number
  readonly code?: string
  readonly reason?: string
  /** What was done about a token request. */
  readonly outcome?: string
  /** The provider's own words: its OAuth error (RFC 6749 §5.2), codes and ids. */
  readonly oauthError?: string
  readonly suberror?: string
  readonly errorCodes?: string
  readonly traceId?: string
  readonly correlationId?: string
  /** Where a sign-in failed, and the name of the claim that decided; never its value. */
  readonly step?: string
  readonly claim?: string
  readonly cure?: string
  /** Of the error below. */
  readonly cause?: string
}

/** A request that Cloakroom refused. */
export type Refusal = Trouble & { readonly status: number; readonly code: string }

/** Refusals that are alike. The members are those of the last one. */
export type RefusalCause = Refusal & { readonly count: number; readonly firstAt: string }

/** Warnings or errors of the log that are alike. The members are those of the last one. */
export type Warning = Trouble & {
  readonly level: 'warn' | 'error'
  readonly message: string
  readonly count: number
  readonly firstAt: string
}

/** The last troubles of this process, bounded. */
export type Troubles = {
  /** Takes a line of the log. */
  note(line: TroubleLine): void
  /** Refusals since the start. */
  refused(): number
  /** The newest first. */
  lastRefusals(): readonly Refusal[]
  /** The kinds of refusals; the one that came up last is the first. */
  causes(): readonly RefusalCause[]
  /** The kinds of warnings and errors, the newest first. */
  warnings(): readonly Warning[]
  /** The last warning or refusal with this code. */
  lastOfCode(code: string): Trouble | undefined
  /** The last token request for a resource that went wrong. */
  lastOfResource(resource: string): Trouble | undefined
}

/** Changed by each refusal of its kind, because a storm of refusals must cost little. */
type LikeRefusals = { last: Refusal; count: number; readonly firstAt: string }

const LAST = 50
const MOST_CAUSES = 200
const MOST_RESOURCES = 1_000
const MOST_PENDING = 200
const LONGEST_TEXT = 300

const KEPT: ReadonlySet<string> = new Set<keyof LogFields>([
  ...(['request_id', 'route', 'resource', 'upstream', 'code', 'reason', 'outcome'] as const),
  ...(['oauthError', 'suberror', 'errorCodes', 'traceId', 'correlationId', 'step', 'claim', 'cure'] as const),
])

/** The problems that a request for a token may have. */
const TOKEN_CODES: ReadonlySet<unknown> = new Set([
  ...['provider_rejected', 'provider_unavailable', 'reauthentication_required'],
])

/** Remembers the last refusals, warnings and errors that the log has lines of. `now`: epoch ms. */
export function createTroubles({ now }: Pick<Clock, 'now'>): Troubles {
  let refused = 0
  /** Oldest first; up to twice as many as `lastRefusals` returns. */
  const refusals: Refusal[] = []
  const causes = new Map<string, LikeRefusals>()
  let newest: LikeRefusals | undefined
  const warnings = new Map<string, Warning>()
  const ofCode = new Map<string, Trouble>()
  const ofResource = new Map<string, Trouble>()
  /** What was logged of a request before its own line. */
  const pending = new Map<string, Trouble>()

  function noteRefusal(refusal: Refusal): void {
    refused += 1
    refusals.push(refusal)
    // Removes many at a time, because each removal moves all the others.
    if (refusals.length > 2 * LAST) refusals.splice(0, LAST)
    const like = newest !== undefined && areAlike(newest.last, refusal) ? newest : findCause(refusal)
    like.count += 1
    like.last = refusal
    newest = like
  }

  /** The cause of a refusal, new if need be, moved to the end of `causes`. */
  function findCause(refusal: Refusal): LikeRefusals {
    const { code, reason, route, resource, oauthError } = refusal
    const key = `${code}\n${reason}\n${route}\n${resource}\n${oauthError}`
    const like = causes.get(key) ?? { last: refusal, count: 0, firstAt: refusal.at }
    keepLast(causes, key, like, MOST_CAUSES)
    return like
  }

  /** A warning that comes for each of many requests must not push the others out. */
  function noteWarning(level: Warning['level'], message: string, trouble: Trouble): void {
    const { code, route, resource, upstream, reason } = trouble
    const key = JSON.stringify([message, code, route, resource, upstream, reason])
    const before = warnings.get(key)
    const [count, firstAt] = [(before?.count ?? 0) + 1, before?.firstAt ?? trouble.at]
    keepLast(warnings, key, { ...trouble, level, message, count, firstAt }, LAST)
  }

  return {
    note({ level, fields, message }) {
      const trouble = troubleOf(fields, isoTime(now()))
      const { code, resource, request_id, outcome } = trouble
      if (code !== undefined) ofCode.set(code, trouble)
      if (resource !== undefined && (TOKEN_CODES.has(code) || (level !== 'info' && outcome !== undefined)))
        keepLast(ofResource, resource, { ...ofResource.get(resource), ...trouble }, MOST_RESOURCES)
      if (level !== 'info') {
        noteWarning(level, message.slice(0, LONGEST_TEXT), trouble)
        if (request_id !== undefined) keepLast(pending, request_id, trouble, MOST_PENDING)
      }
      // Of the lines about a request its own alone has the path.
      const { status, path } = fields
      if (level !== 'info' || code === undefined || status === undefined || path === undefined) return
      const before = pending.get(request_id ?? '')
      if (before) pending.delete(request_id ?? '')
      const refusal = (before ? { ...before, ...trouble } : trouble) as Refusal
      ofCode.set(code, refusal)
      noteRefusal(refusal)
    },
    refused: () => refused,
    lastRefusals: () => refusals.slice(-LAST).reverse(),
    causes: () =>
      Array.from(causes.values(), ({ last, ...like }) => ({ ...last, ...like })).sort((a, b) =>
        b.firstAt.localeCompare(a.firstAt),
      ),
    warnings: () => [...warnings.values()].reverse(),
    lastOfCode: (code) => ofCode.get(code),
    lastOfResource: (resource) => ofResource.get(resource),
  }
}

let timeMs = Number.NaN
let timeText = ''

/** In a storm of refusals many have the same millisecond, whose text costs more than the rest of a note. */
function isoTime(ms: number): string {
  if (ms !== timeMs) timeText = new Date(ms).toISOString()
  timeMs = ms
  return timeText
}

/** Whether two refusals have the same cause. */
function areAlike(a: Refusal, b: Refusal): boolean {
  const isSameAnswer = a.code === b.code && a.reason === b.reason && a.route === b.route
  return isSameAnswer && a.resource === b.resource && a.oauthError === b.oauthError
}

function troubleOf(fields: LogFields, at: string): Trouble {
  const kept: Record<string, unknown> = { at }
  for (const name in fields) {
    const value = fields[name as keyof LogFields]
    if (value !== undefined && KEPT.has(name)) kept[name] = String(value).slice(0, LONGEST_TEXT)
  }
  if (fields.status !== undefined) kept.status = fields.status
  const { err } = fields
  if (err) {
    const codes = [err.code, err.cause].filter((code) => code !== undefined && !err.message.includes(code))
    kept.cause = [err.message, ...codes].join(' · ').slice(0, LONGEST_TEXT)
  }
  return kept as Trouble
}

/** As the newest; the oldest goes when there are too many. */
function keepLast<Item>(items: Map<string, Item>, key: string, item: Item, most: number): void {
  items.delete(key)
  items.set(key, item)
  if (items.size > most) items.delete(items.keys().next().value!)
}
