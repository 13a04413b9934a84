import { HEADER_NAME, usesClaims } from './http-rules.ts'
import { didYouMean } from './nearest-name.ts'
import { isAtOrBelow } from './paths.ts'
import type { FieldPath } from './problem.ts'
import type { Report } from './report.ts'
import { complaint } from './rule.ts'
import type { Draft } from './schema.ts'
import { checkTls } from './tls-check.ts'

type DraftRoute = NonNullable<NonNullable<Draft['routes']>[number]>

/** What about `routes:` only the routes together, and the resources, can tell. */
export function checkRoutes({ basePath, resources, routes = [] }: Draft, report: Report): void {
  routes.forEach((route, index) => {
    if (route === undefined) return
    const path: FieldPath = ['routes', index]
    if (route.path !== undefined && basePath !== undefined && isAtOrBelow(route.path, basePath)) {
      report.problem(
        [...path, 'path'],
        complaint(`must not be at or below basePath ${basePath}, whose paths are Cloakroom's own`),
      )
    }
    checkReference(route.resource, resources, [...path, 'resource'], report)
    checkAnonymous(route, path, report)
    checkHeaderNames(route.headers, [...path, 'headers'], report)
    const usesTls = !route.upstream?.startsWith('http:')
    checkTls(route.tls, usesTls, [...path, 'tls'], report)
    checkAgainstEarlier(route, index, routes, report)
  })
}

/** Whether the file's own tests say what they expect, of routes and resources that exist. */
export function checkRouteTests({ tests = [], routes, resources }: Draft, report: Report): void {
  const ids = routes?.map((route, index) => route && idOf(route, index, report))
  tests.forEach((test, index) => {
    const path: FieldPath = ['tests', index, 'expect']
    const isExpected = (name: string) => report.written([...path, name]) !== undefined
    const ofMatch = ['route', 'upstream', 'resource'].some(isExpected)
    if (test?.expect !== undefined && !ofMatch && !isExpected('code')) {
      report.problem(path, 'must say what is expected: route, upstream, resource or code')
    } else if (ofMatch && isExpected('code')) {
      report.problem([...path, 'code'], 'must stand alone: a request that is refused reaches no route')
    }
    const { route, resource } = test?.expect ?? {}
    if (route !== undefined && ids && !ids.includes(undefined) && !ids.includes(route)) {
      report.problem(
        [...path, 'route'],
        unknownName(
          'route',
          route,
          ids.filter((id) => id !== undefined),
        ),
      )
    }
    checkReference(resource ?? undefined, resources, [...path, 'resource'], report)
  })
}

function checkReference(
  name: string | undefined,
  resources: Draft['resources'],
  path: FieldPath,
  report: Report,
) {
  if (name === undefined || resources === undefined || Object.hasOwn(resources, name)) return
  report.problem(path, unknownName('resource', name, Object.keys(resources)))
}

function unknownName(kind: string, name: string, known: readonly string[]): string {
  const list = known.length === 0 ? `; there are no ${kind}s in this file` : `; there are ${known.join(', ')}`
  return `there is no ${kind} "${name}"${didYouMean(name, known) || list}`
}

function checkAnonymous(route: DraftRoute, path: FieldPath, report: Report): void {
  if (route.auth !== 'anonymous') return
  if (route.resource !== undefined) {
    report.problem(
      [...path, 'resource'],
      'needs a session, but the route has auth: anonymous; use auth: required or optional',
    )
  }
  for (const [name, value] of Object.entries(route.headers ?? {})) {
    if (value === undefined || !usesClaims(value)) continue
    report.problem(
      [...path, 'headers', name],
      'needs a session for its claims, but the route has auth: anonymous',
    )
  }
}

function checkHeaderNames(headers: DraftRoute['headers'], path: FieldPath, report: Report): void {
  const seen = new Map<string, string>()
  for (const written of Object.keys(headers ?? {})) {
    const name = HEADER_NAME.parse(written)
    if (name === undefined) {
      const must = HEADER_NAME.because?.(written) ?? HEADER_NAME.must
      report.problem([...path, written], `${must}, e.g. ${HEADER_NAME.example}`, 'key')
    } else if (seen.has(name)) {
      report.problem(
        [...path, written],
        `is the same header as "${seen.get(name)}": names are compared without case`,
        'key',
      )
    } else seen.set(name, written)
  }
}

/** Two routes that match one request equally well would leave it to chance, or to their order, which one gets it. */
function checkAgainstEarlier(
  route: DraftRoute,
  index: number,
  routes: readonly (DraftRoute | undefined)[],
  report: Report,
) {
  routes.slice(0, index).forEach((earlier, at) => {
    if (earlier?.path === undefined || route.path === undefined) return
    const other = () => `routes[${at}] (line ${report.lineOf(['routes', at, 'path'])})`
    const sharedId = idOf(route, index, report)
    const overlap =
      earlier.path === route.path ? sharedMethods(route, earlier, [index, at], report) : undefined
    if (overlap !== undefined) {
      const cure = 'give each its own methods, or remove one'
      report.problem(
        ['routes', index, 'path'],
        complaint(`must differ from ${other()}, which matches ${overlap} there equally well: ${cure}`),
      )
    } else if (sharedId !== undefined && sharedId === idOf(earlier, at, report)) {
      const own = route.id === undefined ? ' (the path, because none is given)' : ''
      report.problem(
        ['routes', index, 'id'],
        `must differ from the id of ${other()}: both are "${sharedId}"${own}`,
      )
    }
  })
}

/** Undefined when an id is written but wrong: the path is not the id then. */
function idOf(route: DraftRoute, index: number, report: Report): string | undefined {
  return route.id ?? (report.written(['routes', index, 'id']) === undefined ? route.path : undefined)
}

function sharedMethods(
  a: DraftRoute,
  b: DraftRoute,
  indices: readonly number[],
  report: Report,
): string | undefined {
  // Methods that are written but wrong are reported already, and say nothing about the others.
  const unclear = [a, b].some(
    ({ methods }, place) =>
      methods?.includes(undefined) ||
      (!methods && report.written(['routes', indices[place]!, 'methods']) !== undefined),
  )
  if (unclear) return undefined
  if (!a.methods && !b.methods) return 'every method'
  const shared = (a.methods ?? b.methods!).filter(
    (method) => !b.methods || !a.methods || b.methods.includes(method),
  )
  return shared.length > 0 ? shared.join(', ') : undefined
}
