import { randomBytes } from 'node:crypto'
import { exportJWK, generateKeyPair, importJWK, type JSONWebKeySet, type JWK, SignJWT } from 'jose'

/** Signs JWTs with RS256 and publishes the public half. */
export type Signer = {
  /** The JWK set to serve. */
  jwks(): JSONWebKeySet
  /** Signs the claims as they are; `header` adds or overrides header members such as `typ`. */
  sign(claims: Record<string, unknown>, header?: Record<string, string>): Promise<string>
  /** From now on signs with a new key; the old one stays published. */
  rotateKey(): Promise<void>
}

/** One key per process: generating RSA keys is the slowest thing the scripted providers do. */
let shared: ReturnType<typeof generateSigningKey> | undefined

function sharedKey() {
  shared ??= generateSigningKey()
  return shared
}

/**
 * Makes a signer. All of a process share their first key, unless `ownKey` asks for a fresh one or `privateJwk` is one.
 */
export async function createSigner(options: { ownKey?: boolean; privateJwk?: JWK } = {}): Promise<Signer> {
  const { ownKey, privateJwk } = options
  const keys = [
    await (privateJwk ? importSigningKey(privateJwk) : ownKey ? generateSigningKey() : sharedKey()),
  ]
  return {
    jwks: () => ({ keys: keys.map((key) => key.publicJwk) }),
    sign: (claims, header = {}) => {
      const current = keys.at(-1)!
      return new SignJWT(claims)
        .setProtectedHeader({ alg: 'RS256', typ: 'JWT', kid: current.kid, ...header })
        .sign(current.privateKey)
    },
    rotateKey: async () => {
      keys.push(await generateSigningKey())
    },
  }
}

async function generateSigningKey() {
  return importSigningKey(await newSigningKey())
}

/** Makes a private RSA key as a JWK, for a file. */
export async function newSigningKey(): Promise<JWK> {
  const { privateKey } = await generateKeyPair('RS256', { extractable: true })
  return { ...(await exportJWK(privateKey)), kid: randomBytes(8).toString('hex') }
}

async function importSigningKey(jwk: JWK) {
  const { kty, n, e, kid = '' } = jwk
  const privateKey = await importJWK(jwk, 'RS256')
  return { kid, privateKey, publicJwk: { kty, n, e, kid, alg: 'RS256', use: 'sig' } }
}

/** An unsigned JWT (`alg: none`), as Azure AD v1 documents its ID tokens. */
export function unsignedJwt(claims: Record<string, unknown>): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  return `${part({ typ: 'JWT', alg: 'none' })}.${part(claims)}.`
}

/** The claims of a JWT, unverified; undefined for an opaque token. */
export function jwtClaims(token: string): Record<string, unknown> | undefined {
  const [, payload] = token.split('.')
  if (!payload) return undefined
  try {
    return JSON.parse(Buffer.from(payload, 'base64url').toString('utf8'))
  } catch {
    return undefined
  }
}

/** A fresh opaque value with a recognisable start. */
export function opaque(prefix: string, bytes = 48): string {
  return prefix + randomBytes(bytes).toString('base64url')
}
