import { BEGINS_AT_HOUR } from './cases.ts'
import { type LoadCase, type LoadReport, STRETCH_MS } from './refresh-load.ts'

/** A case and what came of it. */
export type Played = { readonly load: LoadCase; readonly report: LoadReport }

const WIDTH = 860
const PANEL = 170
const PLOT = { left: 70, right: 12, top: 34, height: 100 }
const HOUR = 3_600_000
/** Stretches that one point of a line stands for: its highest, so that no peak is lost. */
const PER_POINT = 3

const STYLE = `
  text { font: 12px system-ui, sans-serif; fill: #24292f }
  .name { font-weight: 600 } .unit { fill: #57606a }
  .grid { stroke: #d0d7de; stroke-width: 1 }
  .calls { fill: #0969da22; stroke: #0969da; stroke-width: 1.3 }
  .unserved { fill: none; stroke: #cf222e; stroke-width: 1.3 }
  .key-calls { fill: #0969da } .key-unserved { fill: #cf222e }
  .ground { fill: #ffffff }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .unit { fill: #9198a1 } .grid { stroke: #3d444d }
    .calls { fill: #58a6ff22; stroke: #58a6ff } .unserved { stroke: #ff7b72 }
    .key-calls { fill: #58a6ff } .key-unserved { fill: #ff7b72 } .ground { fill: #0d1117 }
  }`

/** Draws a panel for each case, one above the other. */
export function chartOf(all: readonly Played[]): string {
  const height = all.length * PANEL + 30
  const panels = all.map(({ load, report }, n) => panelOf(load, report, n * PANEL))
  const title = 'Calls to the provider over a morning, by case'
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-label="${title}">`,
    `<title>${title}</title>`,
    `<style>${STYLE}\n</style>`,
    `<rect class="ground" width="${WIDTH}" height="${height}"/>`,
    ...panels,
    `<text class="key-calls" x="${PLOT.left}" y="${height - 10}">calls to the provider, per second</text>`,
    `<text class="key-unserved" x="${PLOT.left + 240}" y="${height - 10}">requests of users answered 503, per second</text>`,
    '</svg>\n',
  ].join('\n')
}

function panelOf(load: LoadCase, { stretches }: LoadReport, y: number): string {
  const points = Math.ceil(stretches.length / PER_POINT)
  const highest = (of: 'calls' | 'unserved') =>
    Array.from({ length: points }, (_, n) =>
      Math.max(...stretches.slice(n * PER_POINT, (n + 1) * PER_POINT).map((stretch) => stretch[of])),
    )
  const [calls, unserved] = [highest('calls'), highest('unserved')]
  const most = roundUp(Math.max(...calls, ...unserved))
  const width = WIDTH - PLOT.left - PLOT.right
  const base = y + PLOT.top + PLOT.height
  const x = (n: number) => PLOT.left + (n / points) * width
  const h = (value: number) => base - (value / most) * PLOT.height
  const line = (values: readonly number[]) =>
    values.map((value, n) => `${x(n).toFixed(1)},${h(value).toFixed(1)}`).join(' ')
  const hours = Math.floor(load.untilMs / HOUR)
  const marks = Array.from({ length: hours + 1 }, (_, hour) => {
    const at = PLOT.left + ((hour * HOUR) / (stretches.length * STRETCH_MS)) * width
    const anchor = hour === hours ? 'end' : 'middle'
    return `<text class="unit" x="${at.toFixed(1)}" y="${base + 16}" text-anchor="${anchor}">${BEGINS_AT_HOUR + hour}:00</text>`
  })
  const levels = [0, 0.5, 1].map((part) => {
    const label = (most * part).toLocaleString('en')
    return `<line class="grid" x1="${PLOT.left}" x2="${WIDTH - PLOT.right}" y1="${h(most * part)}" y2="${h(most * part)}"/><text class="unit" x="${PLOT.left - 6}" y="${h(most * part) + 4}" text-anchor="end">${label}</text>`
  })
  return [
    `<text class="name" x="8" y="${y + 22}">${load.name}</text>`,
    ...levels,
    ...marks,
    `<polygon class="calls" points="${x(0)},${base} ${line(calls)} ${x(points - 1).toFixed(1)},${base}"/>`,
    Math.max(...unserved) > 0 ? `<polyline class="unserved" points="${line(unserved)}"/>` : '',
  ].join('\n')
}

/** The next of 1, 2, 5, 10, 20 and so on. */
function roundUp(value: number): number {
  const power = 10 ** Math.floor(Math.log10(Math.max(1, value)))
  return [1, 2, 5, 10].map((step) => step * power).find((level) => level >= value) ?? 10 * power
}
