import { randomUUID } from 'node:crypto'
import type { Clock } from '../async/clock.ts'
import { within } from '../async/deadline.ts'
import type { InFlightWork } from '../async/in-flight.ts'
import type { Trace } from '../async/trace.ts'
import type { ResourceConfig } from '../config/config.ts'
import { BffError } from '../errors.ts'
import type { SessionHash, Store, TokenRecords } from '../store/port.ts'
import { type ClientTokensDeps, createClientTokens } from './client/client-tokens.ts'
import type { SharedClientTokens } from './client/shared-client-tokens.ts'
import {
  type AccessToken,
  createTokenSealer,
  type GrantedAccessToken,
  type RenewToken,
  type Sealing,
  storedAccessToken,
  type TokenHolder,
  type TokenOwner,
  type TokenSealer,
} from './record/sealing.ts'
import { createRefresh, type RefreshDeps } from './refresh/refresh.ts'
import { createRejections, type Rejection, type RejectionReaction } from './rejected-token.ts'
import { createTokenExchange, type TokenExchangeGrant } from './token-exchange.ts'

/** What a code grant gave, as far as it is kept. */
export type FirstGrant = GrantedAccessToken & { readonly refreshToken: string | undefined }

export type TokensDeps = {
  readonly trace?: Pick<Trace, 'part' | 'note'> | undefined
  readonly store: Pick<Store, 'sessions' | 'tokens'>
  readonly sealing: Sealing
  readonly copy: TokensCopy
  readonly provider: {
    readonly refreshGrant: RefreshDeps['refreshGrant']
    readonly requireAsked?: RefreshDeps['requireAsked']
    readonly clientCredentialsGrant: ClientTokensDeps['grant']
    readonly tokenExchangeGrant: TokenExchangeGrant
    readonly admit: RefreshDeps['admit']
    /** Revokes a refresh token (RFC 7009). Never rejects. */
    readonly revoke: RefreshDeps['revoke']
  }
  readonly followClaims?: RefreshDeps['followClaims']
  /** How the token of each resource is got; a name that is not here is asked for with the refresh token. */
  readonly resources: Readonly<Record<string, Pick<ResourceConfig, 'grant' | 'subject'>>>
  /** Names of resources that a reload took away: their tokens are deleted. */
  readonly retiredResources?: ReadonlySet<string>
  /** The client's own tokens that all replicas share; absent: each replica has its own. */
  readonly sharedClientTokens?: SharedClientTokens
  readonly reusesRefreshTokens: RefreshDeps['reusesRefreshTokens']
  /** Where refreshes are noted that must not be cut off by the end of the process. */
  readonly inFlight?: InFlightWork
  /** Longest time one provider call takes. */
  readonly providerTimeoutMs: number
  readonly clock: Pick<Clock, 'now' | 'monotonicNow' | 'pause'>
  readonly observe: {
    readonly unseenRefresh: RefreshDeps['observe']['unseen']
    readonly refreshLock: RefreshDeps['observe']['lock']
    readonly sessionEnded: (hash: SessionHash, reason: string) => void
    /** The provider was asked to revoke the refresh token of a session that ended (RFC 7009). */
    readonly revoked?: (hash: SessionHash) => void
  }
}

/** Where the token of a resource comes from, by its grant. */
type TokenSource = {
  inMemory(holder: TokenHolder, resource: string): AccessToken | undefined
  tokenFor(holder: TokenHolder, resource: string): AccessToken | Promise<AccessToken>
  readAhead(owner: TokenOwner, resource: string): void
  onRejected(holder: TokenHolder, resource: string, rejection: Rejection): Promise<RejectionReaction>
}

/** Around the provider call, the holder of a lock also reads and writes the store. */
const LOCK_MARGIN_MS = 3_000

/** The tokens of all sessions: kept at sign-in, given to the proxy, ended at sign-out. */
export function createTokens(deps: TokensDeps) {
  const { store, provider, resources, clock, observe } = deps
  const sealer = createTokenSealer(deps.sealing)
  const endGrant = createGrantEnding({
    end: store.sessions.end,
    sealer,
    revoke: provider.revoke,
    clock,
    revoked: observe.revoked,
  })
  const sources = createSources(deps, { sealer, endGrant })
  const sourceOf = (resource: string) => sources[resources[resource]?.grant ?? 'refresh_token']

  return {
    /** The token, where it is at hand and need not be renewed yet. */
    inMemory: (holder: TokenHolder, resource: string): AccessToken | undefined =>
      sourceOf(resource).inMemory(holder, resource),

    /** Rejects with session_required, reauthentication_required, provider_rejected, provider_unavailable, store_unavailable. */
    tokenFor: (holder: TokenHolder, resource: string): AccessToken | Promise<AccessToken> =>
      sourceOf(resource).tokenFor(holder, resource),

    /** Begins to read what `tokenFor` will be asked for, before the session is known. Never rejects. */
    readAhead: (owner: TokenOwner, resource: string): void => sourceOf(resource).readAhead(owner, resource),

    /** What to do about a token that an upstream rejects. Rejects as `tokenFor` does. */
    onRejected: (holder: TokenHolder, resource: string, rejection: Rejection): Promise<RejectionReaction> =>
      sourceOf(resource).onRejected(holder, resource, rejection),

    /** Keeps what the code grant gave, the access token under `resource`, or not at all when it is for none. */
    async keepFirst(owner: TokenOwner, grant: FirstGrant, resource: string | undefined): Promise<void> {
      const { refreshToken } = grant
      const kept = await store.tokens.create(owner.hash, {
        refreshToken: refreshToken && sealer.sealRefreshToken(owner, refreshToken, grant.key),
        accessTokens: resource
          ? { [resource]: sealer.sealAccessToken(owner, resource, storedAccessToken(grant)) }
          : {},
      })
      if (!kept)
        throw new BffError('store_unavailable', 'the new session was gone before its tokens were kept')
    },

    /** Ends the session everywhere, then its refresh token at the provider. */
    async end(owner: TokenOwner, reason: string): Promise<void> {
      await endGrant(owner)
      observe.sessionEnded(owner.hash, reason)
    },

    /** Makes the next request of a session get new tokens, on every replica; false when it has no refresh token. */
    forceRenewal: createForceRenewal({
      ...{ records: store.tokens, clock, lockTtlMs: deps.providerTimeoutMs + LOCK_MARGIN_MS },
    }),

    /** The same for a session that may have ended already; false then. It is not counted as an end. */
    endReplaced: (owner: TokenOwner): Promise<boolean> => endGrant(owner),
  }
}

/** A refresh as a part of the request that waits for it. */
function traced(trace: TokensDeps['trace'], renew: RenewToken): RenewToken {
  if (!trace) return renew
  return (wanted) => trace.part('refresh', { 'cloakroom.resource': wanted.resource }, () => renew(wanted))
}

/** Notes in the span of a refresh who did the work, and how long it waited for the lock. */
function tracedLock(trace: TokensDeps['trace'], observe: RefreshDeps['observe']['lock']): typeof observe {
  if (!trace) return observe
  return function tracedRefreshLock(outcome, resource, waitedMs) {
    observe(outcome, resource, waitedMs)
    trace.note({ 'cloakroom.refresh.outcome': outcome, 'cloakroom.refresh.lock_wait_ms': waitedMs })
  }
}

function createSources(
  deps: TokensDeps,
  { sealer, endGrant }: { readonly sealer: TokenSealer; readonly endGrant: EndGrant },
): Record<ResourceConfig['grant'], TokenSource> {
  const { store, provider, copy, clock, observe } = deps
  const { admit } = provider
  const lockTtlMs = deps.providerTimeoutMs + LOCK_MARGIN_MS
  const read = readWithoutRetired(store.tokens, deps.retiredResources ?? new Set())
  const copied = { records: { ...store.tokens, read }, sealer, copy, clock }
  const ofUser = createAccessTokens({
    ...copied,
    renew: traced(
      deps.trace,
      createRefresh({
        ...{ records: store.tokens, sealer, admit, clock, lockTtlMs },
        refreshGrant: provider.refreshGrant,
        requireAsked: provider.requireAsked,
        revoke: provider.revoke,
        followClaims: deps.followClaims,
        reusesRefreshTokens: deps.reusesRefreshTokens,
        inFlight: deps.inFlight,
        observe: { lock: tracedLock(deps.trace, observe.refreshLock), unseen: observe.unseenRefresh },
        async endSession(holder, reason) {
          // A grant that the provider has ended leaves nothing to revoke; one that answers for another user does.
          await (reason === 'subject_changed' ? endGrant(holder) : store.sessions.end(holder.hash))
          observe.sessionEnded(holder.hash, reason)
        },
      }),
    ),
  })
  const exchanged = createAccessTokens({
    ...copied,
    renew: createTokenExchange({
      ...copied,
      exchangeGrant: provider.tokenExchangeGrant,
      subjectTokenFor: (holder, resource) => ofUser.tokenFor(holder, deps.resources[resource]?.subject ?? ''),
    }),
  })
  const ofClient = createClientTokens({
    grant: provider.clientCredentialsGrant,
    ...{ shared: deps.sharedClientTokens, admit, clock, lockTtlMs },
  })
  return {
    refresh_token: ofUser,
    token_exchange: exchanged,
    client_credentials: {
      inMemory: (_, resource) => ofClient.inMemory(resource),
      tokenFor: (_, resource) => ofClient.tokenFor(resource),
      // It is no session's, and seldom missing.
      readAhead() {},
      onRejected: (_, resource, rejection) => ofClient.onRejected(resource, rejection),
    },
  }
}

/**
 * Reads token records without the access tokens of resources that a reload took away, and removes those from the store
 * as they are met: nothing would ever ask for them, and a resource of the same name may come back as another.
 */
function readWithoutRetired(
  records: Pick<TokenRecords, 'read' | 'forget'>,
  retired: ReadonlySet<string>,
): TokenRecords['read'] {
  return async function read(hash, resource) {
    // Asked at each read: a reload changes the set.
    if (retired.size === 0) return records.read(hash, resource)
    const tokens = await records.read(hash)
    if (!tokens) return undefined
    const stale = Object.keys(tokens.accessTokens).filter((resource) => retired.has(resource))
    if (stale.length === 0) return tokens
    // Not awaited: the next reader meets what a store in trouble did not remove.
    records.forget(hash, stale).catch(() => undefined)
    const living = Object.entries(tokens.accessTokens).filter(([resource]) => !retired.has(resource))
    return { ...tokens, accessTokens: Object.fromEntries(living) }
  }
}

/** Resolves with false when there was no such session any more. */
type EndGrant = (owner: TokenOwner) => Promise<boolean>

type GrantEndingDeps = {
  /** Ends the session in the store, everywhere, and takes its tokens. */
  readonly end: Store['sessions']['end']
  readonly sealer: Pick<TokenSealer, 'openRefreshToken'>
  readonly revoke: TokensDeps['provider']['revoke']
  readonly clock: Pick<Clock, 'pause'>
  readonly revoked: TokensDeps['observe']['revoked']
}

const REVOCATION_BUDGET_MS = 2_000

/**
 * Ends a session and, after that, its refresh token at the provider: the local end stands whatever the provider does,
 * and its caller waits no longer than 2 s for it.
 */
function createGrantEnding({ end, sealer, revoke, clock, revoked }: GrantEndingDeps): EndGrant {
  return async function endGrant(owner) {
    const sealed = await end(owner.hash)
    const refreshToken = sealed && sealer.openRefreshToken(owner, sealed.refreshToken)
    if (!refreshToken) return sealed !== undefined
    revoked?.(owner.hash)
    await within(revoke(refreshToken), REVOCATION_BUDGET_MS, { clock, late: () => undefined })
    return true
  }
}

const LOOK_EVERY_MS = 100

/**
 * A refresh in flight may bring tokens from before the change that the renewal is for, so they are removed under the
 * refresh lock. While another holds that, they are removed at once, and again when it is free.
 */
function createForceRenewal(deps: {
  readonly records: Pick<TokenRecords, 'forgetAll' | 'lock' | 'unlock'>
  readonly clock: Pick<Clock, 'monotonicNow' | 'pause'>
  readonly lockTtlMs: number
}): (hash: SessionHash) => Promise<boolean> {
  const { records, clock, lockTtlMs } = deps
  return async function forceRenewal(hash) {
    const owner = randomUUID()
    const until = clock.monotonicNow() + lockTtlMs
    for (let isFirst = true; !(await records.lock(hash, owner, lockTtlMs)); isFirst = false) {
      if (isFirst && !(await records.forgetAll(hash))) return false
      if (clock.monotonicNow() >= until) return records.forgetAll(hash)
      await clock.pause(LOOK_EVERY_MS)
    }
    try {
      return await records.forgetAll(hash)
    } finally {
      await records.unlock(hash, owner)
    }
  }
}

/** What the record of a session holds for one resource. */
export type CopiedToken = { readonly token: AccessToken | undefined }

/** The in-process copy of opened access tokens, by session and resource. */
export type TokensCopy = {
  peek(key: string): CopiedToken | undefined
  load(
    key: string,
    hash: SessionHash,
    read: () => Promise<CopiedToken | undefined>,
  ): Promise<CopiedToken | undefined>
  /** Begins what the next `load` will share. Never rejects. */
  prefetch(key: string, hash: SessionHash, read: () => Promise<CopiedToken | undefined>): void
}

export type AccessTokensDeps = {
  readonly renew: RenewToken
  readonly records: Pick<TokenRecords, 'read'>
  readonly sealer: Pick<TokenSealer, 'openAccessToken'>
  readonly copy: TokensCopy
  readonly clock: Pick<Clock, 'now' | 'monotonicNow'>
}

/**
 * Gives the access token for one session and one resource: a living one at once (renewing it in the background when
 * its end is near), an expired one after a renewal. Answers synchronously from the in-process copy when it can.
 * Rejects as `RenewToken` does.
 */
export function createAccessTokens(deps: AccessTokensDeps) {
  const { renew, clock, copy } = deps
  const { now } = clock
  const stored = async (holder: TokenOwner, resource: string) => (await read(holder, resource))?.token
  const { reactTo, isDropped, droppedTokens, insteadOf } = createRejections({ renew, stored, clock })
  return { inMemory, tokenFor, readAhead, onRejected: reactTo }

  function inMemory(holder: TokenHolder, resource: string): AccessToken | undefined {
    const token = copy.peek(holder.hash + resource)?.token
    const isLiving = token !== undefined && now() < token.renewAt
    return isLiving && (droppedTokens() === 0 || !isDropped(holder, resource, token)) ? token : undefined
  }

  function tokenFor(holder: TokenHolder, resource: string): AccessToken | Promise<AccessToken> {
    return inMemory(holder, resource) ?? fromStore(holder, resource)
  }

  async function fromStore(holder: TokenHolder, resource: string): Promise<AccessToken> {
    const found = await copy.load(holder.hash + resource, holder.hash, () => read(holder, resource))
    if (!found) throw new BffError('session_required', 'the session has no tokens any more')
    const { token } = found
    const time = now()
    if (!token || time >= token.expiresAt) return renew({ holder, resource })
    if (isDropped(holder, resource, token)) return insteadOf(holder, resource, token)
    // The living token is served meanwhile; the outcome is in the metrics and, when it matters, met by a later caller.
    if (time >= token.renewAt) renew({ holder, resource }).catch(() => undefined)
    return token
  }

  function readAhead(owner: TokenOwner, resource: string): void {
    copy.prefetch(owner.hash + resource, owner.hash, () => read(owner, resource))
  }

  async function read(owner: TokenOwner, resource: string): Promise<CopiedToken | undefined> {
    const sealed = await deps.records.read(owner.hash, resource)
    return sealed && { token: deps.sealer.openAccessToken(owner, resource, sealed) }
  }
}
