import { mkdirSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { launchChromium } from '../kit/browsers/chromium.ts'
import { faultsOf, labelQueryOf, type Panel, queryOf, readDashboard } from './dashboard.ts'
import { mixedLoad, startService } from './load.ts'
import { type Drawn, pageOf } from './page.ts'
import { type Series, startPrometheus } from './prometheus.ts'

const USAGE = `usage: npm run dashboard -- [--seconds N] [--out FOLDER]

  Two replicas under mixed load with the faults of a bad day, scraped by a real Prometheus (Debian: prometheus). Every query
  of helm/cloakroom/files/dashboard.json is run with its variables replaced as Grafana does; each must give data, or be one
  of those that are empty on such a day. Writes the panels as one page, and pictures of it where Chromium is installed.
`

/** Nothing to show even on this day; each shows nothing but what is wrong. */
const MAY_BE_EMPTY = new Set(['Text that did not open'])

const SCRAPE_SECONDS = 1

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '60' },
    out: { type: 'string', default: 'dashboard' },
    help: { type: 'boolean', default: false },
  },
})
if (values.help) process.stdout.write(USAGE)
else process.exitCode = (await run(Number(values.seconds), resolve(values.out))) ? 0 : 1

async function run(seconds: number, folder: string): Promise<boolean> {
  const cleanUps: (() => unknown)[] = []
  try {
    const service = await startService({ after: (cleanUp) => cleanUps.unshift(cleanUp) })
    const prometheus = await startPrometheus(
      service.replicas.map(({ adminUrl }) => adminUrl),
      SCRAPE_SECONDS,
    )
    cleanUps.unshift(prometheus.stop)
    const from = Math.floor(Date.now() / 1_000)
    await mixedLoad(service, seconds)
    const times = { from, until: Math.floor(Date.now() / 1_000), step: SCRAPE_SECONDS }
    const values = await variables(prometheus)
    const drawn = await Promise.all(
      readDashboard().panels.map((panel) => answered(panel, { prometheus, values, times })),
    )
    mkdirSync(folder, { recursive: true })
    const page = pageOf(drawn, times)
    writeFileSync(join(folder, 'dashboard.html'), page)
    await pictures(page, folder)
    return report(drawn, values)
  } finally {
    for (const cleanUp of cleanUps) await cleanUp()
  }
}

type Prometheus = Awaited<ReturnType<typeof startPrometheus>>
type Values = ReadonlyMap<string, readonly string[]>
type Source = {
  readonly prometheus: Prometheus
  readonly values: Values
  readonly times: { readonly from: number; readonly until: number; readonly step: number }
}

/** The values of each variable of the dashboard, by its own query. */
async function variables(prometheus: Prometheus): Promise<Values> {
  const values = new Map<string, readonly string[]>()
  for (const variable of readDashboard().templating.list) {
    const query = labelQueryOf(variable)
    if (query) values.set(variable.name, await prometheus.labelValues(query))
  }
  return values
}

async function answered(panel: Panel, { prometheus, values, times }: Source): Promise<Drawn> {
  const range = times.until - times.from
  const lines = await Promise.all(
    (panel.targets ?? []).map(async (target) => {
      const query = queryOf(target, values, { scrape: SCRAPE_SECONDS, step: times.step, range })
      const all = await prometheus.queryRange(query, times)
      return all.map((series) => ({ name: legendOf(target.legendFormat, series), series }))
    }),
  )
  return { panel, lines: lines.flat() }
}

function legendOf(format: string, { metric }: Series): string {
  return format.replace(/\{\{(\w+)\}\}/g, (_, label: string) => metric[label] ?? '')
}

function report(drawn: readonly Drawn[], values: Values): boolean {
  const faults = faultsOf(readDashboard())
  for (const [name, list] of values) {
    console.log(`${list.length > 0 ? 'ok  ' : 'FAIL'} $${name}: ${list.join(', ')}`)
    if (list.length === 0) faults.push(`$${name} has no values`)
  }
  for (const { panel, lines } of drawn) {
    if (panel.type === 'row') continue
    const points = lines.reduce((sum, { series }) => sum + series.values.length, 0)
    const isFine = points > 0 || MAY_BE_EMPTY.has(panel.title)
    if (!isFine) faults.push(`${panel.id} ${panel.title}: no data`)
    const names = lines.map(({ name }) => name)
    if (new Set(names).size !== names.length)
      faults.push(`${panel.id} ${panel.title}: one legend for two lines`)
    console.log(`${isFine ? 'ok  ' : 'FAIL'} ${panel.title}: ${lines.length} series, ${points} points`)
  }
  for (const fault of faults) console.log(`FAIL ${fault}`)
  return faults.length === 0
}

/** Light and dark, where there is a Chromium. */
async function pictures(page: string, folder: string): Promise<void> {
  const browser = await launchChromium().catch(() => undefined)
  if (!browser) return console.log('no Chromium: no pictures')
  for (const colorScheme of ['light', 'dark'] as const) {
    const view = await browser.newPage({ colorScheme, viewport: { width: 1440, height: 900 } })
    await view.setContent(page)
    await view.screenshot({ path: join(folder, `${colorScheme}.png`), fullPage: true })
  }
  await browser.close()
}
