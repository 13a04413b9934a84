import { BffError } from '../../src/errors.ts'
import type { SealedTokens, SessionHash, TokenRecords, TokenWrite } from '../../src/store/port.ts'
import type { RefreshGrant, RefreshGrantOutcome } from '../../src/tokens/refresh/refresh.ts'
import { epochOf } from './clock.ts'
import { noteRequest, noteWrite } from './observer.ts'
import type { ProviderAnswer } from './provider-model.ts'
import type { Schedule } from './schedule.ts'
import { describeRecord, markOf, nameOf, type World } from './world.ts'

const HOUR_MS = 3_600_000

/** The token records as one replica's code sees them: every call is a step of the schedule. */
export function scheduledRecords(world: World, schedule: Schedule): TokenRecords {
  const { tokens } = world
  const { ask, thread } = schedule
  return {
    ...tokens,
    read: (hash) =>
      ask<SealedTokens | undefined>({
        kind: 'read',
        label: '',
        effect: () => tokens.read(hash),
        tell: (record) => describeRecord(world, record),
      }),
    write(hash, change) {
      const writer = thread()
      return ask({
        kind: 'write',
        label: describeWrite(world, change),
        async effect(fault) {
          if (fault === 'failedWrite') throw storeUnavailable()
          const before = world.record
          const outcome = await tokens.write(hash, change)
          world.record = await tokens.read(hash)
          noteWrite(world, { writer, change, before, outcome })
          if (fault === 'lostWrite') throw storeUnavailable()
          return outcome
        },
        tell: String,
      })
    },
    keep: () => Promise.reject(new Error('no exchange is modelled')),
    lock(hash, owner, ttlMs) {
      const name = nameOf(thread())
      world.owners.set(owner, name)
      return ask({
        kind: 'lock',
        label: '',
        async effect() {
          const taken = await tokens.lock(hash, owner, ttlMs)
          if (taken) {
            world.lock = { owner, atLeap: world.clock.leaps, until: epochOf(world.clock) + ttlMs }
          }
          return taken
        },
        tell: String,
      })
    },
    unlock: (hash, owner) =>
      ask({
        kind: 'unlock',
        label: '',
        async effect() {
          await tokens.unlock(hash, owner)
          if (world.lock?.owner !== owner) return
          world.lock = undefined
        },
        tell: () => 'done',
      }),
  }
}

/** Ending a session, as a step. */
export function scheduledEnd(world: World, { ask }: Schedule) {
  return (hash: SessionHash): Promise<SealedTokens | undefined> =>
    ask<SealedTokens | undefined>({
      kind: 'end',
      label: 'the session',
      async effect() {
        const taken = await world.store.sessions.end(hash)
        world.record = undefined
        world.lock = undefined
        return taken
      },
      tell: (taken) => describeRecord(world, taken),
    })
}

/** Revocation, as a step. */
export function scheduledRevoke(world: World, { ask }: Schedule) {
  return (refreshToken: string): Promise<void> =>
    ask({
      kind: 'revoke',
      label: refreshToken,
      effect: () => world.provider.revoke(refreshToken),
      tell: () => 'done',
    })
}

/** The refresh grant in two steps: the provider deals with the request, and its answer comes in. */
export function scheduledGrant(world: World, { ask, thread }: Schedule): RefreshGrant {
  return async ({ refreshToken, resource, keep }) => {
    const asking = thread()
    const answer = await ask<ProviderAnswer | undefined>({
      kind: 'request',
      label: `${resource} for ${refreshToken}`,
      effect(fault) {
        if (fault === 'lostRequest') return undefined
        noteRequest(world, refreshToken, asking)
        return world.provider.refresh(refreshToken, resource)
      },
      tell: describeAnswer,
    })
    if (!answer) return unavailable({ isMaybeUsed: false })
    const received = await ask<ProviderAnswer | undefined>({
      kind: 'answer',
      label: '',
      effect(fault) {
        if (fault !== 'lostAnswer') return answer
        world.uses.get(refreshToken)!.isLost = true
        return undefined
      },
      tell: describeAnswer,
    })
    if (!received) return unavailable({ isMaybeUsed: true })
    return received.kind === 'granted' ? kept(received, keep, epochOf(world.clock)) : dead
  }
}

const dead: RefreshGrantOutcome = { kind: 'dead', reason: 'invalid_grant' }

function unavailable({ isMaybeUsed }: { isMaybeUsed: boolean }): RefreshGrantOutcome {
  const error = new BffError('provider_unavailable', 'no answer', { retryAfterSeconds: 1 })
  return { kind: 'unavailable', error, isMaybeUsed }
}

/** As the oidc room does it: what the rotated token's keeping fails with is what the grant fails with. */
async function kept(
  { refreshToken, accessToken }: ProviderAnswer & { kind: 'granted' },
  keep: (refreshToken: string) => Promise<void>,
  obtainedAt: number,
): Promise<RefreshGrantOutcome> {
  try {
    await keep(refreshToken)
  } catch (error) {
    if (!(error instanceof BffError)) throw error
    const kind = error.code === 'provider_unavailable' ? 'unavailable' : 'refused'
    return { kind, error, isMaybeUsed: false }
  }
  return { kind: 'renewed', accessToken, obtainedAt, expiresAt: obtainedAt + HOUR_MS }
}

function storeUnavailable(): BffError {
  return new BffError('store_unavailable', 'no answer', { retryAfterSeconds: 1 })
}

function describeAnswer(answer: ProviderAnswer | undefined): string {
  if (!answer) return 'lost'
  return answer.kind === 'granted' ? `${answer.refreshToken} ${answer.accessToken}` : answer.kind
}

function describeWrite(world: World, change: TokenWrite): string {
  const { expectedVersion, refreshToken, accessToken, attempt } = change
  const token = accessToken && JSON.parse(accessToken.sealed)[0]
  const parts = [refreshToken, token, attempt && markOf(world, attempt)].filter(Boolean)
  return `${parts.join(' ')} over v${expectedVersion}`
}
