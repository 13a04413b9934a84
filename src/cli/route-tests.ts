import type { Config, RouteTest } from '../config/config.ts'
import { BffError } from '../errors.ts'
import { compileRoutes, type MatchRoute } from '../proxy/route-table.ts'

/** One expectation of the config file's `tests:` that its routes do not meet. */
export type RouteTestFailure = {
  /** The expectation in the file, e.g. `['tests', 0, 'expect', 'route']`. */
  readonly path: readonly (string | number)[]
  /** What happens instead. */
  readonly message: string
}

/** What becomes of one request: refused with a code, or sent to an upstream. */
type Outcome =
  | { readonly code: string }
  | { readonly route: string; readonly upstream: string; readonly resource: string | null }

/** Runs the config file's own tests against its routes, without any network; empty when all pass. */
export function runRouteTests(config: Config): RouteTestFailure[] {
  const match = compileRoutes(config.routes, config.basePath)
  return config.tests.flatMap((test, index) => {
    const path = ['tests', index]
    if (isOwnEndpoint(test.target, config.basePath)) {
      const message = `${test.target} is below basePath ${config.basePath}: Cloakroom answers it itself`
      return [{ path: [...path, 'request'], message }]
    }
    return compare(test, outcomeOf(test, match), [...path, 'expect'])
  })
}

function isOwnEndpoint(target: string, basePath: string): boolean {
  const path = target.replace(/\?.*$/s, '')
  return path === basePath || path.startsWith(`${basePath}/`)
}

function outcomeOf({ method, target }: RouteTest, match: MatchRoute): Outcome {
  try {
    const matched = match(method, target)
    if (!matched) return { code: 'route_not_found' }
    const { id, upstream, resource = null } = matched.route
    return { route: id, upstream: `${upstream}${matched.target}`, resource }
  } catch (error) {
    if (error instanceof BffError) return { code: error.code }
    throw error
  }
}

function compare(test: RouteTest, outcome: Outcome, path: RouteTestFailure['path']): RouteTestFailure[] {
  const { method, target, expect } = test
  const request = `${method} ${target}`
  if ('code' in outcome) {
    if (expect.code === outcome.code) return []
    const field = (['code', 'route', 'upstream', 'resource'] as const).find(
      (name) => expect[name] !== undefined,
    )
    return [{ path: [...path, field!], message: `${request} is refused with ${outcome.code}` }]
  }
  if (expect.code !== undefined) {
    const message = `${request} is not refused: it goes to route "${outcome.route}" as ${outcome.upstream}`
    return [{ path: [...path, 'code'], message }]
  }
  const wanted = { ...expect, upstream: expect.upstream && withNormalOrigin(expect.upstream) }
  return (['route', 'upstream', 'resource'] as const)
    .filter((name) => wanted[name] !== undefined && wanted[name] !== outcome[name])
    .map((name) => ({ path: [...path, name], message: difference(name, request, outcome[name]) }))
}

function difference(
  field: 'route' | 'upstream' | 'resource',
  request: string,
  actual: string | null,
): string {
  if (field === 'resource' && actual === null) return `${request} is sent without a token`
  const verbs = { route: 'goes to route', upstream: 'becomes', resource: 'is sent with a token for' }
  return `${request} ${verbs[field]} ${field === 'upstream' ? actual : `"${actual}"`}`
}

/** `http://orders:80/x` and `http://orders/x` are one URL; only the origin is normalised, the target stays as expected. */
function withNormalOrigin(url: string): string {
  const [, origin = '', target = ''] = /^(\w+:\/\/[^/?#]+)(.*)$/s.exec(url) ?? []
  return URL.canParse(origin) ? `${new URL(origin).origin}${target || '/'}` : url
}
