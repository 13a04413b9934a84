import type { BffError } from '../../errors.ts'
import type { TokenHolder } from '../record/token-record.ts'

/** What a session's sign-in asked for and was granted, and the step-ups that it was for. */
export type SessionGrant = {
  readonly [Member in 'indicators' | 'scopes' | 'granted' | 'steppedUp']?: TokenHolder[Member] | undefined
}

/** What the tokens room asks of the provider: one refresh grant for one resource (RFC 6749 §6). */
export type RefreshGrantRequest = {
  readonly refreshToken: string
  /** Name of the resource in the config. */
  readonly resource: string
  /** Tells one session from another. */
  readonly session?: string
  readonly signIn?: SessionGrant
  /** Stores a rotated refresh token. Called, and awaited, before anything else in the answer is looked at. */
  readonly keep: (newRefreshToken: string) => Promise<void>
  /** JSON text of the claims that a challenge asks for (OpenID Connect Core §5.5). */
  readonly claims?: string
}

/** How a refresh grant ended. Times in epoch ms. */
export type RefreshGrantOutcome =
  | {
      readonly kind: 'renewed'
      readonly accessToken: string
      readonly obtainedAt: number
      readonly expiresAt: number
      /** `sub` of a verified new ID token, if one came: must be the user who signed in (OpenID Connect Core §12.2). */
      readonly subject?: string
      /** What the claims of the session become by that ID token; undefined when it changes nothing. */
      readonly claimsAfter?: (before: TokenHolder['claims']) => TokenHolder['claims'] | undefined
    }
  /** The refresh token is of no use any more: the session ends. */
  | { readonly kind: 'dead'; readonly reason: string }
  /** This resource is refused, or we are misconfigured: the session and the other resources stay. */
  | { readonly kind: 'refused'; readonly error: BffError; readonly isMaybeSpent: boolean }
  /** No answer, or a passing fault: a living token is used on. */
  | { readonly kind: 'unavailable'; readonly error: BffError; readonly isMaybeSpent: boolean }

export type RefreshGrant = (request: RefreshGrantRequest) => Promise<RefreshGrantOutcome>
