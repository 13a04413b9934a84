import { timesOf } from './jwt.ts'

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
