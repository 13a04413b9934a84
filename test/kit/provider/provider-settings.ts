/** The parts of `provider:` that a config needs for a scripted provider; plain data, ready for YAML. */
export type ProviderSettings = {
  issuer: string
  clientId: string
  clientAuth: { method: string; secret?: string }
  resourceDialect: string
  signInScopes?: string
  scopes: string[]
}
