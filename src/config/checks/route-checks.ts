import { didYouMean } from '../report/nearest-name.ts'
import type { Field } from '../report/report.ts'
import { HEADER_NAME, usesClaims } from '../rules/http-rules.ts'
import { isSameAudience } from '../rules/oauth-rules.ts'
import { isAtOrBelow } from '../rules/paths.ts'
import { complaint } from '../rules/rule.ts'
import type { Draft } from '../schema/schema.ts'
import { checkTls } from './tls-check.ts'

type DraftRoute = NonNullable<NonNullable<Draft['routes']>[number]>

/** A route to compare with others. An undefined member was wrong in the file and is reported already. */
type Candidate = {
  readonly route: DraftRoute
  readonly index: number
  readonly id: string | undefined
  readonly field: Field
}

/** Checks that span routes and resources. */
export function checkRoutes({ basePath, resources, routes = [] }: Draft, field: Field): void {
  routes.forEach((route, index) => {
    if (route === undefined) return
    const own = field.at(index)
    if (route.path !== undefined && basePath !== undefined && isAtOrBelow(route.path, basePath)) {
      const must = `must not be at or below basePath ${basePath}, whose paths are Cloakroom's own`
      own.at('path').problem(complaint(must))
    }
    checkReference(route.resource, resources, own.at('resource'))
    checkAnonymous(route, own)
    checkAccessRules(route, own)
    checkBearer(route, resources, own)
    checkHeaderNames(route.headers, own.at('headers'))
    checkTls(own.at('tls'), !route.upstream?.startsWith('http:'))
  })
  warnOfDisjointClasses(routes, field)
  const candidates = candidatesOf(routes, field)
  candidates.forEach((candidate, position) => {
    for (const earlier of candidates.slice(0, position)) checkPair(candidate, earlier)
  })
}

/** Whether the file's own tests say what they expect, of routes and resources that exist. */
export function checkRouteTests({ tests = [], routes, resources }: Draft, root: Field): void {
  const ids = candidatesOf(routes ?? [], root.at('routes')).map(({ id }) => id)
  const areAllKnown = ids.length === routes?.length && !ids.includes(undefined)
  tests.forEach((test, index) => {
    const field = root.at('tests', index, 'expect')
    const isExpected = (name: string) => field.at(name).written() !== undefined
    const ofMatch = ['route', 'upstream', 'resource'].some(isExpected)
    if (test?.expect !== undefined && !ofMatch && !isExpected('code')) {
      field.problem('must say what is expected: route, upstream, resource or code')
    } else if (ofMatch && isExpected('code')) {
      field.at('code').problem('must stand alone: a request that is refused reaches no route')
    }
    const { route, resource } = test?.expect ?? {}
    if (route !== undefined && areAllKnown && !ids.includes(route)) {
      field.at('route').problem(unknownName('route', route, ids as string[]))
    }
    checkReference(resource ?? undefined, resources, field.at('resource'))
  })
}

function candidatesOf(routes: NonNullable<Draft['routes']>, field: Field): Candidate[] {
  return routes.flatMap((route, index): Candidate[] => {
    if (route === undefined) return []
    const own = field.at(index)
    // An id that is written but wrong is not replaced by the path.
    const id = route.id ?? (own.at('id').written() === undefined ? route.path : undefined)
    return [{ route, index, id, field: own }]
  })
}

function checkReference(name: string | undefined, resources: Draft['resources'], field: Field): void {
  if (name === undefined || resources === undefined || Object.hasOwn(resources, name)) return
  field.problem(unknownName('resource', name, Object.keys(resources)))
}

function unknownName(kind: string, name: string, known: readonly string[]): string {
  const list = known.length === 0 ? `; there are no ${kind}s in this file` : `; there are ${known.join(', ')}`
  return `there is no ${kind} "${name}"${didYouMean(name, known) || list}`
}

function checkAnonymous(route: DraftRoute, field: Field): void {
  if (route.auth !== 'anonymous') return
  if (route.resource !== undefined) {
    const cure = 'use auth: required or optional'
    field.at('resource').problem(`needs a session, but the route has auth: anonymous; ${cure}`)
  }
  for (const [name, value] of Object.entries(route.headers ?? {})) {
    if (value === undefined || !usesClaims(value)) continue
    field.at('headers', name).problem('needs a session for its claims, but the route has auth: anonymous')
  }
}

function checkAccessRules({ require, auth }: DraftRoute, route: Field): void {
  if (require === undefined) return
  const field = route.at('require')
  if (auth !== undefined && auth !== 'required') {
    field.problem(`needs auth: required, but the route has auth: ${auth}`)
  }
  const members = ['claims', 'acr', 'maxAge', 'scopes'].filter(
    (name) => field.at(name).written() !== undefined,
  )
  if (members.length === 0) field.problem('must say what is required: claims, acr, maxAge or scopes')
  if (require.claims !== undefined && Object.keys(require.claims).length === 0) {
    field.at('claims').problem('must name a claim, e.g. { groups: [ops] }')
  }
  if (Object.hasOwn(require.claims ?? {}, '')) {
    field.at('claims', '').problem('must be the name of a claim, e.g. groups', 'key')
  }
  if (require.scopes !== undefined && route.at('resource').written() === undefined) {
    field.at('scopes').problem('needs a resource, because they are the scopes of its access token')
  }
}

/** A sign-in has one `acr`: where two routes have no class in common, each takes the user away from the other. */
function warnOfDisjointClasses(routes: readonly (DraftRoute | undefined)[], field: Field): void {
  const asking = routes.flatMap((route, index) => {
    const acr = route?.require?.acr
    return acr && !acr.includes(undefined) ? [{ index, acr }] : []
  })
  for (const { index, acr } of asking) {
    const other = asking.find((one) => one.index < index && !one.acr.some((value) => acr.includes(value)))
    if (!other) continue
    field
      .at(index, 'require', 'acr')
      .warn(
        `has no class in common with routes[${other.index}]: a sign-in has one acr, so that whoever uses both routes signs in again at each change; list the stronger class in both`,
      )
  }
}

/** What becomes of a client's own token on a route; undefined when nothing right can: its API would get another's. */
export function deliveryOf(
  { audience }: { readonly audience: string },
  resource:
    | { grant?: string | undefined; audience?: string | undefined; resource?: string | undefined }
    | undefined,
): 'passed_on' | 'exchanged' | undefined {
  const expected = resource?.audience ?? resource?.resource
  if (!resource || (expected !== undefined && isSameAudience(audience, expected))) return 'passed_on'
  return resource.grant === 'token_exchange' ? 'exchanged' : undefined
}

function checkBearer(
  { bearer, auth, resource: name }: DraftRoute,
  resources: Draft['resources'],
  route: Field,
): void {
  if (bearer === undefined) return
  if (auth === 'anonymous') {
    const cure = 'use auth: required or optional'
    route.at('bearer').problem(`needs a route that asks who calls, but it has auth: anonymous; ${cure}`)
  }
  const resource = resources?.[name ?? '']
  if (bearer.audience === undefined || resource === undefined) return
  if (deliveryOf({ audience: bearer.audience }, resource) !== undefined) return
  const expected = resource.audience ?? resource.resource
  const must =
    expected === undefined
      ? `must be that of the resource ${name}, which says none: give it an audience`
      : `must be that of the resource ${name}, ${expected}, because the token is passed on to that API`
  route.at('bearer', 'audience').problem(complaint(`${must}; or give the resource grant: token_exchange`))
}

function checkHeaderNames(headers: DraftRoute['headers'], field: Field): void {
  const seen = new Map<string, string>()
  for (const written of Object.keys(headers ?? {})) {
    const name = HEADER_NAME.parse(written)
    if (name === undefined) {
      const must = HEADER_NAME.because?.(written) ?? HEADER_NAME.must
      field.at(written).problem(`${must}, e.g. ${HEADER_NAME.example}`, 'key')
    } else if (seen.has(name)) {
      const message = `is the same header as "${seen.get(name)}": names are compared without case`
      field.at(written).problem(message, 'key')
    } else seen.set(name, written)
  }
}

/** Two routes must not match one request equally well: their order would decide which one gets it. */
function checkPair(own: Candidate, earlier: Candidate): void {
  const other = () => `routes[${earlier.index}] (line ${earlier.field.at('path').line()})`
  const samePath = own.route.path !== undefined && own.route.path === earlier.route.path
  const overlap = samePath ? sharedMethods(own, earlier) : undefined
  if (overlap !== undefined) {
    const cure = 'give each its own methods, or remove one'
    const must = `must differ from ${other()}, which matches ${overlap} there equally well: ${cure}`
    own.field.at('path').problem(complaint(must))
  } else if (own.id !== undefined && own.id === earlier.id) {
    const why = own.route.id === undefined ? ' (the path, because none is given)' : ''
    own.field.at('id').problem(`must differ from the id of ${other()}: both are "${own.id}"${why}`)
  }
}

function sharedMethods(own: Candidate, earlier: Candidate): string | undefined {
  const [mine, theirs] = [own, earlier].map(({ route, field }) => {
    const areWrong = route.methods === undefined && field.at('methods').written() !== undefined
    return areWrong ? [] : route.methods
  })
  if (!mine && !theirs) return 'every method'
  const shared = (mine ?? theirs!).filter(
    (method) => method !== undefined && (theirs ?? mine!).includes(method),
  )
  return shared.length > 0 ? shared.join(', ') : undefined
}
