import type { ClientAuthConfig } from '../../config/config.ts'
import { BffError } from '../../errors.ts'
import type { Logger } from '../../log.ts'

type ReadPair = Extract<ClientAuthConfig, { method: 'certificate' }>['readPair']
type CertificatePair = NonNullable<ReturnType<ReadPair>>

/** The certificates that clients have authenticated with, for longer than one configuration: by issuer and client id. */
export type CertificateMemory = Map<string, KnownCertificates>

type KnownCertificates = {
  used: CertificatePair
  /** The one before, which the provider may still know better. */
  before?: CertificatePair
  /** The provider does not know `used` yet: until then the one before is used on. Epoch ms. */
  beforeUntil: number
}

/** What a client needs that authenticates by a key or a certificate. */
export type CertificatesDeps = {
  readonly clientId: string
  readonly issuer: string
  /** Epoch ms. */
  readonly now: () => number
  readonly log: Logger
  readonly certificates: CertificateMemory
  /** Told the end of the certificate that is used, epoch ms. */
  readonly observeCertificate?: ((notAfter: number) => void) | undefined
}

/** How long a certificate that the provider does not know yet is not tried again. */
const RETRY_MS = 60_000

/**
 * The client's certificates through a rotation. A new pair of files is taken up at the next use; half of one is not, and
 * the pair before is used on. A certificate that the provider does not know yet is tried again each minute, while the one
 * before is used on until its end: it does not matter which is replaced first, the files or the registration.
 */
export function createCertificates(readPair: ReadPair, deps: CertificatesDeps) {
  const { certificates, now, log } = deps
  const name = `${deps.issuer} ${deps.clientId}`
  let isBroken = false
  const isFirst = !certificates.has(name)
  const first = current()
  if (isFirst) note(first)

  /** The pair to authenticate with now. Throws provider_rejected when there has never been one. */
  function current(): CertificatePair {
    const known = take(readPair())
    const { used, before, beforeUntil } = known
    return before && now() < beforeUntil && now() < before.notAfter ? before : used
  }

  function take(read: CertificatePair | undefined): KnownCertificates {
    const known = certificates.get(name)
    if (!read) {
      warnOfBroken(known?.used)
      if (!known) throw new BffError('provider_rejected', 'the client certificate is not for its key')
      return known
    }
    isBroken = false
    if (known?.used.thumbprint === read.thumbprint) return known
    const next = { used: read, beforeUntil: 0, ...(known ? { before: known.used } : {}) }
    certificates.set(name, next)
    if (known) note(read)
    return next
  }

  function note(pair: CertificatePair): void {
    deps.observeCertificate?.(pair.notAfter)
    log.info(factsOf(pair), 'the client authenticates with this certificate')
  }

  function warnOfBroken(used: CertificatePair | undefined): void {
    if (isBroken) return
    isBroken = true
    log.warn(
      used ? factsOf(used) : {},
      'the files of the client certificate and its key do not belong together: the pair before is used on',
    )
  }

  return {
    current,

    /**
     * Goes back to the certificate before, if this is the new one and that has not expired. If it is the one before, the
     * registration may have been replaced in the meantime: the new one is tried without waiting.
     */
    refused(thumbprint: string): void {
      const known = certificates.get(name)
      if (known?.before?.thumbprint === thumbprint) known.beforeUntil = Math.min(known.beforeUntil, now())
      if (!known?.before || known.used.thumbprint !== thumbprint || now() >= known.before.notAfter) return
      if (known.beforeUntil === 0) {
        log.warn(
          { ...factsOf(known.used), reason: 'invalid_client' },
          'the provider does not accept the new client certificate: register it; the one before is used on',
        )
      }
      known.beforeUntil = now() + RETRY_MS
    },

    facts: () => factsOf(current()),
  }
}

function factsOf({ thumbprint, notAfter }: CertificatePair) {
  return { keyId: thumbprint, notAfter: new Date(notAfter).toISOString() }
}
