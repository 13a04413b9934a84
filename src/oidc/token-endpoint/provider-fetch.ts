import { AsyncLocalStorage } from 'node:async_hooks'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { readTokenAnswer, type TokenAnswer } from './token-answer.ts'

/** What is done beside the token requests of one call. */
export type TokenRequestHooks = {
  /** Sees a token answer before the library validates it; what it returns is awaited first. */
  readonly answer: (answer: TokenAnswer) => Promise<void> | void
  /** Called once a request was sent, if only in part, or may have been; before its failure is known. */
  readonly sent?: () => void
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

/** Makes the one `fetch` that calls to the provider go through. */
export function createProviderFetch(deps: ProviderFetchDeps): ProviderFetch {
  const current = new AsyncLocalStorage<TokenRequestHooks>()
  const watchSend = createSendWatch()
  const send: Fetch = deps.fetch ?? ((url, options) => fetch(url, options as RequestInit))

  async function readWhole(url: string, options: FetchOptions) {
    const response = await send(url, { ...options, signal: afterReading(options.signal) })
    const { status, headers } = response
    return { status, headers, text: await wholeText(response) }
  }

  async function tokenRequest(hooks: TokenRequestHooks, url: string, options: FetchOptions) {
    const received = await watchSend(
      () => readWhole(url, options),
      () => hooks.sent?.(),
    )
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
