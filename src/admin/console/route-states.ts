import type { RouteConfig } from '../../config/config.ts'
import { BffError } from '../../errors.ts'
import { NOTHING, quantileMs, type Reading, rounded, type Totals } from './readings.ts'
import type { RouteHistory, Traffic, Window } from './traffic.ts'

/** `down`: its circuit is open. `failing`: 1 % of the last requests or more ended in a server error. `idle`: no request. */
export type RouteState = 'down' | 'failing' | 'up' | 'idle'

/** What an operator is shown of one route. */
export type RouteStatus = {
  readonly id: string
  readonly path: string
  readonly upstream: string
  readonly auth: RouteConfig['auth']
  readonly methods?: readonly string[]
  readonly resource?: string
  readonly websocket: boolean
  readonly state: RouteState
  /** Of its upstream; `half-open`: the next request is a probe. */
  readonly circuit: 'closed' | 'half-open' | 'open'
  readonly probeInSeconds?: number
  /** Those of the errors that are the upstream's: its own 5xx, or no answer of it. */
  readonly upstreamErrors: number
  /** From the request to the upstream to the head of its answer. */
  readonly upstreamP99Ms: number | null
  /** Why the upstream gave no answer in the window, or no whole one, by reason. */
  readonly noAnswer?: Readonly<Record<string, number>>
  /** Each minute of the last half hour; only in a page of routes. */
  readonly minutes?: RouteHistory
} & Figures

/** What came in the window. */
export type Figures = {
  readonly requestsPerSecond: number
  readonly requests: number
  readonly refused: number
  readonly errors: number
  /** From 0 to 1. */
  readonly errorShare: number
  readonly p50Ms: number | null
  readonly p99Ms: number | null
}

/** Which routes are wanted, and in which order. */
export type RouteQuery = {
  /** Part of the id, path, upstream or resource, without regard to case. */
  readonly text: string
  readonly state: RouteState | 'trouble' | undefined
  readonly sort: RouteSort
  readonly offset: number
  readonly limit: number | undefined
}

const STATES = ['down', 'failing', 'up', 'idle'] as const
const SORTS = ['state', 'config', 'rate', 'errors', 'p99'] as const
type RouteSort = (typeof SORTS)[number]
const MOST_ROUTES = 200

/** Reads from a query string which routes are asked for. @throws BffError bad_request, which names the parameter. */
export function readRouteQuery(query: URLSearchParams): RouteQuery {
  const oneOf = <Value extends string>(name: string, values: readonly Value[]): Value | undefined => {
    const written = query.get(name)
    if (written === null || written === '') return undefined
    const value = values.find((one) => one === written)
    if (value === undefined) throw new BffError('bad_request', `${name} must be one of ${values.join(', ')}`)
    return value
  }
  const numberOf = (name: string, [least, most]: readonly [number, number]): number | undefined => {
    const written = query.get(name)
    if (written === null || written === '') return undefined
    const value = /^\d{1,7}$/.test(written) ? Number(written) : -1
    if (value < least || value > most)
      throw new BffError('bad_request', `${name} must be a whole number from ${least} to ${most}`)
    return value
  }
  return {
    text: (query.get('q') ?? '').trim().toLowerCase(),
    state: oneOf('state', [...STATES, 'trouble']),
    sort: oneOf('sort', SORTS) ?? 'state',
    offset: numberOf('offset', [0, 1_000_000]) ?? 0,
    limit: numberOf('limit', [1, MOST_ROUTES]),
  }
}

export type RouteFacts = {
  readonly routes: readonly RouteConfig[]
  readonly openCircuits: ReadonlyMap<string, number>
  /** For the figures, and for the state. */
  readonly window: Window
  readonly recent: Window
}

/** The state of every route, in the order of the configuration. */
export function routeStates({ routes, openCircuits, window, recent }: RouteFacts): RouteStatus[] {
  return routes.map(({ id, path, upstream, auth, methods, resource, websocket }) => {
    const probeInMs = openCircuits.get(id)
    const isOpen = probeInMs !== undefined
    const totals = window.reading.routes.get(id) ?? NOTHING
    const noAnswer = window.reading.upstreamErrors.get(id) ?? {}
    return {
      ...{ id, path, upstream, auth, websocket },
      ...(methods && { methods }),
      ...(resource === undefined ? {} : { resource }),
      state: isOpen ? 'down' : stateOf(recent.reading.routes.get(id) ?? NOTHING),
      circuit: isOpen ? (probeInMs > 0 ? 'open' : 'half-open') : 'closed',
      ...(isOpen ? { probeInSeconds: Math.ceil(probeInMs / 1000) } : {}),
      ...(Object.keys(noAnswer).length === 0 ? {} : { noAnswer }),
      upstreamErrors: totals.upstreamFailed,
      upstreamP99Ms: quantileMs(window.reading.upstreams.get(id) ?? NOTHING, 0.99),
      ...figuresOf(totals, window.seconds),
    }
  })
}

const FAILING_SHARE = 0.01

function stateOf({ count, failed }: Totals): RouteState {
  if (count === 0) return 'idle'
  return failed / count >= FAILING_SHARE ? 'failing' : 'up'
}

/** What of a window is shown. */
export function figuresOf(totals: Totals, seconds: number): Figures {
  const { count, failed, refused } = totals
  return {
    requestsPerSecond: rounded(count / seconds),
    ...{ requests: count, refused, errors: failed },
    errorShare: count === 0 ? 0 : rounded(failed / count),
    p50Ms: quantileMs(totals, 0.5),
    p99Ms: quantileMs(totals, 0.99),
  }
}

/** The routes that are wanted, with how many there are. */
export function pageOfRoutes(all: readonly RouteStatus[], query: RouteQuery, traffic: Traffic) {
  const { text, state, offset, limit } = query
  const found = all.filter(
    (route) =>
      (state === undefined || route.state === state || (state === 'trouble' && isInTrouble(route))) &&
      [route.id, route.path, route.upstream, route.resource].some((name) =>
        name?.toLowerCase().includes(text),
      ),
  )
  const items = sorted(found, query.sort).slice(offset, limit === undefined ? undefined : offset + limit)
  const count = (wanted: RouteState) => all.filter((route) => route.state === wanted).length
  return {
    total: all.length,
    states: { down: count('down'), failing: count('failing'), up: count('up'), idle: count('idle') },
    matching: found.length,
    offset,
    items: limit === undefined ? items : items.map((one) => ({ ...one, minutes: traffic.historyOf(one.id) })),
  }
}

function isInTrouble({ state }: RouteStatus): boolean {
  return state === 'down' || state === 'failing'
}

function sorted(routes: readonly RouteStatus[], sort: RouteSort): readonly RouteStatus[] {
  const weightOf: Readonly<Record<RouteSort, ((route: RouteStatus) => number) | undefined>> = {
    config: undefined,
    // Those in trouble first; the rest stay where the operator wrote them, and do not jump about.
    state: ({ state }) => (state === 'down' ? 2 : state === 'failing' ? 1 : 0),
    rate: ({ requestsPerSecond }) => requestsPerSecond,
    errors: ({ errors }) => errors,
    p99: ({ p99Ms }) => p99Ms ?? -1,
  }
  const weight = weightOf[sort]
  return weight ? routes.toSorted((a, b) => weight(b) - weight(a)) : routes
}

/** Cloakroom's own endpoints, and what belonged to no route. */
export function endpointFigures(reading: Reading, routes: readonly RouteConfig[], seconds: number) {
  const configured = new Set(routes.map(({ id }) => id))
  return [...reading.routes]
    .filter(([id, { count }]) => !configured.has(id) && count > 0)
    .map(([id, totals]) => ({ id, ...figuresOf(totals, seconds) }))
    .sort((a, b) => b.requests - a.requests)
    .slice(0, MOST_ROUTES)
}
