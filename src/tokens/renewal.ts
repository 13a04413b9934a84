import { BffError } from '../errors.ts'
import type { SealedTokens } from '../store/port.ts'
import { createRecentRefusals } from './recent-refusals.ts'
import type { TakeTurn } from './refresh-turn.ts'
import { type SpendDeps, spendRefreshToken } from './spend.ts'
import type { StoredAccessToken, TokenHolder } from './token-record.ts'

export type RenewalDeps = SpendDeps & { readonly takeTurn: TakeTurn; readonly now: () => number }

/** Renews one access token and waits for it; `inBackground` does not wait and never rejects. */
export type Renew = {
  (holder: TokenHolder, resource: string): Promise<StoredAccessToken>
  inBackground(holder: TokenHolder, resource: string): void
}

/** Makes the renewal: one turn at a time, and a short memory of refusals so that they are not hammered. */
export function createRenewal(deps: RenewalDeps): Renew {
  const refusals = createRecentRefusals(deps.now)
  /** Tokens whose write the store has not taken yet: for this process they are as good as stored. */
  const unsaved = new Map<string, StoredAccessToken>()

  async function renew(holder: TokenHolder, resource: string): Promise<StoredAccessToken> {
    const key = holder.hash + resource
    const token = unsaved.get(key)
    if (token && deps.now() < token.expiresAt) return token
    refusals.throwIfRecent(key)
    try {
      return await deps.takeTurn({
        hash: holder.hash,
        resource,
        settled: () => renewedElsewhere(deps, holder, resource),
        work: (owner, hold) => spend(holder, resource, { owner, hold }),
      })
    } catch (error) {
      refusals.remember(key, error)
      throw error
    }
  }

  async function spend(
    holder: TokenHolder,
    resource: string,
    turn: { owner: string; hold: (until: Promise<unknown>) => void },
  ): Promise<StoredAccessToken> {
    const key = holder.hash + resource
    const writes: Promise<unknown>[] = []
    const hold = (until: Promise<unknown>) => {
      writes.push(until)
      turn.hold(until)
    }
    const settledIn = (record: SealedTokens) => freshToken(deps, holder, { record, resource })
    const token = await spendRefreshToken(deps, { holder, resource, owner: turn.owner, hold, settledIn })
    unsaved.set(key, token)
    Promise.allSettled(writes).then(() => unsaved.delete(key))
    return token
  }

  function inBackground(holder: TokenHolder, resource: string): void {
    // The living token is served meanwhile; the outcome is in the metrics and, when it matters, met by a later caller.
    renew(holder, resource).catch(() => undefined)
  }

  return Object.assign(renew, { inBackground })
}

/** The token in the store, if it is a fresh one. Read past every copy: the lock is only worth what is read under it. */
async function renewedElsewhere(
  deps: RenewalDeps,
  holder: TokenHolder,
  resource: string,
): Promise<StoredAccessToken | undefined> {
  const record = await deps.records.read(holder.hash)
  if (!record) throw new BffError('session_required', 'the session ended while its token was renewed')
  return freshToken(deps, holder, { record, resource })
}

function freshToken(
  { sealer, now }: RenewalDeps,
  holder: TokenHolder,
  { record, resource }: { record: SealedTokens; resource: string },
): StoredAccessToken | undefined {
  const token = sealer.openTokens(holder, record).accessTokens.get(resource)
  return token && now() < token.renewAt ? token : undefined
}
