import { lookup as systemLookup } from 'node:dns'
import {
  type ClientRequest,
  Agent as HttpAgent,
  type IncomingHttpHeaders,
  type IncomingMessage,
} from 'node:http'
import { Agent as HttpsAgent } from 'node:https'
import type { LookupFunction, Socket } from 'node:net'
import { createProxyMiddleware } from 'http-proxy-middleware'
import type { RouteConfig } from '../../config/config.ts'
import { BffError } from '../../errors.ts'
import type { BffSession } from '../../session/bff-session.ts'
import type { ResponseHeaders } from '../headers/response.ts'
import type { EndReason } from '../session-end/live-connections.ts'
import { refusingLinkLocal, serverNameOf } from '../upstream/lookup.ts'
import { defectOf, isUnending, MAX_INTERIM } from '../upstream/response-writer.ts'
import { isAccepted, type Offer } from './handshake.ts'
import { pairSockets } from './relay.ts'
import { relayRefusal, writeSwitch } from './upgrade-answer.ts'

/** A checked opening handshake, as the upstream will see it. */
export type Handshake = {
  readonly route: RouteConfig
  readonly target: string
  /** Flat list, without `Connection` and `Upgrade`, and without `Host` unless it is the public one. */
  readonly headers: readonly string[]
  readonly responseHeaders: ResponseHeaders
  readonly session: BffSession | undefined
  readonly offer: Offer
}

/** The client's side of an upgrade. */
export type UpgradingClient = {
  readonly socket: Socket
  /** Bytes the client sent right after its handshake. */
  readonly head: Buffer
  /** Answers with a problem and closes. */
  refuse(error: unknown): void
  observe(status: number): void
}

type Attempt = {
  readonly handshake: Handshake
  readonly client: UpgradingClient
  /** Closes the open tunnel; absent until it is open. */
  close?: (reason: EndReason) => void
  /** Breaks off the upstream's refusal; absent until it is passed on. */
  breakOff?: () => void
  /** That refusal has no end of its own. */
  isUnending?: boolean
  isOver: boolean
}
type Door = (outbound: IncomingMessage, socket: Socket, head: Buffer) => void

/**
 * The door to http-proxy-middleware, which dials the upstream. It has one instance for each route, because agent and TLS
 * identity belong to an instance; it never sees the server, whose `upgrade` event is ours. What it returns dials, and
 * gives what ends the tunnel, be it open or not yet.
 */
export function createUpgradeDoor(lookup: LookupFunction = systemLookup as LookupFunction) {
  const usable = refusingLinkLocal(lookup)
  const doors = new WeakMap<RouteConfig, { readonly door: Door; readonly key: string | undefined }>()
  const attempts = new WeakMap<IncomingMessage, Attempt>()

  /** A new door when the client key's file changed. */
  function doorOf(route: RouteConfig): Door {
    const key = route.tls?.key?.reveal()
    const known = doors.get(route)
    if (known && known.key === key) return known.door
    const door = createDoor(route, key)
    doors.set(route, { door, key })
    return door
  }

  function createDoor(route: RouteConfig, key: string | undefined): Door {
    const middleware = createProxyMiddleware({
      target: route.upstream,
      agent: createAgent(route, { key, lookup: usable }),
      ignorePath: true,
      // The default plugins log addresses with their query and answer errors in their own words.
      ejectPlugins: true,
      plugins: [
        (proxy) => {
          proxy.on('proxyReqWs', (request, outbound) => begin(attempts.get(outbound)!, request))
          proxy.on('error', (error, outbound) => outbound && fail(attempts.get(outbound)!, error))
        },
      ],
    })
    return middleware.upgrade as Door
  }

  function begin(attempt: Attempt, request: ClientRequest): void {
    const { handshake, client } = attempt
    // Set here and not by the library, which joins paths by its own rules.
    request.path = handshake.target
    const answered = limitTime(request, handshake.route)
    if (client.socket.destroyed) request.destroy()
    client.socket.once('close', () => request.destroy())
    // The library adds its own listeners in this same turn: it would answer with less care, and take a reset for an end.
    process.nextTick(() => {
      for (const event of ['response', 'upgrade', 'error']) request.removeAllListeners(event)
      request.on('error', (error) => fail(attempt, error))
      request.on('information', limitInterim(attempt, request))
      request.once('response', (response) => {
        answered()
        relay(attempt, response)
      })
      request.once('upgrade', (response, upstream, head) => {
        answered()
        accept(attempt, response, { upstream: upstream as Socket, head })
      })
    })
  }

  return function open(handshake: Handshake, client: UpgradingClient): (reason: EndReason) => void {
    const { preserveHost, upstream } = handshake.route
    const host = preserveHost ? [] : ['Host', new URL(upstream).host]
    const headers = [...handshake.headers, ...host]
    const outbound = {
      method: 'GET',
      url: handshake.target,
      // The library serves only what came over a server's socket.
      socket: client.socket,
      headers: headerObject([...headers, 'Connection', 'Upgrade', 'Upgrade', 'websocket']),
    } as IncomingMessage
    const attempt: Attempt = { handshake, client, isOver: false }
    attempts.set(outbound, attempt)
    doorOf(handshake.route)(outbound, client.socket, client.head)
    return (reason) => end(attempt, reason)
  }
}

/** Joins the two sockets, if the upstream's 101 may be passed on. */
function accept(
  attempt: Attempt,
  response: IncomingMessage,
  { upstream, head }: { upstream: Socket; head: Buffer },
): void {
  const { handshake, client } = attempt
  upstream.on('error', () => upstream.destroy())
  if (attempt.isOver || client.socket.destroyed || !isAccepted(handshake.offer, response)) {
    reject(attempt, upstream)
    return
  }
  client.observe(101)
  client.socket.removeAllListeners('error').on('error', () => upstream.end())
  upstream.setNoDelay(true)
  if (head.length > 0) upstream.unshift(head)
  writeSwitch(response, client.socket, handshake)
  upstream.pipe(client.socket).pipe(upstream)
  attempt.close = pairSockets(client.socket, upstream, handshake.route.timeout.idleMs)
}

function reject(attempt: Attempt, upstream: Socket): void {
  upstream.destroy()
  fail(attempt, new Error('the upstream did not accept this handshake'))
}

function end(attempt: Attempt, reason: EndReason): void {
  if (attempt.close) attempt.close(reason)
  // A refusal on its way is an answer like any other: it ends with its connection, or is cut when the drain is over.
  else if (attempt.breakOff && reason === 'shutdown') {
    if (attempt.isUnending) attempt.client.socket.end()
  } else if (reason === 'session_over') fail(attempt, new BffError('session_required', 'the session ended'))
  else fail(attempt, new BffError('upstream_unreachable', 'shutting down'))
}

function relay(attempt: Attempt, response: IncomingMessage): void {
  const { handshake, client } = attempt
  const status = response.statusCode!
  // A 101 that misses a field comes here too, and is no answer that HTTP could pass on.
  if (attempt.isOver || status < 200 || defectOf(status, response.headers) !== undefined) {
    reject(attempt, response.socket)
    return
  }
  attempt.isOver = true
  client.observe(status)
  attempt.isUnending = isUnending(response.headers)
  attempt.breakOff = relayRefusal(response, client.socket, {
    ...handshake,
    isAuthenticated: handshake.session !== undefined,
    idleMs: handshake.route.timeout.idleMs,
  })
}

function fail(attempt: Attempt, error: Error): void {
  const { socket } = attempt.client
  if (attempt.breakOff) {
    attempt.breakOff()
    return
  }
  if (attempt.close || attempt.isOver || socket.destroyed) {
    socket.destroySoon()
    return
  }
  attempt.isOver = true
  const isOurs = error instanceof BffError
  attempt.client.refuse(
    isOurs ? error : new BffError('upstream_unreachable', 'the upstream did not upgrade', { cause: error }),
  )
}

/** The time of the answer is not begun again by them, but each one costs us its reading. */
function limitInterim(attempt: Attempt, request: ClientRequest): () => void {
  let count = 0
  return () => {
    if (++count <= MAX_INTERIM) return
    // At once: the final answer may be in the same packet.
    fail(attempt, new Error('too many interim responses'))
    request.destroy()
  }
}

/** First the connection, then the upstream's answer, each within its own time; call the result when it came. */
function limitTime(request: ClientRequest, { timeout }: RouteConfig): () => void {
  const late = (code: 'upstream_unreachable' | 'upstream_timeout', ms: number) =>
    setTimeout(() => request.destroy(new BffError(code, 'the upstream did not answer in time')), ms)
  let timer = late('upstream_unreachable', timeout.connectMs)
  request.once('socket', (socket) => {
    socket.once('connect', () => {
      clearTimeout(timer)
      timer = late('upstream_timeout', timeout.responseMs)
    })
  })
  const answered = () => clearTimeout(timer)
  request.once('close', answered)
  return answered
}

function createAgent(
  { upstream, tls }: RouteConfig,
  { key, lookup }: { key: string | undefined; lookup: LookupFunction },
): HttpAgent {
  // Each tunnel has its connection; TLS options live in the agent, where the library does not rewrite them.
  if (!upstream.startsWith('https:')) return new HttpAgent({ keepAlive: false, lookup })
  const { ca, cert } = tls ?? {}
  // Node would make the name to verify of the Host.
  const servername = tls?.servername ?? serverNameOf(upstream)
  return new HttpsAgent({ keepAlive: false, lookup, ca, cert, key, servername })
}

/** Names are lower-cased so that a name repeated in another letter case keeps all its values. */
function headerObject(fields: readonly string[]): IncomingHttpHeaders {
  const headers = new Map<string, string[]>()
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i]!.toLowerCase()
    const values = headers.get(name)
    if (values) values.push(fields[i + 1]!)
    else headers.set(name, [fields[i + 1]!])
  }
  return Object.fromEntries(
    Array.from(headers, ([name, values]) => [name, values.length === 1 ? values[0]! : values]),
  )
}
