import { CHARTS, createChart, createCircuits } from './charts.js'
import { byId, setText } from './dom.js'
import { startExplaining } from './explain.js'
import { duration } from './format.js'
import { showStatus } from './sections.js'

const EVERY_MS = 5_000
const PATIENCE_MS = 15_000
const ROUTES_ON_A_PAGE = 25

const charts = CHARTS.map((chart) => createChart(chart))
const circuits = createCircuits()
byId('charts').append(...charts.map(({ figure }) => figure), circuits.figure)

let offset = 0
let isPaused = false
let answeredAt
let timer
let asked = 0

/** Asks once, then again and again: not while the page is paused or hidden. */
async function refresh() {
  clearTimeout(timer)
  asked += 1
  const mine = asked
  try {
    const answer = await fetch(`api/status?${routeQuery()}`, {
      cache: 'no-store',
      signal: AbortSignal.timeout(PATIENCE_MS),
    })
    if (!answer.ok) throw new Error(`status ${answer.status}`)
    const status = await answer.json()
    // An answer to an older question, or one that comes after the pause, is not shown.
    if (mine !== asked) return
    show(status)
  } catch (error) {
    if (mine === asked) showStale(error)
  }
  if (mine === asked && !isPaused && !document.hidden) timer = setTimeout(refresh, EVERY_MS)
}

function routeQuery() {
  const wish = {
    q: byId('route-text').value.trim(),
    state: byId('route-state').value,
    sort: byId('route-sort').value,
  }
  return new URLSearchParams({ ...wish, offset, limit: ROUTES_ON_A_PAGE })
}

function show(status) {
  answeredAt = Date.now()
  byId('stale').hidden = true
  document.body.classList.remove('is-stale')
  // Fewer routes match than before, after a reload or a filter.
  if (status.routes.items.length === 0 && offset > 0) {
    offset = 0
    void refresh()
    return
  }
  showStatus(status)
  for (const chart of charts) chart.update(status.traffic.samples)
  circuits.update(status.traffic.samples)
  setText(
    byId('freshness'),
    isPaused
      ? `Paused at ${status.time.slice(11, 19)} UTC`
      : `As of ${status.time.slice(11, 19)} UTC, every 5 s`,
  )
}

function showStale(error) {
  document.body.classList.add('is-stale')
  const age =
    answeredAt === undefined
      ? ''
      : ` What is shown is ${duration(Math.round((Date.now() - answeredAt) / 1000))} old.`
  byId('stale').hidden = false
  setText(byId('stale'), `This replica does not answer (${error.message}).${age}`)
}

function showFirstRoutes() {
  offset = 0
  void refresh()
}

let typing
byId('route-text').addEventListener('input', () => {
  clearTimeout(typing)
  typing = setTimeout(showFirstRoutes, 200)
})
for (const id of ['route-state', 'route-sort']) byId(id).addEventListener('change', showFirstRoutes)
byId('route-before').addEventListener('click', () => {
  offset = Math.max(0, offset - ROUTES_ON_A_PAGE)
  void refresh()
})
byId('route-after').addEventListener('click', () => {
  offset += ROUTES_ON_A_PAGE
  void refresh()
})
byId('pause').addEventListener('click', () => {
  isPaused = !isPaused
  byId('pause').setAttribute('aria-pressed', String(isPaused))
  if (!isPaused) void refresh()
  else {
    asked += 1
    clearTimeout(timer)
    setText(byId('freshness'), `Paused. ${byId('freshness').textContent.replace(', every 5 s', '')}`)
  }
})
document.addEventListener('visibilitychange', () => {
  if (!document.hidden && !isPaused) void refresh()
})

// Every part that scrolls can be reached by keyboard.
for (const region of document.querySelectorAll('.scroll')) region.tabIndex = 0

startExplaining()
void refresh()
