import '../kit/untracked.ts'
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type FuzzCase, fuzzCases } from './fuzz.ts'
import { newTally, runFuzz } from './fuzz-run.ts'
import { askServers, isForServers } from './fuzz-servers.ts'

/** Another one, to look further: `CLOAKROOM_FUZZ_SEED=7 node --test test/wire/fuzz.test.ts`. */
const SEED = Number(process.env.CLOAKROOM_FUZZ_SEED ?? 1)
const CASES = 1_000
const CASES_FOR_SERVERS = 200
/** A machine that is busy looks at fewer of them. */
const LONGEST_MS = 10_000
const FEWEST = 100

test('random bytes never become more, or other, than the requests that they are', async (t) => {
  const tally = newTally()
  const { findings } = await runFuzz({
    ...{ seed: SEED, count: CASES, deadline: Date.now() + LONGEST_MS, tally },
  })
  const ends = Object.keys(tally.ends).length
  t.diagnostic(
    `seed ${SEED}: ${tally.cases} connections, ended in ${ends} ways; ${tally.framed} requests by the strict reading, ` +
      `${tally.forwarded} at the upstream`,
  )
  const shown = findings.map(({ number, minimal, minimalFaults }) => ({ number, ...minimal, minimalFaults }))
  assert.deepEqual(shown, [])
  assert.ok(tally.cases >= FEWEST && tally.forwarded > tally.cases / 5, 'enough was looked at')
})

test('what random bytes become is the same to every server', async (t) => {
  const { faults, servers, understood } = await askServers(t, casesForServers())
  t.diagnostic(
    `${CASES_FOR_SERVERS} connections to ${servers.join(', ')}: ${understood.join(', ')} requests understood`,
  )
  assert.deepEqual(faults, [])
  assert.ok(understood.every((count) => count >= CASES_FOR_SERVERS / 2))
})

function casesForServers(): FuzzCase[] {
  const next = fuzzCases(SEED)
  const cases: FuzzCase[] = []
  while (cases.length < CASES_FOR_SERVERS) {
    const one = next()
    if (isForServers(one)) cases.push(one)
  }
  return cases
}
