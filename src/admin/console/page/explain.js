import { byId, el } from './dom.js'
import { duration } from './format.js'

/** Makes the box that says what becomes of a request. */
export function startExplaining() {
  const form = byId('explain')
  let asked = 0

  form.addEventListener('submit', async (event) => {
    event.preventDefault()
    asked += 1
    const mine = asked
    const query = new URLSearchParams({
      method: byId('explain-method').value,
      url: byId('explain-url').value.trim(),
    })
    const shown = await explanationOf(query)
    if (mine === asked) byId('explanation').replaceChildren(shown)
  })
}

async function explanationOf(query) {
  try {
    const answer = await fetch(`api/explain?${query}`, { cache: 'no-store' })
    const body = await answer.json()
    return answer.ok ? shownAs(body) : el('p', { class: 'down' }, body.detail ?? `status ${answer.status}`)
  } catch {
    return el('p', { class: 'down' }, 'This replica does not answer.')
  }
}

function shownAs(explanation) {
  const { kind, request, route } = explanation
  if (kind === 'refused') {
    const { status, code, detail, hint } = explanation
    return list(
      [
        ['Asked', `${request.method} ${request.target}`],
        ['Refused', `${status} ${code}: ${detail}`],
        ['', hint],
      ],
      'down',
    )
  }
  if (kind === 'endpoint') {
    return list([
      ['Asked', `${request.method} ${request.target}`],
      ['Answered by', `Cloakroom itself: ${explanation.endpoint}`],
    ])
  }
  const { timeout, csrf } = route
  const time = (value) => (value >= 1000 ? duration(value / 1000) : `${value} ms`)
  return list([
    ['Asked', `${request.method} ${request.target}`],
    ['Route', `${route.id} (routes[${route.index}], path ${route.path})`],
    ['Upstream', route.upstream],
    ['Auth', `${route.auth}; signed out: ${route.signedOut}`],
    ['Resource', route.resource ?? 'none: no token is sent'],
    ...route.tokenRequests.map((one) => ['Token request', lines(tokenRequest(one))]),
    ['CSRF', lines([csrf.rule, ...csrf.accepts])],
    ['Requires', route.require && JSON.stringify(route.require)],
    ['Bearer', route.bearer && JSON.stringify(route.bearer)],
    ['Methods', route.methods?.join(', ')],
    [
      'Timeouts',
      `connect ${time(timeout.connectMs)}, response ${time(timeout.responseMs)}, idle ${time(timeout.idleMs)}`,
    ],
    ['Longest body', route.maxBody && `${route.maxBody} bytes`],
    ['WebSocket', route.websocket ? 'yes' : 'no'],
    ['Adds', lines(route.headers.map(([name, value]) => `${name}: ${value}`))],
  ])
}

function tokenRequest({ resource, endpoint, parameters, clientAuth }) {
  const pairs = (record) => Object.entries(record).map(([name, value]) => `${name}=${value}`)
  return [
    `for ${resource}: POST ${endpoint ?? 'the token endpoint that discovery names'}`,
    ...pairs(parameters),
    `client authentication ${clientAuth.method}`,
    ...pairs(clientAuth.proof),
  ]
}

function lines(texts) {
  return el('span', {}, ...texts.map((text) => el('span', { class: 'row' }, text)))
}

function list(pairs, look) {
  const shown = pairs.filter(([, value]) => value !== undefined && value !== false)
  return el(
    'dl',
    { class: `pairs answer ${look ?? ''}` },
    ...shown.map(([name, value]) => el('div', {}, el('dt', {}, name), el('dd', {}, value))),
  )
}
