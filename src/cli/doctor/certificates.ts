import { X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'
import { connect as connectTls } from 'node:tls'
import type { TlsConfig } from '../../config/config.ts'
import { type Found, fail, ok, warn } from './finding.ts'

const DAY_MS = 86_400_000
/** Time enough to renew one without haste. */
const SOON_DAYS = 14

/** Says when a certificate ends. @param notAfter epoch ms. @param now epoch ms. */
export function certificateEnd(of: string, { notAfter, now }: { notAfter: number; now: number }): Found {
  const days = Math.floor((notAfter - now) / DAY_MS)
  const date = new Date(notAfter).toISOString().slice(0, 10)
  if (notAfter <= now) return fail(`the certificate of ${of} has ended (${date})`, 'renew it')
  if (days < SOON_DAYS)
    return warn(
      `the certificate of ${of} ends in ${days === 1 ? '1 day' : `${days} days`} (${date})`,
      'renew it now',
    )
  return ok(`the certificate of ${of} is good for ${days} days (until ${date})`)
}

/** The earliest end among the certificates of a PEM text, epoch ms; undefined when there is none. */
export function earliestEnd(pem: string): number | undefined {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []
  const ends = blocks.map((block) => Date.parse(new X509Certificate(block).validTo))
  return ends.length === 0 ? undefined : Math.min(...ends)
}

export type TlsAddress = {
  readonly host: string
  readonly port: number
  readonly tls?: TlsConfig | undefined
  readonly signal: AbortSignal
}

/** Connects, verifies the certificate that is shown, and gives its end, epoch ms. Rejects with the error of Node.js. */
export function peerCertificateEnd({ host, port, tls, signal }: TlsAddress): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>()
  const name = tls?.servername ?? host
  const socket = connectTls({
    ...{ host, port, ca: tls?.ca, cert: tls?.cert, key: tls?.key?.reveal() },
    ...(isIP(name) === 0 ? { servername: name } : {}),
  })
  const giveUp = () =>
    socket.destroy(Object.assign(new Error('no TLS connection in time'), { code: 'ETIMEDOUT' }))
  signal.addEventListener('abort', giveUp, { once: true })
  if (signal.aborted) giveUp()
  socket.once('secureConnect', () => {
    resolve(Date.parse(socket.getPeerCertificate().valid_to))
    socket.destroy()
  })
  socket.on('error', reject)
  socket.once('close', () => {
    signal.removeEventListener('abort', giveUp)
    reject(Object.assign(new Error('the connection was closed'), { code: 'ECONNRESET' }))
  })
  return promise
}
