import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { createAgenda } from '../../capacity/agenda.ts'
import { CASES } from '../../capacity/cases.ts'
import { chartOf } from '../../capacity/chart.ts'
import { ASSUMED, planOf, RENEWED_EVERY_S, sessionsWithin } from '../../capacity/plan.ts'
import { type LoadCase, type LoadReport, playRefreshLoad } from '../../capacity/refresh-load.ts'
import { limitTable, planTable, unitTable } from '../../capacity/tables.ts'
import { writtenCosts, writtenTable } from '../../capacity/written.ts'
import { seededRandom } from '../../chaos/seeded-random.ts'

const MINUTE = 60_000

/** A few hundred sessions over two hours. */
const SMALL: LoadCase = {
  ...CASES[0]!,
  ...{ sessions: 300, replicas: 1, gapMs: MINUTE, untilMs: 120 * MINUTE },
  signIn: { atMs: 10 * MINUTE, deviationMs: MINUTE },
}

const AWAY = { ...SMALL.provider, outage: { fromMs: 60 * MINUTE, untilMs: 80 * MINUTE } }
const LIMITED = { ...SMALL.provider, ratePerSecond: 1, retryAfterSeconds: 1 }

describe('the simulation of the refresh load', () => {
  test('gives the same report for the same seed, and another for another', () => {
    assert.deepEqual(playRefreshLoad(SMALL), playRefreshLoad(SMALL))
    assert.notDeepEqual(playRefreshLoad(SMALL), playRefreshLoad({ ...SMALL, seed: 2 }))
  })

  const stressed: [string, Partial<LoadCase>][] = [
    ['nothing in the way', {}],
    ['a provider that is away', { provider: AWAY }],
    ['a provider that takes one call a second', { provider: LIMITED }],
    ['more refreshes than permits', { sessions: 3_000, provider: { ...SMALL.provider, latencyMs: 4_000 } }],
  ]
  for (const [what, changed] of stressed)
    test(`accounts for every refresh that was asked for: ${what}`, () => {
      const report = playRefreshLoad({ ...SMALL, ...changed })
      assert.equal(report.served + report.refused + report.waiting, report.asked)
      assert.ok(report.waiting >= 0 && report.served > 0)
      assert.equal(report.signIns, { ...SMALL, ...changed }.sessions)
    })

  test('counts each call of the provider once: those served, those it refused, and sign-ins', () => {
    const { stretches, served, signIns, waiting } = playRefreshLoad({ ...SMALL, provider: AWAY })
    const of = (field: 'calls' | 'failed') => stretches.reduce((sum, stretch) => sum + stretch[field] * 10, 0)
    assert.equal(Math.round(of('calls') - of('failed')), served + signIns + waiting)
  })

  test('lets no user be refused while tokens live and the provider answers', () => {
    const { unserved, refused } = playRefreshLoad(SMALL)
    assert.deepEqual({ unserved, refused }, { unserved: 0, refused: 0 })
  })

  test('opens the circuit while the provider is away: next to no calls, and users are refused as their tokens end', () => {
    const { stretches, unserved } = playRefreshLoad({ ...SMALL, provider: AWAY })
    const meanwhile = stretches.filter(({ atMs }) => atMs >= 62 * MINUTE && atMs < 80 * MINUTE)
    assert.ok(meanwhile.every(({ calls }) => calls <= 1))
    assert.ok(unserved > 0)
  })

  test('spreads the renewals that follow a spike of sign-ins by as much as lives and jitter differ', () => {
    const peakAfterFirstHour = (report: LoadReport) =>
      Math.max(...report.stretches.filter(({ atMs }) => atMs > 40 * MINUTE).map(({ calls }) => calls))
    const fixed: LoadCase = { ...SMALL, sessions: 2_000, lifeMs: [60 * MINUTE, 60 * MINUTE] }
    const ofFixed = peakAfterFirstHour(playRefreshLoad(fixed))
    assert.ok(peakAfterFirstHour(playRefreshLoad({ ...fixed, jitterMs: 20 * MINUTE })) < ofFixed / 2)
    assert.ok(peakAfterFirstHour(playRefreshLoad({ ...fixed, lifeMs: SMALL.lifeMs })) < ofFixed / 2)
  })

  test('the agenda gives what was added by its time', () => {
    const agenda = createAgenda()
    const random = seededRandom(7)
    const times = Array.from({ length: 3_000 }, () => random.between(0, 1_000))
    for (const [n, at] of times.entries()) agenda.add(at, n)
    const taken = Array.from(times, () => agenda.take()!)
    assert.deepEqual(
      taken.map(({ at }) => at),
      times.toSorted((a, b) => a - b),
    )
    assert.ok(taken.every(({ at, what }) => times[what] === at))
    assert.equal(agenda.take(), undefined)
  })

  test('the chart has a panel for each case, and says what its lines are', () => {
    const chart = chartOf([{ load: SMALL, report: playRefreshLoad(SMALL) }])
    assert.match(chart, /^<svg [^>]*role="img" aria-label="[^"]+">/)
    assert.match(chart, /prefers-color-scheme: dark/)
    assert.ok(chart.includes(SMALL.name) && !/NaN|Infinity|undefined/.test(chart))
  })
})

describe('the capacity chapter', () => {
  test('has the tables that its unit costs give', () => {
    const costs = writtenCosts()
    assert.equal(writtenTable('unit costs'), unitTable(costs))
    assert.equal(writtenTable('sizes'), planTable(costs))
    assert.equal(writtenTable('limits'), limitTable())
  })

  test('has a row for each case of the simulation', () => {
    for (const { name } of CASES) assert.ok(writtenTable('refresh load').includes(`| ${name} |`), name)
  })

  test('sizes grow with the sessions, and no row needs more than there can be', () => {
    const costs = writtenCosts()
    const [small, large] = [1_000, 10_000_000].map((sessions) => planOf(costs, { sessions }))
    assert.equal(small!.replicas, 2)
    assert.ok(large!.replicas > 10 && Number.isFinite(large!.replicas))
    assert.ok(large!.cores <= large!.replicas / 2 && large!.peakCores < large!.replicas)
    assert.ok(Math.abs(large!.redisBytes / small!.redisBytes - 10_000) < 1e-6)
    assert.equal(large!.requests, 50_000)
  })

  test('a limit is enough for as many sessions as make that many calls', () => {
    const sessions = sessionsWithin(200)
    const calls = (sessions * ASSUMED.resources) / RENEWED_EVERY_S + sessions / ASSUMED.stayS
    assert.ok(calls <= 200 && calls > 199.99)
  })
})
