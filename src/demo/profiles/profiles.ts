import { auth0 } from './auth0.ts'
import { azureAdV1, entra } from './entra.ts'
import { keycloak } from './keycloak.ts'
import type { Profile } from './profile.ts'
import { plain, strict } from './resource-indicators.ts'

/** The providers that `--as` names, and `plain`, which keeps to the standards and has no peculiarity. */
export const PROFILES = { plain, entra, keycloak, auth0, strict } satisfies Record<string, Profile>
export type ProfileName = keyof typeof PROFILES

/** Whether a profile has this name. */
export function isProfileName(text: string): text is ProfileName {
  return Object.hasOwn(PROFILES, text)
}

/** The profile that is closest to a provider, judged by its issuer and by how its token requests name one API. */
export function profileFor({
  issuer,
  resourceDialect,
}: {
  readonly issuer: string
  readonly resourceDialect: string
}): Profile {
  if (resourceDialect === 'resource') return azureAdV1
  if (resourceDialect === 'audience') return auth0
  if (resourceDialect === 'resource-indicator') return plain
  const isMicrosofts = /^https:\/\/(?:login\.microsoftonline|login\.partner|sts\.windows)\./.test(issuer)
  return isMicrosofts ? entra : keycloak
}
