/** How the provider answers one refresh request. */
export type ProviderAnswer =
  | { readonly kind: 'granted'; readonly refreshToken: string; readonly accessToken: string }
  | { readonly kind: 'invalid_grant' }

/** An authorization server that rotates at every use and ends the grant when a rotated token comes again (RFC 9700 §4.14.2). */
export type ProviderModel = {
  /** The one refresh token it would accept; used ones are `rt-1` … up to it. */
  current(): string
  isDead(): boolean
  /** How often a rotated refresh token came again. */
  reuses(): number
  /** Access tokens issued, by resource. */
  issued(resource: string): number
  refresh(refreshToken: string, resource: string): ProviderAnswer
  /** Revoking a token that has been rotated already does nothing: the worst that RFC 7009 allows. */
  revoke(refreshToken: string): void
}

/** Makes a provider that has just given `rt-1`. */
export function createProviderModel(): ProviderModel {
  let generation = 1
  let isDead = false
  let reuses = 0
  const issued = new Map<string, number>()
  const current = () => `rt-${generation}`
  return {
    current,
    isDead: () => isDead,
    reuses: () => reuses,
    issued: (resource) => issued.get(resource) ?? 0,
    refresh(refreshToken, resource) {
      if (!isDead && refreshToken !== current()) {
        reuses += 1
        isDead = true
      }
      if (isDead) return { kind: 'invalid_grant' }
      generation += 1
      issued.set(resource, (issued.get(resource) ?? 0) + 1)
      return { kind: 'granted', refreshToken: current(), accessToken: `${resource}#${generation}` }
    },
    revoke(refreshToken) {
      if (refreshToken === current()) isDead = true
    },
  }
}
