import assert from 'node:assert/strict'
import { createTokens } from '../../src/tokens/tokens.ts'
import { epochOf } from './clock.ts'
import type { Mutation } from './configuration.ts'
import type { Schedule } from './schedule.ts'
import { scheduledEnd, scheduledGrant, scheduledRecords, scheduledRevoke } from './stubs.ts'
import { rejectedToken, type World } from './world.ts'

/** One replica's tokens room, composed as in production, with every wait and every call in the schedule's hand. */
export function createReplica(world: World, schedule: Schedule, mutation: Mutation = {}) {
  const records = scheduledRecords(world, schedule)
  const now = () => epochOf(world.clock)
  const tokens = createTokens({
    store: {
      tokens: mutation.replica?.(records) ?? records,
      sessions: { ...world.store.sessions, end: scheduledEnd(world, schedule) },
    },
    // Sealing has its own tests; here it would only hide what is stored.
    sealing: { seal: (_, text) => text, open: (_, text) => text },
    copy: { peek: () => undefined, load: (_key, _hash, read) => read(), prefetch() {} },
    provider: {
      refreshGrant: scheduledGrant(world, schedule),
      clientCredentialsGrant: async () => assert.fail('no client token is asked for'),
      tokenExchangeGrant: async () => assert.fail('no token is exchanged'),
      revoke: scheduledRevoke(world, schedule),
      admit: (work) => work(),
    },
    resources: {},
    reusesRefreshTokens: !world.isStrict,
    providerTimeoutMs: 1_000,
    clock: { now, monotonicNow: now, pause: schedule.pause },
    observe: { unseenRefresh() {}, refreshLock() {}, sessionEnded() {} },
  })
  return {
    /** Resolves with the access token. */
    tokenFor: async (resource: string) => (await tokens.tokenFor(world.holder, resource)).value,
    /** The same for a caller whose upstream has rejected the token in the store. */
    async otherTokenFor(resource: string) {
      const reaction = await tokens.onRejected(world.holder, resource, {
        token: { value: rejectedToken(resource) },
        challenge: { kind: 'invalid_token' },
        isRepeatable: true,
      })
      return reaction.kind === 'resend' ? reaction.token.value : reaction.kind
    },
    async signOut() {
      await tokens.end(world.holder, 'logout')
      return 'signed out'
    },
  }
}
