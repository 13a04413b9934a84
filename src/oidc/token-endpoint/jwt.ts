import { createHash, createPrivateKey, randomUUID } from 'node:crypto'
import {
  compactVerify,
  decodeJwt,
  decodeProtectedHeader,
  importJWK,
  importPKCS8,
  type JWK,
  SignJWT,
} from 'jose'

/** The claims of a JWT, which may be of any type. */
export type JwtClaims = Readonly<Record<string, unknown>>

/** The claims of a JWT, its signature not looked at; undefined for anything else. Good for a comparison and for the log. */
export function unverifiedClaims(jwt: unknown): JwtClaims | undefined {
  try {
    return decodeJwt(String(jwt))
  } catch {
    return undefined
  }
}

/** Header and claims of a JWT, its signature not looked at; undefined for anything else. */
export function unverifiedJwt(
  jwt: string,
): { readonly header: Readonly<Record<string, unknown>>; readonly claims: JwtClaims } | undefined {
  const claims = unverifiedClaims(jwt)
  try {
    return claims && { header: decodeProtectedHeader(jwt), claims }
  } catch {
    return undefined
  }
}

/** `iat` and `exp` of a JWT in epoch seconds, its signature not looked at; none for an opaque token. */
export function timesOf(accessToken: string): {
  readonly iat?: number | undefined
  readonly exp?: number | undefined
} {
  const { iat, exp } = unverifiedClaims(accessToken) ?? {}
  const number = (value: unknown) => (typeof value === 'number' && Number.isFinite(value) ? value : undefined)
  return { iat: number(iat), exp: number(exp) }
}

/**
 * The `sub` that a JWT claims, its signature not looked at: good for a comparison, and for nothing else. A user is `iss` and
 * `sub` together (OpenID Connect Core §5.7), so that of another issuer is no `sub` that there may be here.
 */
export function unverifiedSubject(jwt: unknown, issuer: string): string | undefined {
  const { iss, sub, tid } = unverifiedClaims(jwt) ?? {}
  const isOfAnother = typeof iss === 'string' && iss !== issuerFor(issuer, tid)
  return isOfAnother ? `${iss}\0${sub}` : (sub as string | undefined)
}

/** The signing key in a PEM (PKCS#8, PKCS#1 or SEC1). Throws when the PEM or the algorithm does not fit. */
export function privateKeyFromPem(pem: string, algorithm: string): Promise<CryptoKey> {
  const pkcs8 = createPrivateKey(pem).export({ type: 'pkcs8', format: 'pem' }).toString()
  return importPKCS8(pkcs8, algorithm)
}

/** A JWT of our own with a new `jti`, good from now on for a minute by the machine's clock. */
export function signedJwt(
  header: Readonly<{ alg: string } & Record<string, string>>,
  claims: Readonly<Record<string, string>>,
  key: CryptoKey | Uint8Array,
): Promise<string> {
  return new SignJWT({ ...claims, jti: randomUUID() })
    .setProtectedHeader(header)
    .setIssuedAt()
    .setNotBefore('0s')
    .setExpirationTime('1m')
    .sign(key)
}

/** One member of a key set as it was sent, which may be anything. */
export type JsonWebKey = Readonly<Record<string, unknown>>

/** What of a JWS header tells which keys fit. */
export type SignatureHeader = { readonly alg: string; readonly kid?: string }

/** The kind of key of each algorithm (RFC 7518 §3.1, RFC 8037 §3.1, RFC 9864 §2): signatures only, never a MAC or none. */
const KEYS_OF: Readonly<Record<string, Readonly<{ kty: string; crv?: string }>>> = {
  ...Object.fromEntries(
    ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'].map((alg) => [alg, { kty: 'RSA' }]),
  ),
  ES256: { kty: 'EC', crv: 'P-256' },
  ES384: { kty: 'EC', crv: 'P-384' },
  ES512: { kty: 'EC', crv: 'P-521' },
  EdDSA: { kty: 'OKP', crv: 'Ed25519' },
  Ed25519: { kty: 'OKP', crv: 'Ed25519' },
}

/** The header of a JWS. Throws a plain Error for one that is signed in a way that nothing here verifies. */
export function signatureHeaderOf(jws: string): SignatureHeader {
  const { alg, kid } = decodeProtectedHeader(jws)
  if (alg === undefined || !Object.hasOwn(KEYS_OF, alg)) {
    throw new Error('the token is not signed with an asymmetric algorithm that is known here')
  }
  return typeof kid === 'string' ? { alg, kid } : { alg }
}

/**
 * Every key of a set that may have made a signature, that with its very `kid` first. A set may hold the same key twice,
 * several under one `kid`, some for encryption, and some without `kid`, `use` or `alg`, all of which are optional
 * (RFC 7517 §4); a `kid` is a hint (RFC 7515 §4.1.4).
 */
export function keysThatFit(keys: readonly JsonWebKey[], { alg, kid }: SignatureHeader): JsonWebKey[] {
  const { kty, crv } = KEYS_OF[alg]!
  const fitting = keys.filter(
    (key) =>
      key.kty === kty &&
      (crv === undefined || key.crv === crv) &&
      (kid === undefined || typeof key.kid !== 'string' || key.kid === kid) &&
      (typeof key.alg !== 'string' || isSameAlgorithm(key.alg, alg)) &&
      (typeof key.use !== 'string' || key.use === 'sig') &&
      (!Array.isArray(key.key_ops) || key.key_ops.includes('verify')),
  )
  return fitting.toSorted((a, b) => Number(b.kid === kid) - Number(a.kid === kid))
}

/**
 * Whether a key may sign for the issuer that a JWT names. Entra ID writes into each key whose tokens it signs: for many
 * tenants as `{tenantid}`, which is the token's `tid`, or for one. A key of another tenant verifies nothing, because what it
 * signs may name a tenant that is not its own. The host may differ: v1 tokens are of sts.windows.net, by the same keys. Keys
 * of other providers say nothing of it.
 */
export function maySignFor(key: JsonWebKey, jws: string): boolean {
  if (typeof key.issuer !== 'string') return true
  const { iss, tid } = unverifiedClaims(jws) ?? {}
  if (typeof iss !== 'string') return true
  // A logout token has no `tid`: its issuer alone names the tenant.
  const issuer = issuerFor(key.issuer, tid ?? tenantIn(iss))
  return iss === issuer || (tenantIn(iss) !== undefined && tenantIn(iss) === tenantIn(issuer))
}

function tenantIn(issuer: string): string | undefined {
  return /^https:\/\/[^/]+\/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:\/|$)/.exec(issuer)?.[1]
}

/** The issuer of one token under metadata that may be for many tenants of Entra ID. */
export function issuerFor(issuer: string, tid: unknown): string {
  return issuer.replace('{tenantid}', () => String(tid))
}

/** OpenID Connect Core §3.1.3.6, §3.3.2.11: the left half of the hash of the algorithm's size; that of Ed25519 is SHA-512. */
export function halfHash(text: string, algorithm: string): string {
  const size = /(?:256|384)$/.exec(algorithm)?.[0] ?? '512'
  const digest = createHash(`sha${size}`).update(text).digest()
  return digest.subarray(0, digest.length / 2).toString('base64url')
}

/** RFC 9864 §2.2: `EdDSA` on this curve is what is now called `Ed25519`. */
function isSameAlgorithm(a: string, b: string): boolean {
  return a === b || (['EdDSA', 'Ed25519'].includes(a) && ['EdDSA', 'Ed25519'].includes(b))
}

const importedKeys = new WeakMap<JsonWebKey, Map<string, ReturnType<typeof importJWK>>>()

/** Whether this public key verifies the signature of `jws`; false too for a key that cannot be used. */
export async function isVerifiedBy(key: JsonWebKey, jws: string, alg: string): Promise<boolean> {
  try {
    await compactVerify(jws, await imported(key, alg), { algorithms: [alg] })
    return true
  } catch {
    return false
  }
}

/** The public members of a key alone: a set may hold private ones, which are not needed here. */
function imported(key: JsonWebKey, alg: string): ReturnType<typeof importJWK> {
  const ofKey = importedKeys.get(key) ?? new Map()
  importedKeys.set(key, ofKey)
  if (!ofKey.has(alg)) {
    const { kty, crv, n, e, x, y } = key
    ofKey.set(alg, importJWK({ kty, crv, n, e, x, y } as JWK, alg))
  }
  return ofKey.get(alg)
}

/** The `kid` that a JWT claims, if it may be logged; nothing about it is verified. */
export function unverifiedKeyId(jwt: unknown): string | undefined {
  try {
    const { kid } = decodeProtectedHeader(String(jwt))
    return typeof kid === 'string' && /^[\w.:+/=-]{1,128}$/.test(kid) ? kid : undefined
  } catch {
    return undefined
  }
}
