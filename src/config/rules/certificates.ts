import { createPrivateKey, X509Certificate } from 'node:crypto'

/** A private key, and what tells of the certificate that belongs to it. */
export type CertificatePair = {
  /** PEM. */
  readonly key: string
  /** SHA-256 of the certificate's DER as base64url, the `x5t#S256` of RFC 7515 §4.1.8. */
  readonly thumbprint: string
  /** The same with SHA-1, the `x5t` of §4.1.7: an identifier, whose strength does not matter. */
  readonly sha1Thumbprint: string
  /** Epoch ms. */
  readonly notBefore: number
  readonly notAfter: number
}

const PEM_CERTIFICATE = /-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/g

/**
 * The pair of a private key and that certificate of a PEM which is for it, wherever in the chain it stands; undefined when
 * none is. A key and a certificate that are replaced one after the other do not belong together in between.
 */
export function certificatePair(key: string, certificates: string): CertificatePair | undefined {
  try {
    const privateKey = createPrivateKey(key)
    const all = (certificates.match(PEM_CERTIFICATE) ?? []).map((pem) => new X509Certificate(pem))
    const own = all.find((certificate) => certificate.checkPrivateKey(privateKey))
    return (
      own && {
        key,
        thumbprint: Buffer.from(own.fingerprint256.replaceAll(':', ''), 'hex').toString('base64url'),
        sha1Thumbprint: Buffer.from(own.fingerprint.replaceAll(':', ''), 'hex').toString('base64url'),
        notBefore: own.validFromDate.getTime(),
        notAfter: own.validToDate.getTime(),
      }
    )
  } catch {
    return undefined
  }
}

const SOON_MS = 30 * 24 * 3_600_000

/** What an operator is to know of the dates of a certificate; undefined when it is good for a month. @param now epoch ms. */
export function certificateWarning(
  { notBefore, notAfter }: CertificatePair,
  now: number,
): string | undefined {
  const date = (ms: number) => new Date(ms).toISOString().slice(0, 10)
  if (now < notBefore) return `is not good before ${date(notBefore)}: a provider refuses it until then`
  if (now >= notAfter) return `expired on ${date(notAfter)}: a provider refuses it; renew it`
  if (now < notAfter - SOON_MS) return undefined
  return `expires soon, on ${date(notAfter)}: register a new one at the provider, then replace the files`
}
