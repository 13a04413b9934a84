import { createCodes } from '../../../src/demo/scripted/authorization-endpoint.ts'
import { createSigner } from '../../../src/demo/scripted/signing.ts'

/** The parts of `provider:` that a config needs for a scripted provider; plain data, ready for YAML. */
export type ProviderSettings = {
  issuer: string
  clientId: string
  clientAuth: { method: string; secret?: string }
  resourceDialect: string
  signInScopes?: string
  scopes: string[]
}

/** What every scripted provider holds: its signing key, its codes, every secret it gave out, and what it saw that breaks a rule. */
export async function createProviderState() {
  const issuedSecrets: string[] = []
  const violations: string[] = []
  return {
    ...{ signer: await createSigner(), codes: createCodes(), issuedSecrets, violations },
    /** Notes a secret that is given out. */
    issue(secret: string): string {
      issuedSecrets.push(secret)
      return secret
    },
  }
}

/** The URLs of a provider's endpoints, given their paths. */
export function endpointsAt<Name extends string>(
  origin: string,
  paths: Readonly<Record<Name, string>>,
): Record<Name, string> {
  const urls = Object.entries<string>(paths).map(([name, path]) => [name, origin + path])
  return Object.fromEntries(urls)
}
