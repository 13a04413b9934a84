import type { Panel } from './dashboard.ts'
import type { Series } from './prometheus.ts'

/** A panel with what its queries gave, each under its legend. */
export type Drawn = {
  readonly panel: Panel
  readonly lines: readonly { readonly name: string; readonly series: Series }[]
}

/** What the page shows, and the distance of its points. Seconds. */
type Span = { readonly from: number; readonly until: number; readonly step: number }

const ROW = 30
const GAP = 8
const HUES = [210, 25, 140, 280, 0, 175, 50, 320, 240, 95]

const STYLE = `
  :root { color-scheme: light dark; --ground: #f4f5f5; --panel: #fff; --text: #24292e; --dim: #6a737d; --grid: #d8dbe0; --light: 42% }
  @media (prefers-color-scheme: dark) { :root { --ground: #111217; --panel: #181b1f; --text: #d8d9da; --dim: #9a9ea6; --grid: #33363c; --light: 65% } }
  body { margin: 0; padding: 8px; background: var(--ground); color: var(--text); font: 12px/1.3 system-ui, sans-serif }
  main { display: grid; grid-template-columns: repeat(24, 1fr); grid-auto-rows: ${ROW}px; gap: ${GAP}px }
  section { background: var(--panel); border: 1px solid var(--grid); border-radius: 2px; padding: 4px 8px; display: flex; flex-direction: column; overflow: hidden; min-width: 0 }
  h1 { font-size: 15px; margin: 4px 0 } h2 { font-size: 12px; font-weight: 600; margin: 0 0 2px }
  .stat { color: #fff } .stat b { font-size: 26px; margin: auto }
  .row { background: none; border: 0; font-weight: 600 }
  .field { flex: 1; min-height: 0; position: relative } svg { position: absolute; inset: 0; width: 100%; height: 100% }
  path { fill: none; stroke-width: 1.5; vector-effect: non-scaling-stroke } .grid { stroke: var(--grid) }
  .top, .none { position: absolute; color: var(--dim); font-size: 11px } .none { inset: 40% 0 0; text-align: center }
  ul { margin: 2px 0 0; padding: 0; list-style: none; font-size: 11px; color: var(--dim) }
  li { display: inline-block; margin-right: 10px } li::before { content: '■ '; color: var(--hue) }`

/** Draws all panels where their `gridPos` says, as one page without scripts. */
export function pageOf(drawn: readonly Drawn[], times: Span): string {
  const panels = drawn.map((one) => panelOf(one, times)).join('\n')
  return `<!doctype html><html lang="en"><meta charset="utf-8"><title>Cloakroom, dashboard</title><style>${STYLE}</style><h1>Cloakroom</h1><main>\n${panels}\n</main></html>\n`
}

function panelOf({ panel, lines }: Drawn, times: Span): string {
  const { type, title, gridPos } = panel
  const { h, w, x, y } = gridPos
  const place = `grid-area: ${y + 1} / ${x + 1} / span ${h} / span ${w}`
  if (type === 'row') return `<section class="row" style="${place}">${htmlOf(title)}</section>`
  if (type === 'stat') return statOf({ panel, lines }, place)
  const values = lines.flatMap(({ series }) =>
    series.values.map(([, value]) => Number(value)).filter(Number.isFinite),
  )
  const most = Math.max(...values, 0) || 1
  const least = Math.min(...values, 0)
  const px = (at: number) => (((at - times.from) / (times.until - times.from)) * 600).toFixed(1)
  const py = (value: number) => (118 - ((value - least) / (most - least)) * 112).toFixed(1)
  const paths = lines.map(({ series }, n) => {
    const points = series.values.filter(([, value]) => Number.isFinite(Number(value)))
    // A gap stays one, as in Grafana.
    const signOf = (i: number) => (points[i]![0] - (points[i - 1]?.[0] ?? 0) > times.step ? 'M' : 'L')
    const d = points.map(([at, value], i) => `${signOf(i)}${px(at)} ${py(Number(value))}`).join('')
    return `<path style="stroke: ${hueOf(n)}" d="${d}"/>`
  })
  const legend = lines.map(
    ({ name, series }, n) =>
      `<li style="--hue: ${hueOf(n)}">${htmlOf(name)} ${textOf(Number(series.values.at(-1)?.[1]), panel)}</li>`,
  )
  const grid = `<path class="grid" d="M0 ${py(most)}H600M0 ${py((most + least) / 2)}H600M0 ${py(least)}H600"/>`
  const field =
    values.length === 0
      ? '<span class="none">No data</span>'
      : `<svg viewBox="0 0 600 120" preserveAspectRatio="none" aria-hidden="true">${grid}${paths.join('')}</svg><span class="top">${textOf(most, panel)}</span>`
  return `<section style="${place}"><h2>${htmlOf(title)}</h2><div class="field">${field}</div><ul>${legend.join('')}</ul></section>`
}

function statOf({ panel, lines }: Drawn, place: string): string {
  const { thresholds, mappings = [] } = panel.fieldConfig?.defaults ?? {}
  const last = Number(lines[0]?.series.values.at(-1)?.[1])
  const step = thresholds?.steps.findLast(({ value }) => value === null || last >= value)
  const mapped = mappings.flatMap(({ options }) => options[String(last)]?.text ?? [])[0]
  const text = lines.length === 0 ? 'No data' : (mapped ?? (lines[0]!.name || textOf(last, panel)))
  const ground = { red: '#c4162a', orange: '#b35c00', green: '#37872d' }[step?.color ?? ''] ?? '#3f4650'
  return `<section class="stat" style="${place}; background: ${ground}"><h2>${htmlOf(panel.title)}</h2><b>${htmlOf(text)}</b></section>`
}

/** A value as Grafana writes it for the panel's unit. */
export function textOf(value: number, { fieldConfig }: Panel): string {
  if (!Number.isFinite(value)) return '–'
  const short = (number: number) => Number(number.toPrecision(3)).toString()
  switch (fieldConfig?.defaults.unit) {
    case 's':
      return Math.abs(value) < 1 ? `${short(value * 1_000)} ms` : `${short(value)} s`
    case 'bytes':
      return `${short(value / 2 ** 20)} MiB`
    case 'percentunit':
      return `${short(value * 100)} %`
    case 'reqps':
      return `${short(value)} req/s`
    case 'ops':
      return `${short(value)} ops/s`
    default:
      return short(value)
  }
}

const hueOf = (n: number) => `hsl(${HUES[n % HUES.length]} 65% var(--light))`
const htmlOf = (text: string) => text.replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`)
