import type { Waiting } from '../../async/clock.ts'
import type { UnderWay } from '../../async/in-flight.ts'
import { BffError } from '../../errors.ts'
import type { SealedTokens, TokenRecords } from '../../store/port.ts'
import {
  type StoredAccessToken,
  storedAccessToken,
  type TokenHolder,
  type TokenSealer,
} from '../record/token-record.ts'
import { createRecordWriter, type RecordWriter, superseded } from './attempt.ts'
import type { RefreshGrant, RefreshGrantOutcome, SessionGrant } from './refresh-grant.ts'
import type { Reuse } from './reuse.ts'

/** Why a refresh token was not offered: it may be spent, or there is none. */
export type UnseenRefresh = 'uncertain' | 'no_refresh_token'

export type SpendDeps = {
  readonly records: TokenRecords
  readonly sealer: TokenSealer
  readonly refreshGrant: RefreshGrant
  /** Throws `reauthentication_required` for a resource that the sign-in did not ask for. */
  readonly requireAsked?: (resource: string, signIn: SessionGrant) => void
  /** Changes the claims of a session, everywhere, as a refreshed ID token says. Never rejects. */
  readonly followClaims?: (
    holder: TokenHolder,
    claimsAfter: (before: TokenHolder['claims']) => TokenHolder['claims'] | undefined,
  ) => Promise<void>
  /** Ends a session whose grant is dead, everywhere. */
  readonly endSession: (holder: TokenHolder, reason: string) => Promise<void>
  /** Revokes a refresh token that arrived after its session had ended. Never rejects. */
  readonly revoke: (refreshToken: string) => Promise<void>
  readonly reuse: Reuse
  readonly waiting: Waiting
  /** A refresh that took longer than this did so because this process stood still; ms. */
  readonly longestSpendMs: number
  /** What must not be cut off by the end of the process. */
  readonly underWay?: UnderWay
  /** Told of refreshes that the provider did not get to see. */
  readonly observe: (resource: string, outcome: UnseenRefresh) => void
}

/** One wish, under the session's refresh lock. */
export type Spending = {
  readonly holder: TokenHolder
  readonly resource: string
  readonly owner: string
  /** Keeps the turn from ending until a write has settled. */
  readonly hold: (until: Promise<unknown>) => void
  /** JSON text of the claims that a challenge asks for. */
  readonly claims?: string
  /** When an upstream's rejection last forced a renewal of this token; epoch ms. */
  readonly forcedAt: (record: SealedTokens) => number | undefined
  /** The token somebody else has brought meanwhile, if the record holds a good one. */
  readonly settledIn: (record: SealedTokens) => StoredAccessToken | undefined
}

/** So long whoever began a spend gets to bring the answer in, once its lock has passed to us. */
const OPEN_SPEND_GRACE_MS = 2_000
/**
 * The same where the token will not be offered after it. The owner may have offered nothing, and be on its way back to a
 * store that was away, to take back its mark: a user would be sent to sign in for nothing.
 */
const LAST_GRACE_MS = 5_000
const LOOK_EVERY_MS = 50
/** So often somebody may be first before the caller is told to come back. */
const BEGINNINGS = 10

/**
 * Spends the refresh token once: marked first, the rotated one stored, and the mark removed with it, before anything
 * else happens to the answer. Whoever finds the mark knows that the token may be spent.
 */
export async function spendRefreshToken(deps: SpendDeps, spending: Spending): Promise<StoredAccessToken> {
  for (let tries = 0; tries < BEGINNINGS; tries++) {
    const token = await spendUnlessSuperseded(deps, spending)
    if (token) return token
  }
  throw superseded()
}

/** Undefined when our lock was lost and somebody else began first: that spend is to be waited for, like any other. */
async function spendUnlessSuperseded(
  deps: SpendDeps,
  spending: Spending,
): Promise<StoredAccessToken | undefined> {
  const { holder, resource, owner, hold } = spending
  const before = await afterOpenSpend(deps, holder)
  const brought = spending.settledIn(before)
  if (brought) return brought
  deps.requireAsked?.(resource, signInOf(holder))
  const refreshToken = requireRefreshToken(deps, spending, before)
  // Its answer might come too late to be stored.
  if (deps.underWay?.isEnding()) throw new BffError('provider_unavailable', 'shutting down')
  const record = createRecordWriter(deps, { holder, version: before.version, hold })
  if (!(await record.begin(deps.reuse.signed(owner)))) return undefined
  const begunAt = deps.waiting.elapsedMs()
  let hasRotated = false
  const keep = (next: string) => {
    hasRotated ||= next !== refreshToken
    return record.keepRefreshToken(next)
  }
  const outcome = await deps.refreshGrant({
    ...{ refreshToken, resource, keep, claims: spending.claims },
    ...{ signIn: signInOf(holder), session: holder.hash },
  })
  if (hasRotated || outcome.kind === 'renewed') deps.reuse.learn(hasRotated)
  const hasStoodStill = deps.waiting.elapsedMs() - begunAt > deps.longestSpendMs
  return actOn(deps, spending, { outcome, record, hasStoodStill, forcedAt: spending.forcedAt(before) })
}

/** The record, once no spend of somebody else is open in it, or its owner had time enough. */
async function afterOpenSpend(
  { records, reuse, waiting }: SpendDeps,
  { hash }: TokenHolder,
): Promise<SealedTokens> {
  let open: { readonly mark: string; readonly until: number } | undefined
  for (;;) {
    const record = await records.read(hash)
    if (!record) throw new BffError('session_required', 'the session ended while its token was renewed')
    if (!record.attempt?.startsWith('open:') || reuse.isOutlived(hash, record.attempt)) return record
    // Each owner's time begins when its mark is first seen: our own slowness is not held against it.
    if (open?.mark !== record.attempt) {
      const graceMs = reuse.allows(record.attempt) ? OPEN_SPEND_GRACE_MS : LAST_GRACE_MS
      open = { mark: record.attempt, until: waiting.elapsedMs() + graceMs }
    }
    if (waiting.elapsedMs() >= open.until) {
      // A mark that stays, because its token is not offered again, is waited for once. It is not written over: its owner
      // could still come back with the next token.
      if (!reuse.allows(record.attempt)) reuse.outlive(hash, record.attempt)
      return record
    }
    await waiting.pause(LOOK_EVERY_MS)
  }
}

/** Not the id: that opens the session's records, and is nothing for other rooms. */
function signInOf({ indicators, scopes, granted, steppedUp }: TokenHolder): SessionGrant {
  return { indicators, scopes, granted, steppedUp }
}

/** A sign-in cures only what a sign-in brings: the token that came with its code, once that has expired. */
function noRefreshToken(hadToken: boolean): BffError {
  return new BffError(
    hadToken ? 'reauthentication_required' : 'provider_rejected',
    'the provider gave no refresh token at sign-in',
    { details: { reason: 'no_refresh_token' } },
  )
}

function requireRefreshToken(deps: SpendDeps, { holder, resource }: Spending, record: SealedTokens): string {
  if (record.attempt && !deps.reuse.allows(record.attempt)) {
    deps.observe(resource, 'uncertain')
    throw new BffError('reauthentication_required', 'the refresh token may have been used already', {
      details: { reason: 'refresh_token_uncertain' },
    })
  }
  const refreshToken = deps.sealer.openRefreshToken(holder, record.refreshToken)
  if (refreshToken) return refreshToken
  if (record.refreshToken !== undefined) {
    // Sealed with a key that only other replicas have yet, or granted by another provider: no fault of this one.
    throw new BffError('session_required', 'the refresh token of this session does not open')
  }
  deps.observe(resource, 'no_refresh_token')
  throw noRefreshToken(deps.sealer.openTokens(holder, record).accessTokens.has(resource))
}

async function actOn(
  deps: SpendDeps,
  { holder, resource }: Spending,
  {
    outcome,
    record,
    hasStoodStill,
    forcedAt,
  }: {
    outcome: RefreshGrantOutcome
    record: RecordWriter
    hasStoodStill: boolean
    forcedAt: number | undefined
  },
): Promise<StoredAccessToken> {
  if (outcome.kind === 'dead') {
    await deps.endSession(holder, outcome.reason)
    throw new BffError('session_required', 'the authorization server ended the grant', {
      details: { reason: 'grant_ended' },
    })
  }
  if (outcome.kind !== 'renewed') {
    // Some providers rotate before they look at the resource that they then refuse; and one whose answer was lost while
    // this process stood still had all the time to rotate.
    const doubt = outcome.kind === 'refused' || hasStoodStill ? 'burnt' : 'lost'
    await record.end(outcome.isMaybeSpent ? doubt : 'ended')
    throw outcome.error
  }
  if (outcome.subject !== undefined && outcome.subject !== holder.claims.sub) {
    // OpenID Connect Core §12.2: a refresh that answers for somebody else ends the session.
    await deps.endSession(holder, 'subject_changed')
    throw new BffError('session_required', 'the refreshed ID token names another user')
  }
  const token = {
    ...storedAccessToken(outcome.accessToken, outcome.obtainedAt, outcome.expiresAt),
    ...(forcedAt === undefined ? {} : { forcedAt }),
  }
  await record.keepAccessToken(resource, token)
  if (outcome.claimsAfter) await deps.followClaims?.(holder, outcome.claimsAfter)
  return token
}
