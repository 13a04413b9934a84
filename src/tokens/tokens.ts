import { BffError } from '../errors.ts'
import type { SessionHash, Store } from '../store/port.ts'
import { type AccessTokensDeps, createAccessTokens, type TokensCopy } from './access-tokens.ts'
import { type ClientTokensDeps, createClientTokens } from './client-tokens.ts'
import { createGrantEnding } from './grant-ending.ts'
import { createRefreshTurns, type RefreshTurnsDeps } from './refresh-turn.ts'
import type { Rejection, RejectionReaction } from './rejection.ts'
import type { Sealing } from './sealed.ts'
import {
  createTokenSealer,
  type StoredAccessToken,
  storedAccessToken,
  type TokenHolder,
  type TokenOwner,
} from './token-record.ts'
import { clockWaiting, type Waiting } from './waiting.ts'

/** What a code grant gave, as far as it is kept. Times in epoch ms. */
export type FirstGrant = {
  readonly refreshToken: string | undefined
  readonly accessToken: string
  readonly obtainedAt: number
  readonly expiresAt: number
}

export type TokensDeps = {
  readonly store: Pick<Store, 'sessions' | 'tokens'>
  readonly sealing: Sealing
  readonly copy: TokensCopy
  readonly provider: {
    readonly refreshGrant: AccessTokensDeps['refreshGrant']
    readonly clientCredentialsGrant: ClientTokensDeps['grant']
    readonly admit: RefreshTurnsDeps['admit']
    /** Never rejects. */
    readonly revoke: (refreshToken: string) => Promise<void>
  }
  /** Whether the resource's token is the client's own rather than the user's. */
  readonly isClientResource: (resource: string) => boolean
  /** Whether a refresh token is offered again after an answer that may have been lost. */
  readonly offersUncertain: boolean
  /** Longest time one provider call takes. */
  readonly providerTimeoutMs: number
  readonly now: () => number
  /** By the machine's clock unless given. */
  readonly waiting?: Waiting
  readonly observe: {
    readonly refresh: (resource: string, outcome: string) => void
    readonly turn: RefreshTurnsDeps['observe']
    readonly sessionEnded: (hash: SessionHash, reason: string) => void
  }
}

/** Around the provider call, a lock holder also reads and writes the store. */
const LOCK_MARGIN_MS = 3_000

/** The tokens of all sessions: kept at sign-in, given to the proxy, ended at sign-out. */
export function createTokens(deps: TokensDeps) {
  const { store, provider, now, waiting = clockWaiting, observe } = deps
  const sealer = createTokenSealer(deps.sealing)
  const endGrant = createGrantEnding({ end: store.sessions.end, sealer, revoke: provider.revoke, waiting })
  const lockTtlMs = deps.providerTimeoutMs + LOCK_MARGIN_MS
  const { accessTokenFor, onRejected } = createAccessTokens({
    records: store.tokens,
    sealer,
    copy: deps.copy,
    takeTurn: createRefreshTurns({
      records: store.tokens,
      admit: provider.admit,
      now,
      waiting,
      lockTtlMs,
      waitMs: lockTtlMs,
      observe: observe.turn,
    }),
    refreshGrant: provider.refreshGrant,
    offersUncertain: deps.offersUncertain,
    waiting,
    revoke: provider.revoke,
    endSession: async (holder, reason) => {
      // A grant that the provider has ended leaves nothing to revoke; one that answers for somebody else does.
      await (reason === 'subject_changed' ? endGrant(holder) : store.sessions.end(holder.hash))
      observe.sessionEnded(holder.hash, reason)
    },
    now,
    observe: observe.refresh,
  })
  const clientTokenFor = createClientTokens({
    grant: provider.clientCredentialsGrant,
    now,
    observe: observe.refresh,
  })

  return {
    /** Rejects with session_required, reauthentication_required, provider_rejected, provider_unavailable, store_unavailable. */
    tokenFor: (holder: TokenHolder, resource: string): StoredAccessToken | Promise<StoredAccessToken> =>
      deps.isClientResource(resource) ? clientTokenFor(resource) : accessTokenFor(holder, resource),

    /** What to do about a token that an upstream rejects. Rejects as `tokenFor` does. */
    onRejected: async (
      holder: TokenHolder,
      resource: string,
      rejection: Rejection,
    ): Promise<RejectionReaction> =>
      deps.isClientResource(resource) ? { kind: 'relay' } : onRejected(holder, resource, rejection),

    /** Keeps what the code grant gave, the access token under `resource`, or not at all when it is for none. */
    async keepFirst(owner: TokenOwner, grant: FirstGrant, resource: string | undefined): Promise<void> {
      const { refreshToken, accessToken, obtainedAt, expiresAt } = grant
      const token = storedAccessToken(accessToken, obtainedAt, expiresAt)
      const kept = await store.tokens.create(owner.hash, {
        refreshToken: refreshToken && sealer.sealRefreshToken(owner, refreshToken),
        accessTokens: resource ? { [resource]: sealer.sealAccessToken(owner, resource, token) } : {},
      })
      if (!kept)
        throw new BffError('store_unavailable', 'the new session was gone before its tokens were kept')
    },

    /** Ends the session everywhere, then its refresh token at the provider. */
    async end(owner: TokenOwner, reason: string): Promise<void> {
      await endGrant(owner)
      observe.sessionEnded(owner.hash, reason)
    },
  }
}
