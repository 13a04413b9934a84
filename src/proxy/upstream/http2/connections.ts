import { type Settings, connect as startSession } from 'node:http2'
import type { Socket } from 'node:net'
import type { Clock, Timer } from '../../../async/clock.ts'
import type { RouteConfig } from '../../../config/config.ts'
import { type Dispatcher, Http2Error, noConnectionInTime } from '../dispatcher.ts'
import { type Http2Connection, Http2Request, http2RequestHead } from './request.ts'

/** Dials, TLS and ALPN included; calls back once. */
export type Dial = (callback: (error: Error | null, socket: Socket | null) => void) => void

export type Http2ConnectionsDeps = {
  readonly dial: Dial
  /** How long a connection takes new requests, in ms. */
  readonly ttlMs: number
  readonly clock: Clock
}

/** Requests at the same time on one connection, if the upstream allows as many. */
export const HTTP2_STREAMS = 100
/** A connection without requests ends after so long, as undici's do. */
const IDLE_MS = 4_000
/** How long a connection may take to answer a ping, after one of its requests got no answer. */
const PING_MS = 5_000
/** How often a request is sent again after a connection refused all; the first pause, which doubles. */
const MOST_REFUSALS = 5
const REFUSED_PAUSE_MS = 10

type Connection = Http2Connection & {
  readonly openedAt: number
  /** Streams that are not closed yet. */
  active: number
  /** Undefined before the upstream has said it: a single stream is tried until then. */
  mostStreams: number | undefined
  /** It takes no more requests. */
  isRetired: boolean
  isSilent: boolean
  idle: Timer | undefined
}
type Waiting = { readonly request: Http2Request; readonly timer: Timer }

/** Makes the connections over HTTP/2 to one upstream, none of them open. */
export function createHttp2Connections(
  { upstream, connections: most = Number.POSITIVE_INFINITY, timeout }: RouteConfig,
  { dial, ttlMs, clock }: Http2ConnectionsDeps,
): Dispatcher {
  const origin = new URL(upstream)
  const open = new Set<Connection>()
  const queue: Waiting[] = []
  const deadlines = new WeakMap<Http2Request, number>()
  const pauses = new Map<Http2Request, Timer>()
  let dialing = 0
  /** What the last connection allowed. */
  let usualStreams = HTTP2_STREAMS
  let isFirst = false
  let isClosing = false
  let isDestroyed = false
  let closed: (() => void) | undefined

  function enqueue(request: Http2Request, { isNext = false } = {}): void {
    const waitMs = Math.max(1, deadlines.get(request)! - clock.monotonicNow())
    const timer = clock.after(waitMs, () => {
      dequeue(request)
      request.fail(noConnectionInTime())
    })
    // A request that was refused has waited longest.
    if (isNext) queue.unshift({ request, timer })
    else queue.push({ request, timer })
  }

  function dequeue(request: Http2Request): void {
    pauses.get(request)?.cancel()
    pauses.delete(request)
    const at = queue.findIndex((waiting) => waiting.request === request)
    if (at === -1) return
    queue[at]!.timer.cancel()
    queue.splice(at, 1)
  }

  function serveQueue(): void {
    while (queue.length > 0) {
      const connection = connectionWithRoom()
      if (!connection) break
      const { request, timer } = queue.shift()!
      timer.cancel()
      send(request, connection)
    }
    dialAsNeeded()
    if (isClosing) endIfDone()
  }

  function connectionWithRoom(): Connection | undefined {
    for (const connection of open) {
      if (clock.monotonicNow() - connection.openedAt >= ttlMs) retire(connection)
      if (roomOf(connection) > 0) return connection
    }
    return undefined
  }

  function send(request: Http2Request, connection: Connection): void {
    const { method, path, headers } = request.request
    connection.idle?.cancel()
    isFirst = !connection.isUsed
    const stream = request.sendOn(connection, http2RequestHead(headers, { method, path, origin }))
    isFirst = false
    if (!stream) {
      idleFrom(connection)
      return
    }
    connection.isUsed = true
    connection.active += 1
    stream.once('close', () => {
      connection.active -= 1
      idleFrom(connection)
      serveQueue()
    })
  }

  function idleFrom(connection: Connection): void {
    if (connection.active > 0) return
    if (connection.isRetired) connection.session.close()
    else connection.idle = clock.after(IDLE_MS, () => retire(connection)).unref()
  }

  function retire(connection: Connection): void {
    connection.isRetired = true
    connection.idle?.cancel()
    connection.session.close()
  }

  /** Dials as many connections as the waiting requests need, if each takes as many streams as the last one. */
  function dialAsNeeded(): void {
    if (isDestroyed) return
    const usable = [...open].filter(({ isRetired, isSilent }) => !isRetired && !isSilent)
    // An upstream that refuses requests now would refuse them on another connection, too.
    if (usable.some(({ mostStreams }) => mostStreams === 0)) return
    const each = Math.max(1, usualStreams)
    const toCome = usable.filter(({ mostStreams }) => mostStreams === undefined)
    let room = dialing * each + toCome.reduce((sum, { active }) => sum + each - active, 0)
    while (queue.length > room && usable.length + dialing < most) {
      dialing += 1
      room += each
      dial(connected)
    }
  }

  function connected(error: Error | null, socket: Socket | null): void {
    dialing -= 1
    if (isDestroyed) socket?.destroy()
    else if (socket) adopt(socket)
    else if (dialing === 0 && ![...open].some(({ isRetired }) => !isRetired))
      for (const { request } of [...queue]) {
        dequeue(request)
        request.fail(error!)
      }
    serveQueue()
  }

  function adopt(socket: Socket): void {
    const session = startSession(upstream, {
      createConnection: () => socket,
      peerMaxConcurrentStreams: HTTP2_STREAMS,
      settings: { enablePush: false },
    })
    const connection: Connection = {
      ...{ session, isUsed: false, lastStreamId: undefined, goAwayCode: undefined },
      ...{ openedAt: clock.monotonicNow(), active: 0 },
      ...{ mostStreams: undefined, isRetired: false, isSilent: false, idle: undefined },
    }
    open.add(connection)
    session.on('remoteSettings', ({ maxConcurrentStreams = HTTP2_STREAMS }: Settings) => {
      connection.mostStreams = Math.min(maxConcurrentStreams, HTTP2_STREAMS)
      usualStreams = connection.mostStreams
      serveQueue()
    })
    session.on('goaway', (code, lastStreamId) => {
      connection.isRetired = true
      connection.goAwayCode = code
      connection.lastStreamId = lastStreamId
    })
    // Each stream is told by itself.
    session.on('error', () => undefined)
    session.on('close', () => {
      connection.isRetired = true
      connection.idle?.cancel()
      open.delete(connection)
      serveQueue()
    })
    idleFrom(connection)
  }

  /** A peer that vanished would say nothing for as long as the system tries to reach it. */
  function probe(connection: Http2Connection): void {
    const silent = connection as Connection
    const { session } = silent
    if (silent.isSilent || session.closed) return
    silent.isSilent = true
    const end = () => session.destroy(new Http2Error('CONNECTION_LOST', 'the upstream answers no ping'))
    const timer = clock.after(PING_MS, end)
    session.once('close', () => timer.cancel())
    const answered = () => {
      timer.cancel()
      silent.isSilent = false
      serveQueue()
    }
    session.ping((error) => error === null && answered())
  }

  /** RFC 9113 §6.8, §8.7: it may be sent again, whatever its method. Refusals in favour of other requests do not count. */
  function sendAgain(request: Http2Request, isBehindOthers: boolean): void {
    const isLate = clock.monotonicNow() >= deadlines.get(request)!
    if (!isBehindOthers) request.refusals += 1
    if (isDestroyed || isLate || request.refusals > MOST_REFUSALS) {
      request.fail(new Http2Error('STREAM_RESET', 'the upstream did not look at the request'))
    } else if (isBehindOthers) {
      enqueue(request, { isNext: true })
      process.nextTick(serveQueue)
    } else {
      const pauseMs = REFUSED_PAUSE_MS * 2 ** (request.refusals - 1)
      const timer = clock.after(pauseMs, () => {
        pauses.delete(request)
        enqueue(request, { isNext: true })
        serveQueue()
      })
      pauses.set(request, timer)
    }
  }
  const requestDeps = { onUnseen: sendAgain, onLeaveQueue: dequeue, onSilence: probe }

  function endIfDone(): void {
    if (queue.length > 0 || pauses.size > 0) return
    for (const connection of open) if (connection.active > 0) return
    for (const { session } of open) session.destroy()
    closed?.()
  }

  function close(): Promise<void> {
    isClosing = true
    return new Promise((resolve) => {
      closed = resolve
      endIfDone()
    })
  }

  async function destroy(): Promise<void> {
    isDestroyed = true
    isClosing = true
    const error = new Http2Error('CLOSED', 'the connections were closed')
    for (const request of [...queue.map((waiting) => waiting.request), ...pauses.keys()]) {
      dequeue(request)
      request.fail(error)
    }
    for (const { session } of open) session.destroy(error)
    closed?.()
  }

  return {
    dispatch(wanted, handler) {
      const request = new Http2Request(wanted, handler, requestDeps)
      deadlines.set(request, clock.monotonicNow() + timeout.connectMs + wanted.headersTimeout)
      if (isDestroyed) {
        request.fail(new Http2Error('CLOSED', 'the connections were closed'))
        return
      }
      enqueue(request)
      serveQueue()
    },
    // Its own deadlines end the waiting.
    isQueueUntimed: false,
    isConnecting: () => isFirst,
    isBreaking: () => false,
    isOpen: () => !isClosing,
    close,
    destroy,
  }
}

function roomOf({ isRetired, isSilent, active, mostStreams = 1 }: Connection): number {
  return isRetired || isSilent ? 0 : mostStreams - active
}
