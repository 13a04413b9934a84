import type { Waiting } from '../async/clock.ts'
import type { SealedTokens, SessionHash } from '../store/port.ts'
import type { TokenOwner, TokenSealer } from './record/token-record.ts'

export type GrantEndingDeps = {
  /** Ends the session in the store, everywhere, and takes its tokens. */
  readonly end: (hash: SessionHash) => Promise<SealedTokens | undefined>
  readonly sealer: Pick<TokenSealer, 'openRefreshToken'>
  /** RFC 7009. Never rejects. */
  readonly revoke: (refreshToken: string) => Promise<void>
  readonly waiting: Waiting
}

const REVOCATION_BUDGET_MS = 2_000

/**
 * Ends a session and, after that, its refresh token at the provider: the local end stands whatever the provider does,
 * and nobody waits longer than 2 s for it. Resolves with false when there was no such session any more.
 */
export function createGrantEnding({ end, sealer, revoke, waiting }: GrantEndingDeps) {
  return async function endGrant(owner: TokenOwner): Promise<boolean> {
    const sealed = await end(owner.hash)
    const refreshToken = sealed && sealer.openRefreshToken(owner, sealed.refreshToken)
    if (!refreshToken) return sealed !== undefined
    const enough = new AbortController()
    await Promise.race([
      revoke(refreshToken).finally(() => enough.abort()),
      waiting.pause(REVOCATION_BUDGET_MS, enough.signal),
    ])
    return true
  }
}
