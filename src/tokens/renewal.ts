import { setTimeout as delay } from 'node:timers/promises'
import { BffError } from '../errors.ts'
import type { AccessTokensDeps, TokenHolder } from './access-tokens.ts'
import type { RefreshGrantOutcome } from './refresh-grant.ts'
import { type StoredAccessToken, storedAccessToken } from './token-record.ts'

/** Renews one access token and waits for it; `inBackground` does not wait and never rejects. */
export type Renew = {
  (holder: TokenHolder, resource: string): Promise<StoredAccessToken>
  inBackground(holder: TokenHolder, resource: string): void
}

type RefusedLately = { readonly until: number; readonly error: BffError }

const REFUSALS_REMEMBERED = 10_000
const WRITE_ATTEMPTS = 5

/** Makes the renewal: turn, refresh grant, crash-safe writes, and a short memory of refusals so that they are not hammered. */
export function createRenewal(deps: AccessTokensDeps): Renew {
  const refusals = new Map<string, RefusedLately>()

  async function renew(holder: TokenHolder, resource: string): Promise<StoredAccessToken> {
    const key = holder.hash + resource
    const refusal = refusals.get(key)
    if (refusal && deps.now() < refusal.until) throw refusal.error
    refusals.delete(key)
    try {
      return await deps.takeTurn({
        hash: holder.hash,
        resource,
        settled: () => renewedElsewhere(deps, holder, resource),
        work: (owner) => refreshUnderLock(deps, { holder, resource, owner }),
      })
    } catch (error) {
      if (isRememberedRefusal(error)) remember(refusals, key, refusalUntil(deps.now(), error))
      throw error
    }
  }

  function inBackground(holder: TokenHolder, resource: string): void {
    // The living token is served meanwhile; the outcome is in the metrics and, when it matters, met by a later caller.
    renew(holder, resource).catch(() => undefined)
  }

  return Object.assign(renew, { inBackground })
}

function isRememberedRefusal(error: unknown): error is BffError {
  return (
    error instanceof BffError &&
    ['provider_rejected', 'provider_unavailable', 'reauthentication_required'].includes(error.code)
  )
}

function refusalUntil(now: number, error: BffError): RefusedLately {
  return { until: now + Math.min(error.retryAfterSeconds ?? 5, 60) * 1000, error }
}

function remember(refusals: Map<string, RefusedLately>, key: string, refusal: RefusedLately): void {
  if (refusals.size >= REFUSALS_REMEMBERED) {
    for (const oldest of refusals.keys()) {
      refusals.delete(oldest)
      break
    }
  }
  refusals.set(key, refusal)
}

/** The token in the store, if it is a fresh one. Read past every copy: the lock is only worth what is read under it. */
async function renewedElsewhere(
  deps: AccessTokensDeps,
  holder: TokenHolder,
  resource: string,
): Promise<StoredAccessToken | undefined> {
  const sealed = await deps.records.read(holder.hash)
  if (!sealed) throw new BffError('session_required', 'the session ended while its token was renewed')
  const token = deps.sealer.openTokens(holder, sealed).accessTokens.get(resource)
  return token && deps.now() < token.renewAt ? token : undefined
}

type Renewing = { readonly holder: TokenHolder; readonly resource: string; readonly owner: string }

async function refreshUnderLock(deps: AccessTokensDeps, renewing: Renewing): Promise<StoredAccessToken> {
  const { holder, resource } = renewing
  const sealed = await deps.records.read(holder.hash)
  if (!sealed) throw new BffError('session_required', 'the session ended while its token was renewed')
  const refreshToken = deps.sealer.openRefreshToken(holder, sealed.refreshToken)
  if (!refreshToken) {
    throw new BffError('provider_rejected', 'the provider gave no refresh token at sign-in', {
      details: { reason: 'no_refresh_token' },
    })
  }
  const record = createRecordWriter(deps, renewing, sealed.version)
  const outcome = await deps.refreshGrant({ refreshToken, resource, keep: record.keepRefreshToken })
  deps.observe(resource, outcome.kind)
  return actOn(deps, renewing, outcome, record)
}

async function actOn(
  deps: AccessTokensDeps,
  { holder, resource }: Renewing,
  outcome: RefreshGrantOutcome,
  record: RecordWriter,
): Promise<StoredAccessToken> {
  if (outcome.kind === 'dead') {
    await deps.endSession(holder, outcome.reason)
    throw new BffError('session_required', 'the authorization server ended the grant', {
      details: { reason: 'grant_ended' },
    })
  }
  if (outcome.kind !== 'renewed') throw outcome.error
  if (outcome.subject !== undefined && outcome.subject !== holder.claims.sub) {
    // OpenID Connect Core §12.2: a refresh that answers for somebody else ends the session.
    await deps.endSession(holder, 'subject_changed')
    throw new BffError('session_required', 'the refreshed ID token names another user')
  }
  const token = storedAccessToken(outcome.accessToken, outcome.obtainedAt, outcome.expiresAt)
  await record.keepAccessToken(resource, token)
  return token
}

type RecordWriter = {
  keepRefreshToken(refreshToken: string): Promise<void>
  keepAccessToken(resource: string, token: StoredAccessToken): Promise<void>
}

/** Writes under the lock, each write naming the version before it. */
function createRecordWriter(
  deps: AccessTokensDeps,
  { holder, owner }: Renewing,
  versionRead: number,
): RecordWriter {
  let version = versionRead
  let rotatedTo: string | undefined

  async function write(change: {
    refreshToken?: string
    accessToken?: { resource: string; sealed: string }
  }) {
    const outcome = await persistently(() =>
      deps.records.write(holder.hash, { owner, expectedVersion: version, ...change }),
    )
    if (outcome === 'written') {
      version += 1
      return
    }
    if (outcome === 'superseded') {
      throw new BffError('provider_unavailable', 'the refresh took longer than its lock', {
        retryAfterSeconds: 1,
      })
    }
    // The user signed out while the provider answered: nobody may use what it gave (attack case G15).
    if (rotatedTo) await deps.revoke(rotatedTo)
    throw new BffError('session_required', 'the session ended while its token was renewed')
  }

  return {
    async keepRefreshToken(refreshToken) {
      rotatedTo = refreshToken
      await write({ refreshToken: deps.sealer.sealRefreshToken(holder, refreshToken) })
    },
    keepAccessToken: (resource, token) =>
      write({ accessToken: { resource, sealed: deps.sealer.sealAccessToken(holder, resource, token) } }),
  }
}

/** Tries a store write again: what the provider has just rotated exists nowhere else. */
async function persistently<T>(write: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await write()
    } catch (error) {
      if (attempt === WRITE_ATTEMPTS) throw error
      await delay(50 * 2 ** attempt)
    }
  }
}
