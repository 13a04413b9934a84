import type { Script } from './recording-upstream.ts'
import type { WorldName } from './world.ts'

/** What happens next in a case that is more than one burst of bytes. */
export type Step =
  /** The client sends this. */
  | string
  /** The client has received this. */
  | { readonly until: string }
  /** The upstream has received this. */
  | { readonly seen: string }
  /** The upstream sends this on the connection of the case. */
  | { readonly upstream: string }
  /** The upstream's connection of the case has ended. */
  | { readonly upstreamClosed: true }
  | { readonly upstreamLeaves: 'end' | 'reset' }
  | { readonly leave: 'end' | 'reset' }

/** A text, or what it must match. */
export type Text = string | RegExp

/** What one answer must be. */
export type AnswerRule = {
  readonly status: number | readonly number[]
  /** Of a problem of ours; null: it is none of ours. */
  readonly code?: string | readonly string[] | null
  /** Fields by lower-case name; null: it has none. More of one name are joined by `, `. */
  readonly fields?: Readonly<Record<string, Text | null>>
  readonly body?: Text
  /** The request line, without its version, that the recording upstream says it had. */
  readonly echoes?: string
  /** It ends in the middle, and nobody can take it for whole. */
  readonly isCut?: boolean
}

/** What one request must be when it reaches the upstream. */
export type RequestRule = {
  readonly line: Text
  readonly body?: string
  readonly framing?: 'none' | 'length' | 'chunked'
  /** Whose access token it carries; nobody's unless given. */
  readonly token?: 'alice' | 'bob'
  readonly fields?: Readonly<Record<string, Text | null>>
  /** Address of the client as the upstream is told it. */
  readonly client?: string
  /** Client fields that may say `evil`, because they are data. */
  readonly harmless?: readonly string[]
}

/** One way in which a case may end. */
export type Outcome = {
  readonly answers: readonly AnswerRule[]
  readonly requests: readonly RequestRule[]
  /** What becomes of the client's connection. */
  readonly connection?: 'open' | 'closed'
  readonly interim?: readonly number[]
  /** Whether the upstream receives the beginning of a request that never becomes whole. */
  readonly isAbandoned?: boolean
  /** Bytes through a tunnel: what the client received, what the upstream did. */
  readonly tunnel?: { readonly down: string; readonly up: string }
  /** Whether the upstream's connection serves the next request; not looked at unless given. */
  readonly isUpstreamReused?: boolean
}

/** One named row of a table: bytes in, and what may become of them. */
export type WireCase = {
  /** The row of the list of cases that it belongs to, such as `B2`; or a requirement alone. */
  readonly id: string
  readonly name: string
  /** Requirements that it shows, such as `R-173`. */
  readonly rules?: readonly string[]
  readonly send: string | readonly Step[]
  /** Methods of the requests, where they are not evident from the first word. */
  readonly methods?: readonly string[]
  /** What the upstream does with the request for a target instead of answering 200. */
  readonly script?: readonly [target: string, script: Script]
  readonly world?: WorldName
  /** More than one: each is right. */
  readonly expect: Outcome | readonly Outcome[]
}

export const HOST = 'Host: app.example.test\r\n'
/** Fields of a signed-in user's script. */
export const ALICE = `${HOST}Cookie: {{cookie}}\r\nX-CSRF: 1\r\n`
/** A request that must never be taken for one. */
export const SMUGGLED = `GET /api/admin/smuggled HTTP/1.1\r\n${ALICE}X-Smuggled: evil\r\n\r\n`

/** A request of these parts; `fields` are whole lines. */
export function request(method: string, target: string, fields = HOST, body = ''): string {
  return `${method} ${target} HTTP/1.1\r\n${fields}\r\n${body}`
}

export const get = (target: string, fields = HOST) => request('GET', target, fields)

/** A POST to the public route. */
export const post = (fields: string, body: string, target = '/api/public/x') =>
  request('POST', target, HOST + fields, body)

/** One name as it may be written so that some server takes it for that name: in any case, with any sign for a hyphen. */
export function spellings(name: string): string {
  const written = [
    ...[name, name.toLowerCase(), name.toUpperCase()],
    ...[name.replaceAll('-', '_'), name.replaceAll('-', '_').toUpperCase(), name.replace('-', '_')],
    ...['.', '~', '+', '!', "'", '|', '*', '^'].map((sign) => name.replaceAll('-', sign)),
    ...[name.replace('-', '.'), name.replaceAll('-', '.').toUpperCase()],
  ]
  return [...new Set(written)].map((one) => `${one}: evil\r\n`).join('')
}

/** One row of a table. */
export function row(
  id: string,
  rules: readonly string[],
  name: string,
  send: WireCase['send'],
  expect: WireCase['expect'],
): WireCase {
  return { id, name, send, expect, rules }
}

type Status = AnswerRule['status']
type Code = AnswerRule['code']

/** It is a problem of ours, nothing reaches the upstream; the connection ends unless it is said to stay. */
export function refused(
  status: Status,
  code?: Code,
  connection: 'open' | 'closed' | 'either' = 'closed',
): Outcome {
  return {
    answers: [{ status, ...(code === undefined ? {} : { code }) }],
    requests: [],
    ...(connection === 'either' ? {} : { connection }),
  }
}

/** Refused by a check on a well-formed request: nothing is wrong with the connection. */
export const denied = (status: Status, code: Code) => refused(status, code, 'open')

/** Broken framing: whatever follows on the connection cannot be trusted. */
export const MALFORMED = refused([400, 501], 'bad_request')

/** A path or target that two programs may read differently. */
export const BAD_PATH = refused(400, ['path_rejected', 'bad_request'], 'either')

/** Exactly this one request arrives, and its answer comes back. */
export function forwarded(
  line: Text,
  rule: Omit<RequestRule, 'line'> = {},
  answer: Partial<AnswerRule> = {},
): Outcome {
  const isText = typeof line === 'string'
  return {
    answers: [{ status: 200, code: null, ...(isText ? { echoes: line } : {}), ...answer }],
    requests: [{ line: isText ? `${line} HTTP/1.1` : line, ...rule }],
    connection: 'open',
  }
}

/** The configuration that a case is played in. */
export const worldOf = (one: WireCase): WorldName => one.world ?? 'usual'

/** A case with the values of a world in the places of their `{{names}}`. */
export function fillIn(one: WireCase, values: Readonly<Record<string, string>>): WireCase {
  return fill(one, values) as WireCase
}

/** A text with those values. */
export function fillInText(text: string, values: Readonly<Record<string, string>>): string {
  return text.replace(/\{\{(\w+)\}\}/g, (_, name: string) => values[name] ?? '')
}

function fill(part: unknown, values: Readonly<Record<string, string>>): unknown {
  if (typeof part === 'string') return fillInText(part, values)
  if (Array.isArray(part)) return part.map((one) => fill(one, values))
  if (typeof part !== 'object' || part === null || part instanceof RegExp) return part
  return Object.fromEntries(Object.entries(part).map(([name, one]) => [name, fill(one, values)]))
}
