import { createHash, timingSafeEqual } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import type { Secret } from '../../../config/secrets/secret.ts'

/**
 * Whether the `Authorization` field of a request is `expected`, byte for byte. Digests of equal length are compared, so that
 * the time it takes tells neither how much of a guess was right nor how long the secret is.
 */
export function isExpectedAuthorization({ headers }: IncomingMessage, expected: Secret): boolean {
  const given = digest(headers.authorization ?? '')
  return timingSafeEqual(given, digest(expected.reveal())) && headers.authorization !== undefined
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest()
}
