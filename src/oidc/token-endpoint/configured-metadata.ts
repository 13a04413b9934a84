import type { ProviderEndpoints } from '../../config/config.ts'

/** Algorithms an ID token may be signed with when no discovery document says which. */
export const ACCEPTED_SIGNING_ALGORITHMS = [
  'RS256',
  'PS256',
  'ES256',
  'ES384',
  'PS384',
  'RS384',
  'EdDSA',
  'Ed25519',
]

/** The configured endpoints under their names of RFC 8414 §2. */
export function endpointMetadata(endpoints: ProviderEndpoints): Record<string, string> {
  const named = {
    authorization_endpoint: endpoints.authorization,
    token_endpoint: endpoints.token,
    jwks_uri: endpoints.jwks,
    revocation_endpoint: endpoints.revocation,
    end_session_endpoint: endpoints.endSession,
    userinfo_endpoint: endpoints.userinfo,
  }
  return Object.fromEntries(
    Object.entries(named).filter((entry): entry is [string, string] => Boolean(entry[1])),
  )
}
