import { randomUUID } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { BlockList, isIP, isIPv6, type Socket } from 'node:net'
import type { ListenerLimits } from '../../config/config.ts'
import { BffError, type ErrorCode } from '../../errors.ts'
import { type ProblemAnswer, problemAnswer } from '../problem.ts'
import { endSpan, pathOf, type RequestLog } from '../request-log.ts'
import type { SecurityHeaders } from '../security-headers.ts'
import type { HostCheck } from './host.ts'
import { endWithAnswer } from './raw-answer.ts'

/** Checks every message of the public listener before anything else sees it. */
export type RequestGuard = {
  /** False when the request was answered here. */
  admit(req: IncomingMessage, res: ServerResponse): boolean
  /** False when the upgrade or CONNECT was answered here; its connection then ends. */
  admitUpgrade(req: IncomingMessage): boolean
  /** The answer to bytes that are no request. */
  refusalOf(status: number, detail: string, socket: Pick<Socket, 'remoteAddress'>): ProblemAnswer
}

export type RequestGuardDeps = {
  readonly hosts: HostCheck
  /** Whether the peer is a trusted proxy, whose X-Forwarded-Host counts. */
  readonly isTrustedPeer: (req: IncomingMessage) => boolean
  readonly limits: Pick<ListenerLimits, 'headerCount' | 'urlLength'>
  readonly requestLog: RequestLog
  readonly securityHeaders: SecurityHeaders
  /** Told of each refusal that has no request of its own to be counted with. */
  readonly observe: (method: string, status: number, code: ErrorCode) => void
}

/** Why a message is refused, and its most specific status. The connection ends with the answer. */
type Refusal = {
  readonly code: ErrorCode
  readonly status: number
  readonly detail: string
  readonly headers?: Readonly<Record<string, string>>
}

/** Every method that some resource here may have. */
const EVERY_METHOD = 'GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS'

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
const NO_PLAIN_GET = bad(400, 'an upgrade is asked for with GET and without a body')
const MAX_FORWARDS = bad(400, 'Max-Forwards must be a number')
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

/** Makes the guard: it answers refused messages and closes their connections, and normalizes the others. */
export function createRequestGuard(deps: RequestGuardDeps): RequestGuard {
  const { requestLog, securityHeaders, observe } = deps
  const check = createMessageCheck(deps)

  function refuse(req: IncomingMessage, res: ServerResponse, refusal: Refusal): false {
    const facts = requestLog.begin(req, res)
    facts.code = refusal.code
    const { status, headers, body } = problemOf(refusal, facts.id)
    securityHeaders.set(req, res)
    res.writeHead(status, { ...headers, 'content-length': Buffer.byteLength(body), connection: 'close' })
    res.end(body)
    return false
  }

  /** RFC 9110 §7.6.2: the request must not be forwarded any further. */
  function answerAsLast(req: IncomingMessage, res: ServerResponse): false {
    requestLog.begin(req, res)
    securityHeaders.set(req, res)
    res.writeHead(204, { allow: EVERY_METHOD }).end()
    return false
  }

  /** For a connection without a response object. */
  function rawProblemOf(refusal: Refusal, requestId: string): ProblemAnswer {
    const answer = problemOf(refusal, requestId)
    const headers = { ...securityHeaders.fields, ...answer.headers, 'x-request-id': requestId }
    return { ...answer, headers }
  }

  return {
    admit(req, res) {
      const refusal = check(req)
      // A refused URL too, so that the log never names a host that the client made up.
      req.url = originForm(req.url!)
      if (refusal) return refuse(req, res, refusal)
      if (req.httpVersionMinor === 0) normalizeHttp10(req, res)
      if (req.headers['max-forwards'] === undefined) return true
      // RFC 9110 §7.6.2: the field means nothing with other methods, and some servers refuse it there.
      if (req.method !== 'OPTIONS') return withoutMaxForwards(req.rawHeaders)
      const hops = String(req.headers['max-forwards'])
      if (!/^\d{1,9}$/.test(hops)) return refuse(req, res, MAX_FORWARDS)
      if (Number(hops) === 0) return answerAsLast(req, res)
      countDown(req.rawHeaders, Number(hops) - 1)
      return true
    },

    admitUpgrade(req) {
      const refusal = check(req) ?? (req.method !== 'GET' || hasBody(req) ? NO_PLAIN_GET : undefined)
      req.url = originForm(req.url!)
      if (!refusal) return withoutMaxForwards(req.rawHeaders)
      observe('UPGRADE', refusal.status, refusal.code)
      const known = requestLog.beginUpgrade(req)
      const { id: requestId, traceparent } = known
      known.code = refusal.code
      endSpan(known, req, refusal.status)
      const { method = '' } = req
      requestLog.refused(req.socket, {
        request_id: requestId,
        traceparent,
        method,
        path: pathOf(req),
        ...refusal,
      })
      endWithAnswer(req.socket, rawProblemOf(refusal, requestId), { withBody: method !== 'HEAD' })
      return false
    },

    refusalOf(status, detail, socket) {
      const requestId = randomUUID()
      requestLog.refused(socket, { request_id: requestId, status, code: 'bad_request', detail })
      observe('INVALID', status, 'bad_request')
      return rawProblemOf(bad(status, detail), requestId)
    },
  }
}

function problemOf({ code, status, detail, headers }: Refusal, requestId?: string): ProblemAnswer {
  const error = new BffError(code, detail, headers ? { headers } : {})
  return problemAnswer(error, requestId === undefined ? { status } : { status, requestId })
}

/**
 * Refuses what Node's parser lets through although two servers could read it differently: RFC 9112 §3.2 (target and
 * Host), §6.1 (framing), RFC 9110 §10.1.1 (Expect), and our own limits. Changes nothing.
 */
function createMessageCheck({ hosts, isTrustedPeer, limits }: RequestGuardDeps) {
  const maxRawHeaders = limits.headerCount * 2
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
    // X-Forwarded-Host counts only from a trusted proxy, where it is the host that the browser asked for.
    const proxied = forwarded !== undefined && isTrustedPeer(req) ? forwarded : undefined
    if (proxied === undefined && hosts.served.has(host)) return undefined
    const verdict = hosts.judge(host, req.socket.remoteAddress)
    if (verdict === 'invalid') return HOST
    return (proxied === undefined ? verdict : hosts.judge(proxied, undefined)) === 'served'
      ? undefined
      : misdirected
  }

  return function checkMessage(req: IncomingMessage): Refusal | undefined {
    const { rawHeaders } = req
    const target = req.url!
    if (rawHeaders.length > maxRawHeaders) return TOO_MANY_FIELDS
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

/** The few fields that decide what a message is. Repeated ones are joined by a comma (RFC 9110 §5.3). */
type Fields = Partial<Record<Watched, string>>
type Watched = 'host' | 'expect' | 'content-length' | 'x-forwarded-host' | 'transfer-encoding'

/** Indexed by the length of the name, so that most fields are skipped without comparing letters. */
const WATCHED: readonly (Watched | undefined)[] = Array.from({ length: 18 }, (_, length) =>
  (['host', 'expect', 'content-length', 'x-forwarded-host', 'transfer-encoding'] as const).find(
    (name) => name.length === length,
  ),
)

/** Undefined when a framing field is spelled with an underscore, which CGI-like servers take for the field itself. */
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

/** RFC 9112 §6.1: 501 for a coding that another server may know, 400 for what is no coding. */
function codingRefusal(coding: string): Refusal | undefined {
  if (coding === 'chunked') return undefined
  const codings = coding.split(',').map((one) => one.trim())
  const isList = codings.pop() === 'chunked' && codings.length > 0
  return isList && codings.every((one) => /^[a-z][\w-]*$/.test(one) && !/^(?:chunked|identity)$/.test(one))
    ? UNKNOWN_CODING
    : CODING
}

/** Whether a message has a body (RFC 9112 §6): either field says so. */
export function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0
}

const SLASH = 0x2f
const ABSOLUTE_FORM = /^(?<scheme>https?):\/\/(?<authority>[^/?]*)(?<rest>.*)$/is

/** Path and query of an absolute-form target (RFC 9112 §3.2.2); any other target as it is. */
function originForm(target: string): string {
  if (target.charCodeAt(0) === SLASH) return target
  const { rest } = ABSOLUTE_FORM.exec(target)?.groups ?? {}
  if (rest === undefined) return target
  return rest.charCodeAt(0) === SLASH ? rest : `/${rest}`
}

function normalizeHttp10(req: IncomingMessage, res: ServerResponse): void {
  // RFC 9110 §10.1.1: a server must not send 100 to an HTTP/1.0 client.
  delete req.headers.expect
  // RFC 9112 §9.3: `close` overrides a `keep-alive` beside it; Node's parser has it the other way round.
  if (/(?:^|,)\s*close\s*(?:,|$)/i.test(req.headers.connection ?? '')) res.shouldKeepAlive = false
}

function withoutMaxForwards(raw: string[]): true {
  for (let i = raw.length - 2; i >= 0; i -= 2) {
    if (raw[i]!.toLowerCase() === 'max-forwards') raw.splice(i, 2)
  }
  return true
}

/** Updates the forwarded fields: the request may go so many hops further. */
function countDown(raw: string[], hops: number): void {
  for (let i = 0; i < raw.length; i += 2) {
    if (raw[i]!.toLowerCase() === 'max-forwards') raw[i + 1] = String(hops)
  }
}

/** Returns the address of the browser: the peer's, or the one that trusted proxies report. */
export type ClientAddress = (req: IncomingMessage) => string

/**
 * Walks X-Forwarded-For from its end, for as long as the last address is a trusted proxy's. The first one that is not is
 * the client's. An untrusted peer's field is ignored (RFC 7239 §8.1).
 *
 * @param trustProxy addresses and CIDR blocks.
 */
export function createClientAddress(trustProxy: readonly string[]): ClientAddress {
  const trusted = blockListOf(trustProxy)
  return function clientAddress(req) {
    let address = plain(req.socket.remoteAddress ?? '')
    if (trustProxy.length === 0) return address
    const said = [req.headers['x-forwarded-for'] ?? []].flat().join(',').split(',')
    while (said.length > 0 && isTrusted(trusted, address)) {
      const next = plain(withoutPort(said.pop()?.trim() ?? ''))
      if (isIP(next) === 0) break
      address = next
    }
    return address
  }
}

/** Returns whether the peer of a connection is one of the trusted proxies. */
export type TrustedPeers = (req: Pick<IncomingMessage, 'socket'>) => boolean

/** @param trustProxy addresses and CIDR blocks. */
export function createTrustedPeers(trustProxy: readonly string[]): TrustedPeers {
  const trusted = blockListOf(trustProxy)
  return ({ socket }) => trustProxy.length > 0 && isTrusted(trusted, plain(socket.remoteAddress ?? ''))
}

function blockListOf(blocks: readonly string[]): BlockList {
  const list = new BlockList()
  for (const block of blocks) {
    const [address = '', bits] = block.split('/')
    const family = isIP(address) === 6 ? 'ipv6' : 'ipv4'
    if (bits === undefined) list.addAddress(address, family)
    else list.addSubnet(address, Number(bits), family)
  }
  return list
}

function isTrusted(list: BlockList, address: string): boolean {
  const family = isIP(address)
  return family !== 0 && list.check(address, family === 6 ? 'ipv6' : 'ipv4')
}

/** Some proxies, Azure Application Gateway among them, write `1.2.3.4:5678` or `[2001:db8::1]:5678`. */
function withoutPort(node: string): string {
  const [, v6, v4] = /^(?:\[([0-9A-Fa-f:.]+)\](?::\d+)?|(\d+(?:\.\d+){3}):\d+)$/.exec(node) ?? []
  return v6 ?? v4 ?? node
}

/** An IPv4 peer of a dual-stack socket shows as `::ffff:a.b.c.d`. */
function plain(address: string): string {
  return address.startsWith('::ffff:') && address.includes('.') ? address.slice(7) : address
}

/**
 * Returns what counts as one client: an IPv4 address, or the /64 of an IPv6 address, because a subscriber gets a whole /64
 * (RFC 6177 §2). Any other text is a client by itself.
 */
export function clientNetwork(address: string): string {
  // The zone names an interface of this machine, not the client.
  const [withoutZone = ''] = address.split('%', 1)
  if (!isIPv6(withoutZone)) return address
  const groups = ipv6Groups(withoutZone)
  const [a = 0, b = 0] = groups.slice(6)
  const isMapped = groups.slice(0, 5).every((group) => group === 0) && groups[5] === 0xffff
  if (isMapped) return [a >> 8, a & 255, b >> 8, b & 255].join('.')
  const prefix = groups.slice(0, 4).map((group) => group.toString(16))
  return `${prefix.join(':')}::/64`
}

/** The eight groups of an IPv6 address in any spelling. */
function ipv6Groups(address: string): number[] {
  // The host of a URL is in hexadecimal, with at most one `::` (WHATWG URL, IPv6 serializer).
  const [before = '', after = ''] = new URL(`http://[${address}]`).hostname.slice(1, -1).split('::')
  const [head, tail] = [groupsIn(before), groupsIn(after)]
  return [...head, ...Array<number>(8 - head.length - tail.length).fill(0), ...tail]
}

function groupsIn(text: string): number[] {
  return text === '' ? [] : text.split(':').map((group) => Number.parseInt(group, 16))
}
