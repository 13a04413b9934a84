import type { Span, Trace } from '../../async/trace.ts'
import type { RouteConfig } from '../../config/config.ts'
import type { Logger } from '../../log.ts'
import type { BffSession } from '../../session/session.ts'
import type { ResponseHeaders } from '../headers/response.ts'
import {
  createLiveConnections,
  createLongAnswers,
  type WatchSession,
} from '../session-end/live-connections.ts'
import { createSend, type Send, type Upstream } from './exchange.ts'
import { HTTP2_STREAMS } from './http2/connections.ts'
import { createAdmission, createDispatcher, type DispatcherOptions } from './pool.ts'
import { createBufferCollector } from './undocumented.ts'

/** The connections to all upstreams of one configuration. */
export type Upstreams = {
  readonly send: Send
  /** Ends the answers without an end of their own that a session which ended has open. */
  endSession(session: BffSession['hash']): void
  /** Whether the session has one open. */
  hasSession(session: BffSession['hash']): boolean
  /** Every session that has one. */
  sessions(): BffSession['hash'][]
  /** Ends every answer of a type without an end of its own, and those to come, at shutdown. */
  endEventStreams(): void
  /** The routes whose circuit is open, by id, with the ms until the next probe may go. */
  openCircuits(): ReadonlyMap<string, number>
  /** Resolves when every request in flight has ended; takes no new ones. */
  close(): Promise<void>
  /** Ends every request in flight. */
  destroy(): Promise<void>
}

export type UpstreamsDeps = DispatcherOptions &
  Pick<Upstream, 'bodyPace' | 'clock' | 'tokenProofs' | 'observe' | 'runFor'> & {
    /** Told when an answer without an end of its own begins and ends. */
    readonly observeStreams?: (change: 1 | -1) => void
    /** Told when the circuit of an upstream opens, and when it closes. */
    readonly observeBreaker: (upstream: string, isOpen: boolean) => void
    /** Gets a line of both. */
    readonly log?: Pick<Logger, 'info' | 'warn'>
    /** Asked for each answer that may outlive its session. */
    readonly watch: WatchSession
    readonly responseHeaders: ResponseHeaders
    readonly trace?: Pick<Trace, 'part'> | undefined
  }

/** Opens one set of connections for each distinct upstream, limits and TLS identity among the routes. */
export function createUpstreams(routes: readonly RouteConfig[], deps: UpstreamsDeps): Upstreams {
  const byKey = new Map<string, Upstream>()
  const byRoute = new Map<RouteConfig, Upstream>()
  const live = createLiveConnections()
  const { bodyPace, responseHeaders, clock, tokenProofs, observe, runFor } = deps
  const longAnswers = createLongAnswers(live, deps)
  const shared = {
    ...{ longAnswers, bodyPace, responseHeaders, clock, tokenProofs, observe, runFor },
    bodyPassed: createBufferCollector(),
  }
  let isClosing = false
  for (const route of routes) {
    const key = keyOf(route)
    const upstream = byKey.get(key) ?? openUpstream(route)
    byKey.set(key, upstream)
    byRoute.set(route, upstream)
  }

  function openUpstream(route: RouteConfig): Upstream {
    const { connections, http2, breaker } = route
    const permits = connections === undefined ? undefined : connections * (http2 ? HTTP2_STREAMS : 1)
    const admission = createAdmission({
      ...{ breaker, permits, clock },
      observe: () => observeBreaker(route.upstream),
    })
    return { ...shared, admission, dispatcher: createDispatcher(route, deps) }
  }

  /** Routes may have circuit breakers of their own for one upstream. */
  function observeBreaker(upstream: string): void {
    // The next configuration speaks for the upstream by now.
    if (isClosing) return
    const isOpen = Array.from(byRoute).some(
      ([route, { admission }]) => route.upstream === upstream && admission.isOpen(),
    )
    deps.observeBreaker(upstream, isOpen)
    if (isOpen)
      deps.log?.warn({ upstream }, 'the upstream does not answer: its circuit is open, but for a probe')
    else deps.log?.info({ upstream }, 'the upstream answers again')
  }

  function openCircuits(): ReadonlyMap<string, number> {
    const open = Array.from(byRoute).filter(([, { admission }]) => admission.isOpen())
    return new Map(open.map(([{ id }, { admission }]) => [id, admission.openLeftMs()]))
  }

  async function close(): Promise<void> {
    isClosing = true
    await Promise.all(Array.from(byKey.values(), ({ dispatcher }) => dispatcher.close()))
  }
  async function destroy(): Promise<void> {
    isClosing = true
    await Promise.all(Array.from(byKey.values(), ({ dispatcher }) => dispatcher.destroy()))
  }
  const { hasSession, sessions, endSession } = live
  const send = traced(deps, createSend(byRoute))
  const { endAll: endEventStreams } = longAnswers
  return { send, hasSession, sessions, endSession, endEventStreams, openCircuits, close, destroy }
}

/** The upstream's part of a trace, which it is told as its parent. */
function traced({ trace, runFor }: Pick<UpstreamsDeps, 'trace' | 'runFor'>, send: Send): Send {
  if (!trace) return send
  return function sendTraced(req, res, outbound, over) {
    const { route, headers } = outbound
    const part = { 'server.address': route.upstream, 'http.route': route.id }
    const sendPart = (span: Span) => {
      const at = headers.indexOf('traceparent')
      if (at === -1) headers.push('traceparent', span.traceparent)
      else headers[at + 1] = span.traceparent
      return new Promise<void>((resolve, reject) => {
        send(req, res, outbound, (error) => (error ? reject(error) : resolve()))
      })
    }
    const ended = runFor(req, () => trace.part('upstream', part, sendPart))
    ended.then(() => over(), over)
  }
}

/** Routes share connections unless a client key is involved, which must not serve another route by accident. */
function keyOf({
  id,
  upstream,
  timeout,
  tls,
  http2,
  connections,
  breaker,
  preserveHost,
}: RouteConfig): string {
  const identity = tls && [tls.ca, tls.cert, tls.servername, tls.key && id]
  const limits = [preserveHost, http2, connections, breaker.failures, breaker.pauseMs]
  return JSON.stringify([upstream, timeout.connectMs, identity, limits])
}
