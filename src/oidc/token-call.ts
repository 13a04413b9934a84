import type { GrantedTokens } from './grant-types.ts'
import { requireSoundClaims } from './id-token-rules.ts'
import { findingOf } from './provider-errors.ts'
import type { GrantName, ProviderGate } from './provider-gate.ts'
import type { ProviderFetch, TokenAnswer } from './token-answer.ts'

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
  /** Throws or returns what a failure is to the caller. */
  readonly failed: (error: unknown, answer: TokenAnswer | undefined) => Failure
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
    let sent: { readonly credential: string | undefined; readonly at: number } | undefined
    const see = (seen: TokenAnswer) => {
      answer = seen
      return end.answer?.(seen)
    }
    try {
      const configuration = await deps.configuration()
      const send = async () => {
        const obtainedAt = deps.now()
        // An answer that does not come must not be taken for the one before.
        answer = undefined
        sent = { credential: deps.credential(), at: obtainedAt }
        const tokens = await deps.providerFetch.watching(see, () => request(configuration))
        const claims = requireSoundClaims(tokens.claims(), { clientId: deps.clientId, now: obtainedAt })
        return { ...grantedTokens(obtainedAt, tokens), claims }
      }
      const ask = () => deps.gate.call(grant, send, (error) => findingOf(error, answer))
      return await ask().catch((error) => {
        if (!sent || !isQuickRefusalOfClient(answer, deps.now() - sent.at)) throw error
        if (deps.credential() === sent.credential) throw error
        return ask()
      })
    } catch (error) {
      return end.failed(error, answer)
    }
  }
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
