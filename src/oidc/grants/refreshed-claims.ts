import type { SessionGrant, UserClaims } from '../../store/port.ts'

/**
 * Claims that serve the protocol: JWT (RFC 7519 §4.1), ID token (OpenID Connect Core §2, §3.3.2.11, Back-Channel Logout
 * §2.1), Keycloak's `typ`, and what Entra ID and others put into every token. They tell an application nothing of the user.
 */
export const PROTOCOL_CLAIMS: ReadonlySet<string> = new Set([
  ...['iss', 'sub', 'aud', 'exp', 'nbf', 'iat', 'jti', 'nonce', 'azp', 'at_hash', 'c_hash', 's_hash'],
  ...['auth_time', 'acr', 'amr', 'sid', 'typ', 'session_state', 'ver', 'tid', 'uti', 'aio', 'rh', 'rat'],
  // Okta and Entra ID; Cognito; PingFederate.
  ...['idp', 'token_use', 'event_id', 'origin_jti', 'pi.sri'],
  // IPSIE SL1: when the session at the provider ends.
  'session_expiry',
])

/** They tell of the sign-in, which a refresh does not repeat: it brings none that was not there either. */
const SIGN_IN_CLAIMS: readonly string[] = ['acr', 'amr', 'auth_time', 'sid']

/** OpenID Connect Core §5.4: what each scope asks for, and what Entra ID adds for `profile`. */
const SCOPE_CLAIMS: Readonly<Record<string, readonly string[]>> = {
  profile: [
    ...['name', 'family_name', 'given_name', 'middle_name', 'nickname', 'preferred_username', 'profile'],
    ...['picture', 'website', 'gender', 'birthdate', 'zoneinfo', 'locale', 'updated_at', 'oid', 'upn'],
  ],
  email: ['email', 'email_verified'],
  address: ['address'],
  phone: ['phone_number', 'phone_number_verified'],
}

/**
 * The claims of a session after a refresh brought an ID token (OpenID Connect Core §12.2); undefined when it changes
 * nothing. One with protocol claims alone says nothing of the user. One with others replaces all, so that a last role that
 * was taken away goes although providers leave out an empty list; but what tells of the sign-in stays, and what the refresh
 * did not ask for: with `scope=orders openid` the token has no name, although the user still has one. When the session at
 * the provider ends is taken from every ID token that says it.
 *
 * @param asked the scopes of the refresh; undefined when it asked for all of the sign-in's (RFC 6749 §6).
 * @param signIn its scopes, of which many a one of a provider's own has a claim of its name, as `groups` has; and which claims
 * are of the UserInfo endpoint, which a refresh does not ask.
 */
export function claimsAfterRefresh(
  before: UserClaims,
  refreshed: UserClaims,
  asked: readonly string[] | undefined,
  { scopes: askedBefore = [], userinfo = [] }: Pick<SessionGrant, 'scopes' | 'userinfo'> = {},
): UserClaims | undefined {
  if (refreshed.sub !== before.sub) return undefined
  // A replica that stood still must not bring back what was true before.
  if (Number(refreshed.iat) < Number(before.iat)) return undefined
  if (Object.keys(refreshed).every((name) => PROTOCOL_CLAIMS.has(name))) {
    const { iat, session_expiry: sessionExpiry } = refreshed
    return sessionExpiry === undefined ? undefined : { ...before, iat, session_expiry: sessionExpiry }
  }
  const left = asked && [...Object.keys(SCOPE_CLAIMS), ...askedBefore].filter((one) => !asked.includes(one))
  const notAsked = new Set(left?.flatMap((scope) => SCOPE_CLAIMS[scope] ?? [scope]))
  const isOfSignIn = (name: string) => SIGN_IN_CLAIMS.includes(name) || userinfo.includes(name)
  const changed = Object.entries(refreshed).filter(([name]) => !isOfSignIn(name))
  const kept = Object.entries(before).filter(
    ([name]) =>
      isOfSignIn(name) ||
      ((notAsked.has(name) || name === 'session_expiry') && !Object.hasOwn(refreshed, name)),
  )
  return { sub: before.sub, ...Object.fromEntries(changed), ...Object.fromEntries(kept) }
}
