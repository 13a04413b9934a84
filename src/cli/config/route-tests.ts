import type { Config, RouteConfig, RouteTest } from '../../config/config.ts'
import { BffError } from '../../errors.ts'
import { apiScopes, createTokenScopes } from '../../oidc/grants/scopes.ts'
import { unmetRule } from '../../proxy/access-rules.ts'
import { compileRoutes, type MatchRoute } from '../../proxy/route-table.ts'

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
    return compare(test, outcomeOf(test, match, config), [...path, 'expect'])
  })
}

function isOwnEndpoint(target: string, basePath: string): boolean {
  const path = target.replace(/\?.*$/s, '')
  return path === basePath || path.startsWith(`${basePath}/`)
}

function outcomeOf({ method, target, as }: RouteTest, match: MatchRoute, config: Config): Outcome {
  try {
    const matched = match(method, target)
    if (!matched) return { code: 'route_not_found' }
    const { id, upstream, auth, resource = null } = matched.route
    const code = as === undefined || auth === 'anonymous' ? undefined : refusalFor(as, matched.route, config)
    if (code !== undefined) return { code }
    return {
      route: id,
      upstream: `${upstream}${matched.target}`,
      resource: as === 'nobody' ? null : resource,
    }
  } catch (error) {
    if (error instanceof BffError) return { code: error.code }
    throw error
  }
}

/** Seconds since 1970 when the tests run: only ages matter. */
const NOW = 2_000_000_000

/**
 * The code with which the route refuses who asks; undefined when it does not. An `auth_time` below 0 is so many seconds ago.
 * The scopes are those that `as` names, or else all that are asked for: what the provider grants is not known here.
 */
function refusalFor(
  as: NonNullable<RouteTest['as']>,
  { auth, require: rules, resource = '' }: RouteConfig,
  { resources }: Config,
): string | undefined {
  if (as === 'nobody') return auth === 'required' ? 'session_required' : undefined
  if (!rules) return undefined
  const { auth_time: authTime, scope } = as
  const isAge = typeof authTime === 'number' && authTime <= 0
  const claims = isAge ? { ...as, auth_time: NOW + authTime } : as
  const asked = resources[resource]?.scopes ?? []
  const isKnown = scope !== undefined || (apiScopes(asked).length > 0 && !asked.some(isDefaultScope))
  const text = scope === undefined ? asked.join(' ') : String(scope)
  const scopes = () => createTokenScopes(resources)({ value: '', scope: text }, resource)
  const judged = isKnown ? rules : { ...rules, scopes: undefined }
  const unmet = unmetRule(judged, { claims, scopes }, { now: NOW * 1000, clockToleranceMs: 0 })
  if (!unmet) return undefined
  return unmet.reason === 'insufficient_user_authentication' ? 'reauthentication_required' : 'access_denied'
}

/** Entra ID's word for everything that was consented to. */
function isDefaultScope(scope: string): boolean {
  return scope.endsWith('/.default')
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
