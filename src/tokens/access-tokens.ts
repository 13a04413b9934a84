import { BffError } from '../errors.ts'
import type { SessionHash } from '../store/port.ts'
import { createRejections } from './rejection.ts'
import { createRenewal, type RenewalDeps } from './renewal.ts'
import type { OpenedTokens, StoredAccessToken, TokenHolder } from './token-record.ts'

/** The in-process copy of opened token records, by session. */
export type TokensCopy = {
  peek(hash: SessionHash): OpenedTokens | undefined
  load(hash: SessionHash, read: () => Promise<OpenedTokens | undefined>): Promise<OpenedTokens | undefined>
}

export type AccessTokensDeps = RenewalDeps & { readonly copy: TokensCopy }

/**
 * Gives the access token for one session and one resource: a living one at once (renewing it in the background when
 * its end is near), an expired one after a refresh. Answers synchronously from the in-process copy when it can.
 *
 * Rejects with session_required, reauthentication_required, provider_rejected, provider_unavailable, store_unavailable.
 */
export function createAccessTokens(deps: AccessTokensDeps) {
  const renew = createRenewal(deps)
  const onRejected = createRejections({ renew, stored, now: deps.now })
  return { accessTokenFor, onRejected }

  function accessTokenFor(
    holder: TokenHolder,
    resource: string,
  ): StoredAccessToken | Promise<StoredAccessToken> {
    const token = deps.copy.peek(holder.hash)?.accessTokens.get(resource)
    if (token && deps.now() < token.renewAt) return token
    return fromStore(holder, resource)
  }

  async function fromStore(holder: TokenHolder, resource: string): Promise<StoredAccessToken> {
    const tokens = await deps.copy.load(holder.hash, async () => {
      const sealed = await deps.records.read(holder.hash)
      return sealed && deps.sealer.openTokens(holder, sealed)
    })
    if (!tokens) throw new BffError('session_required', 'the session has no tokens any more')
    const token = tokens.accessTokens.get(resource)
    const now = deps.now()
    if (!token || now >= token.expiresAt) return renew({ holder, resource })
    if (now >= token.renewAt) renew.inBackground({ holder, resource })
    return token
  }

  async function stored(holder: TokenHolder, resource: string): Promise<StoredAccessToken | undefined> {
    const sealed = await deps.records.read(holder.hash)
    return sealed && deps.sealer.openTokens(holder, sealed).accessTokens.get(resource)
  }
}
