import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  type ClockMemory,
  createProviderClock,
  createProviderFetch,
} from '../../../../src/oidc/token-endpoint/provider-fetch.ts'
import { captureLog } from '../../../kit/cloakroom.ts'

const START = Date.parse('2027-01-15T08:00:00Z')

/** A provider whose clock is `behindMs` behind ours; each answer takes `tripMs`. */
function setUp({ memory = new Map() as ClockMemory } = {}) {
  let elapsed = 0
  const trip = { ms: 0, behindMs: 0 }
  const { log, lines } = captureLog()
  const observed: number[] = []
  const clock = createProviderClock({
    ...{ issuer: 'https://idp.test', toleranceMs: 60_000, memory, log },
    monotonicNow: () => elapsed,
    observe: (seconds) => observed.push(seconds),
  })
  const now = () => START + 500 + elapsed
  const { fetch } = createProviderFetch({
    now,
    noteClock: clock.note,
    async fetch(_url, options) {
      const given = (options.headers ?? {}) as Record<string, string>
      elapsed += trip.ms / 2
      const date = new Date(now() - trip.behindMs).toUTCString()
      elapsed += trip.ms / 2
      return new Response('{}', { headers: given.none === undefined ? { date, ...given } : {} })
    },
  })
  return {
    ...{ clock, observed, trip },
    pass: (ms: number) => {
      elapsed += ms
    },
    /** One answer, of a provider that is so far behind, with these headers more. */
    async answer(behindMs: number, method = 'POST', headers: Record<string, string> = {}) {
      trip.behindMs = behindMs
      await fetch('https://idp.test/x', { method, headers })
      return clock.offsetSeconds()
    },
    told: () =>
      lines.splice(0).map((line) => {
        const { level, msg, clockOffsetSeconds } = JSON.parse(line)
        return [level, clockOffsetSeconds, msg]
      }),
  }
}

test('a fast clock and a slow one are known to a second from the second answer on', async () => {
  for (const behindMs of [600_000, -600_000, 0, 1_000]) {
    const { answer, observed } = setUp()
    assert.equal(await answer(behindMs), undefined)
    assert.ok(Math.abs((await answer(behindMs))! - behindMs / 1000) <= 1)
    assert.equal(observed.length, 1)
  }
})

test('an answer without a Date, with one that is none, or out of a cache says nothing', async () => {
  const { answer } = setUp()
  for (let time = 0; time < 6; time += 1) {
    const silent: Record<string, string>[] = [
      { none: '' },
      { date: 'yesterday' },
      { age: '0' },
      { age: '7200' },
    ]
    for (const headers of silent)
      assert.equal(await answer(600_000, 'GET', headers), undefined, JSON.stringify(headers))
  }
})

test('one answer that says something else changes nothing, whenever it comes', async () => {
  for (let at = 0; at < 8; at += 1) {
    const { answer, observed, told } = setUp()
    for (let turn = 0; turn < 8; turn += 1) await answer(turn === at ? 7_200_000 : 0)
    assert.ok(
      observed.every((seconds) => Math.abs(seconds) <= 1),
      `${at}: ${observed}`,
    )
    assert.deepEqual(told(), [])
  }
})

test('what a cache may have answered does not count beside what none can have', async () => {
  const { answer } = setUp()
  await answer(900_000, 'GET')
  assert.equal(await answer(900_000, 'GET'), 900, 'there is nothing better')
  await answer(0)
  assert.ok(Math.abs((await answer(0))!) <= 1)
  for (let turn = 0; turn < 9; turn += 1) await answer(900_000, 'GET')
  assert.ok(Math.abs((await answer(900_000, 'GET'))!) <= 1)
})

test('what was said more than an hour ago does not count any more', async () => {
  const { answer, pass } = setUp()
  for (let turn = 0; turn < 5; turn += 1) await answer(0)
  pass(3_600_000)
  assert.equal(await answer(600_000, 'GET'), undefined)
  assert.ok(Math.abs((await answer(600_000, 'GET'))! - 600) <= 1)
})

test('the log has one line when the clocks are too far apart, and one when they are not any more', async () => {
  const { answer, told } = setUp()
  for (let turn = 0; turn < 5; turn += 1) await answer(600_000)
  assert.deepEqual(told(), [
    [
      'warn',
      600,
      "this machine's clock is 600 s ahead of the provider's, more than provider.clockTolerance (60 s): the times in tokens are misjudged",
    ],
  ])
  for (let turn = 0; turn < 5; turn += 1) await answer(0)
  assert.deepEqual(told(), [['info', 0, "this machine's clock and the provider's agree again"]])
  for (let turn = 0; turn < 5; turn += 1) await answer(-90_000)
  assert.match(told().join(), /^warn,-90,this machine's clock is 90 s behind the provider's/)
})

test('a slow answer is no proof: what lies within its round trip is not logged', async () => {
  const { answer, trip, told } = setUp()
  trip.ms = 10_000
  for (let turn = 0; turn < 5; turn += 1) await answer(64_000)
  assert.deepEqual(told(), [])
  trip.ms = 100
  for (let turn = 0; turn < 5; turn += 1) await answer(64_000)
  assert.equal(told().length, 1)
})

test('what is known outlives a configuration, and the line is not written again', async () => {
  const memory: ClockMemory = new Map()
  const before = setUp({ memory })
  for (let turn = 0; turn < 5; turn += 1) await before.answer(600_000)
  assert.equal(before.told().length, 1)
  before.clock.retire()
  const after = setUp({ memory })
  after.clock.takeOver()
  assert.deepEqual(after.observed, [600])
  assert.equal(await after.answer(600_000), 600)
  assert.deepEqual(after.told(), [])
  const observed = before.observed.length
  await before.answer(600_000)
  assert.equal(before.observed.length, observed, 'the one before says nothing more')
})
