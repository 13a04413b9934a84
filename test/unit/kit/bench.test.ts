import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { exponentOf } from '../../bench/growth/exponent.ts'
import { growthTable, mergedGrowth } from '../../bench/growth/table.ts'
import { figureOf, hasSettled, type Lane, type Measured, measureLanes } from '../../bench/measure.ts'
import { timesOf } from '../../bench/profile/parts.ts'
import { profileTable } from '../../bench/profile/table.ts'
import { chartOf, resultsOf, summaryOf } from '../../bench/results.ts'
import { caseTable } from '../../bench/table.ts'

const windows = (...costs: number[]) => costs.map((cost) => ({ total: cost * 1_000, count: 1_000 }))

/** A lane whose windows cost what the list says; the last one for ever. */
function lane(name: string, costs: number[], order: string[] = [], warmUpRequests = 0): Lane {
  let next = 0
  return {
    ...{ name, warmUpRequests },
    async window() {
      order.push(name)
      const cost = costs[Math.min(next++, costs.length - 1)]!
      return { total: cost * 1_000, count: 1_000 }
    },
  }
}

describe('the benchmark', () => {
  test('takes a cost as settled when two windows differ by less than 3 %, and never before the warm-up has had its requests', () => {
    assert.equal(hasSettled(windows(100, 102), 2_000), true)
    assert.equal(hasSettled(windows(100, 104), 2_000), false)
    assert.equal(hasSettled(windows(50, 100, 101), 2_000), true)
    assert.equal(hasSettled(windows(100, 100), 2_001), false)
    assert.equal(hasSettled(windows(100), 0), false)
  })

  test('warms every lane up before the first round, and lanes take turns in each round', async () => {
    const order: string[] = []
    const lanes = [lane('a', [9, 5, 5], order, 2_000), lane('b', [10], order)]
    const [a, b] = await measureLanes(lanes, 2)
    assert.deepEqual(order, ['a', 'a', 'a', 'a', 'b', 'a', 'b'])
    assert.deepEqual(a?.cost, { median: 5, min: 5, max: 5 })
    assert.deepEqual(b?.ratio, { median: 2, min: 2, max: 2 })
  })

  test('says so when a cost has not settled within 40 windows', async () => {
    const costs = Array.from({ length: 50 }, (_, n) => (n % 2 === 0 ? 10 : 20))
    const [measured] = await measureLanes([lane('restless', costs, [], 1)], 1)
    assert.equal(measured?.isSettled, false)
    assert.match(caseTable({ title: 'GET', budget: 1 }, [measured!]), /restless .* had not settled/)
  })

  test('compares round by round, so that what slows the machine for a while cancels out', async () => {
    const [, b] = await measureLanes([lane('a', [10, 20, 10]), lane('b', [20, 40, 20])], 3)
    assert.deepEqual(b?.ratio, { median: 2, min: 2, max: 2 })
    assert.deepEqual(figureOf([4, 1, 3, 2]), { median: 2.5, min: 1, max: 4 })
  })

  test('growth has the exponent of its line: flat 0, linear 1, square 2', () => {
    const points = (exponent: number) => [1, 10, 1_000].map((size) => ({ size, cost: 3 * size ** exponent }))
    for (const exponent of [0, 1, 2]) assert.ok(Math.abs(exponentOf(points(exponent)) - exponent) < 1e-9)
    const rows = [{ what: 'routes', measures: 'µs', points: points(1) }]
    assert.match(
      growthTable(rows, '2026-12-01'),
      /\| routes \| µs \| 1: 3\.00 · 10: 30\.0 · 1,000: 3,000 \| 1\.00 \| 2026-12-01 \|/,
    )
  })

  test('growth that is measured again takes the place of its rows, and the other rows stay as they were', () => {
    const row = (what: string, cost: number) => ({ what, measures: 'ms', points: [{ size: 1, cost }] })
    const before = growthTable([row('routes', 1), row('storms (before: 1.2)', 2)], '2026-01-01')
    const now = growthTable([row('storms (before: 3.4)', 5), row('connections', 7)], '2026-02-02')
    const lines = mergedGrowth(before, now).split('\n').slice(2)
    assert.deepEqual(lines, [
      '| routes | ms | 1: 1.00 |  | 2026-01-01 |',
      '| storms (before: 3.4) | ms | 1: 5.00 |  | 2026-02-02 |',
      '| connections | ms | 1: 7.00 |  | 2026-02-02 |',
    ])
  })

  test('a profile is told by part: files by their folder, builtins by who calls them, and only what ran in the windows', () => {
    const frame = (id: number, functionName: string, url: string, children: number[] = []) => ({
      ...{ id, callFrame: { functionName, url }, children },
    })
    const profile = {
      nodes: [
        frame(1, '(root)', '', [2, 3, 4, 7]),
        frame(2, '(idle)', ''),
        frame(3, '(garbage collector)', ''),
        frame(4, 'forward', 'file:///a/dist/proxy/headers/request.js', [5, 6]),
        frame(5, 'hkdfSync', ''),
        frame(6, 'writev', ''),
        frame(7, 'dispatch', 'file:///a/node_modules/undici/lib/client.js'),
      ],
      startTime: 1_000,
      samples: [3, 4, 5, 6, 7, 2, 3],
      timeDeltas: [0, 100, 10, 20, 30, 40, 50],
    }
    const times = timesOf(profile, [{ from: 1_100, to: 1_230 }])
    assert.deepEqual(Object.fromEntries(times), {
      ...{ 'src/proxy/headers': 10 + 20, 'native code: writes to sockets': 30, undici: 40 },
    })
    const one = { title: 'GET', contender: 'now', cpuUs: 120, parts: times }
    const text = profileTable([one, { ...one, contender: 'before', parts: new Map([['undici', 50]]) }])
    assert.match(text, /\| undici \| 40\.0 \| 50\.0 \|\n\| src\/proxy/)
    assert.match(text, /\| all of the main thread \| 100\.0 \| 50\.0 \|/)
  })

  test('the tables name every contender, judge each budget, and say who is missing', () => {
    const figure = (median: number) => ({ median, min: median, max: median })
    const measured: Measured[] = [
      { name: 'bare', cost: figure(48), ratio: figure(1), isSettled: true },
      { name: 'Cloakroom', cost: figure(60), ratio: figure(1.25), isSettled: true },
      { name: 'oauth2-proxy 7, Redis', cost: figure(300), ratio: figure(6), isSettled: true },
      { name: 'nginx/1.22 <x>', cost: figure(18), ratio: figure(0.4), isSettled: false },
    ]
    const cases = [{ name: 'small', case: { title: 'GET', budget: 1.3, unit: 'bare proxies' }, measured }]
    const text = resultsOf({ setting: 'a machine', absent: ['Wonderwall (go install it)'], cases })
    assert.match(text, /\| Cloakroom \| 60\.0 \(60\.0–60\.0\) \|/)
    assert.match(text, /1\.25 \(1\.25–1\.25\) × bare proxies \| 1\.3 \| met \|/)
    assert.match(text, /Not measured: Wonderwall/)
    assert.match(text, /oauth2-proxy 7, Redis: 300 .* \| 0\.20 × it \| 0\.25 \| met \|/)
    assert.match(text, /Had not settled when they were measured: nginx/)
    const lines = summaryOf({ setting: 'a machine; 7 rounds', absent: [], cases })
    assert.match(lines ?? '', /costs Cloakroom 60 µs of CPU time, 1\.25 times what it costs bare/)
    const svg = chartOf(measured, 'a machine')
    assert.ok(svg.indexOf('nginx/1.22 &lt;x>') < svg.indexOf('>bare<'))
    assert.ok(svg.indexOf('>bare<') < svg.indexOf('>Cloakroom<'))
  })
})
