import { createPrivateKey, createPublicKey, generateKeyPairSync, sign } from 'node:crypto'

/** A certificate and its private key as PEM. */
export type SelfSigned = { readonly cert: string; readonly key: string }

/** How a certificate differs from the usual one. */
export type SelfSignedOptions = {
  /** Epoch ms. */
  readonly nowMs?: number
  /** Days until its end; negative: it has expired. */
  readonly days?: number
  /** PEM; a new EC key unless given. */
  readonly key?: string
}

/** An RSA key of 2048 bits, PKCS#8 PEM. */
export function rsaKey(): string {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  return privateKey.export({ type: 'pkcs8', format: 'pem' }) as string
}

/** A new self-signed certificate for host names, good for a day either way; made here, so that no program is needed (RFC 5280 §4.1). */
export function selfSigned(
  hosts: readonly string[],
  { nowMs = Date.now(), days = 1, key }: SelfSignedOptions = {},
): SelfSigned {
  const privateKey =
    key === undefined ? generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey : createPrivateKey(key)
  const publicKey = createPublicKey(privateKey)
  const isRsa = privateKey.asymmetricKeyType === 'rsa'
  const signature = isRsa
    ? sequence(oid(SHA256_WITH_RSA), der(0x05, Buffer.alloc(0)))
    : sequence(oid(ECDSA_WITH_SHA256))
  const name = sequence(der(0x31, sequence(oid(COMMON_NAME), der(0x0c, Buffer.from('Cloakroom tests')))))
  const names = hosts.map((host) => der(0x82, Buffer.from(host)))
  const alternativeNames = sequence(oid(SUBJECT_ALT_NAME), der(0x04, sequence(...names)))
  const content = sequence(
    der(0xa0, integer(2)),
    integer(nowMs + serial++),
    signature,
    name,
    sequence(time(nowMs - (Math.max(0, -days) + 1) * DAY_MS), time(nowMs + days * DAY_MS)),
    name,
    publicKey.export({ type: 'spki', format: 'der' }),
    der(0xa3, sequence(alternativeNames)),
  )
  const bits = der(0x03, Buffer.concat([Buffer.of(0), sign('sha256', content, privateKey)]))
  return {
    cert: pem('CERTIFICATE', sequence(content, signature, bits)),
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
  }
}

const DAY_MS = 86_400_000
/** Issuer and serial number name a certificate (RFC 5280 §4.1.2.2). */
let serial = 0
const SHA256_WITH_RSA = '2a864886f70d01010b'
const ECDSA_WITH_SHA256 = '2a8648ce3d040302'
const COMMON_NAME = '550403'
const SUBJECT_ALT_NAME = '551d11'

/** Tag, length, value (X.690 §8.1); up to 64 KiB. */
function der(tag: number, value: Buffer): Buffer {
  const { length } = value
  const header = [[length], [0x81, length], [0x82, length >> 8, length & 0xff]]
  const size = length < 0x80 ? 0 : length < 0x100 ? 1 : 2
  return Buffer.concat([Buffer.from([tag, ...(header[size] ?? [])]), value])
}

function sequence(...parts: Buffer[]): Buffer {
  return der(0x30, Buffer.concat(parts))
}

function oid(hex: string): Buffer {
  return der(0x06, Buffer.from(hex, 'hex'))
}

/** A leading zero byte keeps it positive; one too many is forbidden. */
function integer(value: number): Buffer {
  const hex = value.toString(16)
  const bytes = Buffer.from(hex.length % 2 === 0 ? hex : `0${hex}`, 'hex')
  return der(0x02, (bytes[0] ?? 0) < 0x80 ? bytes : Buffer.concat([Buffer.of(0), bytes]))
}

/** UTCTime, as years before 2050 must be written. */
function time(ms: number): Buffer {
  const digits = new Date(ms).toISOString().replace(/\D/g, '').slice(2, 14)
  return der(0x17, Buffer.from(`${digits}Z`))
}

function pem(label: string, bytes: Buffer): string {
  const lines = bytes.toString('base64').match(/.{1,64}/g) ?? []
  return [`-----BEGIN ${label}-----`, ...lines, `-----END ${label}-----`, ''].join('\n')
}
