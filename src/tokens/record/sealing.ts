import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createHmac,
  createPrivateKey,
  hkdfSync,
  type KeyObject,
  randomBytes,
} from 'node:crypto'
import type { Config } from '../../config/config.ts'
import type { SealedTokens, SessionGrant, SessionHash, UserClaims } from '../../store/port.ts'

/** What a sealed text is and whose: bound into key and authentication, so that it opens nowhere else. */
export type SealedPurpose = {
  /**
   * The browser's secret: a session id, or a login attempt's. For a token of the client itself, the client's. For what a
   * list of sessions tells, the hash, which is no secret: that opens with the session keys alone.
   */
  readonly id: string
  readonly kind: 'session' | 'refresh_token' | 'access_token' | 'client_token' | 'login' | 'about'
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
 * @param unopened told of each text that did not open: its key is none of these, or the rest is not what was sealed.
 */
export function createSealing(
  keys: readonly Buffer[],
  unopened?: (kind: SealedPurpose['kind'], reason: 'key_gone' | 'rejected') => void,
): Sealing {
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
      const isReadable = version === VERSION && entry !== undefined && body
      const text = isReadable ? decrypt(entry, purpose, Buffer.from(body, 'base64url')) : undefined
      if (text === undefined) unopened?.(purpose.kind, entry ? 'rejected' : 'key_gone')
      return text
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
    // As bytes, because the decipher would make a StringDecoder for text.
    const text = decipher.update(body.subarray(IV_BYTES, -TAG_BYTES))
    decipher.final()
    return text.toString()
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
  function bound({ id, kind, name }: SealedPurpose): SealedPurpose {
    return { id, kind, name: name === undefined ? grant : definitionOf(name) }
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

/**
 * Makes names for users and their sessions at the provider, one under each session key in their order: an entry is
 * written under the first and looked for under all, so that changing the keys loses none.
 */
export function createIndexPseudonyms(keys: readonly Buffer[]): ((text: string) => string)[] {
  return keys.map((sessionKey) => {
    const key = Buffer.from(hkdfSync('sha256', sessionKey, '', 'cloakroom session index', 32))
    return (text) => createHmac('sha256', key).update(text).digest('base64url')
  })
}

/** Whose tokens: the id opens them, the hash finds them. */
export type TokenOwner = { readonly id: string; readonly hash: SessionHash }

/** Whose token is asked for. */
export type TokenHolder = TokenOwner & SessionGrant & { readonly claims: UserClaims }

/** A fresh token that is needed. */
export type WantedToken = {
  readonly holder: TokenHolder
  /** Name of the resource in the config. */
  readonly resource: string
  /** A token that an upstream has rejected: any other will do, this one will not, whatever the clock says. */
  readonly rejected?: string
  /** JSON text of the claims that the new token must bring (OpenID Connect Core §5.5). */
  readonly claims?: string | undefined
}

/**
 * Gets a fresh token: with the refresh token, or in exchange for another token of the session.
 * Rejects with session_required, reauthentication_required, provider_rejected, provider_unavailable, store_unavailable.
 */
export type RenewToken = (wanted: WantedToken) => Promise<AccessToken>

/** One access token as Cloakroom keeps it. Times in epoch ms. */
export type AccessToken = {
  /** What goes after `Bearer `. */
  readonly value: string
  readonly expiresAt: number
  /** From here on it is renewed in the background while it is still used. */
  readonly renewAt: number
  /** When it took the place of one that an upstream had rejected; absent = never. */
  readonly forcedAt?: number
  /** Its scopes, blank-separated, where it does not tell them itself. */
  readonly scope?: string
  /** The private key that it is bound to (RFC 9449); absent = a bearer token. */
  readonly key?: KeyObject
}

/** What a grant gave, as the authorization server said it. Times in epoch ms. */
export type GrantedAccessToken = {
  readonly accessToken: string
  readonly obtainedAt: number
  readonly expiresAt: number
  /** Its scopes, blank-separated, where it does not tell them itself. */
  readonly untoldScope?: string | undefined
  /** The private key that it is bound to. */
  readonly key?: KeyObject | undefined
}

/** Seals and opens the token record of one session, each part under its own name. */
export type TokenSealer = {
  /** Seals it with the private key that it came with, if any: the two are never one without the other. */
  sealRefreshToken(owner: TokenOwner, refreshToken: string, key?: KeyObject): string
  openRefreshToken(owner: TokenOwner, sealed: string | undefined): string | undefined
  openRefreshKey(owner: TokenOwner, sealed: string | undefined): KeyObject | undefined
  sealAccessToken(owner: TokenOwner, resource: string, token: AccessToken): string
  /** The token of one resource; undefined when there is none, or it does not open. */
  openAccessToken(owner: TokenOwner, resource: string, sealed: SealedTokens): AccessToken | undefined
}

/** Wraps `sealing` for token records. */
export function createTokenSealer(sealing: Sealing): TokenSealer {
  const accessPurpose = (id: string, name: string) => ({ id, kind: 'access_token', name }) as const

  const openRefresh = ({ id }: TokenOwner, sealed: string | undefined) =>
    sealed === undefined
      ? undefined
      : sealing.open({ id, kind: 'refresh_token' }, sealed)?.split(KEY_FOLLOWS, 2)

  return {
    sealRefreshToken: ({ id }, refreshToken, key) =>
      sealing.seal(
        { id, kind: 'refresh_token' },
        key ? refreshToken + KEY_FOLLOWS + JSON.stringify(packKey(key)) : refreshToken,
      ),
    openRefreshToken: (owner, sealed) => openRefresh(owner, sealed)?.[0],
    openRefreshKey(owner, sealed) {
      const packed = openRefresh(owner, sealed)?.[1]
      return packed === undefined ? undefined : unpackKey(JSON.parse(packed) as PackedKey)
    },
    sealAccessToken: ({ id }, resource, token) => sealing.seal(accessPurpose(id, resource), packToken(token)),
    openAccessToken({ id }, resource, { accessTokens }) {
      const sealed = Object.hasOwn(accessTokens, resource) ? accessTokens[resource] : undefined
      const text = sealed === undefined ? undefined : sealing.open(accessPurpose(id, resource), sealed)
      return text === undefined ? undefined : unpackToken(text)
    },
  }
}

/** No character of a refresh token (RFC 6749 appendix A.17). */
const KEY_FOLLOWS = '\n'

/** The private members of a P-256 key in its JWK (RFC 7518 §6.2). */
type PackedKey = readonly [x: string, y: string, d: string]

function packKey(key: KeyObject): PackedKey {
  const { x = '', y = '', d = '' } = key.export({ format: 'jwk' })
  return [x, y, d]
}

function unpackKey([x, y, d]: PackedKey): KeyObject {
  return createPrivateKey({ key: { kty: 'EC', crv: 'P-256', x, y, d }, format: 'jwk' })
}

/** The text that is sealed for one access token; what it lacks at the end is left out. */
export function packToken({ value, expiresAt, renewAt, forcedAt, scope, key }: AccessToken): string {
  const more = key ? [scope ?? null, packKey(key)] : scope === undefined ? [] : [scope]
  return JSON.stringify([value, expiresAt, renewAt, forcedAt, ...more])
}

type PackedToken = [
  value: string,
  expiresAt: number,
  renewAt: number,
  forcedAt: number | null,
  scope?: string | null,
  key?: PackedKey,
]

/** Reads what `packToken` wrote. */
export function unpackToken(text: string): AccessToken {
  const [value, expiresAt, renewAt, forcedAt, scope, key] = JSON.parse(text) as PackedToken
  if (!forcedAt && !scope && !key) return { value, expiresAt, renewAt }
  return {
    ...{ value, expiresAt, renewAt, ...(forcedAt ? { forcedAt } : {}), ...(scope ? { scope } : {}) },
    ...(key ? { key: unpackKey(key) } : {}),
  }
}

const RENEWAL_WINDOW_MS = 300_000
/** A token that expires on the way to the upstream is no use: it counts as expired this early. */
const TRAVEL_MS = 5_000

/**
 * Turns a granted lifetime into the times to act on: renewed from 300 s before its end (at most half of a short
 * life), not used in its last 5 s (at most a tenth).
 *
 * @param forcedAt epoch ms, when it takes the place of a token that an upstream has rejected.
 */
export function storedAccessToken(granted: GrantedAccessToken, forcedAt?: number): AccessToken {
  const { accessToken, obtainedAt, expiresAt, untoldScope, key } = granted
  const lifetimeMs = Math.max(0, expiresAt - obtainedAt)
  return {
    value: accessToken,
    expiresAt: expiresAt - Math.min(TRAVEL_MS, lifetimeMs / 10),
    renewAt: expiresAt - Math.min(RENEWAL_WINDOW_MS, lifetimeMs / 2),
    ...(forcedAt === undefined ? {} : { forcedAt }),
    ...(untoldScope ? { scope: untoldScope } : {}),
    ...(key && { key }),
  }
}

/** The token, if it needs no renewal yet and is not the one that was rejected. */
export function freshOrUndefined(
  token: AccessToken | undefined,
  rejected: string | undefined,
  now: number,
): AccessToken | undefined {
  return token && token.value !== rejected && now < token.renewAt ? token : undefined
}
