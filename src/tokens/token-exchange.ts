import { BffError } from '../errors.ts'
import type { TokenRecords } from '../store/port.ts'
import { createRecentRefusals } from './recent-refusals.ts'
import {
  type StoredAccessToken,
  storedAccessToken,
  type TokenHolder,
  type TokenSealer,
} from './record/token-record.ts'
import type { Renew, Wish } from './refresh/renewal.ts'

/** What the tokens room asks of the provider: one access token in exchange for another (RFC 8693). */
export type TokenExchangeGrant = (request: {
  /** Name of the resource in the config. */
  readonly resource: string
  /** A living access token of the same user. */
  readonly subjectToken: string
  /** Tells one session from another. */
  readonly session?: string
  /** JSON text of the claims that a challenge asks for. */
  readonly claims?: string
}) => Promise<{ readonly accessToken: string; readonly obtainedAt: number; readonly expiresAt: number }>

export type ExchangeDeps = {
  readonly exchangeGrant: TokenExchangeGrant
  /** The access token that is exchanged for one of `resource`; renewed first when it has expired. */
  readonly subjectTokenFor: (
    holder: TokenHolder,
    resource: string,
  ) => StoredAccessToken | Promise<StoredAccessToken>
  readonly records: Pick<TokenRecords, 'read' | 'keep'>
  readonly sealer: TokenSealer
  readonly now: () => number
  readonly monotonicNow: () => number
}

/**
 * Gets a fresh access token in exchange for the session's own token of another resource. No refresh token is spent, so
 * two replicas that do it at once harm nobody: there is one exchange at a time in this process, and no lock.
 */
export function createExchange(deps: ExchangeDeps): Renew {
  const refusals = createRecentRefusals(deps.monotonicNow)
  const inFlight = new Map<string, Promise<StoredAccessToken>>()

  function renew(wish: Wish): Promise<StoredAccessToken> {
    const key = JSON.stringify([wish.holder.hash, wish.resource, wish.rejected, wish.claims])
    const running = inFlight.get(key)
    if (running) return running
    const begun = remembered(wish).finally(() => inFlight.delete(key))
    inFlight.set(key, begun)
    return begun
  }

  async function remembered(wish: Wish): Promise<StoredAccessToken> {
    const key = wish.holder.hash + wish.resource
    refusals.throwIfRecent(key)
    try {
      return (await exchangedElsewhere(deps, wish)) ?? (await exchange(deps, wish))
    } catch (error) {
      refusals.remember(key, error)
      throw error
    }
  }

  return Object.assign(renew, {
    inBackground(wish: Wish): void {
      // The living token is served meanwhile; a later caller meets the failure.
      renew(wish).catch(() => undefined)
    },
  })
}

/** The token in the store, if another replica has brought a fresh one. */
async function exchangedElsewhere(deps: ExchangeDeps, wish: Wish): Promise<StoredAccessToken | undefined> {
  const { holder, resource, rejected } = wish
  const record = await deps.records.read(holder.hash)
  if (!record) throw sessionEnded()
  const token = deps.sealer.openTokens(holder, record).accessTokens.get(resource)
  return token && token.value !== rejected && deps.now() < token.renewAt ? token : undefined
}

async function exchange(
  deps: ExchangeDeps,
  { holder, resource, rejected, claims }: Wish,
): Promise<StoredAccessToken> {
  const subject = await deps.subjectTokenFor(holder, resource)
  const granted = await deps.exchangeGrant({
    ...{ resource, subjectToken: subject.value, claims },
    session: holder.hash,
  })
  const token = {
    ...storedAccessToken(granted.accessToken, granted.obtainedAt, granted.expiresAt),
    ...(rejected === undefined ? {} : { forcedAt: deps.now() }),
  }
  const sealed = deps.sealer.sealAccessToken(holder, resource, token)
  // What cannot be kept can be had again: a store that is away costs another exchange, not this answer.
  const isKept = await deps.records.keep(holder.hash, { resource, sealed }).catch(() => true)
  if (!isKept) throw sessionEnded()
  return token
}

function sessionEnded(): BffError {
  return new BffError('session_required', 'the session ended while its token was exchanged')
}
