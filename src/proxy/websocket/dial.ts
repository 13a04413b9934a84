/*
 * The only file that imports http-proxy-middleware, which dials the upstream, writes the 101 and joins the two sockets,
 * or passes on the upstream's refusal.
 *
 * Fragile: the library emits `proxyReqWs` before it adds its own listeners to the request. Listeners that are added there
 * therefore run before the library's, and decide what those find: other fields to write, or a client whose socket has
 * ended, to which they write nothing. This is the order of `websocketIncomingMiddleware` in httpxy 0.5; every test of
 * `handshake.test.ts`, `dial.test.ts` and `dial-refusals.test.ts` that reads a 101 or a refusal fails when it changes.
 *
 * Fragile, too: `forgetHeads` empties `_header` of Node's request. It pays a sixth of the memory of an idle WebSocket; a
 * test of `dial.test.ts` fails when Node keeps the head elsewhere.
 */

import { lookup as systemLookup } from 'node:dns'
import {
  type ClientRequest,
  Agent as HttpAgent,
  type IncomingHttpHeaders,
  type IncomingMessage,
  STATUS_CODES,
} from 'node:http'
import { Agent as HttpsAgent } from 'node:https'
import type { LookupFunction, Socket } from 'node:net'
import { createProxyMiddleware } from 'http-proxy-middleware'
import { systemClock, type Timer } from '../../async/clock.ts'
import type { RouteConfig } from '../../config/config.ts'
import { BffError } from '../../errors.ts'
import type { BffSession } from '../../session/session.ts'
import type { AccessToken } from '../../tokens/record/sealing.ts'
import type { ResponseHeaders } from '../headers/response.ts'
import type { EndReason } from '../session-end/live-connections.ts'
import { refusingLinkLocal, serverNameOf } from '../upstream/lookup.ts'
import { defectOf, isSayable, isUnending, MAX_INTERIM, withoutLength } from '../upstream/response-writer.ts'
import type { TokenProofs } from '../upstream/token-proofs.ts'
import { isAccepted, type Offer } from './handshake.ts'
import { createRelay } from './relay.ts'

/** A checked opening handshake, as the upstream will see it. */
export type Handshake = {
  readonly route: RouteConfig
  readonly target: string
  /** Flat list, without `Connection` and `Upgrade`, and without `Host` unless it is the public one. */
  readonly headers: readonly string[]
  readonly session: BffSession | undefined
  readonly offer: Offer
  /** The access token among the headers, if there is one. */
  readonly token?: AccessToken | undefined
}

/** The client's side of an upgrade. */
export type UpgradingClient = {
  /** The client's request, as the server received it. */
  readonly req: IncomingMessage
  readonly socket: Socket
  /** Bytes the client sent right after its handshake. */
  readonly head: Buffer
  /** Answers with a problem and closes. */
  refuse(error: unknown): void
  observe(status: number): void
  /** Told in every answer. */
  readonly requestId: string
}

export type DialDeps = {
  readonly responseHeaders: ResponseHeaders
  /** Absent: every access token is sent as a bearer token. */
  readonly tokenProofs?: TokenProofs | undefined
  /** Resolves the names of upstreams; the system's look-up unless given. */
  readonly lookup?: LookupFunction
}

/** Sends a handshake to its upstream. Returns the function that ends the attempt, whether it is open by then or not. */
export type Dial = (handshake: Handshake, client: UpgradingClient) => (reason: EndReason) => void

/** One handshake from its dial to its relay, or to the refusal that the client gets instead. */
type Attempt = {
  readonly handshake: Handshake
  readonly client: UpgradingClient
  /** The request to the upstream; absent until the library has made it. */
  request?: ClientRequest
  /** The upstream's 101. */
  response?: IncomingMessage
  /** True once the client gets its 101, the upstream's refusal, or ours. */
  isAnswered: boolean
  /** Limits the time until then: first that of the connection, then that of the upstream's answer. */
  timer?: Timer
  readonly ending: Ending
  /** Breaks off the upstream's refusal; absent until it is passed on. */
  breakOff?: () => void
}

/** How an attempt is ended. Apart from the attempt, because it is all that an open WebSocket needs of it. */
type Ending = {
  /** Refuses the client, closes the relay, or breaks off the upstream's refusal: whichever the attempt has come to. */
  end(reason: EndReason): void
}

/**
 * Makes the function that dials. One instance of the library serves every route; the upstream and the agent of each
 * handshake come from its `router`.
 */
export function createDial({
  responseHeaders,
  tokenProofs,
  lookup = systemLookup as LookupFunction,
}: DialDeps): Dial {
  const agentOf = createAgents(refusingLinkLocal(lookup))
  /** By the client's request and by the upstream's socket, because the library's events name one or the other. */
  const attempts = new WeakMap<IncomingMessage | Socket, Attempt>()

  const { upgrade } = createProxyMiddleware({
    router(req, _, options) {
      const { route } = attempts.get(req)!.handshake
      options.agent = agentOf(route)
      return route.upstream
    },
    // `writeRequest` sets the path, because the library joins paths by its own rules.
    ignorePath: true,
    // With an `Expect`, Node would write the client's own fields before `writeRequest` can replace them.
    headers: { expect: '' },
    // The default plugins log addresses with their query and answer errors in their own words.
    ejectPlugins: true,
    plugins: [
      (proxy) => {
        proxy.on('proxyReqWs', (request, req) => send(attempts.get(req)!, request))
        proxy.on('open', open)
        proxy.on('error', (error, req) => failed(req && attempts.get(req), error))
      },
    ],
  })

  function send(attempt: Attempt, request: ClientRequest): void {
    const { handshake, client } = attempt
    attempt.request = request
    if (attempt.isAnswered || client.socket.destroyed) request.destroy()
    const onLeave = () => request.destroy()
    const onInterim = limitInterim(attempt)
    function onResponse(response: IncomingMessage): void {
      // A refusal for the lack of a nonce is passed on as it is: the client's next attempt has it.
      noteNonce(handshake, response, tokenProofs)
      passOnRefusal(attempt, response, responseHeaders)
    }
    client.socket.once('close', onLeave)
    request.once('close', () => attempt.timer?.cancel())
    request.once('socket', (upstream) => {
      upstream.once('connect', () =>
        limitTime(attempt, 'upstream_timeout', handshake.route.timeout.responseMs),
      )
    })
    writeRequest(request, tokenProofs ? proved(handshake, tokenProofs) : handshake)
    request.on('information', onInterim)
    request.once('response', onResponse)
    request.once('upgrade', (response, upstream) => {
      // Each of these would keep the attempt for as long as the WebSocket is open.
      client.socket.off('close', onLeave)
      request.off('information', onInterim).off('response', onResponse)
      if (accept(attempt, response, responseHeaders)) attempts.set(upstream as Socket, attempt)
      else upstream.destroy()
    })
  }

  /** Called when the library has written the 101 and joined the sockets. */
  function open(upstream: Socket): void {
    const attempt = attempts.get(upstream)
    // It is absent when the 101 was refused. The library has then joined two destroyed sockets.
    if (!attempt) return
    attempts.delete(upstream)
    attempts.delete(attempt.client.req)
    startRelay(attempt, upstream)
    forgetHeads(attempt)
  }

  /** Of an open WebSocket there is no attempt any more: its relay ends both sockets. */
  function failed(attempt: Attempt | undefined, error: Error): void {
    if (attempt) fail(attempt, error)
  }

  return function dial(handshake, client) {
    const attempt = createAttempt(handshake, client)
    attempts.set(client.req, attempt)
    limitTime(attempt, 'upstream_unreachable', handshake.route.timeout.connectMs)
    // Of the empty end of a chunk, the library would keep the whole chunk.
    upgrade(client.req, client.socket, client.head.length > 0 ? client.head : NOTHING)
    return endOf(attempt.ending)
  }
}

const NOTHING = Buffer.alloc(0)

function createAttempt(handshake: Handshake, client: UpgradingClient): Attempt {
  const end = (reason: EndReason) => fail(attempt, ENDED[reason]())
  const attempt: Attempt = { handshake, client, isAnswered: false, ending: { end } }
  return attempt
}

function endOf(ending: Ending): (reason: EndReason) => void {
  return (reason) => ending.end(reason)
}

const ENDED: Readonly<Record<EndReason, () => BffError>> = {
  session_over: () => new BffError('session_required', 'the session ended'),
  shutdown: () => new BffError('upstream_unreachable', 'shutting down'),
}

/** The handshake with a proof for its token (RFC 9449 §7.1). */
function proved(handshake: Handshake, tokenProofs: TokenProofs): Handshake {
  const { route, target, token } = handshake
  if (!token) return handshake
  const headers = [...handshake.headers]
  tokenProofs.prove(headers, { route, target, method: 'GET', token })
  return { ...handshake, headers }
}

function noteNonce(handshake: Handshake, response: IncomingMessage, tokenProofs?: TokenProofs): void {
  tokenProofs?.lacksNonce(handshake, { status: response.statusCode!, headers: response.headers })
}

/** Replaces the client's own fields, of which the library has made the request. Nothing has been sent yet. */
function writeRequest(request: ClientRequest, { route, target, headers }: Handshake): void {
  const host = route.preserveHost ? [] : ['Host', new URL(route.upstream).host]
  const fields = [...headers, ...host, 'Connection', 'Upgrade', 'Upgrade', 'websocket']
  for (const name of request.getHeaderNames()) request.removeHeader(name)
  // Lower-cased, a name that is repeated in another letter case keeps all its values.
  for (const [name, values] of valuesByName(fields, (name) => name.toLowerCase()))
    request.setHeader(name, values)
  request.path = target
}

/** The client must be answered within `ms` from now on, or is refused with `code`. */
function limitTime(attempt: Attempt, code: 'upstream_unreachable' | 'upstream_timeout', ms: number): void {
  attempt.timer?.cancel()
  if (attempt.isAnswered) return
  const tooLate = () => fail(attempt, new BffError(code, 'the upstream did not answer in time'))
  attempt.timer = systemClock.after(ms, tooLate)
}

/** Interim responses do not extend the time for the answer, but reading each one costs time. */
function limitInterim(attempt: Attempt): () => void {
  let count = 0
  return () => {
    // Not later, because the final answer may be in the same packet.
    if (++count > MAX_INTERIM) fail(attempt, new Error('too many interim responses'))
  }
}

/**
 * Whether the upstream's 101 may be passed on. If so, the response then has the fields for the client, which the library
 * writes. If not, the client has been refused, and the library's own write to the ended socket destroys it. An answer to
 * a client that has sent more than 100 kB by then may be followed by a reset; RFC 6455 §4.1 forbids it to send any.
 */
function accept(attempt: Attempt, response: IncomingMessage, responseHeaders: ResponseHeaders): boolean {
  const { handshake, client } = attempt
  if (attempt.isAnswered || client.socket.destroyed || !isAccepted(handshake.offer, response)) {
    fail(attempt, new Error('the upstream did not accept this handshake'))
    return false
  }
  answered(attempt, 101)
  attempt.response = response
  const fields = responseHeaders(handshake.route, response.rawHeaders, false)
  fields.push('x-request-id', client.requestId)
  response.headers = headersOf([...fields, 'Connection', 'Upgrade', 'Upgrade', 'websocket'])
  // The library writes the 101 as text in the default encoding. Latin-1 keeps every byte (RFC 9110 §5.5).
  client.socket.setDefaultEncoding('latin1')
  return true
}

function startRelay({ client: { socket }, handshake, ending }: Attempt, upstream: Socket): void {
  socket.setDefaultEncoding('utf8')
  ending.end = createRelay(socket, upstream, handshake.route.timeout.idleMs)
}

/**
 * The library keeps both requests and the answer for as long as the WebSocket is open. Their heads, with the cookie and
 * the access token, are needed no more, and take a quarter of the memory of an idle WebSocket.
 */
function forgetHeads({ client, request, response }: Attempt): void {
  for (const message of [client.req, response]) Object.assign(message ?? {}, { headers: {}, rawHeaders: [] })
  // Without the text of its head, Node takes the request for one that is not sent yet, whose fields can be removed.
  Object.assign(request ?? {}, { _header: null })
  if (request?.headersSent === false) for (const name of request.getHeaderNames()) request.removeHeader(name)
}

/** Lets the library pass on the upstream's own refusal. The connection ends with it. */
function passOnRefusal(attempt: Attempt, response: IncomingMessage, responseHeaders: ResponseHeaders): void {
  const { handshake, client } = attempt
  const status = response.statusCode!
  // Node emits a 101 without `Upgrade` as a response too. It is no final answer.
  if (attempt.isAnswered || status < 200 || defectOf(status, response.headers) !== undefined) {
    fail(attempt, new Error('the upstream did not accept this handshake'))
    return
  }
  answered(attempt, status)
  const { socket } = client
  // The body ends with the connection (RFC 9112 §6.3), so that only a reset tells the client that a part is missing.
  const breakOff = () => void socket.resetAndDestroy()
  const hasNoEnd = isUnending(response.headers)
  attempt.breakOff = breakOff
  attempt.ending.end = (reason) => {
    if (reason === 'session_over') breakOff()
    // At shutdown a refusal may end by itself, like any response.
    else if (hasNoEnd) socket.end()
  }
  response.once('error', breakOff)
  socket.once('finish', () => socket.destroy())
  socket.setTimeout(handshake.route.timeout.idleMs, breakOff)
  const fields = responseHeaders(handshake.route, response.rawHeaders, handshake.session !== undefined)
  fields.push('x-request-id', client.requestId)
  rewriteRefusal(response, fields)
}

/** Gives the response what the library is to write. */
function rewriteRefusal(response: IncomingMessage, fields: string[]): void {
  const { statusCode, statusMessage } = response
  // The library writes `content-length: 0` for a 205 itself (RFC 9110 §15.3.6).
  const hasLength = statusCode !== 204 && statusCode !== 205
  response.headers = headersOf(hasLength ? fields : withoutLength(fields))
  response.httpVersion = '1.1'
  response.statusMessage = isSayable(statusMessage) ? statusMessage : (STATUS_CODES[statusCode!] ?? '')
}

function answered(attempt: Attempt, status: number): void {
  attempt.timer?.cancel()
  attempt.isAnswered = true
  attempt.client.observe(status)
}

/** Gives the upstream up. Refuses a client that still waits, and breaks off a refusal that is being passed on. */
function fail(attempt: Attempt, error: Error): void {
  const { client, breakOff } = attempt
  attempt.request?.destroy()
  breakOff?.()
  if (attempt.isAnswered || client.socket.destroyed) return
  attempt.timer?.cancel()
  attempt.isAnswered = true
  const isOurs = error instanceof BffError
  client.refuse(
    isOurs ? error : new BffError('upstream_unreachable', 'the upstream did not upgrade', { cause: error }),
  )
}

/** One agent for each route, because TLS identity belongs to an agent. A new client key gets a new agent. */
function createAgents(lookup: LookupFunction): (route: RouteConfig) => HttpAgent {
  const agents = new WeakMap<RouteConfig, { readonly agent: HttpAgent; readonly key: string | undefined }>()
  return function agentOf(route) {
    const key = route.tls?.key?.reveal()
    const known = agents.get(route)
    if (known && known.key === key) return known.agent
    const agent = createAgent(route, { key, lookup })
    agents.set(route, { agent, key })
    return agent
  }
}

/** Each tunnel has its own connection. TLS options belong to the agent, where the library does not rewrite them. */
function createAgent(
  { upstream, tls }: RouteConfig,
  { key, lookup }: { key: string | undefined; lookup: LookupFunction },
): HttpAgent {
  if (!upstream.startsWith('https:')) return new HttpAgent({ keepAlive: false, lookup })
  const { ca, cert } = tls ?? {}
  // Without a name, Node would verify the certificate for the `Host` field.
  const servername = tls?.servername ?? serverNameOf(upstream)
  return new HttpsAgent({ keepAlive: false, lookup, ca, cert, key, servername })
}

function headersOf(fields: readonly string[]): IncomingHttpHeaders {
  return Object.fromEntries(valuesByName(fields, (name) => name))
}

/** The values of a flat list of fields; `nameOf` says which names are the same. */
function valuesByName(
  fields: readonly string[],
  nameOf: (name: string) => string,
): Map<string, string | string[]> {
  const byName = new Map<string, string | string[]>()
  for (let i = 0; i < fields.length; i += 2) {
    const [name, value] = [nameOf(fields[i]!), fields[i + 1]!]
    const known = byName.get(name)
    byName.set(name, known === undefined ? value : [known, value].flat())
  }
  return byName
}
