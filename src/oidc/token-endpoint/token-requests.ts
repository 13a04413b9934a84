import { createHash, type KeyObject } from 'node:crypto'
import type { ProviderConfig } from '../../config/config.ts'
import { BffError, withLogged } from '../../errors.ts'
import type { UserClaims } from '../../store/port.ts'
import type { ClientAuthenticator } from '../client-auth/client-assertion.ts'
import { type Proofs, proofKeyFromJwk } from '../dpop.ts'
import { requireSameUser, verifiedResponse } from '../sign-in/authorization-response.ts'
import { idTokenError, requireAccessToken, requireSoundClaims } from './id-token.ts'
import { unverifiedSubject } from './jwt.ts'
import type { ProviderKeys } from './key-set.ts'
import type { GrantName, Limiter } from './limiter.ts'
import type { AuthorizationChecks, DiscoveredClient, Parameters, SoundAnswer } from './openid-client.ts'
import {
  type FailedGrant,
  failedGrant,
  failedSignIn,
  findingOf,
  isRefusedClient,
  refusalOf,
} from './provider-errors.ts'
import {
  NO_ACCESS_TOKEN,
  type ProviderFetch,
  type TokenAnswer,
  type TokenRequestHooks,
} from './provider-fetch.ts'

/** What a token endpoint gave. Times in epoch ms; `obtainedAt` is when the request was sent. */
export type GrantedTokens = {
  /** Empty where a code answer had none. */
  readonly accessToken: string
  readonly obtainedAt: number
  readonly expiresAt: number
  readonly refreshToken: string | undefined
  readonly idToken: string | undefined
  /** Claims of the verified ID token. */
  readonly claims: UserClaims | undefined
  /** `sub` of an ID token that was left out because it failed its checks; no `sub` at all, if it is of another issuer. */
  readonly unverifiedSubject?: string | undefined
  /** Azure AD v1 names the resource it answered for. */
  readonly resource: string | undefined
  /** The `scope` of the answer (RFC 6749 §5.1), blank-separated; undefined when it was as asked for. */
  readonly scope?: string | undefined
  /** When the refresh token ends, where the answer says so (`refresh_token_expires_in`, of no specification). */
  readonly refreshTokenExpiresAt?: number | undefined
  /** Names of the claims that the UserInfo endpoint gave. */
  readonly userinfo?: readonly string[]
  /** The private key that the access token, and a public client's refresh token, is bound to (RFC 9449). */
  readonly key?: KeyObject | undefined
}

/** What a refresh tells its caller on the way. */
export type RefreshHooks = {
  /** Stores a rotated refresh token; awaited before anything else in the answer is looked at. */
  keep(refreshToken: string): Promise<void>
  /** Told of an ID token that failed its checks and was left out. */
  ignoredIdToken(error: unknown): void
}

/** The requests to the token endpoint; each is one grant. */
export type TokenRequests = {
  /** Checks the authorization response, redeems the code, verifies the ID token. Rejects with BffError only. */
  codeGrant(callback: URL, checks: AuthorizationChecks, parameters: Parameters): Promise<GrantedTokens>
  /** RFC 6749 §6. Never rejects. */
  refreshGrant(
    refreshToken: string,
    parameters: Parameters,
    hooks: RefreshHooks & Proving,
  ): Promise<GrantedTokens | FailedGrant>
  /** RFC 6749 §4.4. Never rejects. */
  clientCredentialsGrant(parameters: Parameters, proving?: Proving): Promise<GrantedTokens | FailedGrant>
  /** A grant by assertion or token, such as RFC 8693 or RFC 7523 §2.1. Never rejects. */
  tokenExchangeGrant(
    grantType: string,
    parameters: Parameters,
    proving?: Proving,
  ): Promise<GrantedTokens | FailedGrant>
}

/** The private key that a request proves possession of, and the new token is to be bound to; absent: none. */
type Proving = { readonly key?: KeyObject | undefined }

export type TokenRequestsDeps = {
  readonly provider: Pick<ProviderConfig, 'clientId' | 'clockToleranceMs'>
  readonly authenticator: Pick<ClientAuthenticator, 'current' | 'refused'>
  /** The client at the provider's endpoints. Rejects while these are unknown. */
  readonly client: () => Promise<DiscoveredClient>
  readonly keys: ProviderKeys
  readonly limiter: Pick<Limiter, 'call'>
  readonly providerFetch: Pick<ProviderFetch, 'withHooks'>
  readonly proofs: Proofs
  /** Epoch ms. */
  readonly now: () => number
  readonly monotonicNow: () => number
}

/** Makes the one way to the token endpoint. */
export function createTokenRequests(deps: TokenRequestsDeps): TokenRequests {
  return {
    async codeGrant(received, checks, parameters) {
      requireCode(received)
      let callback = received
      const failed = (error: unknown, answer?: TokenAnswer): never => {
        throw withRedirectError(failedSignIn(error, answer), callback.searchParams)
      }
      const client = await deps.client().catch(failed)
      const response = { callback: received, checks }
      const verified = await verifiedResponse(deps, client.metadata, response).catch(failed)
      ;({ callback } = verified)
      requireCode(callback)
      const send = (at: DiscoveredClient) => at.codeGrant(callback, checks, parameters)
      // Without a code there is nothing to ask the provider, whose circuit may be open just now.
      if (!callback.searchParams.has('code')) await send(client).catch(failed)
      const granted = await tokenRequest(deps, {
        ...{ grant: 'authorization_code', send, failed, mayLackAccessToken: true },
        key: checks.dpopKey && proofKeyFromJwk(checks.dpopKey),
      })
      requireSameUser(verified, granted.claims)
      return granted
    },

    refreshGrant: (refreshToken, parameters, { keep, ignoredIdToken, key }) =>
      tokenRequest(deps, {
        ...{ grant: 'refresh_token', key },
        send: (client) => client.refreshGrant(refreshToken, parameters),
        async received({ status, body }) {
          const rotated = status === 200 ? body?.refresh_token : undefined
          if (typeof rotated === 'string' && rotated !== refreshToken) await keep(rotated)
        },
        failed: failedGrant,
        // Tells sessions apart in the limiter, hashed.
        holder: refreshToken,
        ignoredIdToken,
      }),

    clientCredentialsGrant: (parameters, { key } = {}) =>
      tokenRequest(deps, {
        ...{ grant: 'client_credentials', key },
        send: (client) => client.clientCredentialsGrant(parameters),
        failed: failedGrant,
      }),

    tokenExchangeGrant: (grantType, parameters, { key } = {}) =>
      tokenRequest(deps, {
        ...{ grant: 'token_exchange', key },
        send: (client) => client.extensionGrant(grantType, parameters),
        failed: failedGrant,
      }),
  }
}

/** One request to the token endpoint, and what its caller makes of the answer. */
type TokenRequest<Failure> = Proving & {
  readonly grant: GrantName
  readonly send: (client: DiscoveredClient) => Promise<SoundAnswer>
  /** Sees the answer first; awaited before the answer is judged. */
  readonly received?: (answer: TokenAnswer) => Promise<void>
  /** Throws or returns what a failure is to the caller. `wasSent`: false when certainly not a byte of the request was. */
  readonly failed: (error: unknown, answer: TokenAnswer | undefined, wasSent: boolean) => Failure
  /**
   * Told why the ID token of an answer was left out, which is good without one: of its claims only the `sub` is given, as
   * `unverifiedSubject`. Without this, an ID token that fails its checks fails the request.
   */
  readonly ignoredIdToken?: (error: unknown) => void
  /** What only one session has, such as its refresh token; undefined for a request that is no session's. */
  readonly holder?: string
  readonly mayLackAccessToken?: boolean
}

/** How far one request has come. */
type Progress = {
  begun?: { readonly credential: string | undefined; readonly at: number }
  wasSent: boolean
  answer: TokenAnswer | undefined
  /** The answer has a nonce for the next proof. */
  hasNonce?: boolean
  /** Why what the answer brought could not be kept; openid-client would make an error of the answer's of it. */
  unkept?: unknown
}

/** An answer that openid-client found sound, and why its ID token was left out of it, if it was. */
type Received = {
  readonly answer: SoundAnswer
  readonly obtainedAt: number
  readonly ignored?: { readonly idToken: unknown }
}

/** A second request after a refusal that took longer could outlive the lock under which the first was sent. */
const QUICK_REFUSAL_MS = 500

/** One request to the token endpoint, from the client to the granted tokens. */
async function tokenRequest<Failure>(
  deps: TokenRequestsDeps,
  request: TokenRequest<Failure>,
): Promise<GrantedTokens | Failure> {
  const progress: Progress = { answer: undefined, wasSent: false }
  try {
    // 1. The client, as discovery found the endpoints.
    const client = await deps.client()
    // 2. A permit of the limiter, whose circuit breaker is told what the outcome says of the provider.
    const attempt = () =>
      deps.limiter.call(
        request.grant,
        () => sendRequest(deps, request, { client, progress }),
        (error) => ({ ...findingOf(error, progress.answer), holder: pseudonym(request.holder) }),
      )
    // 3. The request itself, and a second one if it was refused for a secret or key that was replaced meanwhile, or for a
    // proof without the server's nonce.
    const received = await attempt().catch((error) => {
      if (!isRefusalOfReplacedCredential(deps, progress) && !isRefusalOfNonce(progress)) throw error
      return attempt()
    })
    // 4. The ID token. The permit is free by now, because reading keys may take long.
    return await processAnswer(deps, request, { client, ...received })
  } catch (error) {
    // 5. Every failure, in the words of the caller.
    return request.failed(error, progress.answer, progress.wasSent)
  }
}

/** The request half: sends it, notes how far it has come, and has openid-client judge the answer. */
async function sendRequest<Failure>(
  deps: TokenRequestsDeps,
  request: TokenRequest<Failure>,
  { client, progress }: { client: DiscoveredClient; progress: Progress },
): Promise<Received> {
  const obtainedAt = deps.now()
  const begun = beginRequest(deps)
  // An answer that does not come must not be taken for that of the first attempt.
  Object.assign(progress, { begun, wasSent: false, answer: undefined, hasNonce: false } satisfies Progress)
  const ask = () => request.send(client)
  try {
    return { answer: await deps.providerFetch.withHooks(hooksOf(deps, request, progress), ask), obtainedAt }
  } catch (error) {
    if (progress.unkept) throw progress.unkept
    const body = progress.answer?.status === 200 ? progress.answer.body : undefined
    if (!body?.id_token) throw error
    const failure = idTokenError(error, body.id_token)
    if (!request.ignoredIdToken) throw failure
    // Judges the same answer once more, from memory, as if the provider had left its ID token out.
    const { id_token: idToken, ...instead } = body
    const answer = await deps.providerFetch.withHooks({ answer() {}, instead }, ask)
    request.ignoredIdToken(failure)
    return { answer, obtainedAt, ignored: { idToken } }
  }
}

function hooksOf<Failure>(
  { proofs }: TokenRequestsDeps,
  { received, mayLackAccessToken = false, key }: TokenRequest<Failure>,
  progress: Progress,
): TokenRequestHooks {
  return {
    mayLackAccessToken,
    ...(key && {
      proof: {
        for: (url) => proofs.proofFor(key, { method: 'POST', url }),
        learn(url, nonce) {
          progress.hasNonce = proofs.learn(url, nonce)
        },
      },
    }),
    async answer(answer) {
      progress.answer = answer
      try {
        await received?.(answer)
      } catch (error) {
        progress.unkept = error
        throw error
      }
    },
    sent() {
      progress.wasSent = true
    },
  }
}

/** Which credential a request begins with, and when. */
export function beginRequest({
  authenticator,
  monotonicNow,
}: Pick<TokenRequestsDeps, 'authenticator' | 'monotonicNow'>): NonNullable<Progress['begun']> {
  return { credential: authenticator.current(), at: monotonicNow() }
}

/**
 * Whether the client was refused while its secret or key was replaced, or has another that may do. The refusal used nothing
 * up, because the client is authenticated first (RFC 6749 §3.2.1).
 */
export function isRefusalOfReplacedCredential(
  deps: Pick<TokenRequestsDeps, 'authenticator' | 'monotonicNow'>,
  { begun, answer }: Pick<Progress, 'begun' | 'answer'>,
): boolean {
  if (!begun || !isRefusedClient(answer)) return false
  if (begun.credential !== undefined) deps.authenticator.refused?.(begun.credential)
  if (deps.monotonicNow() - begun.at >= QUICK_REFUSAL_MS) return false
  return deps.authenticator.current() !== begun.credential
}

/** RFC 9449 §8: the refusal used nothing up, and the next proof has the nonce that came with it. Asked once more only. */
function isRefusalOfNonce({ answer, hasNonce = false }: Progress): boolean {
  return hasNonce && answer?.body?.error === 'use_dpop_nonce' && answer.status !== 200
}

/** The process half: the tokens of an answer, with the claims of an ID token that passes every check. */
async function processAnswer<Failure>(
  { provider, keys, now }: TokenRequestsDeps,
  { ignoredIdToken, key }: TokenRequest<Failure>,
  { client, answer, obtainedAt, ignored }: Received & { client: DiscoveredClient },
): Promise<GrantedTokens> {
  const granted = grantedTokens(obtainedAt, answer, key)
  const subjectIn = (jwt: unknown) => unverifiedSubject(jwt, client.metadata.issuer)
  if (ignored) return { ...granted, claims: undefined, unverifiedSubject: subjectIn(ignored.idToken) }
  const claims = answer.claims()
  const { id_token: idToken } = answer
  if (!claims || idToken === undefined) return { ...granted, claims: undefined }
  try {
    await keys.requireSigned(idToken, client.metadata.jwksUri)
    // A refresh may bring the ID token of the sign-in again, which came with another access token.
    if (!ignoredIdToken && granted.accessToken !== '')
      requireAccessToken(claims, idToken, granted.accessToken)
    return { ...granted, claims: requireSoundClaims(claims, { ...provider, now: now() }) }
  } catch (error) {
    const failure = error instanceof BffError ? error : idTokenError(error, idToken)
    if (!ignoredIdToken) throw failure
    ignoredIdToken(failure)
    return { ...granted, idToken: undefined, claims: undefined, unverifiedSubject: subjectIn(idToken) }
  }
}

function grantedTokens(
  obtainedAt: number,
  answer: SoundAnswer,
  key: KeyObject | undefined,
): Omit<GrantedTokens, 'claims'> {
  const accessToken = answer.access_token === NO_ACCESS_TOKEN ? '' : answer.access_token
  if (accessToken !== '') requireTokenType(answer.token_type, key)
  return {
    ...{ accessToken, obtainedAt },
    expiresAt: obtainedAt + (answer.expires_in ?? 0) * 1000,
    refreshToken: answer.refresh_token,
    idToken: answer.id_token,
    resource: typeof answer.resource === 'string' ? answer.resource : undefined,
    scope: typeof answer.scope === 'string' ? answer.scope : undefined,
    ...refreshTokenEnd(answer.refresh_token_expires_in, obtainedAt),
    ...(key && { key }),
  }
}

/** RFC 9449 §5: an operator who sets `provider.dpop` wants bound tokens, so that an unbound one is refused. */
function requireTokenType(type: unknown, key: KeyObject | undefined): void {
  const isBound = type === 'dpop'
  if (isBound && !key) {
    // The request offered no key to bind the token to, and nothing could prove that we have it.
    throw new Error('the access token is bound to a key (DPoP)')
  }
  if (isBound || !key) return
  throw new BffError(
    'provider_rejected',
    'the authorization server gave a token that is bound to no key, although provider.dpop is on: is DPoP switched on there?',
  )
}

/**
 * Seconds, as a number or as text. 0 says that it does not end: a token that has ended would not have been given. So does
 * one that is not finite: JSON has no such number, and it would be read back from the record as none at all.
 */
function refreshTokenEnd(seconds: unknown, obtainedAt: number): Pick<GrantedTokens, 'refreshTokenExpiresAt'> {
  const life = typeof seconds === 'number' || typeof seconds === 'string' ? Number(seconds) : 0
  const endsAt = obtainedAt + life * 1000
  return life > 0 && Number.isFinite(endsAt) ? { refreshTokenExpiresAt: endsAt } : {}
}

/** Tells holders apart without what they hold. */
function pseudonym(holder: string | undefined): string | undefined {
  return holder && createHash('sha256').update(holder).digest('base64url')
}

/** RFC 6749 appendix A.11: printable ASCII. Anything else is made up, and providers fail at it in many ways. */
function requireCode(callback: URL): void {
  const codes = callback.searchParams.getAll('code')
  if (codes.every((code) => /^[\x20-\x7e]*$/.test(code))) return
  throw new BffError('invalid_callback', 'the code of the response holds what no code may', {
    logged: { step: 'authorization' },
  })
}

/** A response that breaks a rule may all the same say what the provider had to say, such as an error without `iss`. */
function withRedirectError(problem: BffError, parameters: URLSearchParams): BffError {
  if (problem.logged?.step !== 'authorization' || !parameters.has('error')) return problem
  return withLogged(problem, refusalOf({ body: Object.fromEntries(parameters) }))
}
