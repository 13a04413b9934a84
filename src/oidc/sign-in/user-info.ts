import type { ProviderConfig } from '../../config/config.ts'
import { BffError } from '../../errors.ts'
import type { UserClaims } from '../../store/port.ts'
import { PROTOCOL_CLAIMS } from '../grants/refreshed-claims.ts'
import type { AuthorizationChecks } from '../token-endpoint/openid-client.ts'
import type { RelyingParty } from '../token-endpoint/relying-party.ts'
import type { GrantedTokens } from '../token-endpoint/token-requests.ts'

export type UserInfoDeps = {
  readonly provider: Pick<ProviderConfig, 'userinfo'>
  readonly relyingParty: Pick<RelyingParty, 'userInfo'>
}

/** The most that the claims of one user may take: they are in every record and copy of the session. Characters of JSON. */
const MOST_CLAIMS = 65_536

/**
 * Makes what adds the claims of the UserInfo endpoint (OpenID Connect Core §5.3) to those of the ID token, with the access
 * token that came with the code. A sign-in fails without them: access rules and headers would judge by half of the claims
 * for as long as the session lives.
 */
export function createUserInfo({ provider, relyingParty }: UserInfoDeps) {
  return async function withUserInfo(
    granted: GrantedTokens,
    { dpopKey }: Pick<AuthorizationChecks, 'dpopKey'>,
  ): Promise<GrantedTokens> {
    const { accessToken, claims } = granted
    if (!provider.userinfo || !claims) return granted
    if (accessToken === '')
      throw rejected('the provider sent no access token to ask the UserInfo endpoint with')
    const found = await relyingParty.userInfo(accessToken, claims.sub, dpopKey)
    if (JSON.stringify(found).length > MOST_CLAIMS) {
      throw rejected(`the UserInfo endpoint sent more than ${MOST_CLAIMS} characters of claims`)
    }
    const added = Object.entries(found).filter(([name]) => !PROTOCOL_CLAIMS.has(name))
    return {
      ...granted,
      claims: { ...claims, ...Object.fromEntries(added) } as UserClaims,
      userinfo: added.map(([name]) => name),
    }
  }
}

function rejected(message: string): BffError {
  return new BffError('provider_rejected', message, { logged: { step: 'userinfo' } })
}
