import type { Config } from '../config/config.ts'
import type { SealedPurpose, Sealing } from './sealed.ts'

/**
 * A sealing that also binds everything to the provider and the client it came from, and an access token to the whole
 * definition of its resource: what a later configuration calls by the same name opens nothing of before.
 */
export function bindToGrants(
  sealing: Sealing,
  { provider: { issuer, clientId }, resources }: Pick<Config, 'provider' | 'resources'>,
): Sealing {
  const grant = JSON.stringify([issuer, clientId])
  const byResource = new Map(
    Object.entries(resources).map(([name, resource]) => [name, JSON.stringify([issuer, clientId, resource])]),
  )
  function bound({ name, ...purpose }: SealedPurpose): SealedPurpose {
    return { ...purpose, name: name === undefined ? grant : (byResource.get(name) ?? name) }
  }
  return {
    seal: (purpose, plaintext) => sealing.seal(bound(purpose), plaintext),
    open: (purpose, sealed) => sealing.open(bound(purpose), sealed),
  }
}
