import { AsyncLocalStorage } from 'node:async_hooks'
import { timesOf } from './jwt.ts'
import { askedToWaitSeconds } from './reactions.ts'
import { createSendWatch } from './send-watch.ts'

/** A token endpoint's answer before any library judged it. */
export type TokenAnswer = {
  readonly status: number
  /** The JSON object of the body, normalised; undefined when it was none. */
  readonly body: Readonly<Record<string, unknown>> | undefined
  readonly retryAfterSeconds: number | undefined
  /** Whether it says that it is a page for people. */
  readonly isHtml: boolean
}

/** Follows the token requests of one call. */
export type TokenCallWatch = {
  /** Sees a token answer before it is validated; what it returns is awaited first. */
  readonly answer: (answer: TokenAnswer) => Promise<void> | void
  /** Called once a request was sent, if only in part, or may have been; before its failure is known. */
  readonly sent?: () => void
  /** The answer is good without an access token: what is asked for is who the user is. */
  readonly mayLackAccessToken?: boolean
  /** The answer to every token request of this call, in the place of the provider: nothing is sent. */
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
/** An answer as it was read, whole. */
type ReadAnswer = { readonly response: Response; readonly text: string }

/** What the `fetch` for the provider is made of. */
export type ProviderFetchDeps = {
  /** Epoch ms. */
  readonly now: () => number
  /** Default: that of Node.js. */
  readonly fetch?: Fetch | undefined
}

/** A `fetch` for the provider, and a way to look at the token answers of one call made through it. */
export type ProviderFetch = {
  readonly fetch: Fetch
  /** Runs `call`; `watch` is told of the token requests within it. */
  watching<T>(watch: TokenCallWatch, call: () => Promise<T>): Promise<T>
}

const MAX_BODY_BYTES = 1024 * 1024
/** When a provider does not say how long a token lives (RFC 6749 §5.1 only recommends it). */
const DEFAULT_LIFETIME_SECONDS = 300
const MAX_LIFETIME_SECONDS = 30 * 24 * 3600

/**
 * Reads token answers as providers really send them, so that a rotated refresh token is never lost because some other
 * member of the same answer is unusual.
 */
export function createProviderFetch(deps: ProviderFetchDeps): ProviderFetch {
  const watches = new AsyncLocalStorage<TokenCallWatch>()
  const watchSend = createSendWatch()
  const send: Fetch = deps.fetch ?? ((url, options) => fetch(url, options as RequestInit))
  const read = async (url: string, options: FetchOptions): Promise<ReadAnswer> => {
    const response = await send(url, { ...options, signal: afterReading(options.signal) })
    return { response, text: await wholeText(response) }
  }
  return {
    watching: (watch, call) => watches.run(watch, call),
    async fetch(url, options) {
      const watch = watches.getStore()
      if (!watch || options.method !== 'POST') {
        const { response, text } = await read(url, options)
        return rebuilt(response, text)
      }
      if (watch.instead) return tokenAnswer(watch.instead)
      const { response, text } = await watchSend(
        () => read(url, options),
        () => watch.sent?.(),
      )
      const sent = jsonObject(text)
      const body = normalised(watch.mayLackAccessToken ? withAccessToken(sent) : sent, deps.now())
      const status = statusFor(response.status, body)
      await watch.answer({
        status,
        body,
        retryAfterSeconds: askedToWaitSeconds(response.headers, deps.now()),
        isHtml: isHtml(response),
      })
      const { headers } = response
      return rebuilt({ status, headers }, JSON.stringify(body ?? {}), body && 'application/json')
    },
  }
}

function tokenAnswer(body: Readonly<Record<string, unknown>>): Response {
  return new Response(JSON.stringify(body), { headers: { 'content-type': 'application/json' } })
}

/** After a pause of this process its timers come first: an answer that has arrived meanwhile is read before giving up. */
function afterReading(signal: AbortSignal | null | undefined): AbortSignal | undefined {
  // One that is over already will not say so again.
  if (!signal || signal.aborted) return signal ?? undefined
  const patient = new AbortController()
  const giveUp = () => patient.abort(signal.reason)
  signal.addEventListener('abort', () => setImmediate(() => setImmediate(giveUp)), { once: true })
  return patient.signal
}

function isHtml({ headers }: Response): boolean {
  return /^(?:text\/html|application\/xhtml\+xml)\b/i.test(headers.get('content-type') ?? '')
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

/** The same answer with every member in the form RFC 6749 §5.1 gives it. Only token answers are touched. */
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
 * own end bounds them, because the API goes by that: a server may hand out one that it has had for a while.
 */
function lifetimeSeconds(body: Record<string, unknown>, now: number): number {
  const expiresIn = positiveNumber(body.expires_in)
  const expiresOn = positiveNumber(body.expires_on)
  const stated = expiresIn ?? (expiresOn === undefined ? undefined : expiresOn - Math.floor(now / 1000))
  const lifetimes = [stated, ownLifetimeSeconds(String(body.access_token), now)]
  const seconds = Math.min(...(lifetimes.filter((one) => one !== undefined && one > 0) as number[]))
  return Number.isFinite(seconds) ? Math.min(seconds, MAX_LIFETIME_SECONDS) : DEFAULT_LIFETIME_SECONDS
}

/** One that is over by our clock when it comes is told by a clock that is not ours: its whole life counts then. */
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

/** Stands for an access token that was not sent, so that the rest of the answer is looked at. */
export const NO_ACCESS_TOKEN = 'cloakroom-no-access-token'

/** Azure AD B2C sends a code answer without an access token when no API's scope was asked for. */
function withAccessToken(body: Record<string, unknown> | undefined): Record<string, unknown> | undefined {
  const isLacking = typeof body?.id_token === 'string' && (body.access_token ?? '') === ''
  return isLacking ? { ...body, access_token: NO_ACCESS_TOKEN, token_type: 'Bearer' } : body
}

function rebuilt(
  { status, headers: received }: Pick<Response, 'status' | 'headers'>,
  text: string,
  contentType?: string,
): Response {
  const headers = new Headers(received)
  for (const name of ['content-length', 'content-encoding', 'transfer-encoding']) headers.delete(name)
  if (contentType !== undefined) headers.set('content-type', contentType)
  // A null-body status (204, 304) must not carry even an empty text.
  return new Response([101, 204, 205, 304].includes(status) ? null : text, { status, headers })
}
