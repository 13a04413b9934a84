import { BffError } from '../../errors.ts'
import type { SealedTokens } from '../../store/port.ts'
import { createRecentRefusals } from '../recent-refusals.ts'
import type { StoredAccessToken, TokenHolder } from '../record/token-record.ts'
import { type SpendDeps, spendRefreshToken } from './refresh.ts'
import type { TakeTurn } from './refresh-lock.ts'

export type RenewalDeps = SpendDeps & {
  readonly takeTurn: TakeTurn
  readonly now: () => number
  readonly monotonicNow: () => number
}

/** A wish for a fresh token. */
export type Wish = {
  readonly holder: TokenHolder
  readonly resource: string
  /** A token that an upstream has rejected: any other will do, this one will not, whatever the clock says. */
  readonly rejected?: string
  /** JSON text of the claims that the new token must bring. */
  readonly claims?: string
}

/** Renews one access token and waits for it; `inBackground` does not wait and never rejects. */
export type Renew = {
  (wish: Wish): Promise<StoredAccessToken>
  inBackground(wish: Wish): void
}

/** Makes the renewal: one turn at a time, and a short memory of refusals so that they are not hammered. */
export function createRenewal(deps: RenewalDeps): Renew {
  const refusals = createRecentRefusals(deps.monotonicNow)
  /** Tokens whose write the store has not taken yet: for this process they are as good as stored. */
  const unsaved = new Map<string, StoredAccessToken>()

  async function renew(wish: Wish): Promise<StoredAccessToken> {
    const { holder, resource, rejected, claims } = wish
    const key = holder.hash + resource
    const token = unsaved.get(key)
    if (token && token.value !== rejected && deps.now() < token.expiresAt) return token
    refusals.throwIfRecent(key)
    try {
      return await deps.takeTurn({
        hash: holder.hash,
        resource,
        // A rejected token must not be answered by a turn that would be content with it.
        kind: JSON.stringify([rejected, claims]),
        settled: () => renewedElsewhere(deps, wish),
        work: (owner, hold) => spend(wish, { owner, hold }),
      })
    } catch (error) {
      refusals.remember(key, error)
      throw error
    }
  }

  async function spend(
    wish: Wish,
    turn: { owner: string; hold: (until: Promise<unknown>) => void },
  ): Promise<StoredAccessToken> {
    const { holder, resource, rejected, claims } = wish
    const writes: Promise<unknown>[] = []
    const token = await spendRefreshToken(deps, {
      holder,
      resource,
      owner: turn.owner,
      claims,
      settledIn: (record) => freshToken(deps, wish, record),
      forcedAt: (record) => (rejected === undefined ? tokenIn(deps, wish, record)?.forcedAt : deps.now()),
      hold(until) {
        writes.push(until)
        turn.hold(until)
      },
    })
    const key = holder.hash + resource
    unsaved.set(key, token)
    Promise.allSettled(writes).then(() => unsaved.delete(key))
    return token
  }

  function inBackground(wish: Wish): void {
    // The living token is served meanwhile; the outcome is in the metrics and, when it matters, met by a later caller.
    renew(wish).catch(() => undefined)
  }

  return Object.assign(renew, { inBackground })
}

/** The token in the store, if it is a fresh one. Read past every copy: the lock is only worth what is read under it. */
async function renewedElsewhere(deps: RenewalDeps, wish: Wish): Promise<StoredAccessToken | undefined> {
  const record = await deps.records.read(wish.holder.hash)
  if (!record) throw new BffError('session_required', 'the session ended while its token was renewed')
  return freshToken(deps, wish, record)
}

function freshToken(deps: RenewalDeps, wish: Wish, record: SealedTokens): StoredAccessToken | undefined {
  const token = tokenIn(deps, wish, record)
  return token && token.value !== wish.rejected && deps.now() < token.renewAt ? token : undefined
}

function tokenIn(
  { sealer }: RenewalDeps,
  { holder, resource }: Wish,
  record: SealedTokens,
): StoredAccessToken | undefined {
  return sealer.openTokens(holder, record).accessTokens.get(resource)
}
