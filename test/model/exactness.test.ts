import '../kit/untracked.ts'
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { Configuration } from './configuration.ts'
import { explore } from './explore.ts'
import { compareFutures } from './futures.ts'
import { callersOf } from './systems.ts'

const callers = callersOf('A.orders B.orders')

describe('states that the exploration takes for one', () => {
  const systems: Record<string, Configuration> = {
    'without faults': { callers },
    'with a write whose answer is lost': { callers, faults: { lostWrite: 1 } },
  }
  for (const [name, system] of Object.entries(systems)) {
    test(`have the same future, ${name}`, async (t) => {
      const { exact, merged, different } = await compareFutures(system)
      assert.deepEqual(different, [])
      t.diagnostic(`${exact} states were taken for ${merged}`)
    })
  }
})

test('crashes where they matter end as crashes anywhere do', async () => {
  const system = { callers: callersOf('A.orders B.billing'), faults: { crash: 1 } }
  const merged = await explore(system)
  const exact = await explore(system, { precision: 'exact' })
  assert.deepEqual([...merged.outcomes].sort(), [...exact.outcomes].sort())
  assert.ok(exact.states > merged.states)
})
