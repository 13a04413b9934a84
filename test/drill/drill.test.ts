import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import type { LogFields } from '../../src/log.ts'
import { assertRules, skipWithoutPromtool } from '../kit/promtool.ts'
import { assertNoSecrets } from '../kit/secrets.ts'
import { skipWithoutRedis } from '../kit/store/redis.ts'
import { drillTable, FAULTS, type Fault, isAsSaid } from './faults.ts'
import { QUIET_MINUTES, type Scene, type Stage, setScene, setStage } from './scene.ts'

const MINUTES = 6
const CONSOLE_MINUTES = 3

const rulesFile = fileURLToPath(new URL('../../helm/cloakroom/files/alerts.yaml', import.meta.url))
const rules = readFileSync(rulesFile, 'utf8')
const readme = readFileSync(new URL('../../helm/README.md', import.meta.url), 'utf8')
const withoutPromtool = skipWithoutPromtool('it is NOT known when the alerts fire')

/** The series of a fault's scrapes, a minute each. */
const recorded = new Map<Fault, readonly string[]>()

describe('the 3 a.m. drill', { skip: skipWithoutRedis() }, () => {
  let stage: Stage
  const closers: (() => unknown)[] = []
  before(async () => {
    stage = await setStage({ after: (close) => closers.push(close) })
  })
  after(async () => {
    for (const close of closers.reverse()) await close()
  })

  for (const fault of FAULTS)
    test(`${fault.name}: users, log and console tell it`, async (t) => {
      const scene = await setScene(t, stage, fault)
      const quiet = scene.cloakroom.logs.length
      await fault.inject(scene)
      try {
        for (let minute = 1; minute <= MINUTES; minute += 1) {
          await scene.minute()
          if (minute === CONSOLE_MINUTES) await assertConsole(scene, fault)
        }
      } finally {
        await fault.cure?.(scene)
      }
      recorded.set(fault, scene.scrapes)
      const { users, log } = fault
      assert.deepEqual(scene.answers, { '/api/orders': users.orders, '/api/billing': users.billing })
      const lines = scene.cloakroom.logs.slice(quiet)
      const told = lines.map((line) => JSON.parse(line)).filter(({ msg }) => isAsSaid(msg, log.message))
      assert.ok(
        told.some((line) => line.level === log.level && hasFields(line, log.fields)),
        lines.join(''),
      )
      assertNoSecrets(
        {
          log: scene.cloakroom.logs.join(''),
          metrics: scene.scrapes.at(-1)!,
          console: JSON.stringify(await scene.status()),
        },
        scene.secrets(),
      )
    })

  test('each alert fires when it is said to, and no other does', { skip: withoutPromtool }, () => {
    assertRules(rules, FAULTS.map(alertTest))
  })

  test('the runbook has a line for each alert, with the cure, and the table of the drill', () => {
    for (const { alerts, runbook } of FAULTS) {
      const line = readme.split('\n').find((one) => one.includes(`\`${Object.keys(alerts)[0]}\` |`))
      assert.ok(line?.includes(runbook), `${Object.keys(alerts)[0]}: ${runbook}`)
    }
    assert.ok(readme.includes(drillTable()), 'npm run drill prints the table of helm/README.md')
  })
})

async function assertConsole(scene: Scene, { console: { severity, says, cure } }: Fault): Promise<void> {
  const { problems } = await scene.status()
  const found = problems.find(({ subject, message }) => isAsSaid(`${subject}: ${message}`, says))
  assert.ok(found, JSON.stringify(problems, undefined, 1))
  assert.equal(found.severity, severity)
  assert.ok(found.action.includes(cure), found.action)
  assert.ok(Date.parse(found.since) > 0)
}

/** Whether a line has these fields; texts as said, and times about so. */
function hasFields(line: object, fields: LogFields | object): boolean {
  return Object.entries(fields).every(([name, wanted]) => {
    const value = (line as Record<string, unknown>)[name]
    if (typeof wanted === 'object') return hasFields(value ?? {}, wanted)
    if (typeof wanted === 'number') return Math.abs(Number(value) - wanted) <= 5
    return isAsSaid(String(value), String(wanted))
  })
}

/** Asks for every alert that ever fired, with the minutes from the fault to it. */
function alertTest(fault: Fault): object {
  const first = `min by (alertname) (min_over_time(timestamp(ALERTS{alertstate="firing"})[30m:1m]))`
  return {
    name: fault.name,
    interval: '1m',
    input_series: seriesOf(recorded.get(fault) ?? []),
    promql_expr_test: [
      {
        expr: `${first} / 60 - ${QUIET_MINUTES - 1}`,
        eval_time: `${QUIET_MINUTES - 1 + MINUTES}m`,
        exp_samples: Object.entries(fault.alerts).map(([alertname, value]) => ({
          labels: `{alertname="${alertname}"}`,
          value,
        })),
      },
    ],
  }
}

/** What the rules read of the scrapes, as promtool takes it: `_` where a series is not there yet. */
function seriesOf(scrapes: readonly string[]): object[] {
  const values = new Map<string, string[]>()
  for (const [at, text] of scrapes.entries()) {
    for (const [, name = '', labels = '', value = ''] of text.matchAll(
      /^(cloakroom_\w+)(?:\{(.*)\})? (\S+)$/gm,
    )) {
      if (!rules.includes(name)) continue
      const key = `${name}{job="cloakroom",instance="a"${labels && `,${labels}`}}`
      const series = values.get(key) ?? scrapes.map(() => '_')
      series[at] = value
      values.set(key, series)
    }
  }
  return Array.from(values, ([series, list]) => ({ series, values: list.join(' ') }))
}
