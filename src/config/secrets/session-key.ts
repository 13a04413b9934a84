import { inspect } from 'node:util'
import type { SessionKeyBytes } from '../config.ts'
import type { Secret } from './secret.ts'

const REDACTED = '[redacted]'

/** The 32 bytes of a session key, base64url or base64, already checked; prints, inspects and serialises as `[redacted]`. */
export function sessionKeyBytes(secret: Secret): SessionKeyBytes {
  const bytes = Buffer.from(secret.reveal(), 'base64')
  const redacted = { value: () => REDACTED }
  return Object.defineProperties(bytes, { toJSON: redacted, toString: redacted, [inspect.custom]: redacted })
}
