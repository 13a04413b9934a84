import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { createMemoryStore } from '../../../src/store/memory/memory-store.ts'
import type { SessionHash } from '../../../src/store/port.ts'
import { createTokens, type TokensDeps } from '../../../src/tokens/tokens.ts'

const HASH = 'hash' as SessionHash
const PROVIDER_TIMEOUT_MS = 5_000

async function setUp({ isRenewable = true } = {}) {
  const clock = { at: 1_000_000, pauses: 0, duringPause: async () => undefined as unknown }
  const store = createMemoryStore({ idleTimeoutMs: () => 3_600_000, monotonicNow: () => clock.at })
  await store.sessions.create(HASH, 'sealed')
  await store.tokens.create(HASH, {
    refreshToken: isRenewable ? 'rt' : undefined,
    accessTokens: { orders: 'at-1', billing: 'at-2' },
  })
  const { forceRenewal } = createTokens({
    ...({ observe: {}, provider: {}, resources: {}, sealing: {}, copy: {} } as unknown as TokensDeps),
    store,
    providerTimeoutMs: PROVIDER_TIMEOUT_MS,
    clock: {
      now: () => clock.at,
      monotonicNow: () => clock.at,
      async pause(ms: number) {
        clock.at += ms
        clock.pauses += 1
        await clock.duringPause()
      },
    },
  })
  const names = async () => Object.keys((await store.tokens.read(HASH))?.accessTokens ?? {})
  return { clock, store, names, forceRenewal: () => forceRenewal(HASH) }
}

suite('a forced renewal', () => {
  test('removes every access token, keeps the refresh token and its version, and leaves no lock', async () => {
    const { store, forceRenewal } = await setUp()
    assert.equal(await forceRenewal(), true)
    assert.deepEqual(await store.tokens.read(HASH), { version: 1, refreshToken: 'rt', accessTokens: {} })
    assert.equal(await store.tokens.lock(HASH, 'next', 1_000), true)
  })

  test('removes them at once while a refresh is in flight, and what that brings as well', async () => {
    const { store, clock, names, forceRenewal } = await setUp()
    await store.tokens.lock(HASH, 'refresh', 8_000)
    const seen: string[][] = []
    clock.duringPause = async () => {
      seen.push(await names())
      if (clock.pauses < 3) return
      const accessToken = { resource: 'orders', sealed: 'of before the change' }
      await store.tokens.write(HASH, { expectedVersion: 1, refreshToken: 'rt-2', accessToken })
      await store.tokens.unlock(HASH, 'refresh')
      clock.duringPause = async () => undefined
    }
    assert.equal(await forceRenewal(), true)
    assert.deepEqual(seen, [[], [], []])
    assert.deepEqual(await store.tokens.read(HASH), { version: 2, refreshToken: 'rt-2', accessTokens: {} })
  })

  test('waits for no lock longer than a refresh may take', async () => {
    const { store, clock, names, forceRenewal } = await setUp()
    await store.tokens.lock(HASH, 'hung', 60_000)
    const startedAt = clock.at
    assert.equal(await forceRenewal(), true)
    assert.ok(clock.at - startedAt <= PROVIDER_TIMEOUT_MS + 3_100)
    assert.deepEqual(await names(), [])
  })

  test('leaves a session as it is that has nothing to be renewed with, or has ended', async () => {
    const { store, names, forceRenewal } = await setUp({ isRenewable: false })
    assert.equal(await forceRenewal(), false)
    assert.deepEqual(await names(), ['orders', 'billing'])
    await store.tokens.lock(HASH, 'another', 60_000)
    assert.equal(await forceRenewal(), false)
    await store.sessions.end(HASH)
    assert.equal(await forceRenewal(), false)
  })
})
