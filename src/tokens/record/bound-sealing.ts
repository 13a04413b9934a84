import type { Config } from '../../config/config.ts'
import type { SealedPurpose, Sealing } from './sealing.ts'

/** Where tokens come from: the provider, the client and the resources. */
export type Grants = Pick<Config, 'provider' | 'resources'>

/** The whole definition of a resource, with the provider and the client it is asked of; the name itself if it has none. */
export function createDefinitions({
  provider: { issuer, clientId },
  resources,
}: Grants): (name: string) => string {
  const byName = new Map(
    Object.entries(resources).map(([name, resource]) => [name, JSON.stringify([issuer, clientId, resource])]),
  )
  return (name) => byName.get(name) ?? name
}

/**
 * A sealing that also binds everything to the provider and the client it came from, and an access token to the whole
 * definition of its resource: what a later configuration calls by the same name opens nothing of before.
 */
export function bindToGrants(sealing: Sealing, grants: Grants): Sealing {
  const grant = JSON.stringify([grants.provider.issuer, grants.provider.clientId])
  const definitionOf = createDefinitions(grants)
  function bound({ name, ...purpose }: SealedPurpose): SealedPurpose {
    return { ...purpose, name: name === undefined ? grant : definitionOf(name) }
  }
  return {
    seal: (purpose, plaintext) => sealing.seal(bound(purpose), plaintext),
    open: (purpose, sealed) => sealing.open(bound(purpose), sealed),
  }
}
