import type { AuthorizationError } from '../scripted/authorization-endpoint.ts'
import type { AzureErrorName } from './azure-errors.ts'

/** An answer of the token endpoint to the byte. */
export type RawAnswer = {
  readonly status: number
  /** JSON unless `headers` say otherwise. */
  readonly body: string
  readonly headers?: Record<string, string>
}

/** The sign-in that claims are about. */
export type AzureSignIn = {
  readonly user: string
  /** Its authorization request carried a claims challenge. */
  readonly withClaims: boolean
  readonly acr?: string | undefined
  /** Epoch seconds. */
  readonly authTime?: number | undefined
}

/** What happens when a token for one resource is asked for. Change it while the provider runs. */
export type ResourcePolicy = {
  /**
   * `wrong-resource` answers a token for `answerFor` instead; `bare` leaves out refresh_token and expires_in;
   * `raw` answers a refresh with `raw`, whatever else it holds; the rest are refusals.
   */
  outcome: 'ok' | 'wrong-resource' | 'bare' | 'raw' | AzureErrorName
  /** The answer of `raw`. */
  raw?: RawAnswer
  /** Changes a token answer before it is sent. */
  edit?: (answer: Record<string, unknown>) => void
  /** The resource of a `wrong-resource` answer. */
  answerFor?: string
  /** The claims challenge of `step-up` and `blocked`; a documented one unless given. */
  claims?: string
  /** For `throttled` and `throttled-until`; 2 unless given. */
  retryAfterSeconds?: number
  /** Waits before the answer. */
  delayMs?: number
  /** Does all the work, then cuts the connection instead of answering. */
  dropConnection?: boolean
  /** How often it applies before the resource is `ok` again; always, unless given. */
  times?: number
  /** Which token requests it concerns; refreshes, unless given. */
  legs?: 'refresh' | 'code' | 'both'
  /** False: signing in again does not help (`step-up` is cured by `claims` on the authorization request, `consent` by naming the resource there). */
  curable?: boolean
}

/** The switches of a running provider. */
export type AzurePolicy = {
  /** By App ID URI. */
  resources: Record<string, ResourcePolicy>
  /** For resources without an entry of their own. */
  everyResource?: ResourcePolicy
  /** Show a sign-in form. */
  interactive: boolean
  /** Who is signed in when no form is shown. */
  user: string
  /** Answers authorization requests with this error. */
  authorizationError?: AuthorizationError
  /** Life of new access tokens in seconds. */
  accessTokenSeconds: number
  /** Claims added to ID tokens. */
  idTokenClaims: Record<string, unknown>
  /** Claims of a user: those of ID tokens, and those of access tokens. */
  claimsOf?: (grant: AzureSignIn, token: 'id' | 'access') => Record<string, unknown>
  /** v1 only: the ID token of the code leg has `alg: none`, as documented. */
  unsignedIdToken: boolean
  /** v1 only: token answers have no `resource`, which ADAL took for a refresh token of one resource. */
  namesNoResource: boolean
  /** A refresh whose `claims` ask for an authentication context that the sign-in did not have is refused with 50076. */
  enforcesContexts?: boolean
  /** Discovery and keys answer 503. */
  metadataDown: boolean
}

/** The policy that applies to this request, if any; counts `times` down. */
export function takePolicy(
  policy: AzurePolicy,
  resource: string,
  leg: 'refresh' | 'code',
  signedIn: { withClaims: boolean; named: readonly string[] },
): ResourcePolicy | undefined {
  const found = policy.resources[resource] ?? policy.everyResource
  if (!found || found.times === 0) return undefined
  const legs = found.legs ?? 'refresh'
  if (legs !== 'both' && legs !== leg) return undefined
  if (found.curable !== false) {
    if (found.outcome === 'step-up' && signedIn.withClaims) return undefined
    if (found.outcome === 'consent' && signedIn.named.includes(resource)) return undefined
  }
  if (found.times !== undefined) found.times -= 1
  return found
}
