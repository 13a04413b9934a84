import { createPrivateKey } from 'node:crypto'
import { decodeJwt, importPKCS8 } from 'jose'
import type { ResourceConfig } from '../config/config.ts'

/**
 * Whether an access token may be sent to `resource`: false only for a JWT whose `aud` does not name the resource's
 * configured audience. An opaque token, or a resource without `audience`, cannot be judged and passes.
 *
 * The signature is the resource server's business (RFC 9068 §4): this check guards against a provider that answers
 * for another resource, as Entra does when scopes are mixed.
 */
export function isForAudience(accessToken: string, { audience }: ResourceConfig): boolean {
  if (audience === undefined) return true
  const aud = audiences(accessToken)
  return aud === undefined || aud.includes(audience)
}

/** The `aud` of a JWT, its signature not looked at; undefined for an opaque token. */
export function audiences(accessToken: string): readonly string[] | undefined {
  try {
    const { aud } = decodeJwt(accessToken)
    return aud === undefined ? [] : [aud].flat()
  } catch {
    return undefined
  }
}

/** The `sub` that a JWT claims, its signature not looked at: good for a comparison, and for nothing else. */
export function unverifiedSubject(jwt: unknown): string | undefined {
  try {
    return decodeJwt(String(jwt)).sub
  } catch {
    return undefined
  }
}

/** The signing key in a PEM (PKCS#8, PKCS#1 or SEC1). Throws when the PEM or the algorithm does not fit. */
export function privateKeyFromPem(pem: string, algorithm: string): Promise<CryptoKey> {
  const pkcs8 = createPrivateKey(pem).export({ type: 'pkcs8', format: 'pem' }).toString()
  return importPKCS8(pkcs8, algorithm)
}
