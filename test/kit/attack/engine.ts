import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { systemClock } from '../../../src/async/clock.ts'
import { BffError } from '../../../src/errors.ts'
import { sessionHash } from '../../../src/session/session.ts'
import { createMemoryStore } from '../../../src/store/memory/memory-store.ts'
import { createTokenSealer, type Sealing } from '../../../src/tokens/record/sealing.ts'
import { createRefresh, type RefreshGrant } from '../../../src/tokens/refresh/refresh.ts'
import { createRejections } from '../../../src/tokens/rejected-token.ts'
import type { Scope } from './sign-in.ts'

/** A provider that renews every token at once. */
export const renews: RefreshGrant = async ({ refreshToken, resource, keep }) => {
  await keep(refreshToken)
  // A refresh token of these tests is the name of its session.
  const times = { obtainedAt: Date.now(), expiresAt: Date.now() + 3_600_000 }
  return { kind: 'renewed', accessToken: `${refreshToken} ${resource}`, ...times }
}

/** A provider that refuses everything. */
export const refuses: RefreshGrant = async () => ({
  kind: 'refused',
  error: new BffError('provider_rejected', 'no'),
  isMaybeUsed: false,
})

/** Keeps what it is given as it is: this is about numbers. */
export const PLAIN: Sealing = { seal: (_, text) => text, open: (_, text) => text }

/** The token engine over the memory store, with the machine's clock. */
export function setUpEngine(t: Scope, refreshGrant: RefreshGrant, sealing: Sealing) {
  const store = createMemoryStore({ idleTimeoutMs: () => 3_600_000, monotonicNow: Date.now })
  t.after(() => store.close())
  const sealer = createTokenSealer(sealing)
  const renew = createRefresh({
    ...{ records: store.tokens, clock: systemClock },
    ...{ sealer, refreshGrant, reusesRefreshTokens: true, lockTtlMs: 60_000 },
    admit: (work) => work(),
    revoke: async () => undefined,
    endSession: async () => assert.fail('no session ends'),
    observe: { lock() {}, unseen() {} },
  })
  const stored = async (holder: Holder) => {
    const record = await store.tokens.read(holder.hash)
    const names = Object.keys(record!.accessTokens)
    return new Map(names.map((name) => [name, sealer.openAccessToken(holder, name, record!)]))
  }
  const { reactTo: onRejected } = createRejections({
    renew,
    stored: async (holder, resource) => (await stored(holder)).get(resource),
    clock: systemClock,
  })
  async function signedIn() {
    const id = randomBytes(16).toString('hex')
    const holder = { id, hash: sessionHash(id), claims: { sub: 'ada' } }
    await store.sessions.create(holder.hash, 'sealed')
    const refreshToken = sealer.sealRefreshToken(holder, holder.hash)
    await store.tokens.create(holder.hash, { refreshToken, accessTokens: {} })
    return holder
  }
  return { store, renew, onRejected, stored, signedIn }
}

type Holder = { readonly id: string; readonly hash: ReturnType<typeof sessionHash> }
type AnyMap = Map<unknown, unknown>

/** Runs `make`, and notes every Map that lives on from it. */
export function counted<T>(make: () => T): { maps: AnyMap[]; engine: T } {
  const maps: AnyMap[] = []
  const { Map: Plain } = globalThis
  globalThis.Map = class<K, V> extends Plain<K, V> {
    constructor(entries?: Iterable<readonly [K, V]> | null) {
      super(entries)
      maps.push(this as AnyMap)
    }
  } as typeof Plain
  try {
    return { engine: make(), maps }
  } finally {
    globalThis.Map = Plain
  }
}

/** How many entries each map holds. */
export function sizesOf(maps: readonly AnyMap[]): number[] {
  return maps.map(({ size }) => size)
}

/** What runs after an answer, such as giving a lock back, has run. */
export async function idle(): Promise<void> {
  for (let round = 0; round < 20; round += 1) await new Promise(setImmediate)
}
