import { createHash } from 'node:crypto'
import type { GrantedTokens } from './grant-types.ts'
import { requireSoundClaims } from './id-token-rules.ts'
import { unverifiedSubject } from './jwt.ts'
import { findingOf } from './provider-errors.ts'
import type { GrantName, ProviderGate } from './provider-gate.ts'
import type { ProviderFetch, TokenAnswer, TokenCallWatch } from './token-answer.ts'

export type TokenCallDeps<Configuration> = {
  readonly configuration: () => Promise<Configuration>
  readonly gate: Pick<ProviderGate, 'call'>
  readonly providerFetch: Pick<ProviderFetch, 'watching'>
  readonly clientId: string
  /** What the client authenticates with, as it is now; never leaves this file. Undefined for a public client. */
  readonly credential: () => string | undefined
  readonly now: () => number
}

/** What a caller makes of an answer. */
export type TokenCallEnd<Failure> = {
  /** Sees the answer first; awaited before the answer is judged. */
  readonly answer?: (answer: TokenAnswer) => Promise<void>
  /** Throws or returns what a failure is to the caller. `wasSent`: false when certainly not a byte of the request was. */
  readonly failed: (error: unknown, answer: TokenAnswer | undefined, wasSent: boolean) => Failure
  /**
   * Told why the ID token of an answer was left out, which is good without one: its claims are not used, and `subject`,
   * its unverified `sub`, is only to be compared. Without this, an ID token that fails its checks fails the call.
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
    let answer: TokenAnswer | undefined
    let wasSent = false
    /** Why what the answer brought could not be kept; the library would make an error of the answer's of it. */
    let unkept: unknown
    let sent: { readonly credential: string | undefined; readonly at: number } | undefined
    const watch: TokenCallWatch = {
      async answer(seen) {
        answer = seen
        try {
          await end.answer?.(seen)
        } catch (error) {
          unkept = error
          throw error
        }
      },
      sent() {
        wasSent = true
      },
    }
    try {
      const configuration = await deps.configuration()
      const send = async () => {
        const obtainedAt = deps.now()
        // An answer that does not come must not be taken for the one before.
        answer = undefined
        wasSent = false
        sent = { credential: deps.credential(), at: obtainedAt }
        try {
          const tokens = await deps.providerFetch.watching(watch, () => request(configuration))
          const claims = requireSoundClaims(tokens.claims(), { clientId: deps.clientId, now: obtainedAt })
          return { ...grantedTokens(obtainedAt, tokens), claims }
        } catch (error) {
          if (unkept) throw unkept
          const retry = { error, answer, obtainedAt, request: () => request(configuration) }
          return withoutIdToken(deps.providerFetch, end, retry)
        }
      }
      const ask = () =>
        deps.gate.call(grant, send, (error) => ({
          ...findingOf(error, answer),
          holder: pseudonym(end.holder),
        }))
      return await ask().catch((error) => {
        if (!sent || !isQuickRefusalOfClient(answer, deps.now() - sent.at)) throw error
        if (deps.credential() === sent.credential) throw error
        return ask()
      })
    } catch (error) {
      return end.failed(error, answer, wasSent)
    }
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
): Promise<GrantedTokens> {
  if (!ignoredIdToken || answer?.status !== 200 || !answer.body?.id_token) throw error
  const { id_token: idToken, ...instead } = answer.body
  const tokens = await providerFetch.watching({ answer() {}, instead }, request)
  ignoredIdToken(error)
  return {
    ...grantedTokens(obtainedAt, tokens),
    claims: undefined,
    unverifiedSubject: unverifiedSubject(idToken),
  }
}

/** Tells holders apart; what they hold stays here. */
function pseudonym(holder: string | undefined): string | undefined {
  return holder && createHash('sha256').update(holder).digest('base64url')
}

function isQuickRefusalOfClient(answer: TokenAnswer | undefined, tookMs: number): boolean {
  return answer?.body?.error === 'invalid_client' && answer.status !== 200 && tookMs < QUICK_REFUSAL_MS
}

function grantedTokens(obtainedAt: number, tokens: CheckedAnswer): Omit<GrantedTokens, 'claims'> {
  return {
    accessToken: tokens.access_token,
    obtainedAt,
    expiresAt: obtainedAt + (tokens.expires_in ?? 0) * 1000,
    refreshToken: tokens.refresh_token,
    idToken: tokens.id_token,
    resource: typeof tokens.resource === 'string' ? tokens.resource : undefined,
  }
}
