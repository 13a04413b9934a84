import { createPrivateKey, type KeyObject } from 'node:crypto'

/** What a secret must hold: undefined when it does, else what is wrong, without the value. */
export type SecretCheck = (value: string) => string | undefined

/** A client secret or a password: one line of text, sent as it is. */
export const textSecretCheck: SecretCheck = (value) => {
  const hidden = hiddenCharacter(value)
  if (hidden !== undefined) return hidden
  return /\p{Cc}/u.test(value)
    ? 'must be one line of text, but holds a line break, a tab or another control character; store the secret alone, without what was copied along with it'
    : undefined
}

/** RFC 7518 §3.2: a key of HS256 has at least the size of the hash. */
const HS256_KEY_BYTES = 32

/** A client secret that signs assertions with HS256. */
export const hmacSecretCheck: SecretCheck = (value) =>
  textSecretCheck(value) ??
  (Buffer.byteLength(value) < HS256_KEY_BYTES
    ? `must have at least ${HS256_KEY_BYTES} bytes, because it is the key of HS256 (RFC 7518 §3.2); have a longer one issued, or use client_secret_post`
    : undefined)

/** A session key: base64url or base64 of exactly 32 bytes, which must look random. */
export const sessionKeyCheck: SecretCheck = (value) => {
  const hidden = hiddenCharacter(value)
  if (hidden !== undefined) return hidden
  if (hasBlanksAround(value)) {
    return 'must be the key alone, but a blank stands before or behind it; make one with: cloakroom keygen'
  }
  if (isQuoted(value)) {
    return 'must be the key alone, but stands in quotation marks (docker --env-file keeps them); remove them'
  }
  if (!/^[\w-]{43}=?$|^[A-Za-z0-9+/]{43}=?$/.test(value)) {
    return 'must hold 256 bits as base64url (43 characters); make one with: cloakroom keygen'
  }
  const pattern = patternOf(Buffer.from(value, 'base64'))
  return pattern === undefined
    ? undefined
    : `must be random, but ${pattern}: it could be guessed, and with it every session; make one with: cloakroom keygen`
}

/** True for a text that begins or ends with a blank, which is sent as a part of the secret. */
export function hasBlanksAround(value: string): boolean {
  return value !== value.trim()
}

/** True for a text in quotation marks, which `docker --env-file` and some secret stores keep. */
export function isQuoted(value: string): boolean {
  return /^(["']).+\1$/s.test(value)
}

/**
 * What an editor or a web page leaves in a text without showing it: a byte order mark, a zero-width character, or the
 * remains of another encoding. Undefined when the text has none.
 */
export function hiddenCharacter(value: string): string | undefined {
  if (value.includes('\0') || value.includes('\ufffd')) {
    return 'must be UTF-8 text, but is in another encoding (UTF-16?); save it as UTF-8 without BOM'
  }
  if (value.startsWith('\ufeff')) {
    return 'must not begin with a byte order mark, which would be a part of it; save it as UTF-8 without BOM'
  }
  const [character] = /\p{Cf}/u.exec(value) ?? []
  if (character === undefined) return undefined
  const code = character.codePointAt(0)!.toString(16).toUpperCase().padStart(4, '0')
  return `must not hold the invisible character U+${code}, which was copied along with it; type or copy it again`
}

// About 30 of 32 random bytes differ. Fewer than 12 differ in one of 10^14 random keys.
const FEWEST_DIFFERENT_BYTES = 12

/** The pattern of a key that was not drawn at random; undefined for one that may be random. */
function patternOf(bytes: Buffer): string | undefined {
  const different = new Set(bytes).size
  if (different === 1) return bytes[0] === 0 ? 'is all zeros' : 'is one byte again and again'
  const isPeriodic = (period: number) => bytes.every((byte, index) => byte === bytes[index % period])
  if ([2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16].some(isPeriodic)) return 'repeats itself'
  const step = bytes[1]! - bytes[0]!
  if (bytes.every((byte, index) => byte === ((bytes[0]! + index * step) & 0xff)))
    return 'counts in even steps'
  return different < FEWEST_DIFFERENT_BYTES ? `has only ${different} different bytes` : undefined
}

/** True for a key whose 32 bytes are all printable ASCII: a passphrase, or an encoding of fewer random bits. */
export function isTextKey(value: string): boolean {
  return Buffer.from(value, 'base64').every((byte) => byte >= 0x20 && byte < 0x7f)
}

/** A private key for private_key_jwt: unencrypted PKCS#8 PEM. */
export const signingKeyCheck: SecretCheck = (value) =>
  /^\s*-----BEGIN PRIVATE KEY-----/.test(value) && readKey(value)
    ? undefined
    : 'must hold an unencrypted PKCS#8 private key in PEM ("-----BEGIN PRIVATE KEY-----"); convert another one with: openssl pkcs8 -topk8 -nocrypt'

/** A private key for TLS, in any PEM form. */
export const tlsKeyCheck: SecretCheck = (value) =>
  /-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----/.test(value) && readKey(value)
    ? undefined
    : 'must hold an unencrypted private key in PEM ("-----BEGIN PRIVATE KEY-----")'

const ALGORITHMS_BY_CURVE: Readonly<Record<string, string>> = {
  prime256v1: 'ES256',
  secp384r1: 'ES384',
  secp521r1: 'ES512',
}

/** The JWS algorithms (RFC 7518 §3.1, RFC 8037) that a private key can sign with, the usual one first; empty when none. */
export function algorithmsOf(pem: string): readonly string[] {
  const key = readKey(pem)
  const pss = ['PS256', 'PS384', 'PS512']
  switch (key?.asymmetricKeyType) {
    case 'rsa':
      return ['RS256', 'RS384', 'RS512', ...pss]
    case 'rsa-pss':
      return pss
    case 'ec': {
      const algorithm = ALGORITHMS_BY_CURVE[key.asymmetricKeyDetails?.namedCurve ?? '']
      return algorithm === undefined ? [] : [algorithm]
    }
    case 'ed25519':
      return ['EdDSA', 'Ed25519']
    default:
      return []
  }
}

function readKey(pem: string): KeyObject | undefined {
  try {
    return createPrivateKey(pem)
  } catch {
    return undefined
  }
}

/** One or more certificates. Public, but written like a secret: a path alone would be taken for the PEM itself. */
export const certificateCheck: SecretCheck = (value) =>
  value.includes('-----BEGIN CERTIFICATE-----')
    ? undefined
    : 'must hold certificates in PEM ("-----BEGIN CERTIFICATE-----"); name their file with { file: PATH }'
