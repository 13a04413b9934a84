import { sparkline } from './charts.js'
import { byId, el, fill, fillPairs, fillTable, setText } from './dom.js'
import { causeOf, clock, duration, ms, number, percent } from './format.js'

/** Draws everything that is no chart from one status document. */
export function showStatus(status) {
  showHeader(status)
  showProblems(status.problems)
  showTiles(status)
  showRoutes(status.routes)
  showEndpoints(status.endpoints)
  showResources(status.resources)
  showProvider(status.provider, status)
  showStore(status.store, status.windowSeconds)
  showConfig(status.config)
  showRefusals(status.refusals)
  showWarnings(status.warnings)
}

function showHeader({ version, ready, draining, uptimeSeconds, config, process }) {
  setText(byId('version'), version)
  const standing = draining ? 'draining' : ready ? 'ready' : 'not ready'
  fillPairs('facts', [
    ['State', stateOf(standing)],
    ['Replica', process.machine],
    ['Up for', duration(uptimeSeconds)],
    ['Configuration', config.hash],
    ['Memory', memoryOf(process)],
  ])
}

function memoryOf({ rssBytes, heapUsedBytes, heapLimitBytes }) {
  const [rss, used, limit] = [rssBytes, heapUsedBytes, heapLimitBytes].map((bytes) =>
    Math.round(bytes / 1_048_576),
  )
  return `${rss} MiB, heap ${used} of ${limit}`
}

/** A state with a sign of its own, so that it needs no colour. */
function stateOf(state) {
  return el('span', { class: `state ${LOOKS[state] ?? ''}` }, state)
}

const LOOKS = {
  ...{ ready: 'up', ok: 'up', up: 'up', closed: 'up', applied: 'up', current: 'up' },
  ...{ down: 'down', open: 'down', unavailable: 'down', 'not ready': 'down', error: 'down' },
  ...{ failing: 'failing', 'half-open': 'failing', refused: 'failing', draining: 'failing', warn: 'failing' },
  ...{ 'needs a restart': 'failing', idle: 'idle', unknown: 'idle' },
}

function setState(id, state) {
  const element = byId(id)
  setText(element, state)
  element.className = `state ${LOOKS[state] ?? ''}`
}

function showProblems(problems) {
  const errors = problems.filter(({ severity }) => severity === 'error').length
  const warnings = problems.length - errors
  const words = [
    errors && `${errors} error${errors > 1 ? 's' : ''}`,
    warnings && `${warnings} warning${warnings > 1 ? 's' : ''}`,
  ]
  const verdict = words.filter(Boolean).join(' and ')
  setText(byId('verdict'), verdict || 'No problem known to this replica.')
  byId('verdict').className = errors ? 'down' : warnings ? 'failing' : 'up'
  document.title = `${problems.length > 0 ? `(${problems.length}) ` : ''}Cloakroom console`
  fill(
    byId('problem-list'),
    problems,
    ({ subject }, index) => `${index} ${subject}`,
    ({ severity, subject, message, action, since }) =>
      el(
        'li',
        { class: severity },
        el('span', { class: `state ${severity === 'error' ? 'down' : 'failing'}` }, severity),
        el('strong', {}, subject),
        el('span', { class: 'message' }, message),
        el('span', { class: 'action' }, action),
        el('time', { datetime: since }, `since ${clock(since)} UTC`),
      ),
  )
}

function showTiles({ traffic: { current, sessions, inFlight }, resources }) {
  const sum = (key) => resources.reduce((total, { recent }) => total + recent[key], 0)
  const tiles = [
    ['Requests/s', number(current.requestsPerSecond), ''],
    ['Refused', number(current.refused), ''],
    [
      'Errors (5xx)',
      `${number(current.errors)} · ${percent(current.errorShare)}`,
      current.errors > 0 ? 'bad' : '',
    ],
    ['p50', ms(current.p50Ms), ''],
    ['p99', ms(current.p99Ms), ''],
    [
      'Tokens, 5 min',
      sum('failed') > 0
        ? `${number(sum('renewed'))}, ${number(sum('failed'))} failed`
        : number(sum('renewed')),
      sum('failed') > 0 ? 'bad' : '',
    ],
    [
      'In flight',
      inFlight.streams > 0
        ? `${number(inFlight.requests)} + ${number(inFlight.streams)} streams`
        : number(inFlight.requests),
      '',
    ],
    ['Sign-ins / ends', `${number(sessions.started)} / ${number(sessions.ended)}`, ''],
  ]
  fill(
    byId('tiles'),
    tiles,
    ([name]) => name,
    ([name, value, look]) => el('div', { class: look || undefined }, el('dt', {}, name), el('dd', {}, value)),
  )
}

const numeric = (text, look = '') => el('td', { class: `num ${look}` }, text)

function showRoutes({ items, total, matching, offset, states }) {
  const counts = ['down', 'failing', 'up', 'idle']
    .filter((state) => states[state] > 0)
    .map((state) => `${states[state]} ${state}`)
  setText(byId('routes-count'), `${total}: ${counts.join(', ')}`)
  fillTable('routes', items, {
    keyOf: ({ id, path }) => `${id} ${path}`,
    empty: 'No route matches the filter.',
    cellsOf: (route) => [
      el('td', {}, stateOf(route.state), probeOf(route), noAnswerOf(route)),
      el(
        'th',
        { scope: 'row' },
        el('span', { class: 'name' }, route.id),
        el('small', {}, detailsOf(route)),
        el('small', { class: 'narrow' }, route.upstream),
      ),
      el('td', { class: 'wide' }, route.upstream),
      el('td', { class: 'wide' }, route.resource ?? '–'),
      numeric(number(route.requestsPerSecond)),
      numeric(number(route.refused), 'wide'),
      numeric(
        route.errors === 0 ? '0' : `${number(route.errors)} · ${percent(route.errorShare)}`,
        route.errors > 0 ? 'bad' : '',
      ),
      numeric(ms(route.p50Ms), 'wide'),
      el('td', { class: 'num' }, ms(route.p99Ms), upstreamTime(route)),
      el('td', { class: 'wide' }, route.minutes ? sparkline(route.minutes) : ''),
    ],
  })
  const last = offset + items.length
  setText(byId('route-range'), matching === 0 ? 'none' : `${offset + 1} to ${last} of ${matching}`)
  byId('route-before').disabled = offset === 0
  byId('route-after').disabled = last >= matching
}

function probeOf({ circuit, probeInSeconds }) {
  if (circuit === 'closed') return undefined
  return el(
    'small',
    {},
    probeInSeconds > 0 ? `circuit open, next probe in ${probeInSeconds} s` : 'the next request is a probe',
  )
}

function noAnswerOf({ noAnswer }) {
  return noAnswer && el('small', {}, `no answer: ${countsOf(noAnswer)}`)
}

/** Tells whose the time is. */
function upstreamTime({ upstreamP99Ms }) {
  return upstreamP99Ms === null ? undefined : el('small', { class: 'wide' }, `upstream ${ms(upstreamP99Ms)}`)
}

function detailsOf({ id, path, auth, methods, websocket }) {
  return [
    path === id ? '' : path,
    auth === 'required' ? '' : auth,
    methods?.join(' '),
    websocket ? 'WebSocket' : '',
  ]
    .filter(Boolean)
    .join(' · ')
}

function showEndpoints(endpoints) {
  fillTable('endpoints', endpoints, {
    keyOf: ({ id }) => id,
    empty: 'No requests in the last minutes.',
    cellsOf: ({ id, requests, refused, errors, p99Ms }) => [
      el('th', { scope: 'row' }, id === 'none' ? 'none (no route, or refused before)' : id),
      numeric(number(requests)),
      numeric(number(refused)),
      numeric(number(errors), errors > 0 ? 'bad' : ''),
      numeric(ms(p99Ms)),
    ],
  })
}

function showResources(resources) {
  fillTable('resources', resources, {
    keyOf: ({ name }) => name,
    empty: 'No resource is configured, so no route sends a token.',
    cellsOf: ({
      name,
      grant,
      resource,
      scopes,
      audience,
      routes,
      recent,
      outcomes,
      lifetimeSeconds,
      lastError,
    }) => [
      el(
        'th',
        { scope: 'row' },
        el('span', { class: 'name' }, name),
        el(
          'small',
          {},
          [
            grant === 'refresh_token' ? '' : grant,
            resource,
            scopes.join(' '),
            audience === resource ? '' : audience,
          ]
            .filter(Boolean)
            .join(' · '),
        ),
      ),
      el('td', { class: 'wide' }, number(routes)),
      numeric(number(recent.renewed)),
      numeric(number(recent.failed), recent.failed > 0 ? 'bad' : ''),
      el('td', { class: 'wide' }, countsOf(outcomes) || '–'),
      numeric(lifetimeSeconds === undefined ? '–' : duration(lifetimeSeconds), 'wide'),
      el(
        'td',
        {},
        lastError
          ? `${clock(lastError.at)} ${lastError.code ?? ''} ${causeOf({ ...lastError, resource: undefined })}`
          : '–',
      ),
    ],
  })
}

const countsOf = (counts) =>
  Object.entries(counts)
    .filter(([, count]) => count > 0)
    .map(([name, count]) => `${name} ${number(count)}`)
    .join(', ')

function callsOf({ requests, errors, p50Ms, p99Ms }, seconds) {
  if (requests === 0) return `none in ${duration(seconds)}`
  return `${number(requests)} in ${duration(seconds)}, ${number(errors)} failed; p50 ${ms(p50Ms)}, p99 ${ms(p99Ms)}`
}

function lastErrorOf(trouble) {
  return (
    trouble && `${clock(trouble.at)} UTC: ${[trouble.code, causeOf(trouble)].filter(Boolean).join(' · ')}`
  )
}

function showProvider(provider, { windowSeconds, clientCertificates, traffic: { signIns } }) {
  setState('provider-state', provider.state)
  const { circuits, keys, configFaults, discoveryError: error } = provider
  fillPairs('provider', [
    ['Issuer', provider.issuer],
    ['Client', `${provider.clientId}, ${provider.clientAuth}`],
    ['Resource dialect', provider.resourceDialect],
    [
      'Discovery',
      provider.discoveryAgeSeconds === null ? 'not yet' : `${duration(provider.discoveryAgeSeconds)} ago`,
    ],
    ['Discovery failed', error && [error.message, error.code, error.cause].filter(Boolean).join(' · ')],
    ['Signing keys', keys ? `${keys.count}, read ${duration(keys.ageSeconds)} ago` : 'not needed yet'],
    ['Clock', clockOf(provider)],
    ['Calls', callsOf(provider.calls, windowSeconds)],
    [
      'In flight',
      provider.waiting > 0 ? `${provider.inFlight}, and ${provider.waiting} wait` : String(provider.inFlight),
    ],
    ...circuitsOf(circuits),
    ['Rejects', configFaults.map(({ resource, error: word }) => `${resource}: ${word}`).join(', ')],
    ...clientCertificates.map(({ shownTo, endsAt }) => [
      `Certificate for ${shownTo}`,
      `ends ${endsAt.slice(0, 10)}`,
    ]),
    ['Sign-ins', countsOf(signIns) || 'none since the start'],
    ['Last error', lastErrorOf(provider.lastError)],
  ])
}

function clockOf({ clockOffsetSeconds: seconds }) {
  if (seconds === null) return 'no two answers had the time yet'
  if (Math.abs(seconds) <= 1) return "as the provider's"
  return `${duration(Math.abs(seconds))} ${seconds > 0 ? 'ahead of' : 'behind'} the provider's`
}

const CALLS = { tokens: 'refreshes', code: 'code grants', par: 'pushed requests' }

function circuitsOf(circuits) {
  const open = Object.entries(circuits).filter(([, state]) => state !== 'closed')
  if (open.length === 0) return [['Circuits', stateOf('closed')]]
  return open.map(([call, state]) => [`Circuit, ${CALLS[call] ?? call}`, stateOf(state)])
}

function showStore(store, windowSeconds) {
  setState('store-state', store.state)
  fillPairs('store', [
    ['Kind', store.type === 'memory' ? 'memory: this process alone, lost at its end' : store.type],
    ['Address', store.address && `${store.address}${store.tls ? ', TLS' : ''}`],
    ['Mode', store.mode === 'single' ? '' : store.mode],
    ['Key prefix', store.keyPrefix],
    ['Durability', store.durability === 'none' ? '' : store.durability],
    ['Answered', store.state === 'ok' ? `in ${ms(store.answeredInMs)}` : 'no'],
    ['Why', store.reason],
    ['Commands', store.type === 'memory' ? '' : callsOf(store.commands, windowSeconds)],
    [
      'Hears other replicas',
      store.type === 'memory'
        ? ''
        : store.hearsOtherReplicas
          ? 'yes'
          : 'no: reads the store for each request',
    ],
    ['Last error', lastErrorOf(store.lastError)],
  ])
}

function showConfig({ hash, loadedAt, ageSeconds, restartRequired, lastReload }) {
  const isRefused = lastReload?.outcome === 'refused'
  setState('config-state', isRefused ? 'refused' : restartRequired.length > 0 ? 'needs a restart' : 'current')
  const outcome = isRefused
    ? `refused, ${lastReload.problemCount} problem${lastReload.problemCount === 1 ? '' : 's'}; the one before runs on`
    : 'applied'
  fillPairs('config', [
    ['Hash', hash],
    ['In use since', `${loadedAt.slice(0, 10)} ${clock(loadedAt)} UTC, ${duration(ageSeconds)}`],
    ['Last reload', lastReload ? `${clock(lastReload.at)} UTC: ${outcome}` : 'none since the start'],
    [
      'Failed',
      lastReload?.error && [lastReload.error.message, lastReload.error.code].filter(Boolean).join(' · '),
    ],
    ['Restart needed for', restartRequired.join(', ')],
  ])
  const problems = lastReload?.problems ?? []
  byId('reload-problems').hidden = problems.length === 0
  fillTable('reload-problems', problems, {
    empty: '',
    cellsOf: ({ line, path, message }) => [
      numeric(String(line)),
      el('td', {}, path || '–'),
      el('td', {}, message),
    ],
  })
}

function showRefusals({ total, last, causes }) {
  setText(byId('refusals-total'), `${number(total)} since the start`)
  fillTable('causes', causes, {
    keyOf: ({ code, reason, route, resource, oauthError }) =>
      JSON.stringify([code, reason, route, resource, oauthError]),
    empty: 'No request was refused.',
    cellsOf: (cause) => [
      numeric(number(cause.count)),
      el('td', {}, codeOf(cause)),
      el('td', {}, cause.route ?? '–'),
      el('td', {}, causeOf(cause) || '–'),
      el('td', { class: 'wide' }, clock(cause.firstAt)),
      el('td', {}, clock(cause.at)),
    ],
  })
  fillTable('refusals', last, {
    keyOf: ({ request_id, at }) => `${request_id} ${at}`,
    empty: 'No request was refused.',
    cellsOf: (refusal) => [
      el('td', {}, clock(refusal.at)),
      el('td', {}, codeOf(refusal)),
      el('td', {}, refusal.route ?? '–'),
      el('td', {}, causeOf(refusal) || '–'),
      el('td', { class: 'id' }, refusal.request_id ?? '–'),
    ],
  })
}

const codeOf = ({ status, code }) => el('span', {}, `${status} `, el('span', { class: 'name' }, code))

function showWarnings(warnings) {
  fillTable('warnings', warnings, {
    keyOf: ({ message }) => message,
    empty: 'None.',
    cellsOf: (warning) => {
      const { at, count, level, message, code, route, request_id } = warning
      const more = [code, route && `route ${route}`, causeOf(warning), request_id && `request ${request_id}`]
      return [
        el('td', {}, clock(at)),
        numeric(number(count)),
        el('td', {}, stateOf(level)),
        el('td', {}, message),
        el('td', {}, more.filter(Boolean).join(' · ') || '–'),
      ]
    },
  })
}
