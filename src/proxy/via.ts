import { BffError } from '../errors.ts'

/** What we add to `Via` (RFC 9110 §7.6.3). */
export const OUR_VIA = '1.1 cloakroom'

/** An element of the list that names us as the receiver: protocol, name, perhaps a comment. */
const NAMES_US = /(?:^|,)\s*[^\s,]+\s+cloakroom(?=[\s,(]|$)/i

/** Throws `upstream_unreachable` when a request has come through here before: its route leads back to itself. */
export function requireNoLoop(via: string): void {
  if (!NAMES_US.test(via)) return
  throw new BffError(
    'upstream_unreachable',
    'the request has been here before: its route leads back to Cloakroom',
  )
}
