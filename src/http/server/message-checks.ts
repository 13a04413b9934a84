import type { IncomingMessage } from 'node:http'
import type { ListenerLimits } from '../../config/config.ts'
import type { ErrorCode } from '../../errors.ts'
import type { HostCheck } from './host.ts'

/** Why a message is not let in, and the status that says it best. Its connection ends with the answer. */
export type Refusal = {
  readonly code: ErrorCode
  readonly status: number
  readonly detail: string
  readonly headers?: Readonly<Record<string, string>>
}

/** Looks at the head of a message before anything else does; undefined when it may be served. Changes nothing. */
export type MessageCheck = (req: IncomingMessage) => Refusal | undefined

export type MessageRules = {
  readonly hosts: HostCheck
  /** Whether what the peer says in X-Forwarded-* is believed. */
  readonly isTrustedPeer: (req: IncomingMessage) => boolean
  readonly limits: Pick<ListenerLimits, 'headerCount' | 'urlLength'>
}

/** Every method that some resource here may have. */
export const EVERY_METHOD = 'GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS'

const bad = (status: number, detail: string): Refusal => ({ code: 'bad_request', status, detail })
const TOO_MANY_FIELDS = bad(431, 'the request has more header fields than this server takes')
const URL_TOO_LONG = bad(414, 'the path and query are longer than this server takes')
const VERSION = bad(505, 'only HTTP/1.1 and HTTP/1.0 are spoken here')
const HOST = bad(400, 'exactly one valid Host is needed')
const CODING = bad(400, 'Transfer-Encoding must be "chunked", once, and only in HTTP/1.1')
const UNKNOWN_CODING = bad(501, 'the only transfer coding known here is "chunked"')
const LENGTH = bad(400, 'Content-Length must be one number without leading zeros')
const BOTH_FRAMINGS = bad(400, 'Content-Length and Transfer-Encoding exclude each other')
const UNDERSCORE = bad(400, 'a name of message framing is written with an underscore')
const EXPECTATION = bad(417, 'the only expectation known here is "100-continue"')
const METHOD: Refusal = {
  code: 'method_not_allowed',
  status: 405,
  detail: 'CONNECT and TRACE are not served',
  headers: { allow: EVERY_METHOD },
}
const TARGET: Refusal = {
  code: 'path_rejected',
  status: 400,
  detail: 'request target refused: only a path, or a URL of this site that agrees with Host, is served',
}

const SLASH = 0x2f

/**
 * Makes the check for what Node's parser lets through although two servers could read it differently: RFC 9112 §3.2
 * (target and Host), §6.1 (framing), RFC 9110 §10.1.1 (Expect), and our own limits.
 */
export function createMessageCheck({ hosts, isTrustedPeer, limits }: MessageRules): MessageCheck {
  const mostEntries = limits.headerCount * 2
  const misdirected: Refusal = {
    code: 'misdirected_request',
    status: 421,
    detail: `this server answers for the host ${hosts.expected}`,
  }

  function isOwnUrl(target: string, host: string, req: IncomingMessage): boolean {
    const { scheme = '', authority = '' } = ABSOLUTE_FORM.exec(target)?.groups ?? {}
    const isServed = hosts.judge(authority, req.socket.remoteAddress) === 'served'
    return isServed && hosts.isSameOrigin(scheme.toLowerCase(), authority, host)
  }

  function checkHost(req: IncomingMessage, host: string, forwarded: string | undefined) {
    const verdict = hosts.judge(host, req.socket.remoteAddress)
    if (verdict === 'invalid') return HOST
    // Of a stranger X-Forwarded-Host says nothing; of our proxy it is what the browser asked for, as one value.
    const asked = forwarded === undefined || !isTrustedPeer(req) ? verdict : hosts.judge(forwarded, undefined)
    return asked === 'served' ? undefined : misdirected
  }

  return function checkMessage(req) {
    const { rawHeaders } = req
    const target = req.url!
    if (rawHeaders.length > mostEntries) return TOO_MANY_FIELDS
    if (target.length > limits.urlLength) return URL_TOO_LONG
    if (req.httpVersionMajor !== 1) return VERSION
    const fields = readFields(rawHeaders)
    if (fields === undefined) return UNDERSCORE
    const refusal = checkFraming(req, fields)
    if (refusal) return refusal
    if (req.method === 'TRACE' || req.method === 'CONNECT') return METHOD
    if (fields.host === undefined) return HOST
    if (target.charCodeAt(0) !== SLASH && !isOwnUrl(target, fields.host, req)) return TARGET
    if (target.includes('#')) return TARGET
    return checkHost(req, fields.host, fields['x-forwarded-host'])
  }
}

/** Path and query of an absolute-form target (RFC 9112 §3.2.2); any other target as it is. */
export function originForm(target: string): string {
  if (target.charCodeAt(0) === SLASH) return target
  const { rest } = ABSOLUTE_FORM.exec(target)?.groups ?? {}
  if (rest === undefined) return target
  return rest.charCodeAt(0) === SLASH ? rest : `/${rest}`
}

/** Whether a message has a body (RFC 9112 §6): either field says so. */
export function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0
}

/** The few fields that decide what a message is; one that is repeated reads as the comma list it means (RFC 9110 §5.3). */
type Fields = Partial<Record<Watched, string>>
type Watched = 'host' | 'expect' | 'content-length' | 'x-forwarded-host' | 'transfer-encoding'

/** By length, so that most fields are passed over without a look at their letters. */
const WATCHED: readonly (Watched | undefined)[] = Array.from({ length: 18 }, (_, length) =>
  (['host', 'expect', 'content-length', 'x-forwarded-host', 'transfer-encoding'] as const).find(
    (name) => name.length === length,
  ),
)

/** Undefined when a framing field comes in the spelling that CGI-like servers take for it. */
function readFields(raw: readonly string[]): Fields | undefined {
  const fields: Fields = {}
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i]!
    const watched = name.length < 18 ? WATCHED[name.length] : undefined
    if (watched === undefined || (name.charCodeAt(0) | 0x20) !== watched.charCodeAt(0)) continue
    if (name !== watched && name.toLowerCase() !== watched) {
      if (isUnderscoreTwin(name, watched)) return undefined
      continue
    }
    const before = fields[watched]
    fields[watched] = before === undefined ? raw[i + 1]! : `${before},${raw[i + 1]!}`
  }
  return fields
}

function isUnderscoreTwin(name: string, watched: Watched): boolean {
  const isFraming = watched === 'content-length' || watched === 'transfer-encoding'
  return isFraming && name.includes('_') && name.toLowerCase().replaceAll('_', '-') === watched
}

function checkFraming(req: IncomingMessage, fields: Fields): Refusal | undefined {
  const coding = fields['transfer-encoding']
  const length = fields['content-length']
  if (coding !== undefined) {
    if (length !== undefined) return BOTH_FRAMINGS
    if (req.httpVersionMinor === 0) return CODING
    const refusal = coding === 'chunked' ? undefined : codingRefusal(coding.toLowerCase())
    if (refusal) return refusal
  }
  // Fifteen digits are a petabyte, and every such number is exact.
  if (length !== undefined && !/^(?:0|[1-9]\d{0,14})$/.test(length)) return LENGTH
  // RFC 9110 §10.1.1: HTTP/1.0 has no expectations.
  const isUnmet = fields.expect !== undefined && fields.expect.toLowerCase() !== '100-continue'
  return isUnmet && req.httpVersionMinor === 1 ? EXPECTATION : undefined
}

/** RFC 9112 §6.1: 501 for a coding that somebody may know; the rest is no coding at all. */
function codingRefusal(coding: string): Refusal | undefined {
  if (coding === 'chunked') return undefined
  const codings = coding.split(',').map((one) => one.trim())
  const isList = codings.pop() === 'chunked' && codings.length > 0
  return isList && codings.every((one) => /^[a-z][\w-]*$/.test(one) && !/^(?:chunked|identity)$/.test(one))
    ? UNKNOWN_CODING
    : CODING
}

const ABSOLUTE_FORM = /^(?<scheme>https?):\/\/(?<authority>[^/?]*)(?<rest>.*)$/is
