import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { probesOf, rowOf } from './http11probe.ts'
import { findFaults } from './judge.ts'
import { createRunner, type Observation, type RunCase } from './run-case.ts'
import { fillIn, type WireCase, worldOf } from './wire-case.ts'
import { startWorld, type World } from './world.ts'

/** Registers one test for each row; the rows of one world share it, one after the other. */
export function playTable(title: string, cases: readonly WireCase[]): void {
  for (const name of new Set(cases.map(worldOf))) {
    describe(`${title} (${name} configuration)`, () => {
      let world: World
      let run: RunCase
      before(async () => {
        world = await startWorld(name)
        run = createRunner(world)
      })
      after(() => world.close())
      for (const one of cases.filter((each) => worldOf(each) === name)) {
        test(titleOf(one), async () => {
          const filled = fillIn(one, world.values)
          const seen = await run(filled)
          const faults = findFaults(world, filled, seen)
          assert.ok(faults.length === 0, `${faults.join('; ')}\n${account(seen)}`)
        })
      }
    })
  }
}

/** The row's number and name, and the tests of Http11Probe that it is. */
export function titleOf(one: WireCase): string {
  const row = rowOf(one)
  const probes = probesOf(row)
  return probes.length === 0 ? row : `${row} (${probes.join(', ')})`
}

/** What was sent, what came back, what arrived; for a failure's message. */
function account({ sent, received, connection, requests, abandoned }: Observation): string {
  const cut = (text: string) => JSON.stringify(text.length > 1500 ? `${text.slice(0, 1500)}…` : text)
  return [
    `sent      ${cut(sent)}`,
    `answered  ${cut(received.answers.map(({ raw }) => raw).join(''))} (connection ${connection})`,
    `arrived   ${requests.map(({ raw }) => cut(raw)).join('\n          ') || 'nothing'}`,
    ...abandoned.map((text) => `half      ${cut(text)}`),
  ].join('\n')
}
