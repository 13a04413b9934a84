import { createPrivateKey, type KeyObject } from 'node:crypto'

/** What a secret must hold: undefined when it does, else what is wrong, without the value. */
export type SecretCheck = (value: string) => string | undefined

/** Any text at all. */
export const anySecret: SecretCheck = () => undefined

/** A session key: base64url or base64 of exactly 32 bytes. */
export const sessionKeyCheck: SecretCheck = (value) =>
  /^[\w-]{43}=?$|^[A-Za-z0-9+/]{43}=?$/.test(value)
    ? undefined
    : 'must hold 256 bits as base64url (43 characters); make one with: cloakroom keygen'

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
