import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { Case } from './case.ts'
import type { Figure, Measured } from './measure.ts'

/** A run, as it is told in test/README.md. */
export type Results = {
  /** Date, machine, versions, rounds. */
  readonly setting: string
  /** Peers that did not take part, each with the reason. */
  readonly absent: readonly string[]
  readonly cases: readonly {
    readonly name: string
    readonly case: Omit<Case, 'lanes'>
    readonly measured: readonly Measured[]
  }[]
}

/** What the columns of peers are, by the name of the case. */
const SHARED = ['small', 'get64k', 'post16k', 'unauthorized']

const table = (head: readonly string[], rows: readonly (readonly string[])[]) =>
  [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n')

const digitsOf = (value: number) => (value < 10 ? 2 : value < 100 ? 1 : 0)
const spread = ({ median, min, max }: Figure, digits = digitsOf(median)) =>
  `${median.toFixed(digits)} (${min.toFixed(digits)}–${max.toFixed(digits)})`

/** The tables of a run in Markdown: contenders by case, then each case of Cloakroom with its budget. */
export function resultsOf({ setting, absent, cases }: Results): string {
  const shared = cases.filter(({ name }) => SHARED.includes(name))
  const names = [...new Set(shared.flatMap(({ measured }) => measured.map(({ name }) => name)))]
  const contenders = names
    .filter((name) => shared.some(({ name: id, measured }) => id !== 'unauthorized' && has(measured, name)))
    .map((name) => [name, ...shared.map(({ measured }) => costIn(measured, name))])
  const budgets = cases.map(({ case: one, measured }) => {
    const [reference] = measured
    const ours = oursOf(measured)
    const value = one.unit ? ours?.ratio : ours?.cost
    return [
      one.title,
      one.measures ?? 'CPU µs',
      reference && reference !== ours ? `${reference.name}: ${spread(reference.cost)}` : '',
      ours ? spread(ours.cost) : 'not measured',
      one.unit && ours ? `${spread(ours.ratio, 2)} × ${one.unit}` : '',
      String(one.budget),
      value && value.median <= one.budget ? 'met' : 'not met',
    ]
  })
  return [
    setting,
    table(['CPU µs a request', ...shared.map(({ case: one }) => one.title)], contenders),
    absent.length > 0 ? `Not measured: ${absent.join('; ')}.` : '',
    table(
      ['Cloakroom', 'measure', 'beside it', 'cost', 'ratio', 'budget', ''],
      [...budgets, ...besidePeers(cases)],
    ),
    notSettled(cases),
  ]
    .filter(Boolean)
    .join('\n\n')
}

/** The most that Cloakroom's signed-in GET may cost, in units of what it costs others. */
const PEER_BUDGETS: readonly [RegExp, number][] = [
  [/^mod_auth_openidc .*shared memory/, 0.5],
  [/^mod_auth_openidc .*Redis/, 0.25],
  [/^oauth2-proxy/, 0.25],
]

function besidePeers(cases: Results['cases']): string[][] {
  const small = cases.find(({ name }) => name === 'small')
  const ours = small && oursOf(small.measured)
  if (!ours) return []
  return PEER_BUDGETS.flatMap(([pattern, budget]) => {
    const peer = small.measured.find(({ name }) => pattern.test(name))
    if (!peer) return []
    const part = ours.cost.median / peer.cost.median
    const verdict = part <= budget ? 'met' : 'not met'
    const beside = `${peer.name}: ${spread(peer.cost)}`
    return [
      [
        small.case.title,
        'CPU µs',
        beside,
        spread(ours.cost),
        `${part.toFixed(2)} × it`,
        String(budget),
        verdict,
      ],
    ]
  })
}

const has = (measured: readonly Measured[], name: string) => measured.some((one) => one.name === name)

function costIn(measured: readonly Measured[], name: string): string {
  const one = measured.find((lane) => lane.name === name)
  return one ? spread(one.cost) : ''
}

/** Cloakroom's lane: the last one whose name begins so, because the first may be what it is compared with. */
function oursOf(measured: readonly Measured[]): Measured | undefined {
  return measured.findLast(({ name }) => name.startsWith('Cloakroom') && !name.startsWith('Cloakroom of'))
}

function notSettled(cases: Results['cases']): string {
  const lanes = cases.flatMap(({ case: one, measured }) =>
    measured.filter(({ isSettled }) => !isSettled).map(({ name }) => `${name} (${one.title})`),
  )
  return lanes.length > 0 ? `Had not settled when they were measured: ${lanes.join(', ')}.` : ''
}

/** The lines of README.md: what a signed-in GET costs, and what it costs others. Undefined when it was not measured. */
export function summaryOf({ setting, cases }: Results): string | undefined {
  const measured = cases.find(({ name }) => name === 'small')?.measured
  const ours = measured && oursOf(measured)
  if (!ours) return undefined
  const others = measured.filter(({ name }) => !SIMPLER.test(name) && !name.startsWith('Cloakroom'))
  const [bare] = measured
  const more = ours.cost.median / bare!.cost.median
  const times = others.map(({ name, cost }) => `${name} ${(cost.median / ours.cost.median).toFixed(1)} ×`)
  return [
    `A signed-in GET costs Cloakroom ${Math.round(ours.cost.median)} µs of CPU time, ${more.toFixed(2)} times what it costs ${bare!.name} without sessions, checks and log.`,
    times.length > 0 ? `In the same run, others with sessions took: ${times.join(', ')} as much.` : '',
    `Measured ${setting.split(';')[0]} with \`npm run bench\`; how, and everything else: [test/README.md](test/README.md#the-benchmark).`,
  ]
    .filter(Boolean)
    .join('\n')
}

/** They know no sessions. */
const SIMPLER = /^(bare|nginx|http-proxy-middleware)/

const ROW = 30
const WIDTH = 760
const LEFT = 320

const STYLE = `
  text { font: 13px system-ui, sans-serif; fill: #24292f }
  .title { font-weight: 600 } .unit { fill: #57606a }
  .other { fill: #8c959f } .ours { fill: #0969da } .ground { fill: #ffffff }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .unit { fill: #9198a1 } .other { fill: #656c76 } .ours { fill: #58a6ff } .ground { fill: #0d1117 }
  }`

/** A bar for each contender: what a signed-in GET costs, the cheapest first. */
export function chartOf(measured: readonly Measured[], setting: string): string {
  const bars = measured.toSorted((a, b) => a.cost.median - b.cost.median)
  const most = Math.max(...bars.map(({ cost }) => cost.median))
  const height = bars.length * ROW + 76
  const title = 'CPU time of a signed-in GET of 800 bytes, µs'
  const rows = bars.map(({ name, cost: { median } }, n) => {
    const y = 44 + n * ROW
    const width = ((WIDTH - LEFT - 60) * median) / most
    return [
      `<text x="${LEFT - 8}" y="${y + 15}" text-anchor="end"${isOurs(name) ? ' class="title"' : ''}>${escaped(name)}</text>`,
      `<rect class="${isOurs(name) ? 'ours' : 'other'}" x="${LEFT}" y="${y}" width="${width.toFixed(1)}" height="${ROW - 10}" rx="2"/>`,
      `<text x="${(LEFT + width + 6).toFixed(1)}" y="${y + 15}">${median.toFixed(median < 100 ? 1 : 0)}</text>`,
    ].join('')
  })
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-label="${title}">`,
    `<title>${title}</title>`,
    `<style>${STYLE}\n</style>`,
    `<rect class="ground" width="${WIDTH}" height="${height}"/>`,
    `<text class="title" x="12" y="26">${title}</text>`,
    ...rows,
    `<text class="unit" x="12" y="${height - 14}">${escaped(setting)}</text>`,
    '</svg>\n',
  ].join('\n')
}

const isOurs = (name: string) => name.startsWith('Cloakroom')
const escaped = (text: string) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')

const fileOf = (path: string) => fileURLToPath(new URL(`../../${path}`, import.meta.url))

/** Parts of documents that the benchmark writes. */
export type Part = 'benchmark' | 'growth' | 'profile' | 'replicas' | 'speed'

const marked = (part: Part) => new RegExp(`(<!-- ${part}: by a program -->\n)([\\s\\S]*?)(\n?<!-- end -->)`)

/** What a part says now. Throws when it has no place. */
export function partOf(part: Part): string {
  const file = documentOf(part)
  const [, , text] = marked(part).exec(readFileSync(file, 'utf8')) ?? []
  if (text === undefined) throw new Error(`${file} has no place for "${part}"`)
  return text
}

const documentOf = (part: Part) => fileOf(part === 'speed' ? 'README.md' : 'test/README.md')

/** Replaces a part of test/README.md, or of README.md. Throws when it has no place there. */
export function writePart(part: Part, text: string): void {
  partOf(part)
  const file = documentOf(part)
  const before = readFileSync(file, 'utf8')
  writeFileSync(
    file,
    before.replace(marked(part), (_, start) => `${start}${text}\n<!-- end -->`),
  )
}

/** Replaces the chart. */
export function writeChart(svg: string): void {
  writeFileSync(fileOf('test/bench.svg'), svg)
}
