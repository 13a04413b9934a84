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

/** Makes the one way to the token endpoint: through the gate, timed from when the request is really sent. */
export function createTokenCall<Configuration>(deps: TokenCallDeps<Configuration>) {
  return async function tokenCall<Failure>(
    grant: GrantName,
    request: (configuration: Configuration) => Promise<CheckedAnswer>,
    end: TokenCallEnd<Failure>,
  ): Promise<GrantedTokens | Failure> {
    let answer: TokenAnswer | undefined
    const see = (seen: TokenAnswer) => {
      answer = seen
      return end.answer?.(seen)
    }
    try {
      const configuration = await deps.configuration()
      const send = async () => {
        const obtainedAt = deps.now()
        const tokens = await deps.providerFetch.watching(see, () => request(configuration))
        const claims = requireSoundClaims(tokens.claims(), { clientId: deps.clientId, now: obtainedAt })
        return { ...grantedTokens(obtainedAt, tokens), claims }
      }
      return await deps.gate.call(grant, send, (error) => findingOf(error, answer))
    } catch (error) {
      return end.failed(error, answer)
    }
  }
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
