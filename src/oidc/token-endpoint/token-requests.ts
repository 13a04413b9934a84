import { createHash } from 'node:crypto'
import { BffError } from '../../errors.ts'
import type { GrantedTokens } from './grant-types.ts'
import { idTokenError, requireSoundClaims } from './id-token.ts'
import { unverifiedSubject } from './jwt.ts'
import type { GrantName, ProviderGate } from './limiter.ts'
import { findingOf } from './provider-errors.ts'
import { NO_ACCESS_TOKEN, type ProviderFetch, type TokenAnswer, type TokenCallWatch } from './token-answer.ts'

export type TokenCallDeps<Configuration> = {
  readonly configuration: () => Promise<Configuration>
  readonly gate: Pick<ProviderGate, 'call'>
  readonly providerFetch: Pick<ProviderFetch, 'watching'>
  readonly clientId: string
  readonly clockToleranceMs: number
  /** Throws when no key of the provider has signed this ID token, which openid-client found sound otherwise. */
  readonly requireSigned: (idToken: string, configuration: Configuration) => Promise<void>
  /** What the client authenticates with, as it is now; never leaves this file. Undefined for a public client. */
  readonly credential: () => string | undefined
  /** Epoch ms. */
  readonly now: () => number
  readonly monotonicNow: () => number
}

/** What a caller makes of an answer. */
export type TokenCallEnd<Failure> = {
  /** Sees the answer first; awaited before the answer is judged. */
  readonly answer?: (answer: TokenAnswer) => Promise<void>
  /** Throws or returns what a failure is to the caller. `wasSent`: false when certainly not a byte of the request was. */
  readonly failed: (error: unknown, answer: TokenAnswer | undefined, wasSent: boolean) => Failure
  /**
   * Told why the ID token of an answer was left out, which is good without one: of its claims only the `sub` is given, as
   * `unverifiedSubject`. Without this, an ID token that fails its checks fails the call.
   */
  readonly ignoredIdToken?: (error: unknown) => void
  /** What only one session has, such as its refresh token; undefined for a call that is no session's. */
  readonly holder?: string
}

/** A checked token answer in the words of RFC 6749 §5.1. */
type CheckedAnswer = {
  readonly access_token: string
  readonly expires_in?: number
  readonly refresh_token?: string
  readonly id_token?: string
  claims(): GrantedTokens['claims']
  readonly [member: string]: unknown
}

/** A second request after a refusal that took longer could outlive the lock under which the first was sent. */
const QUICK_REFUSAL_MS = 500

/**
 * Makes the one way to the token endpoint: through the gate, timed from when the request is really sent. A request that
 * is refused with `invalid_client`, while its secret or key was replaced, is sent once more with the new one: nothing
 * was spent by it, because the client is authenticated first (RFC 6749 §3.2.1).
 */
export function createTokenCall<Configuration>(deps: TokenCallDeps<Configuration>) {
  return async function tokenCall<Failure>(
    grant: GrantName,
    request: (configuration: Configuration) => Promise<CheckedAnswer>,
    end: TokenCallEnd<Failure>,
  ): Promise<GrantedTokens | Failure> {
    const progress: Progress = { answer: undefined, wasSent: false }
    const mayLackAccessToken = grant === 'authorization_code'
    const watch = { ...watchOf(progress, end), mayLackAccessToken }
    try {
      const configuration = await deps.configuration()
      const call = () => request(configuration)
      const send = async () => {
        const obtainedAt = deps.now()
        // An answer that does not come must not be taken for the one before.
        progress.answer = undefined
        progress.wasSent = false
        progress.begun = { credential: deps.credential(), at: deps.monotonicNow() }
        try {
          return { tokens: await deps.providerFetch.watching(watch, call), obtainedAt }
        } catch (error) {
          if (progress.unkept) throw progress.unkept
          const { answer } = progress
          return withoutIdToken(deps.providerFetch, end, { error, answer, obtainedAt, request: call })
        }
      }
      const findingWithHolder = (error: unknown) => ({
        ...findingOf(error, progress.answer),
        holder: pseudonym(end.holder),
      })
      const ask = () => deps.gate.call(grant, send, findingWithHolder)
      const answered = await ask().catch((error) => {
        const { begun, answer } = progress
        if (!begun || !isQuickRefusalOfClient(answer, deps.monotonicNow() - begun.at)) throw error
        if (deps.credential() === begun.credential) throw error
        return ask()
      })
      // The place at the token endpoint is free by now: reading keys may take long.
      return await verified(deps, end, { ...answered, configuration })
    } catch (error) {
      return end.failed(error, progress.answer, progress.wasSent)
    }
  }
}

/** A token answer, and why its ID token was left out of it, if it was. */
type Answered = {
  readonly tokens: CheckedAnswer
  readonly obtainedAt: number
  readonly ignored?: { readonly idToken: unknown }
}

/** The tokens of an answer, with the claims of an ID token that passes what openid-client leaves to its caller. */
async function verified<Configuration>(
  deps: TokenCallDeps<Configuration>,
  { ignoredIdToken }: Pick<TokenCallEnd<unknown>, 'ignoredIdToken'>,
  { tokens, obtainedAt, ignored, configuration }: Answered & { configuration: Configuration },
): Promise<GrantedTokens> {
  const granted = grantedTokens(obtainedAt, tokens)
  if (ignored) return { ...granted, claims: undefined, unverifiedSubject: unverifiedSubject(ignored.idToken) }
  const claims = tokens.claims()
  const { id_token: idToken } = tokens
  if (!claims || idToken === undefined) return { ...granted, claims: undefined }
  try {
    await deps.requireSigned(idToken, configuration)
    return { ...granted, claims: requireSoundClaims(claims, { ...deps, now: deps.now() }) }
  } catch (error) {
    const failure = error instanceof BffError ? error : idTokenError(error, idToken)
    if (!ignoredIdToken) throw failure
    ignoredIdToken(failure)
    return {
      ...granted,
      idToken: undefined,
      claims: undefined,
      unverifiedSubject: unverifiedSubject(idToken),
    }
  }
}

/** How far one call has come. */
type Progress = {
  begun?: { readonly credential: string | undefined; readonly at: number }
  wasSent: boolean
  answer: TokenAnswer | undefined
  /** Why what the answer brought could not be kept; the library would make an error of the answer's of it. */
  unkept?: unknown
}

function watchOf(progress: Progress, { answer }: Pick<TokenCallEnd<unknown>, 'answer'>): TokenCallWatch {
  return {
    async answer(seen) {
      progress.answer = seen
      try {
        await answer?.(seen)
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

/** Judges the same answer once more, from memory, as if the provider had left its ID token out. */
async function withoutIdToken(
  providerFetch: Pick<ProviderFetch, 'watching'>,
  { ignoredIdToken }: Pick<TokenCallEnd<unknown>, 'ignoredIdToken'>,
  {
    error,
    answer,
    obtainedAt,
    request,
  }: {
    error: unknown
    answer: TokenAnswer | undefined
    obtainedAt: number
    request: () => Promise<CheckedAnswer>
  },
): Promise<Answered> {
  const idToken = answer?.status === 200 ? answer.body?.id_token : undefined
  if (!idToken) throw error
  if (!ignoredIdToken || !answer?.body) throw idTokenError(error, idToken)
  const { id_token: _, ...instead } = answer.body
  const tokens = await providerFetch.watching({ answer() {}, instead }, request)
  ignoredIdToken(idTokenError(error, idToken))
  return { tokens, obtainedAt, ignored: { idToken } }
}

/** Tells holders apart; what they hold stays here. */
function pseudonym(holder: string | undefined): string | undefined {
  return holder && createHash('sha256').update(holder).digest('base64url')
}

function isQuickRefusalOfClient(answer: TokenAnswer | undefined, tookMs: number): boolean {
  return answer?.body?.error === 'invalid_client' && answer.status !== 200 && tookMs < QUICK_REFUSAL_MS
}

function grantedTokens(obtainedAt: number, tokens: CheckedAnswer): Omit<GrantedTokens, 'claims'> {
  // We offered no key to bind it to, and could not prove that we have it.
  if (tokens.token_type === 'dpop') throw new Error('the access token is bound to a key (DPoP)')
  return {
    accessToken: tokens.access_token === NO_ACCESS_TOKEN ? '' : tokens.access_token,
    obtainedAt,
    expiresAt: obtainedAt + (tokens.expires_in ?? 0) * 1000,
    refreshToken: tokens.refresh_token,
    idToken: tokens.id_token,
    resource: typeof tokens.resource === 'string' ? tokens.resource : undefined,
    scope: typeof tokens.scope === 'string' ? tokens.scope : undefined,
  }
}
