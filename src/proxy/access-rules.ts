import { createThrottledWarning } from '../async/log-throttle.ts'
import type { AccessRules, RouteConfig } from '../config/config.ts'
import { BffError, SharedRefusal } from '../errors.ts'
import type { Logger } from '../log.ts'
import type { BffSession } from '../session/session.ts'
import type { AccessToken } from '../tokens/record/sealing.ts'

/** Who calls, as far as access rules look at it. */
export type Caller = {
  readonly claims: Readonly<Record<string, unknown>>
  /** Of the access token; asked only when a rule names some. */
  readonly scopes: () => readonly string[]
}

/** The rule that is not met. `claim` is its name, never its value. */
export type UnmetRule =
  | { readonly reason: 'claims' | 'groups_overage'; readonly claim: string }
  | { readonly reason: 'insufficient_scope' }
  | { readonly reason: 'insufficient_user_authentication'; readonly claim: 'acr' | 'auth_time' }

/** Times in ms. */
export type JudgedAt = { readonly now: number; readonly clockToleranceMs: number }

/**
 * The first of a route's rules that is not met; undefined when all are. What no new sign-in can cure comes first, so that a
 * person is not sent to sign in for nothing.
 */
export function unmetRule(
  rules: AccessRules,
  { claims, scopes }: Caller,
  at: JudgedAt,
): UnmetRule | undefined {
  for (const { name, values } of rules.claims ?? []) {
    if (hasOneOf(claimOf(claims, name), values)) continue
    return { reason: isLeftOut(claims, name) ? 'groups_overage' : 'claims', claim: name }
  }
  if (rules.scopes) {
    const granted = scopes()
    if (!rules.scopes.some((scope) => granted.includes(scope))) return { reason: 'insufficient_scope' }
  }
  return unmetAuthentication(rules, claims, at)
}

/**
 * A claim by its whole name, which may hold dots, as the names of Auth0 and others do; if there is none of that name, by a
 * path into objects, such as Keycloak's `realm_access.roles`.
 */
function claimOf(claims: Readonly<Record<string, unknown>>, name: string): unknown {
  if (Object.hasOwn(claims, name)) return claims[name]
  for (let dot = name.indexOf('.'); dot !== -1; dot = name.indexOf('.', dot + 1)) {
    const head = name.slice(0, dot)
    const inner = Object.hasOwn(claims, head) ? claims[head] : undefined
    if (typeof inner !== 'object' || inner === null || Array.isArray(inner)) continue
    const found = claimOf(inner as Readonly<Record<string, unknown>>, name.slice(dot + 1))
    if (found !== undefined) return found
  }
  return undefined
}

/** Compared as text and letter by letter: providers send `true` and `"true"`, `7` and `"7"`. An object is no value. */
function hasOneOf(claim: unknown, values: readonly string[]): boolean {
  const items = Array.isArray(claim) ? claim : [claim]
  return items.some((item) => isScalar(item) && values.includes(String(item)))
}

function isScalar(value: unknown): boolean {
  return typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean'
}

/**
 * Whether the provider holds the claim and left it out of the token: Entra ID does so with more than 200 groups. It names it
 * in `_claim_names` (OpenID Connect Core §5.6.2), or says `hasgroups`.
 */
function isLeftOut(claims: Readonly<Record<string, unknown>>, name: string): boolean {
  const names = claims._claim_names
  const isNamed = typeof names === 'object' && names !== null && Object.hasOwn(names, name)
  return isNamed || (name === 'groups' && String(claims.hasgroups) === 'true')
}

/**
 * RFC 9470 §4: by `acr`, and by an `auth_time` that is there. One in the future, beyond what clocks differ, tells nothing.
 * The tolerance is not added to the age: an operator's 15 minutes are 15.
 */
function unmetAuthentication(
  { acr, maxAgeMs }: AccessRules,
  claims: Readonly<Record<string, unknown>>,
  { now, clockToleranceMs }: JudgedAt,
): UnmetRule | undefined {
  const reason = 'insufficient_user_authentication'
  if (acr && !hasOneOf(claims.acr, acr)) return { reason, claim: 'acr' }
  if (maxAgeMs === undefined) return undefined
  const { auth_time: authTime } = claims
  const ageMs = typeof authTime === 'number' ? now - authTime * 1000 : Number.NaN
  const isFresh = ageMs <= maxAgeMs && ageMs >= -clockToleranceMs
  return isFresh ? undefined : { reason, claim: 'auth_time' }
}

export type AccessCheckDeps = {
  /** Epoch ms. */
  readonly now: () => number
  readonly clockToleranceMs: number
  /** The scopes of the access token of a resource. */
  readonly scopesOf: (token: AccessToken, resource: string) => readonly string[]
  /** Told of each refusal because the provider left a claim out of its token. */
  readonly leftOut?: (route: string, claim: string) => void
  /** How the audit stream calls a user. */
  readonly subjectOf?: (claims: BffSession['claims']) => string
}

/** Makes the warning of claims that the provider left out: at once, and then once a minute. */
export function createLeftOutWarning(log: Pick<Logger, 'warn'>): NonNullable<AccessCheckDeps['leftOut']> {
  const warn = createThrottledWarning(
    log,
    'access refused because the provider left a claim out of its token (groups overage): have it send the groups that are assigned to the application, or roles',
  )
  return (route, claim) => warn({ route, claim, reason: 'groups_overage' })
}

/** Why a route with access rules refuses a session: access_denied or reauthentication_required; undefined when it does not. */
export type AccessCheck = (
  route: RouteConfig & { readonly require: AccessRules },
  session: BffSession,
  token: AccessToken | undefined,
) => BffError | undefined

/** Makes the check of `require` for the sessions of one configuration. */
export function createAccessCheck(deps: AccessCheckDeps): AccessCheck {
  const { clockToleranceMs, scopesOf } = deps
  return function accessRefusal(route, session, token) {
    const { require: rules, resource = '' } = route
    const caller = { claims: session.claims, scopes: () => (token ? scopesOf(token, resource) : []) }
    const unmet = unmetRule(rules, caller, { now: deps.now(), clockToleranceMs })
    if (unmet?.reason === 'groups_overage') deps.leftOut?.(route.id, unmet.claim)
    if (unmet?.reason !== 'insufficient_user_authentication') {
      return unmet && accessDenied(unmet, deps.subjectOf?.(session.claims))
    }
    const atSignIn = { now: session.createdAt, clockToleranceMs }
    const hasAged = unmetAuthentication(rules, session.claims, atSignIn) === undefined
    return signInAgain(rules, unmet, { resource, hasAged })
  }
}

const DENIALS = {
  claims: 'this route is for others',
  groups_overage: 'the identity provider left out what this route goes by',
  insufficient_scope: 'the access token lacks the scope that this route needs',
} as const

/** A refusal that signing in again would not cure. `subject`: of the user, for the audit stream. */
export function accessDenied(
  unmet: Exclude<UnmetRule, { reason: 'insufficient_user_authentication' }>,
  subject?: string,
): BffError {
  const { reason } = unmet
  return new BffError('access_denied', DENIALS[reason], {
    details: { reason },
    logged: { ...('claim' in unmet ? { claim: unmet.claim } : {}), ...(subject ? { subject } : {}) },
  })
}

/** RFC 9470 §3: what the next sign-in must bring, both at once, so that one is enough. */
function signInAgain(
  { acr, maxAgeMs }: AccessRules,
  { reason, claim }: Extract<UnmetRule, { reason: 'insufficient_user_authentication' }>,
  { resource, hasAged }: { resource: string; hasAged: boolean },
): BffError {
  return new BffError('reauthentication_required', 'this route needs a newer or stronger sign-in', {
    details: { reason },
    logged: { claim },
    stepUp: {
      resource,
      ofRoute: true,
      ...(acr ? { acrValues: acr.join(' ') } : {}),
      ...(maxAgeMs === undefined ? {} : { maxAge: Math.max(1, Math.floor(maxAgeMs / 1000)) }),
      ...(hasAged ? { hasAged: true } : {}),
    },
  })
}

/** One for all requests: a client that is signed out may ask often. */
const SESSION_REQUIRED = sessionRequiredWith()
/** RFC 9110 §15.5.2: what would do, beside the cookie. A browser asks its user nothing for this scheme. */
const SESSION_OR_BEARER_REQUIRED = sessionRequiredWith({ 'www-authenticate': 'Bearer' })

/** The refusal of a request without a session. */
export function sessionRequired({ bearer }: RouteConfig): BffError {
  return bearer ? SESSION_OR_BEARER_REQUIRED : SESSION_REQUIRED
}

function sessionRequiredWith(headers?: Readonly<Record<string, string>>): SharedRefusal {
  return new SharedRefusal('session_required', 'this route needs a signed-in session', { headers })
}
