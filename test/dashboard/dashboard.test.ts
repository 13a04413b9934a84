import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type Dashboard, faultsOf, labelQueryOf, type Panel, queryOf, readDashboard } from './dashboard.ts'

const panel = (more: Partial<Panel> = {}): Panel => ({
  ...{ id: 1, type: 'timeseries', title: 'Requests', gridPos: { h: 8, w: 8, x: 0, y: 0 } },
  targets: [
    {
      refId: 'A',
      expr: 'sum by (route) (rate(x{job=~"$job"}[$__rate_interval]))',
      legendFormat: '{{route}}',
    },
  ],
  fieldConfig: { defaults: { unit: 'reqps' } },
  ...more,
})
const withTarget = (expr: string, legendFormat: string): Panel =>
  panel({ targets: [{ refId: 'A', expr, legendFormat }] })
const job = {
  name: 'job',
  type: 'query',
  query: { query: 'label_values(cloakroom_build_info, job)' },
} as const
const dashboard = (...panels: Panel[]): Dashboard => ({ panels, templating: { list: [job] } })

describe('the dashboard', () => {
  test('has no faults in its panels', () => {
    assert.deepEqual(faultsOf(readDashboard()), [])
  })

  test('has variables that ask for the values of a label', () => {
    const asked = readDashboard().templating.list.flatMap((variable) => labelQueryOf(variable) ?? [])
    assert.deepEqual(asked, [{ metric: 'cloakroom_build_info', label: 'job' }])
  })
})

describe('what is wrong with a panel', () => {
  const other = { id: 2, gridPos: { h: 8, w: 8, x: 8, y: 0 } }
  for (const [what, panels, expected] of [
    ['nothing', [panel(), panel(other)], []],
    ['an id twice', [panel(), panel({ ...other, id: 1 })], ['an id is not unique']],
    [
      'one over another',
      [panel(), panel({ id: 2, gridPos: { h: 1, w: 8, x: 7, y: 7 } })],
      ['2 Requests lies over 1 Requests'],
    ],
    ['too wide', [panel({ gridPos: { h: 8, w: 8, x: 17, y: 0 } })], ['1 Requests is wider than the page']],
    ['no query', [panel({ targets: [] })], ['1 Requests asks for nothing']],
    [
      'no unit',
      [panel({ fieldConfig: { defaults: {} } })],
      ['1 Requests has no unit that is known: undefined'],
    ],
    ['a stat without thresholds', [panel({ type: 'stat' })], ['1 Requests has no thresholds']],
    ['no legend', [withTarget('x', '')], ['1 Requests has a query without a legend: x']],
    [
      'a legend of a label that is summed away',
      [withTarget('sum by (route) (x)', '{{code}}')],
      ['1 Requests: code of its legend is summed away'],
    ],
    [
      'a variable that nobody defines',
      [withTarget('x{pod=~"$pod"}', 'x')],
      ['1 Requests: $pod is no variable'],
    ],
    [
      'two lines of one legend',
      [panel({ targets: ['A', 'B'].map((refId) => ({ refId, expr: 'x', legendFormat: 'x' })) })],
      ['a legend of 1 Requests is not unique'],
    ],
  ] satisfies [string, Panel[], string[]][])
    test(what, () => {
      assert.deepEqual(faultsOf(dashboard(...panels)), expected)
    })
})

test('a query gets the values of its variables, and a rate over four scrapes or a step more than one', () => {
  const values = new Map([['job', ['cloakroom', 'cloakroom-eu']]])
  const queryAt = (step: number) => queryOf(panel().targets![0]!, values, { scrape: 15, step, range: 3_600 })
  assert.equal(queryAt(15), 'sum by (route) (rate(x{job=~"(cloakroom|cloakroom-eu)"}[60s]))')
  assert.equal(queryAt(60), 'sum by (route) (rate(x{job=~"(cloakroom|cloakroom-eu)"}[75s]))')
})
