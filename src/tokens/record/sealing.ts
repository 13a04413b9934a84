import { createCipheriv, createDecipheriv, createHash, createHmac, hkdfSync, randomBytes } from 'node:crypto'
import type { Config } from '../../config/config.ts'

/** What a sealed text is and whose: bound into key and authentication, so that it opens nowhere else. */
export type SealedPurpose = {
  /** The browser's secret: a session id, or a login attempt's. For a token of the client itself, the client's. */
  readonly id: string
  readonly kind: 'session' | 'refresh_token' | 'access_token' | 'client_token' | 'login'
  /** The resource of an access token. */
  readonly name?: string
}

/** Seals and opens short texts for the store. */
export type Sealing = {
  seal(purpose: SealedPurpose, plaintext: string): string
  /** Undefined when no key of the ring opens it, or it was made for another purpose, or was tampered with. */
  open(purpose: SealedPurpose, sealed: string): string | undefined
}

const VERSION = '1'
const IV_BYTES = 12
const TAG_BYTES = 16

/**
 * AES-256-GCM (NIST SP 800-38D) under a key that HKDF-SHA-256 (RFC 5869) derives from a session key AND the id that
 * only the browser's cookie holds: neither the store nor the session keys alone open anything.
 *
 * @param keys 32 bytes each; the first seals, all open.
 */
export function createSealing(keys: readonly Buffer[]): Sealing {
  const ring = keys.map((key) => ({ key, kid: keyId(key) }))
  const current = ring[0]
  if (!current) throw new RangeError('at least one session key is needed')
  return {
    seal(purpose, plaintext) {
      const iv = randomBytes(IV_BYTES)
      const cipher = createCipheriv('aes-256-gcm', derivedKey(current.key, purpose), iv, {
        authTagLength: TAG_BYTES,
      })
      cipher.setAAD(additionalData(current.kid, purpose))
      const body = Buffer.concat([iv, cipher.update(plaintext, 'utf8'), cipher.final(), cipher.getAuthTag()])
      return `${VERSION}.${current.kid}.${body.toString('base64url')}`
    },
    open(purpose, sealed) {
      const [version, kid, body] = sealed.split('.')
      const entry = ring.find((candidate) => candidate.kid === kid)
      if (version !== VERSION || !entry || !body) return undefined
      return decrypt(entry, purpose, Buffer.from(body, 'base64url'))
    },
  }
}

function decrypt(
  { key, kid }: { key: Buffer; kid: string },
  purpose: SealedPurpose,
  body: Buffer,
): string | undefined {
  if (body.length < IV_BYTES + TAG_BYTES) return undefined
  const iv = body.subarray(0, IV_BYTES)
  // Without an explicit tag length Node would accept a truncated tag.
  const decipher = createDecipheriv('aes-256-gcm', derivedKey(key, purpose), iv, { authTagLength: TAG_BYTES })
  decipher.setAAD(additionalData(kid, purpose))
  decipher.setAuthTag(body.subarray(-TAG_BYTES))
  try {
    return decipher.update(body.subarray(IV_BYTES, -TAG_BYTES), undefined, 'utf8') + decipher.final('utf8')
  } catch {
    return undefined
  }
}

function derivedKey(key: Buffer, { id, kind }: SealedPurpose): Buffer {
  return Buffer.from(hkdfSync('sha256', key, id, `cloakroom ${kind}`, 32))
}

/** JSON, because no choice of names can make two different lists equal. */
function additionalData(kid: string, { id, kind, name }: SealedPurpose): Buffer {
  return Buffer.from(JSON.stringify([VERSION, kid, kind, id, name ?? null]))
}

function keyId(key: Buffer): string {
  return createHash('sha256').update('cloakroom key id').update(key).digest('base64url').slice(0, 8)
}

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

/** Secrets that sign the session cookie, derived from the session keys in the same order. */
export function cookieSigningSecrets(keys: readonly Buffer[]): string[] {
  return keys.map((key) =>
    Buffer.from(hkdfSync('sha256', key, '', 'cloakroom cookie signature', 32)).toString('base64url'),
  )
}

/** Names something that is easily guessed, such as a network address, so that the store alone does not tell what it is. */
export function createPseudonyms(keys: readonly Buffer[]): (text: string) => string {
  const [first] = keys
  if (!first) throw new RangeError('at least one session key is needed')
  const key = Buffer.from(hkdfSync('sha256', first, '', 'cloakroom pseudonym', 32))
  return (text) => createHmac('sha256', key).update(text).digest('base64url').slice(0, 22)
}
