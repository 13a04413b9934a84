import type { TokenRecords } from '../store/port.ts'

/**
 * Reads token records without the access tokens of resources that a reload took away, and removes those from the store
 * as they are met: nothing would ever ask for them, and a resource of the same name may come back as another.
 */
export function forgettingRetired(
  records: Pick<TokenRecords, 'read' | 'forget'>,
  retired: ReadonlySet<string>,
): TokenRecords['read'] {
  return async function read(hash) {
    const tokens = await records.read(hash)
    if (!tokens || retired.size === 0) return tokens
    const stale = Object.keys(tokens.accessTokens).filter((resource) => retired.has(resource))
    if (stale.length === 0) return tokens
    // Not awaited: the next reader meets what a store in trouble did not remove.
    records.forget(hash, stale).catch(() => undefined)
    const living = Object.entries(tokens.accessTokens).filter(([resource]) => !retired.has(resource))
    return { ...tokens, accessTokens: Object.fromEntries(living) }
  }
}
