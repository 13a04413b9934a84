import type { KeyObject } from 'node:crypto'
import type { Clock } from '../../async/clock.ts'
import type { InFlightWork } from '../../async/in-flight.ts'
import { BffError } from '../../errors.ts'
import type { AttemptMark, SealedTokens, SessionGrant, TokenRecords, UserClaims } from '../../store/port.ts'
import { createRecentRefusals } from '../recent-refusals.ts'
import {
  type AccessToken,
  freshOrUndefined,
  type GrantedAccessToken,
  type RenewToken,
  storedAccessToken,
  type TokenHolder,
  type TokenSealer,
  type WantedToken,
} from '../record/sealing.ts'
import {
  type Attempt,
  type AttemptDeps,
  type AttemptOutcome,
  beginAttempt,
  createReusePolicy,
  isInFlight,
  type ReusePolicy,
  takenOver,
} from './attempt.ts'
import { createRefreshLock, type Lease, type RefreshLockDeps } from './refresh-lock.ts'

/** What the tokens room asks of the authorization server: one refresh grant for one resource (RFC 6749 §6). */
export type RefreshGrantRequest = {
  readonly refreshToken: string
  /** Name of the resource in the config. */
  readonly resource: string
  /** Tells one session from another. */
  readonly session?: string
  readonly signIn?: SessionGrant
  /** Stores a rotated refresh token and the key it came with. Called, and awaited, before anything else in the answer is looked at. */
  readonly keep: (newRefreshToken: string, key?: KeyObject) => Promise<void>
  /** The private key that the refresh token came with (RFC 9449). */
  readonly key?: KeyObject
  /** JSON text of the claims that a challenge asks for (OpenID Connect Core §5.5). */
  readonly claims?: string
}

/** How a refresh grant ended. */
export type RefreshGrantOutcome =
  | (GrantedAccessToken & {
      readonly kind: 'renewed'
      /** `sub` of a verified new ID token, if one came: must be the user who signed in (OpenID Connect Core §12.2). */
      readonly subject?: string
      /** What the claims of the session become by that ID token; undefined when it changes nothing. */
      readonly claimsAfter?: ClaimsAfter
      /** When the refresh token ends, where the answer says so; epoch ms. */
      readonly refreshTokenExpiresAt?: number | undefined
    })
  /** The refresh token is of no use any more: the session ends. */
  | { readonly kind: 'dead'; readonly reason: string }
  /** This resource is refused, or we are misconfigured: the session and the other resources stay. */
  | { readonly kind: 'refused'; readonly error: BffError; readonly isMaybeUsed: boolean }
  /** No answer, or a passing fault: a living token is used on. */
  | { readonly kind: 'unavailable'; readonly error: BffError; readonly isMaybeUsed: boolean }

export type RefreshGrant = (request: RefreshGrantRequest) => Promise<RefreshGrantOutcome>

type ClaimsAfter = (before: UserClaims) => UserClaims | undefined

/** Why a refresh token was not offered: it may be used up, or there is none. */
export type UnseenRefresh = 'uncertain' | 'no_refresh_token'

export type RefreshDeps = {
  readonly records: TokenRecords
  readonly sealer: TokenSealer
  readonly refreshGrant: RefreshGrant
  /** Throws `reauthentication_required` for a resource that the sign-in did not ask for. */
  readonly requireAsked?: (resource: string, signIn: SessionGrant) => void
  /** Changes the claims and the end of a session, everywhere, as the answer to a refresh says. Never rejects. */
  readonly followClaims?: (
    holder: TokenHolder,
    claimsAfter: ClaimsAfter,
    refreshTokenExpiresAt?: number,
  ) => Promise<void>
  /** Ends a session whose grant is dead, everywhere. */
  readonly endSession: (holder: TokenHolder, reason: string) => Promise<void>
  readonly revoke: AttemptDeps['revoke']
  /** Whether the authorization server takes a refresh token again after an answer that was lost; `auto`: to be learned. */
  readonly reusesRefreshTokens: boolean | 'auto'
  readonly admit: RefreshLockDeps['admit']
  readonly clock: Pick<Clock, 'now' | 'monotonicNow' | 'pause'>
  /** Longer than one refresh can take, unless this process stands still. */
  readonly lockTtlMs: number
  /** What must not be cut off by the end of the process. */
  readonly inFlight?: InFlightWork
  readonly observe: {
    readonly lock: RefreshLockDeps['observe']
    /** Told of refreshes that the authorization server did not get to see. */
    readonly unseen: (resource: string, outcome: UnseenRefresh) => void
  }
}

type Refreshing = RefreshDeps & {
  readonly reuse: ReusePolicy
  /** Told of a token that the store has not taken yet. */
  readonly unsaved: (wanted: WantedToken, token: AccessToken, written: Promise<unknown>) => void
}

/** How long the owner of an attempt in flight gets to bring the answer in, once its lock has passed to us. */
const OWNER_GRACE_MS = 2_000
/**
 * The same where the refresh token will not be offered after it. The owner may have offered nothing, and be on its way
 * back to a store that was away, to take back its mark: a user would be sent to sign in for nothing.
 */
const LAST_GRACE_MS = 5_000
const LOOK_EVERY_MS = 50
/** How often another replica may begin first before the caller is told to come back. */
const MAX_BEGINNINGS = 10

/** Renews access tokens with the session's refresh token. A refusal is remembered for a short while, and not asked for again. */
export function createRefresh(deps: RefreshDeps): RenewToken {
  const refusals = createRecentRefusals(deps.clock.monotonicNow)
  /** Tokens whose write the store has not taken yet: for this process they are as good as stored. */
  const unsaved = new Map<string, AccessToken>()
  const keyOf = ({ holder, resource }: WantedToken) => holder.hash + resource
  const withRefreshLock = createRefreshLock<AccessToken>({
    ...deps,
    observe: deps.observe.lock,
    inFlight: deps.inFlight?.add,
  })
  const refreshing: Refreshing = {
    ...deps,
    reuse: createReusePolicy(deps.reusesRefreshTokens, deps.clock),
    unsaved(wanted, token, written) {
      unsaved.set(keyOf(wanted), token)
      written.then(() => unsaved.delete(keyOf(wanted)))
    },
  }

  return async function renew(wanted) {
    const { holder, resource, rejected, claims } = wanted
    const inMemory = unsaved.get(keyOf(wanted))
    if (inMemory && inMemory.value !== rejected && deps.clock.now() < inMemory.expiresAt) return inMemory
    refusals.throwIfRecent(keyOf(wanted))
    try {
      // 1. One at a time: single flight in this process, a permit of the token endpoint limiter, a lock across replicas.
      // 7. The lock is released once everything that the refresh writes is written.
      return await withRefreshLock({
        hash: holder.hash,
        resource,
        // A rejected token must not be answered by a refresh that would be content with it.
        key: JSON.stringify([holder.hash, resource, rejected, claims]),
        doneElsewhere: async () => (await readRecord(refreshing, wanted)).fresh,
        work: (lease) => refresh(refreshing, wanted, lease),
      })
    } catch (error) {
      refusals.remember(keyOf(wanted), error)
      throw error
    }
  }
}

/** One access token for one session and resource, from the session's one refresh token (RFC 6749 §6, RFC 9700 §4.14.2). */
async function refresh(deps: Refreshing, wanted: WantedToken, lease: Lease): Promise<AccessToken> {
  for (let beginnings = 0; beginnings < MAX_BEGINNINGS; beginnings += 1) {
    // 2. Read past every copy. Another replica may have done it, or may still be at it.
    const found = await readSettledRecord(deps, wanted, lease)
    if (found.fresh) return found.fresh

    // 3. May the refresh token be offered? If there is none, or it may be used up, or it is not for this resource: say so.
    const refreshToken = requireUsable(deps, wanted, found)

    // 4. Store the attempt before making it: a replica that dies from here on leaves word that the token may be used up.
    const attempt = await beginAttempt(deps, {
      holder: wanted.holder,
      version: found.record.version,
      mark: deps.reuse.markOf(lease.owner),
      hold: lease.hold,
    })
    // Our lock was lost, and another replica began first: its attempt is waited for, like any other.
    if (!attempt) continue

    // 5. Ask. A rotated refresh token is stored before anything else in the answer is looked at.
    const key = deps.sealer.openRefreshKey(wanted.holder, found.record.refreshToken)
    const outcome = await askForToken(deps, wanted, { refreshToken, key, attempt })

    // 6. React: store the access token, end the session, or leave both as they are and say why.
    if (outcome.kind === 'dead') return endSession(deps, wanted.holder, outcome)
    if (outcome.kind !== 'renewed') return giveUp(attempt, outcome)
    if (outcome.subject !== undefined && outcome.subject !== wanted.holder.claims.sub)
      return endSessionOfAnother(deps, wanted.holder)
    return keep(deps, wanted, { attempt, outcome, before: found.token })
  }
  throw takenOver()
}

/** The record, and in it the token of the wanted resource: `fresh` if it will do. */
type FoundRecord = {
  readonly record: SealedTokens
  readonly token: AccessToken | undefined
  readonly fresh: AccessToken | undefined
}

async function readRecord(
  { records, sealer, clock }: Refreshing,
  { holder, resource, rejected }: WantedToken,
): Promise<FoundRecord> {
  const record = await records.read(holder.hash, resource)
  if (!record) throw new BffError('session_required', 'the session ended while its token was renewed')
  const token = sealer.openAccessToken(holder, resource, record)
  return { record, token, fresh: freshOrUndefined(token, rejected, clock.now()) }
}

/** The record, once it holds a fresh token, or no attempt is in flight in it, or its owner had time enough. */
async function readSettledRecord(deps: Refreshing, wanted: WantedToken, lease: Lease): Promise<FoundRecord> {
  const { hash } = wanted.holder
  const { reuse, clock } = deps
  let awaited: { readonly mark: AttemptMark; readonly until: number } | undefined
  for (;;) {
    const found = await readRecord(deps, wanted)
    lease.observe(found.fresh ? 'settled_elsewhere' : 'worked')
    const mark = found.record.attempt
    if (found.fresh || !mark || !isInFlight(mark) || reuse.isOutlived(hash, mark)) return found
    // Each owner's time begins when its mark is first seen: our own slowness does not count.
    if (awaited?.mark !== mark) {
      const graceMs = reuse.allows(mark) ? OWNER_GRACE_MS : LAST_GRACE_MS
      awaited = { mark, until: clock.monotonicNow() + graceMs }
    }
    if (clock.monotonicNow() >= awaited.until) {
      // A mark that stays, because the token is not offered again, is waited for once. It is not written over: its owner
      // could still come back with the next token.
      if (!reuse.allows(mark)) reuse.outlive(hash, mark)
      return found
    }
    await clock.pause(LOOK_EVERY_MS)
  }
}

/** The refresh token. Throws when it must not be offered now. */
function requireUsable(
  { requireAsked, reuse, sealer, observe, inFlight }: Refreshing,
  { holder, resource }: WantedToken,
  { record, token }: FoundRecord,
): string {
  requireAsked?.(resource, signInOf(holder))
  if (record.attempt && !reuse.allows(record.attempt)) {
    observe.unseen(resource, 'uncertain')
    throw new BffError('reauthentication_required', 'the refresh token may have been used already', {
      details: { reason: 'refresh_token_uncertain' },
    })
  }
  const refreshToken = sealer.openRefreshToken(holder, record.refreshToken)
  if (!refreshToken && record.refreshToken !== undefined) {
    // Sealed with a key that only other replicas have yet, or granted by another provider: no fault of this one.
    throw new BffError('session_required', 'the refresh token of this session does not open')
  }
  if (!refreshToken) {
    observe.unseen(resource, 'no_refresh_token')
    throw noRefreshToken(token !== undefined)
  }
  // Its answer might come too late to be stored.
  if (inFlight?.isEnding()) throw new BffError('provider_unavailable', 'shutting down')
  return refreshToken
}

/** A sign-in cures only what a sign-in brings: the token that came with its code, once that has expired. */
function noRefreshToken(hadToken: boolean): BffError {
  return new BffError(
    hadToken ? 'reauthentication_required' : 'provider_rejected',
    'the provider gave no refresh token at sign-in',
    { details: { reason: 'no_refresh_token' } },
  )
}

/** Without the id: that opens the session's records, and other rooms do not get it. */
function signInOf({ indicators, scopes, granted, userinfo, steppedUp }: TokenHolder): SessionGrant {
  return { indicators, scopes, granted, userinfo, steppedUp }
}

/** An outcome that is no token says what the refresh token is worth from now on. */
type AskedOutcome =
  | Extract<RefreshGrantOutcome, { kind: 'renewed' | 'dead' }>
  | { readonly kind: 'failed'; readonly error: BffError; readonly attemptOutcome: AttemptOutcome }

async function askForToken(
  deps: Refreshing,
  { holder, resource, claims }: WantedToken,
  { refreshToken, key, attempt }: { refreshToken: string; key: KeyObject | undefined; attempt: Attempt },
): Promise<AskedOutcome> {
  const begunAt = deps.clock.monotonicNow()
  let hasRotated = false
  const outcome = await deps.refreshGrant({
    ...{ refreshToken, resource, claims, signIn: signInOf(holder), session: holder.hash },
    ...(key && { key }),
    keep(next, nextKey) {
      hasRotated ||= next !== refreshToken
      return attempt.storeRefreshToken(next, nextKey)
    },
  })
  if (hasRotated || outcome.kind === 'renewed') deps.reuse.learn(hasRotated)
  if (outcome.kind === 'renewed' || outcome.kind === 'dead') return outcome
  const { kind, error, isMaybeUsed } = outcome
  // Some authorization servers rotate before they look at the resource that they then refuse; and one whose answer was
  // lost while this process stood still had all the time to rotate.
  const hasStoodStill = deps.clock.monotonicNow() - begunAt > deps.lockTtlMs
  const doubt = kind === 'refused' || hasStoodStill ? 'maybe_used' : 'unanswered'
  return { kind: 'failed', error, attemptOutcome: isMaybeUsed ? doubt : 'unused' }
}

async function giveUp(
  attempt: Attempt,
  { error, attemptOutcome }: { error: BffError; attemptOutcome: AttemptOutcome },
): Promise<never> {
  await attempt.end(attemptOutcome)
  throw error
}

async function endSession(
  deps: Refreshing,
  holder: TokenHolder,
  { reason }: { reason: string },
): Promise<never> {
  await deps.endSession(holder, reason)
  throw new BffError('session_required', 'the authorization server ended the grant', {
    details: { reason: 'grant_ended' },
  })
}

/** OpenID Connect Core §12.2: a refresh that answers for another user ends the session. */
async function endSessionOfAnother(deps: Refreshing, holder: TokenHolder): Promise<never> {
  await deps.endSession(holder, 'subject_changed')
  throw new BffError('session_required', 'the refreshed ID token names another user')
}

async function keep(
  deps: Refreshing,
  wanted: WantedToken,
  {
    attempt,
    outcome,
    before,
  }: {
    attempt: Attempt
    outcome: Extract<RefreshGrantOutcome, { kind: 'renewed' }>
    before: AccessToken | undefined
  },
): Promise<AccessToken> {
  const { holder, resource, rejected } = wanted
  const token = storedAccessToken(outcome, rejected === undefined ? before?.forcedAt : deps.clock.now())
  await attempt.storeAccessToken(resource, token)
  deps.unsaved(wanted, token, attempt.written())
  const { claimsAfter, refreshTokenExpiresAt } = outcome
  if (claimsAfter || refreshTokenExpiresAt !== undefined)
    await deps.followClaims?.(holder, claimsAfter ?? (() => undefined), refreshTokenExpiresAt)
  return token
}
