import '../kit/untracked.ts'
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { explore } from './explore.ts'
import { SMALL_SYSTEMS } from './systems.ts'

describe('in every interleaving no refresh token is used twice, no write is lost and every caller is answered', () => {
  for (const system of SMALL_SYSTEMS) {
    test(system.name, async (t) => {
      const { counterExample, states, runs } = await explore(system)
      if (counterExample) assert.fail([...counterExample.flaws, ...counterExample.schedule].join('\n'))
      t.diagnostic(`${states} states in ${runs} runs`)
    })
  }
})
