import type {
  AccessRules,
  BearerConfig,
  ClaimRule,
  Config,
  ResourceConfig,
  RouteConfig,
} from '../config/config.ts'
import { BffError, type ErrorCode } from '../errors.ts'
import { endpointMethods } from '../http/endpoints/bff-routes.ts'
import { statusOf } from '../http/problem.ts'
import { createHostCheck } from '../http/server/host.ts'
import { createDialect, createGrantRequests } from '../oidc/grants/dialects.ts'
import { resourcesInUse } from '../oidc/provider.ts'
import { signInResource } from '../oidc/sign-in/authorization.ts'
import { ownCookieNames } from '../proxy/headers/dropped.ts'
import { compileRequestHeaders } from '../proxy/headers/request.ts'
import { compileRoutes, type RouteMatch } from '../proxy/route-table.ts'

/** What becomes of one request by its method and URL, without a look at network, session or secrets. */
export type Explanation = {
  readonly request: { readonly method: string; readonly target: string }
} & (
  | { readonly kind: 'route'; readonly routed: ExplainedRoute }
  /** Cloakroom answers it itself. */
  | { readonly kind: 'endpoint'; readonly endpoint: string }
  | { readonly kind: 'refused'; readonly refusal: ExplainedRefusal }
)

/** The problem that the proxy answers with, before it looks at a session. */
export type ExplainedRefusal = {
  readonly code: ErrorCode
  readonly status: number
  readonly detail: string
  /** What an operator may look at. */
  readonly hint?: string
}

/** Where a request goes, and what for. */
export type ExplainedRoute = {
  readonly id: string
  readonly path: string
  /** Position in `routes:`. */
  readonly index: number
  /** The URL that the upstream is asked for. */
  readonly upstream: string
  readonly auth: RouteConfig['auth']
  /** What a request without a session gets: a code, or the route all the same. */
  readonly signedOut:
    | 'session_required'
    | 'session_required, a navigation is sent to sign in'
    | 'served without a token'
    | 'served'
  readonly resource: string | null
  /** In the order in which they are made; the last one brings the token. Empty where no token is sent. */
  readonly tokenRequests: readonly ExplainedTokenRequest[]
  readonly csrf: { readonly rule: 'none' | RouteConfig['csrf']; readonly accepts: readonly string[] }
  readonly require?: AccessRules
  readonly bearer?: BearerConfig
  readonly methods?: readonly string[]
  /** ms. */
  readonly timeout: RouteConfig['timeout']
  /** Bytes. */
  readonly maxBody?: number
  readonly websocket: boolean
  /** What the upstream gets beside the client's own fields, which are those that are left. */
  readonly headers: readonly (readonly [name: string, value: string])[]
}

/** A request to the token endpoint; what is secret or not known before stands in brackets. */
export type ExplainedTokenRequest = {
  readonly resource: string
  /** The configured one; absent: that which discovery of the issuer names. */
  readonly endpoint?: string
  /** In the order in which they are named; none of them twice. */
  readonly parameters: Readonly<Record<string, string>>
  readonly clientAuth: { readonly method: string; readonly proof: Readonly<Record<string, string>> }
  /** The proof of the key that the token is bound to (RFC 9449 §5); absent: it is bound to none. */
  readonly dpop?: '[proof]'
}

/** Makes the explanations of one configuration, from the same compiled routes, dialect and headers that serve requests. */
export function createExplain(config: Config): (method: string, url: string) => Explanation {
  const match = compileRoutes(config.routes, config.basePath)
  const explainRoute = createExplainRoute(config)
  const hosts = createHostCheck(config)

  return function explain(method, url) {
    const { target, authority } = targetOf(url)
    const request = { method, target }
    const refused = (refusal: ExplainedRefusal): Explanation => ({ request, kind: 'refused', refusal })
    try {
      if (authority !== undefined) requireOurs(authority, hosts)
      if (target.length > config.limits.urlLength) throw tooLong(config)
      const matched = match(method, target)
      if (matched) return { request, kind: 'route', routed: explainRoute(matched) }
      const endpoint = requireEndpoint(method, target, config)
      return { request, kind: 'endpoint', endpoint }
    } catch (error) {
      if (!(error instanceof BffError)) throw error
      const { code, message, status, headers } = error
      const allow = headers?.allow
      const hint = code === 'route_not_found' ? nearRoutes(target, config) : allow && `allowed here: ${allow}`
      return refused({ code, status: status ?? statusOf(code), detail: message, ...(hint ? { hint } : {}) })
    }
  }
}

/** An explanation as JSON has it: always with `route`, which is null when there is none. */
export function explanationJson(explanation: Explanation): object {
  const { request, kind } = explanation
  if (kind === 'route') return { request, kind, route: explanation.routed }
  if (kind === 'endpoint') return { request, kind, route: null, endpoint: explanation.endpoint }
  return { request, kind, route: null, ...explanation.refusal }
}

/**
 * Makes the explanations of the configuration in use, as JSON for the admin listener:
 * without the values of claims that a route asks for, and of headers that it adds, which may be an API key.
 */
export function createExplanations(config: () => Config): (method: string, url: string) => object {
  let known: { readonly config: Config; readonly explain: ReturnType<typeof createExplain> } | undefined

  return function explain(method, url) {
    const inUse = config()
    if (known?.config !== inUse) known = { config: inUse, explain: createExplain(inUse) }
    const explanation = known.explain(method, url)
    if (explanation.kind !== 'route') return explanationJson(explanation)
    const { routed } = explanation
    return explanationJson({ ...explanation, routed: withoutValues(routed, inUse.routes[routed.index]!) })
  }
}

function withoutValues(routed: ExplainedRoute, { headers }: RouteConfig): ExplainedRoute {
  const ofRoute = new Set(headers.map(({ name }) => name))
  const { require: rules } = routed
  return {
    ...routed,
    headers: routed.headers.map(([name, value]) => [
      name,
      ofRoute.has(name)
        ? [...value.matchAll(/\{claims\.[^{}]+\}/g)].join(' ') || '[value of the configuration]'
        : value,
    ]),
    ...(rules && {
      require: { ...rules, ...(rules.claims && { claims: rules.claims.map(withoutClaimValues) }) },
    }),
  }
}

function withoutClaimValues({ name, values }: ClaimRule): ClaimRule {
  return { name, values: [`[${values.length} in the configuration]`] }
}

/** The request target of a URL; of an absolute one as a browser sends it: without a fragment, and in ASCII. */
function targetOf(url: string): { target: string; authority?: string } {
  const [, authority, rest = ''] = /^https?:\/\/([^/?#]*)(.*)$/is.exec(url) ?? []
  if (authority === undefined) return { target: url }
  const sent = rest
    .replace(/#.*$/s, '')
    .replace(/[^\x21-\x7e]+/gu, (text) => encodeURIComponent(text.toWellFormed()))
  return { target: sent.startsWith('/') ? sent : `/${sent}`, authority }
}

function requireOurs(authority: string, hosts: ReturnType<typeof createHostCheck>): void {
  const verdict = hosts.judge(authority.toLowerCase(), undefined)
  if (verdict === 'invalid') throw new BffError('bad_request', 'Host must be one host name')
  if (verdict === 'served') return
  throw new BffError(
    'misdirected_request',
    `this site is ${hosts.expected}, or what \`hosts\` names beside it`,
  )
}

function tooLong({ limits }: Config): BffError {
  const message = `the request target is longer than limits.urlLength (${limits.urlLength})`
  return new BffError('bad_request', message, { status: 414 })
}

/** The endpoint below `basePath` that a request is for. Throws route_not_found, method_not_allowed. */
function requireEndpoint(method: string, target: string, { basePath, provider }: Config): string {
  const path = target.replace(/\?.*$/s, '')
  const own = path.startsWith(`${basePath}/`) ? path.slice(basePath.length) : undefined
  const signals: Readonly<Record<string, unknown>> = {
    '/ssf/events': provider.sharedSignals,
    '/global-token-revocation': provider.globalTokenRevocation,
  }
  const methods = own && (signals[own] ? 'POST' : endpointMethods(own))
  if (!methods) throw new BffError('route_not_found', 'no route matches this path')
  if (methods.split(', ').includes(method)) return path
  throw new BffError('method_not_allowed', `use one of ${methods}`, { headers: { allow: methods } })
}

/** Why the routes that look like the one that was meant are not it. */
function nearRoutes(target: string, { routes, basePath }: Config): string | undefined {
  const path = target.replace(/\?.*$/s, '')
  if (path === basePath || path.startsWith(`${basePath}/`))
    return `below basePath ${basePath} Cloakroom answers itself, and has no such endpoint`
  const lower = path.toLowerCase()
  const same = routes.find((route) => `${lower}/`.startsWith(`${route.path.toLowerCase()}/`))
  if (same) return `${same.path} is a route, but letters are compared with their case`
  const inside = routes.find((route) => lower.startsWith(route.path.toLowerCase()))
  if (inside) return `${inside.path} is a route, but ends at a segment boundary: it has ${inside.path}/…`
  const below = routes.filter((route) => route.path.startsWith(`${path.replace(/\/+$/, '')}/`))
  if (below.length > 0) return `there are routes below it only: ${below.map((one) => one.path).join(', ')}`
  return `the routes are: ${routes.map((route) => route.path).join(', ')}; one with "path: /" would take the rest`
}

function createExplainRoute(config: Config): (matched: RouteMatch) => ExplainedRoute {
  const { routes, publicUrl, session, provider } = config
  const tokenRequestsFor = createExplainTokens(config)
  const isOwnCookie = ownCookieNames(session.cookie.name)
  const requestHeaders = compileRequestHeaders(routes, { publicUrl, isOwnCookie })

  return function explainRoute({ route, target }) {
    const { id, path, upstream, auth, resource, methods, maxBody, timeout, websocket } = route
    const fields = requestHeaders(route, [], {
      ...{ clientAddress: '[client address]', requestId: '[request id]' },
      accessToken: resource && `[access token for ${resource}]`,
    })
    const added = fields.flatMap((name, at) => (at % 2 === 0 ? [[name, fields[at + 1]!] as const] : []))
    const ofRoute = route.headers.map(({ name, value }) => [name, value] as const)
    const isOfRoute = (name: string) => route.headers.some((one) => one.name === name)
    const isProven = provider.dpop === 'end-to-end' && resource !== undefined
    const headers = [...added.filter(([name]) => !isOfRoute(name)), ...ofRoute].map(([name, value]) =>
      isProven && name === 'authorization'
        ? ([name, value.replace('Bearer', 'DPoP')] as const)
        : ([name, value] as const),
    )
    return {
      ...{ id, path, index: routes.indexOf(route), upstream: `${upstream}${target}`, auth },
      signedOut: signedOut(route),
      resource: resource ?? null,
      tokenRequests: resource === undefined ? [] : tokenRequestsFor(resource),
      csrf: csrfOf(route, config),
      ...(route.require && { require: route.require }),
      ...(route.bearer && { bearer: route.bearer }),
      ...(methods && { methods }),
      ...{ timeout, websocket },
      ...(maxBody === undefined ? {} : { maxBody }),
      headers: isProven ? [...headers, ['dpop', '[proof]']] : headers,
    }
  }
}

function signedOut({ auth, csrf, resource }: RouteConfig): ExplainedRoute['signedOut'] {
  if (auth === 'required') {
    return csrf === 'fetch-metadata'
      ? 'session_required, a navigation is sent to sign in'
      : 'session_required'
  }
  return auth === 'optional' && resource !== undefined ? 'served without a token' : 'served'
}

/** In words, what `createSameOriginGuard` lets pass. */
function csrfOf(
  { auth, csrf, bearer }: RouteConfig,
  { publicUrl, allowedOrigins }: Config,
): ExplainedRoute['csrf'] {
  if (auth === 'anonymous') return { rule: 'none', accepts: ['any request'] }
  const origins = [publicUrl, ...allowedOrigins].join(', ')
  const ofEach = [
    `X-CSRF: 1, with an Origin, if there is one, of ${origins}`,
    'Sec-Fetch-Site: same-origin with Accept: text/event-stream (EventSource)',
  ]
  const ofMetadata = [
    `Origin of ${origins}, or Sec-Fetch-Site: same-origin`,
    'a GET navigation to a page or download, from whatever site',
  ]
  return {
    rule: csrf,
    accepts: [
      ...ofEach,
      ...(csrf === 'fetch-metadata' ? ofMetadata : []),
      ...(bearer ? ['an access token of the client, without the session cookie'] : []),
    ],
  }
}

const ASSERTION = {
  client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
  client_assertion: '[signed JWT]',
}

function createExplainTokens(config: Config): (resource: string) => readonly ExplainedTokenRequest[] {
  const { provider, resources } = config
  const dialect = createDialect(provider, resourcesInUse(config))
  const requests = createGrantRequests(dialect, provider.clientCapabilities)
  const endpoint = provider.endpoints?.token
  const clientAuth = { method: provider.clientAuth.method, proof: proofOf(provider) }

  const requestFor = (
    { name }: ResourceConfig,
    parameters: readonly (readonly [string, string])[],
  ): ExplainedTokenRequest => ({
    resource: name,
    ...(endpoint === undefined ? {} : { endpoint }),
    parameters: Object.fromEntries(parameters),
    clientAuth,
    ...(provider.dpop === 'off' ? {} : { dpop: '[proof]' as const }),
  })
  const refresh = (resource: ResourceConfig) =>
    requestFor(resource, [
      ['grant_type', 'refresh_token'],
      ['refresh_token', '[refresh token of the session]'],
      ...requests.refresh(resource),
    ])

  return function tokenRequestsFor(name) {
    const resource = resources[name]
    if (!resource) return []
    if (resource.grant === 'refresh_token') return [refresh(resource)]
    if (resource.grant === 'client_credentials') {
      return [requestFor(resource, [['grant_type', 'client_credentials'], ...requests.client(resource)])]
    }
    const subject = signInResource(config, name)
    const subjectToken = `[access token for ${subject?.name}]`
    const { grantType, parameters } = requests.exchange(resource, { subjectToken })
    const exchange = requestFor(resource, [['grant_type', grantType], ...parameters])
    return subject ? [refresh(subject), exchange] : [exchange]
  }
}

/** What proves the client beside the parameters of the grant (OpenID Connect Core §9, RFC 8705 §2). */
function proofOf({ clientId, clientAuth }: Config['provider']): Readonly<Record<string, string>> {
  switch (clientAuth.method) {
    case 'client_secret_basic':
      return { Authorization: `Basic [${clientId} and its secret]` }
    case 'client_secret_post':
      return { client_id: clientId, client_secret: '[secret]' }
    case 'tls_client_auth':
    case 'none':
      return { client_id: clientId }
    default:
      return { client_id: clientId, ...ASSERTION }
  }
}
