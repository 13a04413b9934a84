import type { Clock } from '../async/clock.ts'
import { BffError } from '../errors.ts'
import type { SessionHash, TokenRecords } from '../store/port.ts'
import type {
  AccessToken,
  OpenedTokens,
  RenewToken,
  TokenHolder,
  TokenSealer,
} from './record/token-record.ts'
import { createRejections } from './rejected-token.ts'

/** The in-process copy of opened token records, by session. */
export type TokensCopy = {
  peek(hash: SessionHash): OpenedTokens | undefined
  load(hash: SessionHash, read: () => Promise<OpenedTokens | undefined>): Promise<OpenedTokens | undefined>
}

export type AccessTokensDeps = {
  readonly renew: RenewToken
  readonly records: Pick<TokenRecords, 'read'>
  readonly sealer: Pick<TokenSealer, 'openTokens' | 'openAccessToken'>
  readonly copy: TokensCopy
  readonly clock: Pick<Clock, 'now' | 'monotonicNow'>
}

/**
 * Gives the access token for one session and one resource: a living one at once (renewing it in the background when
 * its end is near), an expired one after a renewal. Answers synchronously from the in-process copy when it can.
 * Rejects as `RenewToken` does.
 */
export function createAccessTokens(deps: AccessTokensDeps) {
  const { renew, clock } = deps
  const { now } = clock
  const { reactTo, isDropped, insteadOf } = createRejections({ renew, stored, clock })
  return { tokenFor, onRejected: reactTo }

  function tokenFor(holder: TokenHolder, resource: string): AccessToken | Promise<AccessToken> {
    const token = deps.copy.peek(holder.hash)?.accessTokens.get(resource)
    if (token && now() < token.renewAt && !isDropped(holder, resource, token)) return token
    return fromStore(holder, resource)
  }

  async function fromStore(holder: TokenHolder, resource: string): Promise<AccessToken> {
    const tokens = await deps.copy.load(holder.hash, async () => {
      const sealed = await deps.records.read(holder.hash)
      return sealed && deps.sealer.openTokens(holder, sealed)
    })
    if (!tokens) throw new BffError('session_required', 'the session has no tokens any more')
    const token = tokens.accessTokens.get(resource)
    const time = now()
    if (!token || time >= token.expiresAt) return renew({ holder, resource })
    if (isDropped(holder, resource, token)) return insteadOf(holder, resource, token)
    // The living token is served meanwhile; the outcome is in the metrics and, when it matters, met by a later caller.
    if (time >= token.renewAt) renew({ holder, resource }).catch(() => undefined)
    return token
  }

  async function stored(holder: TokenHolder, resource: string): Promise<AccessToken | undefined> {
    const sealed = await deps.records.read(holder.hash)
    return sealed && deps.sealer.openAccessToken(holder, resource, sealed)
  }
}
