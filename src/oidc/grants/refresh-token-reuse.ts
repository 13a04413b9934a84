import type { ProviderConfig } from '../../config/config.ts'

/** Issuers of Entra ID, whatever the cloud or the host's name, end in `/{tenant id}/` or `/{tenant id}/v2.0`; AD FS in `/adfs`. */
const MICROSOFT_ISSUER = /\/(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?:\/v2\.0)?|adfs)\/?$/i

/**
 * Whether this provider takes a refresh token again that it has seen already; `auto` when that has to be learned. Entra
 * ID and AD FS do: their refresh tokens are not revoked when they are used.
 */
export function reusesRefreshTokens({
  issuer,
  reusesRefreshTokens: setting,
}: Pick<ProviderConfig, 'issuer' | 'reusesRefreshTokens'>): boolean | 'auto' {
  return setting === 'auto' && MICROSOFT_ISSUER.test(issuer) ? true : setting
}
