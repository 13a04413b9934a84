import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  sign,
  type webcrypto,
} from 'node:crypto'
import { createExpiringMap } from '../async/expiring-map.ts'
import type { ProviderConfig } from '../config/config.ts'

type JsonWebKey = webcrypto.JsonWebKey

/** A request that a proof is for. */
export type ProvedRequest = {
  readonly method: string
  /** As its server sees it; query and fragment are left out of the proof. */
  readonly url: string
  /** The bound access token that the request carries, if it does. */
  readonly accessToken?: string
  /** URL of the server whose nonce it is to have, where that is called by another name than it sees. */
  readonly server?: string
}

/** Proofs of possession for requests to servers (RFC 9449), each with the nonce that its server gave last. */
export type Proofs = {
  /** A proof for one request: never sent twice, because servers remember its `jti`. */
  proofFor(key: KeyObject, request: ProvedRequest): string
  /**
   * Notes the `DPoP-Nonce` of an answer (§8); true when it has one that is good. That it is known already says nothing of
   * the proof that was refused: of several that were sent at the same time, all are refused for the same nonce.
   */
  learn(url: string, nonce: unknown): boolean
}

const MAX_SERVERS = 1_000
const NONCE_LIFE_MS = 3_600_000
/** §8.1: NQCHAR; no server needs one that does not fit a header. */
const NONCE = /^[\x21\x23-\x5b\x5d-\x7e]{1,1024}$/

/** Makes proofs. @param now epoch ms. */
export function createProofs({
  now,
  monotonicNow,
}: {
  readonly now: () => number
  readonly monotonicNow: () => number
}): Proofs {
  const nonces = createExpiringMap<string, string>({ monotonicNow, max: MAX_SERVERS })

  return {
    proofFor(key, { method, url, accessToken, server = url }) {
      const nonce = nonces.get(originOf(server))
      const claims = {
        ...{ jti: randomBytes(16).toString('base64url'), htm: method, htu: url.split(/[?#]/, 1)[0] },
        iat: Math.floor(now() / 1000),
        ...(accessToken === undefined ? {} : { ath: sha256(accessToken) }),
        ...(nonce === undefined ? {} : { nonce }),
      }
      const signed = `${headerOf(key)}.${base64url(JSON.stringify(claims))}`
      const signature = sign('sha256', Buffer.from(signed), { key, dsaEncoding: 'ieee-p1363' })
      return `${signed}.${signature.toString('base64url')}`
    },

    learn(url, nonce) {
      if (typeof nonce !== 'string' || !NONCE.test(nonce)) return false
      nonces.set(originOf(url), nonce, NONCE_LIFE_MS)
      return true
    },
  }
}

/** A new key (ES256, which every server takes: RFC 9449 §11.6 asks for an asymmetric algorithm, RFC 7518 §3.1 recommends this one). */
export function newProofKey(): KeyObject {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
}

/** A private key as it goes into a sealed record, and back. */
export const proofKeyToJwk = (key: KeyObject): JsonWebKey => key.export({ format: 'jwk' })
export const proofKeyFromJwk = (jwk: JsonWebKey): KeyObject => createPrivateKey({ key: jwk, format: 'jwk' })

/** RFC 7638: names a key, as `dpop_jkt` of an authorization request does (RFC 9449 §10). */
export function thumbprintOf(key: KeyObject): string {
  const { crv, kty, x, y } = publicJwkOf(key)
  return sha256(JSON.stringify({ crv, kty, x, y }))
}

/** Whether any request for tokens has a proof. */
export function mayProve({ dpop, clientAuth }: Pick<ProviderConfig, 'dpop' | 'clientAuth'>): boolean {
  return dpop !== 'off' || clientAuth.method === 'none'
}

/**
 * The key to ask for tokens with; undefined where no proof is sent. With DPoP on, it is the one that the grant has had so
 * far, or a new one for a session that began without. Switched off, a public client still needs it, because its refresh
 * token is bound; that of a confidential client is not (RFC 9449 §5).
 */
export function proofKeyFor(
  { dpop, clientAuth }: Pick<ProviderConfig, 'dpop' | 'clientAuth'>,
  known?: KeyObject,
): KeyObject | undefined {
  if (dpop !== 'off') return known ?? newProofKey()
  return clientAuth.method === 'none' ? known : undefined
}

const headers = new WeakMap<KeyObject, string>()

/** §4.2: the type, the algorithm, and the public key. */
function headerOf(key: KeyObject): string {
  let header = headers.get(key)
  if (header === undefined) {
    header = base64url(JSON.stringify({ typ: 'dpop+jwt', alg: 'ES256', jwk: publicJwkOf(key) }))
    headers.set(key, header)
  }
  return header
}

function publicJwkOf(key: KeyObject): JsonWebKey {
  const { kty, crv, x, y } = createPublicKey(key).export({ format: 'jwk' })
  return { kty, crv, x, y } as JsonWebKey
}

function originOf(url: string): string {
  const end = url.indexOf('/', 'https://'.length)
  return end === -1 ? url : url.slice(0, end)
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('base64url')
}

function base64url(text: string): string {
  return Buffer.from(text).toString('base64url')
}
