import type { RateLimits } from '../config/config.ts'
import type { ErrorCode } from '../errors.ts'
import type { GrantOutcome } from '../oidc/grants/config-faults.ts'
import type { CallOutcome, GrantName } from '../oidc/token-endpoint/limiter.ts'
import type { UpstreamFailure } from '../proxy/upstream/dispatcher.ts'
import type { MissingSession } from '../session/missing-session.ts'
import type { SealedPurpose } from '../tokens/record/sealing.ts'
import type { RefreshLockOutcome } from '../tokens/refresh/refresh-lock.ts'

/** Makes the list of all members of a union. One that is forgotten does not compile. */
const all = <T extends string>(members: Readonly<Record<T, true>>) =>
  Object.keys(members) as unknown as readonly T[]

/** The code of a request that Cloakroom did not refuse: the status is the upstream's, or that of one of our own pages. */
export const NO_CODE = 'none'

/** Codes of problems; `internal_error`: a defect of our own. */
export const CODES = all<ErrorCode | 'internal_error'>({
  ...{ path_rejected: true, invalid_return_url: true, invalid_callback: true, bad_request: true },
  ...{ session_required: true, reauthentication_required: true, csrf_required: true },
  ...{ origin_forbidden: true, access_denied: true, route_not_found: true, method_not_allowed: true },
  ...{ body_too_large: true, misdirected_request: true, rate_limited: true, upstream_unreachable: true },
  ...{ provider_rejected: true, store_unavailable: true, provider_unavailable: true, upstream_timeout: true },
  internal_error: true,
})

/** Methods of requests; `UPGRADE`: WebSockets, `INVALID`: bytes that are no request. */
export const METHODS = [
  ...['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'UPGRADE', 'INVALID', 'OTHER'],
] as const

export const CSRF_CODES: readonly ErrorCode[] = ['csrf_required', 'origin_forbidden']

export const UPSTREAM_FAILURES = all<UpstreamFailure>({
  ...{ dns: true, connect: true, tls: true, timeout: true, reset: true, protocol: true },
  ...{ circuit_open: true, no_connection: true },
})

export const REFRESH_OUTCOMES = all<GrantOutcome | 'uncertain'>({
  ...{ renewed: true, id_token_ignored: true, wrong_audience: true, scope_not_granted: true },
  ...{ unusable_answer: true, no_refresh_token: true, dead_grant: true, step_up: true, consent: true },
  ...{ user_must_act: true, configuration: true, route_configuration: true, retry_later: true, loop: true },
  uncertain: true,
})

export const LOCK_OUTCOMES = all<RefreshLockOutcome>({
  ...{ worked: true, coalesced: true, settled_elsewhere: true, lock_timeout: true },
})

export const GRANTS = all<GrantName>({
  ...{ authorization_code: true, pushed_authorization: true, refresh_token: true },
  ...{ client_credentials: true, token_exchange: true },
})
export const CALL_OUTCOMES = all<CallOutcome>({ ok: true, refused: true, fault: true })

/** Of the sign-ins that fail, those that an alert or an operator looks for; of all steps and errors there would be too many. */
export const SIGN_IN_FAILURES: readonly (readonly [step: string, error: string])[] = [
  ...['iss', 'sub', 'aud', 'exp', 'iat', 'nbf', 'nonce', 'azp'].map((claim) => ['id_token', claim] as const),
  ...['invalid_client', 'invalid_grant', 'unauthorized_client', 'provider_unavailable'].map(
    (error) => ['code', error] as const,
  ),
  ['authorization', 'access_denied'],
  ['login', 'store_unavailable'],
  ['login', 'provider_unavailable'],
]

/** `needs_user`: the provider cannot sign in without asking (OpenID Connect Core §3.1.2.6), and the application was told. */
export const SIGN_IN_OUTCOMES = ['begun', 'succeeded', 'failed', 'needs_user'] as const

/** Why sessions end, as far as replicas see it. What is not listed is counted as `other`. */
export const SESSION_ENDS = [
  ...['logout', 'replaced', 'discarded', 'by_user', 'max_per_user', 'absolute_timeout'],
  ...['backchannel_logout', 'frontchannel_logout', 'global_revocation'],
  ...['session_revoked', 'credential_change', 'account_disabled', 'account_purged'],
  ...['credential_compromise', 'sessions_revoked', 'subject_changed', 'other'],
  // How authorization servers call a refresh token that is dead.
  ...['invalid_grant', 'invalid_request', 'invalid_token', 'invalid_refresh_token', 'expired_token'],
  ...['token_expired', 'refresh_token_expired', 'expired_refresh_token', 'token_revoked'],
  ...['refresh_token_revoked', 'token_inactive'],
]

export const MISSING_SESSIONS = all<MissingSession>({
  ...{ absent: true, repeated: true, forged: true, expired: true, unknown: true, key_gone: true },
})

export const SEALED_KINDS = all<SealedPurpose['kind']>({
  ...{ session: true, refresh_token: true, access_token: true, client_token: true, login: true, about: true },
})
export const UNOPENED = ['key_gone', 'rejected'] as const

export const STORE_ERRORS = [
  ...['timeout', 'connection', 'permission', 'out_of_memory', 'read_only', 'not_ready', 'moved', 'other'],
] as const

/** What a store says that answers, and refuses. */
export const STORE_REFUSALS: ReadonlySet<(typeof STORE_ERRORS)[number]> = new Set([
  ...(['permission', 'out_of_memory', 'read_only', 'moved'] as const),
])

/** The kind of a store error by its code: that of Redis's reply, or of the connection. */
export function storeErrorKind(code: string | undefined): (typeof STORE_ERRORS)[number] {
  return STORE_ERROR_KINDS.get(code ?? '') ?? 'other'
}

const STORE_ERROR_KINDS: ReadonlyMap<string, (typeof STORE_ERRORS)[number]> = new Map([
  ...(['ETIMEDOUT'] as const).map((code) => [code, 'timeout'] as const),
  ...['ENOTCONN', 'ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH'].map(
    (code) => [code, 'connection'] as const,
  ),
  ...['NOPERM', 'NOAUTH', 'WRONGPASS'].map((code) => [code, 'permission'] as const),
  ['OOM', 'out_of_memory'],
  ['READONLY', 'read_only'],
  ...['LOADING', 'MASTERDOWN', 'BUSY', 'CLUSTERDOWN', 'TRYAGAIN'].map((code) => [code, 'not_ready'] as const),
  ...['MOVED', 'ASK'].map((code) => [code, 'moved'] as const),
])

/** Endpoints with a rate limit. */
export const LIMITED = all<keyof RateLimits>({
  ...{ login: true, callback: true, logout: true, frontchannelLogout: true },
  ...{ backchannelLogout: true, events: true },
})
