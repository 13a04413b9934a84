import type { GrantedTokens } from './grant-types.ts'

/** A clock that is off by more than this is a fault, on either side. */
const CLOCK_SKEW_SECONDS = 600
/** No ID token is good for a year: such an `exp` was not meant as one. */
const LONGEST_LIFE_SECONDS = 365 * 24 * 3600

/**
 * The rules of OpenID Connect Core §2 and §3.1.3.7 that openid-client leaves to its caller. Throws a plain Error that
 * names the rule and no claim value.
 *
 * @param now epoch ms.
 */
export function requireSoundClaims(
  claims: GrantedTokens['claims'],
  { clientId, now }: { clientId: string; now: number },
): GrantedTokens['claims'] {
  if (!claims) return undefined
  const { sub, azp, iat, exp } = claims
  if (sub === '') throw new Error('the ID token has an empty sub')
  // §3.1.3.7 rule 5: openid-client looks at azp only where there are several audiences.
  if (azp !== undefined && azp !== clientId) throw new Error('the ID token has the azp of another client')
  const latest = now / 1000 + CLOCK_SKEW_SECONDS
  if (Number(iat) > latest) throw new Error('the ID token has an iat in the future')
  if (Number(exp) > latest + LONGEST_LIFE_SECONDS) throw new Error('the ID token has an exp that is no date')
  return claims
}
