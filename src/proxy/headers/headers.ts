import type { RouteConfig } from '../../config/config.ts'
import type { UserClaims } from '../../session/bff-session.ts'
import { isForSharedCaches, privateCacheControl } from './cache-control.ts'
import { type IsOwnCookie, setsOwnCookie, withoutOwnCookies } from './cookies.ts'
import { TAKEN_FROM_REQUESTS, TAKEN_FROM_RESPONSES } from './dropped-fields.ts'
import { type FieldNames, fieldNames, foldFieldName } from './field-names.ts'
import { type CompiledTemplate, compileTemplate } from './header-templates.ts'
import { compileWayBack, type WayBack } from './location.ts'
import { addVary } from './vary.ts'
import { compileVia, type Via } from './via.ts'

/** What the rules need to know beside the route. */
export type Site = {
  /** Origin as browsers see it. */
  readonly publicUrl: string
  readonly isOwnCookie: IsOwnCookie
  /** Fields that no client may send, by `takenFromRequests`. */
  readonly taken: FieldNames
}

/**
 * What no client may send, whatever its route: an upstream that believes a header which one route adds believes it on
 * every path.
 */
export function takenFromRequests(routes: readonly RouteConfig[]): FieldNames {
  const added = routes.flatMap(({ headers }) => headers.map(({ name }) => name))
  return fieldNames([...TAKEN_FROM_REQUESTS, ...added])
}

/** The header rules of one route, compiled once. */
export type HeaderRules = {
  readonly taken: FieldNames
  readonly isOwnCookie: IsOwnCookie
  readonly templates: readonly CompiledTemplate[]
  readonly publicHost: string
  /** Whether the upstream is told `publicHost` as its own. */
  readonly preserveHost: boolean
  readonly publicScheme: string
  /** The part of `Forwarded` that follows the client's address (RFC 7239 §4). */
  readonly forwardedSuffix: string
  readonly via: Via
  readonly wayBack: WayBack
  /** The path that `rewrite` replaces; empty when nothing is replaced, or the route adds the field itself. */
  readonly forwardedPrefix: string
  /** The answer may be another for another session. */
  readonly variesByCookie: boolean
}

/** What Cloakroom itself says to the upstream about one request. */
export type OurRequestFields = {
  /** IP address of the client, trusted proxies already taken into account. */
  readonly clientAddress: string
  readonly requestId: string
  /** Sent as `Authorization: Bearer`. */
  readonly accessToken?: string | undefined
  /** Fill the route's header templates. */
  readonly claims?: UserClaims | undefined
}

/** Schemes that make a browser open its own sign-in dialog, which would ask for a password of another system. */
const DIALOG_SCHEMES = /(?:^|,)\s*(?:basic|digest|negotiate|ntlm)(?:[\s,]|$)/i

/** Compiles what may cross on one route, each way. */
export function compileHeaderRules(route: RouteConfig, site: Site): HeaderRules {
  const { host, protocol } = new URL(site.publicUrl)
  const publicScheme = protocol.slice(0, -1)
  return {
    taken: site.taken,
    isOwnCookie: site.isOwnCookie,
    templates: route.headers.map(compileTemplate),
    publicHost: host,
    preserveHost: route.preserveHost,
    publicScheme,
    forwardedSuffix: `;host="${host}";proto=${publicScheme}`,
    via: compileVia(site.publicUrl),
    wayBack: compileWayBack(route, site.publicUrl),
    forwardedPrefix: forwardedPrefixOf(route),
    variesByCookie: route.auth !== 'anonymous',
  }
}

function forwardedPrefixOf({ rewrite, path, headers }: RouteConfig): string {
  const isReplaced = rewrite !== undefined && path !== '/'
  const isAdded = headers.some(({ name }) => name.toLowerCase() === 'x-forwarded-prefix')
  return isReplaced && !isAdded ? path : ''
}

/** The header rules of each route, compiled when it is first used; a route that a reload removed is not kept. */
export function headerRulesByRoute(site: Site): (route: RouteConfig) => HeaderRules {
  const compiled = new WeakMap<RouteConfig, HeaderRules>()
  return function rulesOf(route) {
    const known = compiled.get(route)
    if (known) return known
    const rules = compileHeaderRules(route, site)
    compiled.set(route, rules)
    return rules
  }
}

/**
 * The flat header list for the upstream, without `Content-Length`, which belongs to the connection, and without `Host`
 * unless it is the public one.
 * Client fields are taken out first and ours added after (RFC 9110 §7.6.1), so no `Connection` header removes one of ours.
 */
export function requestHeaders(rules: HeaderRules, raw: readonly string[], ours: OurRequestFields): string[] {
  const fields: string[] = []
  let connection = ''
  let cookieAt: number | undefined
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i]!
    const value = raw[i + 1]!
    const taken = rules.taken.find(name)
    if (taken === undefined) fields.push(name, value)
    else if (taken === 'connection') connection += `,${value}`
    else if (taken === 'cookie') {
      const cookie = withoutOwnCookies(value, rules.isOwnCookie)
      if (cookie === undefined) continue
      // RFC 6265 §5.4: one field. Of several, some servers make a list with commas, which no cookie parser reads so.
      if (cookieAt === undefined) cookieAt = fields.push(name, cookie) - 1
      else fields[cookieAt] += `; ${cookie}`
    } else if (taken === 'via') {
      rules.via.requireNoLoop(value)
      fields.push(name, value)
    }
  }
  removeNamed(fields, connection)
  addOurs(fields, rules, ours)
  return fields
}

/** Puts another access token in the place of the one `requestHeaders` added. */
export function replaceAccessToken(fields: string[], accessToken: string): void {
  for (let i = 0; i < fields.length; i += 2) {
    // The client's own was taken out, whatever its case, so this is ours.
    if (fields[i] === 'authorization') fields[i + 1] = `Bearer ${accessToken}`
  }
}

/** What an upstream's response becomes on its way to the browser; `isAuthenticated` when it was asked for a session. */
export function responseHeaders(
  rules: HeaderRules,
  raw: readonly Buffer[],
  isAuthenticated: boolean,
): string[] {
  const fields: string[] = []
  let connection = ''
  let cacheControlAt: number | undefined
  for (let i = 0; i < raw.length; i += 2) {
    // Latin-1 both ways keeps every byte (RFC 9110 §5.5).
    const name = raw[i]!.toString('latin1')
    const value = raw[i + 1]!.toString('latin1')
    const taken = TAKEN_FROM_RESPONSES.find(name)
    if (taken === undefined) fields.push(name, value)
    else if (taken === 'connection') connection += `,${value}`
    else if (taken === 'cache-control' && isAuthenticated && name.toLowerCase() === taken) {
      if (cacheControlAt === undefined) cacheControlAt = fields.push(name, value) - 1
      else fields[cacheControlAt] += `,${value}`
    } else addReviewed(fields, rules, { taken, name, value, isAuthenticated })
  }
  if (isAuthenticated) makePrivate(fields, cacheControlAt)
  const named = removeNamed(fields, connection)
  if (isAuthenticated && named.has('cache-control')) fields.push('cache-control', 'private')
  // To the upstream it is `Authorization` that makes the difference; to a cache on our side it is the cookie, and
  // without this the next user of a browser is shown what the one before was sent.
  if (rules.variesByCookie) addVary(fields, VARIES_BY_COOKIE)
  return fields
}

const VARIES_BY_COOKIE = ['Cookie']

/** A shared cache sees no Authorization header on our side, so RFC 9111 §3.5 would not hold it back. */
function makePrivate(fields: string[], cacheControlAt: number | undefined): void {
  if (cacheControlAt === undefined) fields.push('cache-control', 'private')
  else fields[cacheControlAt] = privateCacheControl(fields[cacheControlAt]!) ?? 'private'
}

function addReviewed(
  fields: string[],
  rules: HeaderRules,
  {
    taken,
    name,
    value,
    isAuthenticated,
  }: { taken: string; name: string; value: string; isAuthenticated: boolean },
): void {
  const { wayBack } = rules
  if (taken === 'set-cookie') {
    if (!setsOwnCookie(value, rules.isOwnCookie)) fields.push(name, wayBack.cookie(value))
  } else if (taken === 'location' || taken === 'link' || taken === 'refresh') {
    fields.push(name, wayBack[taken](value))
  } else if (taken === 'content-location') {
    fields.push(name, wayBack.reference(value))
  } else if (taken === 'www-authenticate') {
    fields.push(DIALOG_SCHEMES.test(value) ? 'x-upstream-www-authenticate' : name, value)
  } else if (taken === 'cache-control' || (isForSharedCaches(taken) && !isAuthenticated)) {
    fields.push(name, value)
  }
}

/** Removes the fields that `Connection` names; they were meant for this hop only. Returns their names. */
function removeNamed(fields: string[], connection: string): ReadonlySet<string> {
  if (connection === '' || connection === ',keep-alive' || connection === ',close') return NONE
  // Blanks and tabs alone are no part of an option (RFC 9110 §5.6.3); `trim` would take more, such as U+00A0.
  const options = connection.split(',').map((option) => option.replace(/^[ \t]+|[ \t]+$/g, ''))
  const named = new Set(options.map(foldFieldName))
  let kept = 0
  for (let i = 0; i < fields.length; i += 2) {
    if (named.has(foldFieldName(fields[i]!))) continue
    fields[kept] = fields[i]!
    fields[kept + 1] = fields[i + 1]!
    kept += 2
  }
  fields.length = kept
  return named
}

const NONE: ReadonlySet<string> = new Set()

function addOurs(fields: string[], rules: HeaderRules, ours: OurRequestFields): void {
  const { clientAddress, accessToken } = ours
  if (rules.preserveHost) fields.push('host', rules.publicHost)
  if (accessToken !== undefined) fields.push('authorization', `Bearer ${accessToken}`)
  // RFC 7239 §6: an IPv6 address is bracketed and quoted.
  const node = clientAddress.includes(':') ? `"[${clientAddress}]"` : clientAddress || 'unknown'
  fields.push(
    'x-forwarded-for',
    clientAddress,
    'x-forwarded-proto',
    rules.publicScheme,
    'x-forwarded-host',
    rules.publicHost,
    'forwarded',
    `for=${node}${rules.forwardedSuffix}`,
    'via',
    rules.via.element,
    'x-request-id',
    ours.requestId,
  )
  if (rules.forwardedPrefix !== '') fields.push('x-forwarded-prefix', rules.forwardedPrefix)
  for (const template of rules.templates) {
    const value = template.value(ours.claims)
    if (value !== undefined) fields.push(template.name, value)
  }
}
