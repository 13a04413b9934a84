import type { Clock } from '../../async/clock.ts'
import type { LogFields, TroubleLine } from '../../log.ts'

/**
 * What is shown of a warning, an error or a refusal. The allow-list leaves out the client's path, address, Host and session.
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

/**
 * A line as it was logged, of which a `Trouble` is made when it is shown: a storm of refusals must cost little. `before` is
 * what was logged of its request earlier. Time in epoch ms.
 */
type Line = { readonly fields: LogFields; readonly at: number; readonly before?: Trouble | undefined }

/** Changed by each refusal of its kind. */
type LikeRefusals = { last: Line; count: number; readonly firstAt: number }

const LAST = 50
const MOST_CAUSES = 200
const MOST_RESOURCES = 1_000
const MOST_PENDING = 200
const LONGEST_TEXT = 300

const SHOWN: ReadonlySet<string> = new Set<keyof LogFields>([
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
  const refusals: Line[] = []
  const causes = new Map<string, LikeRefusals>()
  let newest: LikeRefusals | undefined
  const warnings = new Map<string, Warning>()
  const ofCode = new Map<string, Line>()
  const ofResource = new Map<string, Trouble>()
  /** What was logged of a request before its own line. */
  const pending = new Map<string, Trouble>()

  function noteRefusal(line: Line): void {
    refused += 1
    refusals.push(line)
    // Removes many at a time, because each removal moves all the others.
    if (refusals.length > 2 * LAST) refusals.splice(0, LAST)
    const like = newest !== undefined && areAlike(newest.last, line) ? newest : findCause(line)
    like.count += 1
    like.last = line
    newest = like
  }

  /** The cause of a refusal, new if need be, moved to the end of `causes`. */
  function findCause(line: Line): LikeRefusals {
    const { code, reason, route, resource, oauthError } = troubleOf(line)
    const key = `${code}\n${reason}\n${route}\n${resource}\n${oauthError}`
    const like = causes.get(key) ?? { last: line, count: 0, firstAt: line.at }
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

  /** The last of a resource has what those before it told, too. */
  function noteResource(level: TroubleLine['level'], line: Line): void {
    const { code, resource, outcome } = line.fields
    if (resource === undefined) return
    if (!TOKEN_CODES.has(code) && (level === 'info' || outcome === undefined)) return
    keepLast(ofResource, resource, { ...ofResource.get(resource), ...troubleOf(line) }, MOST_RESOURCES)
  }

  return {
    note({ level, fields, message }) {
      const line = { fields, at: now() }
      const { code, status, path, request_id } = fields
      if (code !== undefined) ofCode.set(code, line)
      noteResource(level, line)
      if (level !== 'info') {
        const trouble = troubleOf(line)
        noteWarning(level, message.slice(0, LONGEST_TEXT), trouble)
        if (request_id !== undefined) keepLast(pending, request_id, trouble, MOST_PENDING)
        return
      }
      // Of the lines about a request its own alone has the path.
      if (code === undefined || status === undefined || path === undefined) return
      const before = pending.get(request_id ?? '')
      const refusal = before === undefined ? line : { ...line, before }
      if (before !== undefined) {
        pending.delete(request_id ?? '')
        ofCode.set(code, refusal)
      }
      noteRefusal(refusal)
    },
    refused: () => refused,
    lastRefusals: () => refusals.slice(-LAST).reverse().map(refusalOf),
    causes: () =>
      Array.from(causes.values(), ({ last, count, firstAt }) => ({
        ...refusalOf(last),
        ...{ count, firstAt: new Date(firstAt).toISOString() },
      })).sort((a, b) => b.firstAt.localeCompare(a.firstAt)),
    warnings: () => [...warnings.values()].reverse(),
    lastOfCode(code) {
      const line = ofCode.get(code)
      return line && troubleOf(line)
    },
    lastOfResource: (resource) => ofResource.get(resource),
  }
}

/** Whether two refusals have the same cause. */
function areAlike({ fields: a, before: beforeA }: Line, { fields: b, before: beforeB }: Line): boolean {
  const isSameAnswer = a.code === b.code && a.reason === b.reason && a.route === b.route
  const isSameToken = a.resource === b.resource && a.oauthError === b.oauthError
  // What was logged before may say more of the cause.
  return isSameAnswer && isSameToken && beforeA === undefined && beforeB === undefined
}

function refusalOf(line: Line): Refusal {
  return troubleOf(line) as Refusal
}

function troubleOf({ fields, at, before }: Line): Trouble {
  const shown: Record<string, unknown> = { ...before, at: new Date(at).toISOString() }
  for (const name in fields) {
    const value = fields[name as keyof LogFields]
    if (value !== undefined && SHOWN.has(name)) shown[name] = String(value).slice(0, LONGEST_TEXT)
  }
  if (fields.status !== undefined) shown.status = fields.status
  const { err } = fields
  if (err) {
    const codes = [err.code, err.cause].filter((code) => code !== undefined && !err.message.includes(code))
    shown.cause = [err.message, ...codes].join(' · ').slice(0, LONGEST_TEXT)
  }
  return shown as Trouble
}

/** As the newest; the oldest goes when there are too many. */
function keepLast<Item>(items: Map<string, Item>, key: string, item: Item, most: number): void {
  items.delete(key)
  items.set(key, item)
  if (items.size > most) items.delete(items.keys().next().value!)
}
