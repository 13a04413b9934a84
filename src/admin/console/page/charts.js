import { el } from './dom.js'
import { duration, ms, number } from './format.js'

const SVG = 'http://www.w3.org/2000/svg'
const WIDTH = 600
const HEIGHT = 120

function svg(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag)
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value)
  element.append(...children)
  return element
}

/** What each chart shows: arrays of the samples, by name. */
export const CHARTS = [
  {
    id: 'rate',
    title: 'Requests per second',
    format: number,
    lines: [
      { key: 'requests', name: 'all', look: 'main' },
      { key: 'refused', name: 'refused', look: 'second' },
      { key: 'errors', name: 'errors (5xx)', look: 'bad' },
    ],
  },
  {
    id: 'latency',
    title: 'Latency',
    format: ms,
    lines: [
      { key: 'p99Ms', name: 'p99', look: 'second' },
      { key: 'p50Ms', name: 'p50', look: 'main' },
    ],
  },
  {
    id: 'refreshes',
    title: 'Token requests in 10 s',
    format: number,
    lines: [
      { key: 'refreshed', name: 'renewed', look: 'main' },
      { key: 'refreshesFailed', name: 'failed', look: 'bad' },
    ],
  },
  {
    id: 'provider',
    title: 'Provider, p99 of its answers',
    format: ms,
    lines: [{ key: 'providerP99Ms', name: 'p99', look: 'main' }],
    marks: { key: 'providerFailed', name: 'failed calls' },
  },
  {
    id: 'store',
    title: 'Session store, p99 of commands',
    format: ms,
    lines: [{ key: 'storeP99Ms', name: 'p99', look: 'main' }],
    marks: { key: 'storeFailed', name: 'failed commands' },
  },
]

/** A round number that is not below `value`. */
function roundedUp(value) {
  if (value <= 0) return 1
  const power = 10 ** Math.floor(Math.log10(value))
  return [1, 2, 5, 10].map((step) => step * power).find((limit) => limit >= value)
}

/** Makes the figure of one chart; `update` draws the samples. Arrow keys and the pointer read single moments. */
export function createChart({ title, format, lines, marks }) {
  const legend = el('ul', { class: 'legend' })
  const plot = svg('svg', {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    preserveAspectRatio: 'none',
    'aria-hidden': 'true',
  })
  const top = el('span', { class: 'top' })
  const oldest = el('span', {})
  const field = el('div', { class: 'field', tabindex: '0', role: 'img' }, plot, top)
  const figure = el(
    'figure',
    {},
    el('figcaption', {}, title),
    legend,
    field,
    el('div', { class: 'ends' }, oldest, el('span', {}, 'now')),
  )
  let samples
  let chosen

  function valueText(key, at, formatted = format) {
    const value = samples[key][at]
    return value === null || value === undefined ? '–' : formatted(value)
  }

  function drawLegend() {
    const at = chosen ?? samples.at.length - 1
    const entries = lines.map(({ key, name, look }) =>
      el('li', { class: look }, `${name} `, el('b', {}, valueText(key, at))),
    )
    if (marks)
      entries.push(
        el('li', { class: 'bad' }, `${marks.name} `, el('b', {}, valueText(marks.key, at, number))),
      )
    const when = chosen === undefined ? '' : new Date(samples.at[at]).toISOString().slice(11, 19)
    legend.replaceChildren(...entries, ...(when ? [el('li', { class: 'when' }, `at ${when} UTC`)] : []))
    const said = entries.map((entry) => entry.textContent).join(', ')
    field.setAttribute('aria-label', `${title}${when ? ` at ${when} UTC` : ', now'}: ${said}`)
  }

  function draw() {
    const count = samples.at.length
    const [first, last] = [samples.at[0], samples.at[count - 1]]
    const x = (at) => (count < 2 ? WIDTH : ((samples.at[at] - first) / Math.max(1, last - first)) * WIDTH)
    const highest = roundedUp(
      Math.max(0, ...lines.flatMap(({ key }) => samples[key].map((value) => value ?? 0))),
    )
    const y = (value) => HEIGHT - 2 - (value / highest) * (HEIGHT - 8)
    const shapes = [
      svg('path', {
        class: 'grid',
        d: `M0 ${y(highest)}H${WIDTH}M0 ${y(highest / 2)}H${WIDTH}M0 ${HEIGHT - 1}H${WIDTH}`,
      }),
    ]
    if (marks) {
      const failed = samples[marks.key].flatMap((value, at) => (value > 0 ? [at] : []))
      shapes.push(svg('path', { class: 'mark', d: failed.map((at) => `M${x(at)} 0V${HEIGHT}`).join('') }))
    }
    for (const { key, look } of lines)
      shapes.push(svg('path', { class: `line ${look}`, d: pathOf(samples[key], x, y) }))
    if (chosen !== undefined) shapes.push(svg('path', { class: 'cursor', d: `M${x(chosen)} 0V${HEIGHT}` }))
    plot.replaceChildren(...shapes)
    top.textContent = format(highest)
    oldest.textContent = `${duration(Math.round((last - first) / 1000))} ago`
    drawLegend()
  }

  function choose(at) {
    chosen = at === undefined ? undefined : Math.min(samples.at.length - 1, Math.max(0, at))
    draw()
  }

  field.addEventListener('pointermove', (event) => {
    if (!samples) return
    const { left, width } = field.getBoundingClientRect()
    const [first, last] = [samples.at[0], samples.at.at(-1)]
    const time = first + ((event.clientX - left) / width) * (last - first)
    const after = samples.at.findIndex((at) => at >= time)
    choose(after === -1 ? samples.at.length - 1 : after)
  })
  for (const over of ['pointerleave', 'blur'])
    field.addEventListener(over, () => samples && choose(undefined))
  field.addEventListener('keydown', (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -12, PageDown: 12, Home: -Infinity, End: Infinity }
    if (event.key === 'Escape') choose(undefined)
    const step = steps[event.key]
    if (step === undefined || !samples) return
    event.preventDefault()
    choose((chosen ?? samples.at.length - 1) + step)
  })

  return {
    figure,
    update(next) {
      // What is being read stays where it is, although the window moves on.
      const time = chosen === undefined ? undefined : samples.at[chosen]
      samples = next
      figure.hidden = isEmpty(next, lines, marks)
      chosen =
        time === undefined
          ? undefined
          : Math.max(
              0,
              samples.at.findIndex((at) => at >= time),
            )
      draw()
    },
  }
}

/** Nothing of the kind happens here, such as commands to a store in memory. */
function isEmpty(samples, lines, marks) {
  const isQuiet = marks !== undefined && samples[marks.key].every((count) => count === 0)
  return isQuiet && lines.every(({ key }) => samples[key].every((value) => value === null))
}

/** A line through the values, broken where there are none; a lone value is a short stroke. */
function pathOf(values, x, y) {
  let path = ''
  let isOpen = false
  values.forEach((value, at) => {
    if (value === null) {
      isOpen = false
      return
    }
    const isLone = !isOpen && (values[at + 1] ?? null) === null
    path += `${isOpen ? 'L' : 'M'}${x(at).toFixed(1)} ${y(value).toFixed(1)}${isLone ? 'h-2' : ''}`
    isOpen = true
  })
  return path
}

/** The circuits that were open in the last half hour, a row for each. */
export function createCircuits() {
  const rows = el('ul', { class: 'circuits' })
  const figure = el('figure', {}, el('figcaption', {}, 'Circuits that were open'), rows)
  const MOST = 8

  return {
    figure,
    update({ at, open }) {
      const names = [...new Set(open.flat())]
      if (names.length === 0) {
        rows.replaceChildren(
          el(
            'li',
            { class: 'empty' },
            `None in the last ${duration(Math.max(1, Math.round((at.at(-1) - at[0]) / 1000)))}.`,
          ),
        )
        return
      }
      const shown = names.slice(0, MOST).map((name) => {
        const isNow = open.at(-1).includes(name)
        const width = WIDTH / open.length
        const path = open
          .map((list, index) => (list.includes(name) ? `M${index * width} 0h${width}v12h${-width}z` : ''))
          .join('')
        const bar = svg(
          'svg',
          { viewBox: `0 0 ${WIDTH} 12`, preserveAspectRatio: 'none', 'aria-hidden': 'true' },
          svg('path', { class: 'circuits-bar', d: path }),
        )
        return el(
          'li',
          {},
          el('span', { class: isNow ? 'state down' : 'state up' }, isNow ? 'open now' : 'closed again'),
          ` ${name}`,
          bar,
        )
      })
      const more = names.length - shown.length
      rows.replaceChildren(...shown, ...(more > 0 ? [el('li', { class: 'empty' }, `and ${more} more`)] : []))
    },
  }
}

/** The minutes of one route as bars: requests, and the server errors among them. */
export function sparkline({ requests, errors }) {
  const most = Math.max(1, ...requests)
  const bar = (values, look) => {
    const path = values.map((value, at) => {
      const height = value === 0 ? 0 : Math.max(1, (value / most) * 20)
      return height === 0 ? '' : `M${(30 - values.length + at) * 4} 20v${-height}h3v${height}z`
    })
    return svg('path', { class: look, d: path.join('') })
  }
  return svg(
    'svg',
    { class: 'spark', viewBox: '0 0 120 20', 'aria-hidden': 'true' },
    bar(requests, 'main'),
    bar(errors, 'bad'),
  )
}
