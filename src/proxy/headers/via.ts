import { createHash } from 'node:crypto'
import { BffError } from '../../errors.ts'

/** What one site says in `Via`, and what it refuses to read there (RFC 9110 §7.6.3). */
export type Via = {
  /** Our own element of the list. */
  readonly element: string
  /** Throws `upstream_unreachable` when the request has come through here before: its route leads back to itself. */
  requireNoLoop(value: string): void
}

/** The pseudonym is the same on all replicas of a site and another one on each site, so that one may call another. */
export function compileVia(publicUrl: string): Via {
  const pseudonym = `cloakroom-${createHash('sha256').update(publicUrl).digest('hex').slice(0, 8)}`
  // An element of the list that names us as the receiver: protocol, name, perhaps a comment.
  const namesUs = new RegExp(`(?:^|,)\\s*[^\\s,]+\\s+${pseudonym}(?=[\\s,(]|$)`, 'i')
  return {
    element: `1.1 ${pseudonym}`,
    requireNoLoop(value) {
      if (!namesUs.test(value)) return
      throw new BffError(
        'upstream_unreachable',
        'the request has been here before: its route leads back to this Cloakroom',
      )
    },
  }
}
