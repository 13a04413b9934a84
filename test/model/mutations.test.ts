import '../kit/untracked.ts'
import assert from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import type { Configuration } from './configuration.ts'
import { explore } from './explore.ts'
import {
  anonymousMark,
  ignoredMark,
  ignoredVersion,
  noLock,
  noLookUnderLock,
  rotatedTokenLast,
  silentEnd,
  unfencedWrites,
} from './mutations.ts'
import { callersOf } from './systems.ts'

/** Explores a broken system up to its shortest schedule that goes wrong, and prints that. */
async function shortestFailure(t: TestContext, broken: Omit<Configuration, 'callers'>): Promise<string> {
  const system = { ...broken, callers: callersOf('A.orders B.billing') }
  const { counterExample } = await explore(system, { order: 'breadth' })
  assert.ok(counterExample, 'the mutation went unnoticed')
  for (const line of [...counterExample.schedule, ...counterExample.flaws]) t.diagnostic(line)
  return counterExample.flaws.join('; ')
}

const EXPIRY = { expiry: 1 }

describe('the exploration finds what each part of the protocol is there for', () => {
  test('without the version two replicas begin, and the refresh token is used twice', async (t) => {
    const flaws = await shortestFailure(t, { faults: EXPIRY, mutation: ignoredVersion })
    assert.match(flaws, /rt-1 is used by A.orders and again by B.billing/)
  })

  test('without its owner in the mark the second of two beginnings looks like the first one repeated', async (t) => {
    const flaws = await shortestFailure(t, { faults: EXPIRY, mutation: anonymousMark })
    assert.match(flaws, /rt-1 is used by A.orders and again by B.billing/)
  })

  test('without a look at the mark a token is used whose answer is on its way', async (t) => {
    const flaws = await shortestFailure(t, { faults: EXPIRY, mutation: ignoredMark })
    assert.match(flaws, /rt-1 is used by A.orders and again by B.billing/)
  })

  test('with the rotated token stored last, the old one is offered in between', async (t) => {
    const flaws = await shortestFailure(t, { faults: EXPIRY, mutation: rotatedTokenLast })
    assert.match(flaws, /rt-1 is used by A.orders and again by B.billing/)
  })

  test('with the rotated token stored last, a crash in between goes unmarked', async (t) => {
    const broken = { faults: { crash: 1 }, isStrict: true, mutation: rotatedTokenLast }
    assert.match(await shortestFailure(t, broken), /rt-1 is used by A.orders and again by B.billing/)
  })

  test('without a second look under the lock a caller is refused for nothing', async (t) => {
    const flaws = await shortestFailure(t, { mutation: noLookUnderLock })
    assert.match(flaws, /B.billing gets provider_unavailable although nothing was wrong/)
  })

  test('without word of the end a refresh token that came after the sign-out lives on', async (t) => {
    const flaws = await shortestFailure(t, { hasSignOut: true, mutation: silentEnd })
    assert.match(flaws, /rt-2 came after the end and was not revoked/)
  })

  test('without a fence around its writes a replica that comes late writes over its successor', async (t) => {
    const broken = { faults: { expiry: 1, pause: 1 }, mutation: unfencedWrites }
    assert.match(
      await shortestFailure(t, broken),
      /changes the record although .* has begun an attempt since/,
    )
  })
})

test('the lock spares work and decides nothing: without it all goes well', async () => {
  const { counterExample } = await explore({ callers: callersOf('A.orders B.billing'), mutation: noLock })
  assert.deepEqual(counterExample, undefined)
})
