import type { BffError } from '../../errors.ts'
import type { TokenAnswer } from './token-answer.ts'

/** What a token endpoint gave. Times in epoch ms; `obtainedAt` is when the request was sent. */
export type GrantedTokens = {
  /** Empty where a code answer had none. */
  readonly accessToken: string
  readonly obtainedAt: number
  readonly expiresAt: number
  readonly refreshToken: string | undefined
  readonly idToken: string | undefined
  /** Claims of the verified ID token. */
  readonly claims: { readonly sub: string; readonly [claim: string]: unknown } | undefined
  /** `sub` of an ID token that was left out because it failed its checks. */
  readonly unverifiedSubject?: string | undefined
  /** Azure AD v1 names the resource it answered for. */
  readonly resource: string | undefined
  /** The `scope` of the answer (RFC 6749 §5.1), blank-separated; undefined when it was as asked for. */
  readonly scope?: string | undefined
}

/** What an authorization request is bound to, and what its response is checked against. */
export type AuthorizationChecks = {
  readonly state: string
  readonly nonce: string
  readonly codeVerifier: string
  /** Seconds since the user's authentication, if the request set a limit. */
  readonly maxAge?: number
}

/** A failed grant: our problem, and the answer it came from, if there was one. */
export type FailedGrant = {
  readonly error: BffError
  readonly answer: TokenAnswer | undefined
  /** False when it is certain that not a byte of the token request was sent. */
  readonly wasSent: boolean
}
