import type { TokenEvent } from '../profiles/profile.ts'

/** One line of the live log: plain words and names, never a token. */
export type LiveEntry = {
  readonly id: number
  /** Epoch ms. */
  readonly at: number
  readonly kind: 'request' | 'tokens' | 'switch' | 'notice'
  /** What happened, e.g. `GET /api/orders`. */
  readonly what: string
  readonly status?: number
  /** Of a request. */
  readonly route?: string
  readonly resource?: string
  /** Why it went wrong: a code, a reason, or OAuth's `error`. */
  readonly why?: string
  readonly ms?: number
  /** First characters of the session's hash, or the person. */
  readonly who?: string
}

/** The newest lines, and who listens to the next ones. */
export type LiveLog = {
  add(entry: Omit<LiveEntry, 'id' | 'at'>): void
  /** Takes a line of Cloakroom's own log. */
  addLogLine(line: string): void
  addTokenEvent(event: TokenEvent): void
  /** Those behind an id, oldest first. */
  since(id: number): readonly LiveEntry[]
  /** Calls `listener` with each new line. Returns what ends that. */
  listen(listener: (entry: LiveEntry) => void): () => void
}

const KEPT = 500

/** Makes the live log. Lines of Cloakroom's log have passed its list of allowed fields already. */
export function createLiveLog(now: () => number = Date.now): LiveLog {
  const entries: LiveEntry[] = []
  const listeners = new Set<(entry: LiveEntry) => void>()
  // Grows over restarts, too: a panel that reconnects asks for what is behind the last line that it has.
  let last = now()

  function add(given: Omit<LiveEntry, 'id' | 'at'>): void {
    last += 1
    const entry = { id: last, at: now(), ...given }
    entries.push(entry)
    if (entries.length > KEPT) entries.shift()
    for (const listener of listeners) listener(entry)
  }

  return {
    add,
    addLogLine(line) {
      const entry = entryOf(JSON.parse(line))
      if (entry) add(entry)
    },
    addTokenEvent({ grant, user, asked, status, error }) {
      const what = { code: 'sign-in: code for tokens', refresh: 'refresh', other: 'token request' }[grant]
      add({ kind: 'tokens', what, resource: asked, status, why: error ?? '', who: user ?? '' })
    },
    since: (id) => entries.filter((entry) => entry.id > id),
    listen(listener) {
      listeners.add(listener)
      return () => void listeners.delete(listener)
    },
  }
}

/** The members of a log line that are shown. */
type LogLine = {
  readonly level?: string
  readonly msg?: string
  readonly method?: string
  readonly path?: string
  readonly route?: string
  readonly resource?: string
  readonly status?: number
  readonly code?: string
  readonly reason?: string
  readonly oauthError?: string
  readonly durationMs?: number
  readonly session?: string
  readonly err?: { readonly message?: string }
}

function entryOf(line: LogLine): Omit<LiveEntry, 'id' | 'at'> | undefined {
  const why = [line.code, line.reason, line.oauthError].filter((one) => one !== undefined)
  if (line.msg === 'request') {
    return {
      kind: 'request',
      what: `${line.method} ${line.path}`,
      why: why.join(' '),
      ...(line.status === undefined ? {} : { status: line.status }),
      ...(line.route === undefined ? {} : { route: line.route }),
      ...(line.resource === undefined ? {} : { resource: line.resource }),
      ...(line.durationMs === undefined ? {} : { ms: line.durationMs }),
      ...(line.session === undefined ? {} : { who: line.session }),
    }
  }
  if (line.level !== 'warn' && line.level !== 'error') return undefined
  const more = line.err?.message === undefined ? why : [...why, line.err.message]
  return {
    kind: 'notice',
    what: String(line.msg),
    why: more.join(' '),
    ...(line.resource === undefined ? {} : { resource: line.resource }),
  }
}
