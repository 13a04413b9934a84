// Over 400 lines, because what a refresh passes through stays in few files.

import { AsyncLocalStorage } from 'node:async_hooks'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import type { Trace } from '../../async/trace.ts'
import type { Logger } from '../../log.ts'
import { timesOf } from './jwt.ts'

/** What is done beside the token requests of one call. */
export type TokenRequestHooks = {
  /** Sees a token answer before the library validates it; what it returns is awaited first. */
  readonly answer: (answer: TokenAnswer) => Promise<void> | void
  /** Called once a request was sent, if only in part, or may have been; before its failure is known. */
  readonly sent?: () => void
  /** Proves possession of a key in every token request of this call (RFC 9449 §5). */
  readonly proof?: {
    for(url: string): string
    /** Told of the nonce for the next proof, if an answer has one. */
    learn(url: string, nonce: string | null): void
  }
  /** The answer is good without an access token: the request asks who the user is. */
  readonly mayLackAccessToken?: boolean
  /** Answers every token request of this call in the place of the provider: nothing is sent. */
  readonly instead?: Readonly<Record<string, unknown>>
}

type FetchOptions = {
  method?: string
  headers?: unknown
  body?: unknown
  redirect?: unknown
  signal?: AbortSignal | null | undefined
}
type Fetch = (url: string, options: FetchOptions) => Promise<Response>

/** What the `fetch` for the provider is made of. */
export type ProviderFetchDeps = {
  /** Epoch ms. */
  readonly now: () => number
  /** Default: that of Node.js. */
  readonly fetch?: Fetch | undefined
  /** Told what each answer says of the provider's clock. */
  readonly noteClock?: ((reading: ClockReading) => void) | undefined
  readonly trace?: Pick<Trace, 'part'> | undefined
}

/** A `fetch` for the provider that reads answers whole, and token answers as providers really send them. */
export type ProviderFetch = {
  /** Rejects with a TypeError, or the reason of the signal, when no whole answer comes. */
  readonly fetch: Fetch
  /** Runs `call`; the token requests within it go through the hooks. */
  withHooks<T>(hooks: TokenRequestHooks, call: () => Promise<T>): Promise<T>
}

const MAX_BODY_BYTES = 1024 * 1024
const NULL_BODY_STATUSES = [101, 204, 205, 304]

/** Each call as a part of the request that waits for it. The provider is not told of the trace. */
function traced(trace: ProviderFetchDeps['trace'], send: Fetch): Fetch {
  if (!trace) return send
  return (url, options) => {
    const { origin, pathname } = new URL(url)
    const facts = {
      'http.request.method': options.method ?? 'GET',
      'server.address': origin,
      'url.path': pathname,
    }
    return trace.part('provider', facts, async (span) => {
      const response = await send(url, options)
      span.note({ 'http.response.status_code': response.status })
      return response
    })
  }
}

/** Makes the one `fetch` that calls to the provider go through. */
export function createProviderFetch(deps: ProviderFetchDeps): ProviderFetch {
  const current = new AsyncLocalStorage<TokenRequestHooks>()
  const watchSend = createSendWatch()
  const send = traced(deps.trace, deps.fetch ?? ((url, options) => fetch(url, options as RequestInit)))

  async function readWhole(url: string, options: FetchOptions) {
    const sentAt = deps.now()
    const response = await send(url, { ...options, signal: afterReading(options.signal) })
    const { status, headers } = response
    const reading = clockReading(headers, { sentAt, receivedAt: deps.now(), method: options.method })
    if (reading) deps.noteClock?.(reading)
    return { status, headers, text: await wholeText(response) }
  }

  async function tokenRequest(hooks: TokenRequestHooks, url: string, options: FetchOptions) {
    const { proof } = hooks
    const headers = proof
      ? { ...(options.headers as Record<string, string>), dpop: proof.for(url) }
      : options.headers
    const received = await watchSend(
      () => readWhole(url, { ...options, headers }),
      () => hooks.sent?.(),
    )
    proof?.learn(url, received.headers.get('dpop-nonce'))
    const { mayLackAccessToken } = hooks
    const answer = readTokenAnswer(received, { now: deps.now(), mayLackAccessToken })
    await hooks.answer(answer)
    const { status, body } = answer
    const text = JSON.stringify(body ?? {})
    return rebuilt({ status, headers: received.headers, text }, body && 'application/json')
  }

  return {
    withHooks: (hooks, call) => current.run(hooks, call),
    async fetch(url, options) {
      const hooks = current.getStore()
      if (!hooks || options.method !== 'POST') return rebuilt(await readWhole(url, options))
      if (hooks.instead) return Response.json(hooks.instead)
      return tokenRequest(hooks, url, options)
    },
  }
}

/**
 * Gives up an answer only after one more look at the sockets: after a pause of this process its timers come first, and an
 * answer that has arrived meanwhile is read before its time is said to be over.
 */
function afterReading(signal: AbortSignal | null | undefined): AbortSignal | undefined {
  // An aborted signal sends no event any more.
  if (!signal || signal.aborted) return signal ?? undefined
  const patient = new AbortController()
  const giveUp = () => patient.abort(signal.reason)
  signal.addEventListener('abort', () => setImmediate(() => setImmediate(giveUp)), { once: true })
  return patient.signal
}

/** The body, read here so that a library meets no endless one. Throws a TypeError, as `fetch` does for every failure. */
async function wholeText(response: Response): Promise<string> {
  const chunks: Uint8Array[] = []
  let length = 0
  for await (const chunk of response.body ?? []) {
    length += chunk.length
    // Leaving the loop cancels the body, and with it the connection.
    if (length > MAX_BODY_BYTES) throw new TypeError('an answer of more than 1 MiB')
    chunks.push(chunk)
  }
  return new TextDecoder().decode(Buffer.concat(chunks))
}

function rebuilt(
  { status, headers: received, text }: Pick<Response, 'status' | 'headers'> & { readonly text: string },
  contentType?: string,
): Response {
  const headers = new Headers(received)
  for (const name of ['content-length', 'content-encoding', 'transfer-encoding']) headers.delete(name)
  if (contentType !== undefined) headers.set('content-type', contentType)
  return new Response(NULL_BODY_STATUSES.includes(status) ? null : text, { status, headers })
}

/** What one answer says of the provider's clock. */
export type ClockReading = {
  /** How far ours is ahead of it, in ms; `marginMs` more or less. */
  readonly aheadMs: number
  readonly marginMs: number
  /** Of a POST, which no cache answers; a cache on the way may send the `Date` of an old answer to a GET. */
  readonly isUncached: boolean
}

/**
 * Reads `Date` (RFC 9110 §6.6.1): whole seconds, the rest cut off (§5.6.7), at some moment between the two times, in epoch
 * ms. Undefined without one, and for a copy that says so: it tells the time of its origin (RFC 9111 §5.1).
 */
function clockReading(
  headers: Headers,
  { sentAt, receivedAt, method }: { sentAt: number; receivedAt: number; method: string | undefined },
): ClockReading | undefined {
  const date = Date.parse(headers.get('date') ?? '')
  if (Number.isNaN(date) || headers.has('age')) return undefined
  const aheadMs = (sentAt + receivedAt) / 2 - (date + 500)
  return { aheadMs, marginMs: (receivedAt - sentAt) / 2 + 500, isUncached: method === 'POST' }
}

/**
 * The median of some readings; of an even number the one of the middle two that is nearer to zero, so that a single one
 * proves nothing. Undefined when there are fewer than two. Those that no cache can have answered outweigh the others.
 */
export function agreedReading(readings: readonly ClockReading[]): ClockReading | undefined {
  const uncached = readings.filter(({ isUncached }) => isUncached)
  const list = uncached.length > 1 ? uncached : readings
  if (list.length < 2) return undefined
  const sorted = list.toSorted((a, b) => a.aheadMs - b.aheadMs)
  const middle = sorted.slice((list.length - 1) >> 1, (list.length >> 1) + 1)
  return middle.toSorted((a, b) => Math.abs(a.aheadMs) - Math.abs(b.aheadMs))[0]
}

/** In words: how far this machine's clock is from the provider's. */
export function clockDifference({ aheadMs }: Pick<ClockReading, 'aheadMs'>): string {
  const seconds = wholeSeconds(Math.abs(aheadMs))
  return `this machine's clock is ${seconds} s ${aheadMs > 0 ? 'ahead of' : 'behind'} the provider's`
}

/** What cures it. */
export const CLOCK_CURE = 'synchronise both with NTP'

/** What is known of the clocks of providers, by issuer: it outlives a configuration. */
export type ClockMemory = Map<string, { readings: readonly Dated[]; isTold: boolean }>
type Dated = ClockReading & { readonly at: number }

/** Of each kind; no older than an hour. */
const READINGS_KEPT = 5
const READINGS_KEPT_MS = 3_600_000

/** How far this machine's clock is from that of one provider. */
export type ProviderClock = {
  note(reading: ClockReading): void
  /** How many seconds ours is ahead; undefined while too little is known. */
  offsetSeconds(): number | undefined
  /** From now on the metric tells of this one. */
  takeOver(): void
  /** Says nothing more, whatever answer comes late: another configuration is in use. */
  retire(): void
}

/**
 * Compares the clocks by the last answers, for the metric (`observe`), the console and the log, which has a line when they
 * are surely further apart than `toleranceMs`, and one when they are not any more.
 */
export function createProviderClock(deps: {
  readonly issuer: string
  readonly toleranceMs: number
  readonly memory: ClockMemory
  readonly monotonicNow: () => number
  readonly log: Logger
  readonly observe: (aheadSeconds: number) => void
}): ProviderClock {
  const { issuer, toleranceMs, memory, monotonicNow, log, observe } = deps
  const known = memory.get(issuer) ?? { readings: [], isTold: false }
  memory.set(issuer, known)
  let isRetired = false

  function logChange(reading: ClockReading): void {
    const apartMs = Math.abs(reading.aheadMs)
    const isOff = apartMs - reading.marginMs > toleranceMs
    const fields = { url: issuer, clockOffsetSeconds: wholeSeconds(reading.aheadMs) }
    if (isOff && !known.isTold) {
      const limit = `more than provider.clockTolerance (${toleranceMs / 1000} s)`
      log.warn(
        { ...fields, cure: CLOCK_CURE },
        `${clockDifference(reading)}, ${limit}: the times in tokens are misjudged`,
      )
      known.isTold = true
    } else if (known.isTold && apartMs <= toleranceMs) {
      log.info(fields, "this machine's clock and the provider's agree again")
      known.isTold = false
    }
  }

  function offsetSeconds(): number | undefined {
    const agreed = agreedReading(known.readings)
    return agreed && wholeSeconds(agreed.aheadMs)
  }

  return {
    note(reading) {
      const recent = known.readings.filter(({ at }) => monotonicNow() - at < READINGS_KEPT_MS)
      const alike = recent.filter(({ isUncached }) => isUncached === reading.isUncached)
      const others = recent.filter(({ isUncached }) => isUncached !== reading.isUncached)
      known.readings = [...others, ...alike.slice(1 - READINGS_KEPT), { ...reading, at: monotonicNow() }]
      const agreed = agreedReading(known.readings)
      if (!agreed || isRetired) return
      observe(wholeSeconds(agreed.aheadMs))
      logChange(agreed)
    },
    offsetSeconds,
    takeOver() {
      const seconds = offsetSeconds()
      if (seconds !== undefined) observe(seconds)
    },
    retire() {
      isRetired = true
    },
  }
}

function wholeSeconds(ms: number): number {
  return Math.round(ms / 1000)
}

type Send = { isKnown: boolean; isSent: boolean }
/** Runs one `fetch`; `sent` is called before it settles, unless it is certain that not a byte of the request was sent. */
export type SendWatch = <T>(send: () => Promise<T>, sent: () => void) => Promise<T>

// undici, the `fetch` of Node.js, publishes on these when it takes a request on, and right before its first byte.
const CREATED = 'undici:request:create'
const SENDING = 'undici:client:sendHeaders'

/**
 * Makes a watch on what leaves this process. The code of a failure does not tell: a connection is reset in the middle of
 * the TLS handshake as well as after the request, and a timeout may be that of a handshake.
 */
export function createSendWatch(): SendWatch {
  const sends = new AsyncLocalStorage<Send>()
  const requests = new WeakMap<object, Send>()
  let watched = 0

  const noteCreated = (message: unknown) => {
    const send = sends.getStore()
    if (!send) return
    send.isKnown = true
    const { request } = message as { request: { readonly method?: unknown } }
    // A CONNECT opens the way through a proxy, and holds nothing of what is sent through it.
    if (request.method !== 'CONNECT') requests.set(request, send)
  }
  const noteSending = (message: unknown) => {
    const send = requests.get((message as { request: object }).request)
    if (send) send.isSent = true
  }
  // Subscribes only during a watch, because requests to upstreams pass the same channels.
  function begin(): void {
    if (++watched > 1) return
    subscribe(CREATED, noteCreated)
    subscribe(SENDING, noteSending)
  }
  function end(): void {
    if (--watched > 0) return
    unsubscribe(CREATED, noteCreated)
    unsubscribe(SENDING, noteSending)
  }

  return async function watchSend(send, sent) {
    const noted: Send = { isKnown: false, isSent: false }
    begin()
    try {
      return await sends.run(noted, send)
    } finally {
      end()
      if (noted.isSent || !noted.isKnown) sent()
    }
  }
}

/** A token endpoint's answer, read as providers really send it, before any library has judged it. */
export type TokenAnswer = {
  /** RFC 6749 §5.1 and §5.2: 200 for tokens, 400 for an error that came with a 2xx; else as it was sent. */
  readonly status: number
  /** The JSON object of the body, normalised; undefined when the body is none. */
  readonly body: Readonly<Record<string, unknown>> | undefined
  readonly retryAfterSeconds: number | undefined
  /** The answer says that it is a page for people. */
  readonly isHtml: boolean
}

/** What of an HTTP response an answer is read from. */
export type ReceivedAnswer = Pick<Response, 'status' | 'headers'> & { readonly text: string }

/** RFC 6749 §5.1 only recommends `expires_in`. */
const DEFAULT_LIFETIME_SECONDS = 300
const MAX_LIFETIME_SECONDS = 30 * 24 * 3600
const MAX_RETRY_AFTER_SECONDS = 3600

/** Stands for an access token that was not sent, so that openid-client looks at the rest of the answer. */
export const NO_ACCESS_TOKEN = 'cloakroom-no-access-token'

/**
 * Reads a token answer with every member in the form that RFC 6749 §5.1 gives it, so that a rotated refresh token is never
 * lost because another member of the same answer is unusual.
 *
 * @param now epoch ms. @param mayLackAccessToken the answer is good without an access token: a code answer tells who the user is.
 */
export function readTokenAnswer(
  { status, headers, text }: ReceivedAnswer,
  { now, mayLackAccessToken = false }: { now: number; mayLackAccessToken?: boolean | undefined },
): TokenAnswer {
  const sent = jsonObject(text)
  const body = normalised(mayLackAccessToken ? withAccessToken(sent) : sent, now)
  return {
    status: statusFor(status, body),
    body,
    retryAfterSeconds: askedToWaitSeconds(headers, now),
    isHtml: /^(?:text\/html|application\/xhtml\+xml)\b/i.test(headers.get('content-type') ?? ''),
  }
}

/**
 * Seconds that an answer asks us to wait. A date in it is one by the clock that its own `Date` (RFC 9110 §6.6.1) was read
 * from; `now`, epoch ms, is for answers without one.
 */
export function askedToWaitSeconds(headers: Headers, now: number): number | undefined {
  const sentAt = Date.parse(headers.get('date') ?? '')
  return retryAfterSeconds(headers.get('retry-after'), Number.isNaN(sentAt) ? now : sentAt)
}

/** Seconds of a Retry-After header (RFC 9110 §10.2.3: seconds or an HTTP date), at most an hour. @param now epoch ms. */
export function retryAfterSeconds(header: string | null, now: number): number | undefined {
  if (!header) return undefined
  const seconds = /^\d+$/.test(header.trim()) ? Number(header) : (Date.parse(header) - now) / 1000
  if (!Number.isFinite(seconds)) return undefined
  return Math.min(MAX_RETRY_AFTER_SECONDS, Math.max(0, Math.ceil(seconds)))
}

function jsonObject(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : undefined
  } catch {
    return undefined
  }
}

/** Azure AD B2C sends a code answer without an access token when no API's scope was asked for. */
function withAccessToken(body: Record<string, unknown> | undefined): Record<string, unknown> | undefined {
  const isLacking = typeof body?.id_token === 'string' && (body.access_token ?? '') === ''
  return isLacking ? { ...body, access_token: NO_ACCESS_TOKEN, token_type: 'Bearer' } : body
}

/** The same answer with every member in the form of RFC 6749 §5.1; a body without an access token stays as it is. */
function normalised(
  body: Record<string, unknown> | undefined,
  now: number,
): Record<string, unknown> | undefined {
  if (typeof body?.access_token !== 'string' || body.access_token === '') return body
  const answer: Record<string, unknown> = { ...body, expires_in: lifetimeSeconds(body, now) }
  for (const name of ['refresh_token', 'id_token', 'scope']) {
    // An empty scope is not an absent one: it says that nothing was granted of what was asked for.
    if (answer[name] === null || (answer[name] === '' && name !== 'scope')) delete answer[name]
  }
  if (Array.isArray(answer.scope)) answer.scope = answer.scope.join(' ')
  answer.token_type = tokenType(answer.token_type)
  return answer
}

/** DPoP (RFC 9449) and MAC tokens need more than to be sent along; every other name is some server's for Bearer. */
function tokenType(value: unknown): string {
  return typeof value === 'string' && /^(?:dpop|mac)$/i.test(value) ? value : 'Bearer'
}

/**
 * `expires_in` counts from now and is believed first; `expires_on` (Azure AD v1, epoch seconds) only without it. A JWT's
 * own end bounds them, because the API goes by that: a server may hand out a token that it has had for a while.
 */
function lifetimeSeconds(body: Record<string, unknown>, now: number): number {
  const expiresIn = positiveNumber(body.expires_in)
  const expiresOn = positiveNumber(body.expires_on)
  const stated = expiresIn ?? (expiresOn === undefined ? undefined : expiresOn - Math.floor(now / 1000))
  const lifetimes = [stated, ownLifetimeSeconds(String(body.access_token), now)]
  const seconds = Math.min(...(lifetimes.filter((one) => one !== undefined && one > 0) as number[]))
  return Number.isFinite(seconds) ? Math.min(seconds, MAX_LIFETIME_SECONDS) : DEFAULT_LIFETIME_SECONDS
}

/** A token that has expired by our clock when it comes was issued by another clock: its whole life counts then. */
function ownLifetimeSeconds(accessToken: string, now: number): number | undefined {
  const { iat, exp } = timesOf(accessToken)
  if (exp === undefined) return undefined
  // `exp` counts whole seconds: what is missing of the last one was lost in rounding, and is no shorter life.
  const left = Math.ceil(exp - now / 1000)
  return left > 0 || iat === undefined ? left : exp - iat
}

function positiveNumber(value: unknown): number | undefined {
  const number = typeof value === 'string' && value.trim() !== '' ? Number(value) : value
  return typeof number === 'number' && Number.isFinite(number) && number > 0 ? number : undefined
}

/**
 * Some servers refuse with 200 and an error in the body, and some give tokens with another 2xx: RFC 6749 §5.2 has 400 for
 * the one, §5.1 200 for the other.
 */
function statusFor(status: number, body: Record<string, unknown> | undefined): number {
  if (status < 200 || status > 299 || !body) return status
  if (typeof body.access_token === 'string' && body.access_token !== '') return 200
  return typeof body.error === 'string' && body.error !== '' ? 400 : status
}
