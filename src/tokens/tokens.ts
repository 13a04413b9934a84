import { clockWaiting, type Waiting } from '../async/clock.ts'
import type { UnderWay } from '../async/in-flight.ts'
import type { ResourceConfig } from '../config/config.ts'
import { BffError } from '../errors.ts'
import type { SessionHash, Store } from '../store/port.ts'
import { createAccessTokens, type TokensCopy } from './access-tokens.ts'
import type { ClientTokenTurnDeps } from './client/client-token-turn.ts'
import { createClientTokens } from './client/client-tokens.ts'
import type { ClientTokenShelf } from './client/shared-client-tokens.ts'
import { createGrantEnding } from './grant-ending.ts'
import type { Sealing } from './record/sealing.ts'
import {
  createTokenSealer,
  type StoredAccessToken,
  storedAccessToken,
  type TokenHolder,
  type TokenOwner,
  type TokenSealer,
} from './record/token-record.ts'
import type { SpendDeps } from './refresh/refresh.ts'
import type { RefreshGrant } from './refresh/refresh-grant.ts'
import { createRefreshTurns, type RefreshTurnsDeps } from './refresh/refresh-lock.ts'
import { createRenewal, type RenewalDeps } from './refresh/renewal.ts'
import { createReuse } from './refresh/reuse.ts'
import type { Rejection, RejectionReaction } from './rejected-token.ts'
import { forgettingRetired } from './retired-resources.ts'
import { createExchange, type TokenExchangeGrant } from './token-exchange.ts'

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
    readonly refreshGrant: RefreshGrant
    readonly requireAsked?: SpendDeps['requireAsked']
    readonly clientCredentialsGrant: ClientTokenTurnDeps['grant']
    readonly tokenExchangeGrant: TokenExchangeGrant
    readonly admit: RefreshTurnsDeps['admit']
    /** Never rejects. */
    readonly revoke: (refreshToken: string) => Promise<void>
  }
  /** Changes the claims of a session, everywhere, as a refreshed ID token says. Never rejects. */
  readonly followClaims?: SpendDeps['followClaims']
  /** How the token of each resource is got; a name that is not here is asked for with the refresh token. */
  readonly resources: Readonly<Record<string, Pick<ResourceConfig, 'grant' | 'subject'>>>
  /** Names of resources that a reload took away: their tokens are deleted. */
  readonly retiredResources?: ReadonlySet<string>
  /** What all replicas share of the client's own tokens; absent: each replica has its own. */
  readonly clientTokenShelf?: ClientTokenShelf
  /** Whether the provider takes a refresh token again after an answer that may have been lost; `auto`: to be learned. */
  readonly reusesRefreshTokens: boolean | 'auto'
  /** Where refreshes are noted that must not be cut off by the end of the process. */
  readonly underWay?: UnderWay
  /** Longest time one provider call takes. */
  readonly providerTimeoutMs: number
  /** Epoch ms. */
  readonly now: () => number
  readonly monotonicNow: () => number
  /** By the machine's clock unless given. */
  readonly waiting?: Waiting
  readonly observe: {
    readonly refresh: RenewalDeps['observe']
    readonly turn: RefreshTurnsDeps['observe']
    readonly sessionEnded: (hash: SessionHash, reason: string) => void
  }
}

/** Around the provider call, a lock holder also reads and writes the store. */
const LOCK_MARGIN_MS = 3_000

/** The tokens of all sessions: kept at sign-in, given to the proxy, ended at sign-out. */
export function createTokens(deps: TokensDeps) {
  const { store, provider, waiting = clockWaiting, observe } = deps
  const sealer = createTokenSealer(deps.sealing)
  const endGrant = createGrantEnding({ end: store.sessions.end, sealer, revoke: provider.revoke, waiting })
  const sources = createSources({ ...deps, waiting }, { sealer, endGrant })
  const sourceOf = (resource: string) => sources[deps.resources[resource]?.grant ?? 'refresh_token']

  return {
    /** Rejects with session_required, reauthentication_required, provider_rejected, provider_unavailable, store_unavailable. */
    tokenFor: (holder: TokenHolder, resource: string): StoredAccessToken | Promise<StoredAccessToken> =>
      sourceOf(resource).tokenFor(holder, resource),

    /** What to do about a token that an upstream rejects. Rejects as `tokenFor` does. */
    onRejected: (holder: TokenHolder, resource: string, rejection: Rejection): Promise<RejectionReaction> =>
      sourceOf(resource).onRejected(holder, resource, rejection),

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

    /** The same for a session that may have ended already; false then, and nobody is told. */
    endReplaced: (owner: TokenOwner): Promise<boolean> => endGrant(owner),
  }
}

type TokenSource = {
  tokenFor(holder: TokenHolder, resource: string): StoredAccessToken | Promise<StoredAccessToken>
  onRejected(holder: TokenHolder, resource: string, rejection: Rejection): Promise<RejectionReaction>
}
type Parts = {
  readonly sealer: TokenSealer
  readonly endGrant: (owner: TokenOwner) => Promise<boolean>
}

/** Where a token comes from, by the grant of its resource. */
function createSources(
  deps: TokensDeps & { readonly waiting: Waiting },
  parts: Parts,
): Record<ResourceConfig['grant'], TokenSource> {
  const { store, provider, copy, now, monotonicNow, waiting, resources, clientTokenShelf } = deps
  const read = forgettingRetired(store.tokens, deps.retiredResources ?? new Set())
  const held = { records: { ...store.tokens, read }, sealer: parts.sealer, copy, now, monotonicNow }
  const lockTtlMs = deps.providerTimeoutMs + LOCK_MARGIN_MS
  const ofUser = createAccessTokens({ ...held, renew: createUserRenewal(deps, { ...parts, lockTtlMs }) })
  const exchanged = createAccessTokens({
    ...held,
    renew: createExchange({
      ...held,
      exchangeGrant: provider.tokenExchangeGrant,
      subjectTokenFor: (holder, resource) => ofUser.tokenFor(holder, resources[resource]?.subject ?? ''),
    }),
  })
  const ofClient = createClientTokens({
    grant: provider.clientCredentialsGrant,
    ...{ shelf: clientTokenShelf, admit: provider.admit, now, monotonicNow, waiting, lockTtlMs },
  })
  return {
    refresh_token: ofUser,
    token_exchange: exchanged,
    client_credentials: {
      tokenFor: (_, resource) => ofClient.tokenFor(resource),
      onRejected: (_, resource, rejection) => ofClient.onRejected(resource, rejection),
    },
  }
}

function createUserRenewal(
  deps: TokensDeps & { readonly waiting: Waiting },
  { sealer, endGrant, lockTtlMs }: Parts & { lockTtlMs: number },
) {
  const { store, provider, now, monotonicNow, waiting, observe, underWay } = deps
  const takeTurn = createRefreshTurns({
    records: store.tokens,
    admit: provider.admit,
    ...{ now, waiting, lockTtlMs, waitMs: lockTtlMs, observe: observe.turn, underWay: underWay?.add },
  })
  return createRenewal({
    ...{ records: store.tokens, sealer, takeTurn, now, monotonicNow, waiting, observe: observe.refresh },
    refreshGrant: provider.refreshGrant,
    requireAsked: provider.requireAsked,
    followClaims: deps.followClaims,
    reuse: createReuse(deps.reusesRefreshTokens),
    longestSpendMs: lockTtlMs,
    underWay,
    revoke: provider.revoke,
    endSession: async (holder, reason) => {
      // A grant that the provider has ended leaves nothing to revoke; one that answers for somebody else does.
      await (reason === 'subject_changed' ? endGrant(holder) : store.sessions.end(holder.hash))
      observe.sessionEnded(holder.hash, reason)
    },
  })
}
