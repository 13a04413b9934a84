import { createHash } from 'node:crypto'
import type { HeaderTemplate, RouteConfig } from '../../config/config.ts'
import { BffError } from '../../errors.ts'
import type { BffSession } from '../../session/session.ts'
import {
  droppedFromRequests,
  type FieldNames,
  type IsOwnCookie,
  removeNamed,
  withoutOwnCookies,
} from './dropped.ts'

/** What the header rules need to know beside the routes. */
export type Site = {
  /** Origin as browsers see it. */
  readonly publicUrl: string
  readonly isOwnCookie: IsOwnCookie
}

/** What Cloakroom itself tells the upstream about one request. */
export type OurRequestFields = {
  /** IP address of the client, trusted proxies already taken into account. */
  readonly clientAddress: string
  readonly requestId: string
  /** Trace context: names and values. */
  readonly context?: readonly string[] | undefined
  /** Sent as `Authorization: Bearer`, until a proof is added. */
  readonly accessToken?: string | undefined
  /** Fill the route's header templates. */
  readonly claims?: BffSession['claims'] | undefined
}

/**
 * The flat header list for the upstream of a route, from the raw fields of the client. It has no `Content-Length`, which
 * belongs to the connection, and no `Host` unless that is the public one. Throws `upstream_unreachable` when the request
 * has come through here before.
 */
export type RequestHeaders = (route: RouteConfig, raw: readonly string[], ours: OurRequestFields) => string[]

/** The rules of one route. */
type RequestRules = {
  readonly templates: readonly CompiledTemplate[]
  /** The public host, if the upstream is told it as its own. */
  readonly host: string | undefined
  /** The path that `rewrite` replaces; empty when nothing is replaced, or the route adds the field itself. */
  readonly forwardedPrefix: string
}

/** Compiles the request headers of all routes of one configuration. */
export function compileRequestHeaders(routes: readonly RouteConfig[], site: Site): RequestHeaders {
  const { host: publicHost, protocol } = new URL(site.publicUrl)
  const dropped = droppedFromRequests(routes)
  const via = compileVia(site.publicUrl)
  const addForwarded = compileForwarded(publicHost, protocol.slice(0, -1))
  const rulesOf = new Map(routes.map((route) => [route, compileRules(route, publicHost)]))

  /** Drops first and adds afterwards (RFC 9110 §7.6.1): so a `Connection` field removes none of ours. */
  return function requestHeaders(route, raw, ours) {
    const { host, templates, forwardedPrefix } = rulesOf.get(route)!
    const fields = clientFields(raw, { dropped, via, isOwnCookie: site.isOwnCookie })
    if (host !== undefined) fields.push('host', host)
    if (ours.accessToken !== undefined) fields.push('authorization', `Bearer ${ours.accessToken}`)
    addForwarded(fields, ours.clientAddress)
    fields.push('via', via.element, 'x-request-id', ours.requestId)
    if (ours.context) fields.push(...ours.context)
    if (forwardedPrefix !== '') fields.push('x-forwarded-prefix', forwardedPrefix)
    for (const template of templates) {
      const value = template.value(ours.claims)
      if (value !== undefined) fields.push(template.name, value)
    }
    return fields
  }
}

function compileRules(route: RouteConfig, publicHost: string): RequestRules {
  const { rewrite, path, headers, preserveHost } = route
  const isReplaced = rewrite !== undefined && path !== '/'
  const isAdded = headers.some(({ name }) => name.toLowerCase() === 'x-forwarded-prefix')
  return {
    templates: headers.map(compileTemplate),
    host: preserveHost ? publicHost : undefined,
    forwardedPrefix: isReplaced && !isAdded ? path : '',
  }
}

/**
 * Puts another access token in the place of the one that `requestHeaders` added; with a proof, as one that is bound to a
 * key (RFC 9449 §7.1).
 */
export function replaceAccessToken(fields: string[], accessToken: string, proof?: string): void {
  let proofAt = -1
  for (let i = 0; i < fields.length; i += 2) {
    // The client's own were dropped, whatever their case, so these are ours.
    if (fields[i] === 'authorization')
      fields[i + 1] = `${proof === undefined ? 'Bearer' : 'DPoP'} ${accessToken}`
    else if (fields[i] === 'dpop') proofAt = i
  }
  if (proofAt !== -1) fields.splice(proofAt, 2)
  if (proof !== undefined) fields.push('dpop', proof)
}

/** What of the client's own fields goes to the upstream. */
function clientFields(
  raw: readonly string[],
  { dropped, via, isOwnCookie }: { dropped: FieldNames; via: Via; isOwnCookie: IsOwnCookie },
): string[] {
  const fields: string[] = []
  let connection = ''
  let cookieAt: number | undefined
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i]!
    const value = raw[i + 1]!
    const found = dropped.find(name)
    if (found === undefined) fields.push(name, value)
    else if (found === 'connection') connection += `,${value}`
    else if (found === 'cookie') {
      const cookie = withoutOwnCookies(value, isOwnCookie)
      if (cookie === undefined) continue
      // RFC 6265 §5.4: one field. Of several, some servers make a list with commas, which no cookie parser reads so.
      if (cookieAt === undefined) cookieAt = fields.push(name, cookie) - 1
      else fields[cookieAt] += `; ${cookie}`
    } else if (found === 'via') {
      via.requireNoLoop(value)
      fields.push(name, value)
    }
  }
  removeNamed(fields, connection)
  return fields
}

/** Adds `X-Forwarded-*` and `Forwarded` (RFC 7239 §4). */
function compileForwarded(host: string, scheme: string) {
  const suffix = `;host="${host}";proto=${scheme}`
  return function addForwarded(fields: string[], address: string): void {
    // RFC 7239 §6: an IPv6 address is bracketed and quoted.
    const node = address.includes(':') ? `"[${address}]"` : address || 'unknown'
    fields.push('x-forwarded-for', address, 'x-forwarded-proto', scheme, 'x-forwarded-host', host)
    fields.push('forwarded', `for=${node}${suffix}`)
  }
}

/** Our element of `Via`, and the check that it is not there already (RFC 9110 §7.6.3). */
type Via = {
  readonly element: string
  /** Throws `upstream_unreachable` when the request has come through here before: its route leads back to itself. */
  requireNoLoop(value: string): void
}

/** The pseudonym is the same on all replicas of a site. Each site has its own, so that one site may call another. */
function compileVia(publicUrl: string): Via {
  const pseudonym = `cloakroom-${createHash('sha256').update(publicUrl).digest('hex').slice(0, 8)}`
  // An element of the list that names us as the receiver: protocol, name, perhaps a comment.
  const namesUs = new RegExp(`(?:^|,)\\s*[^\\s,]+\\s+${pseudonym}(?=[\\s,(]|$)`, 'i')
  return {
    element: `1.1 ${pseudonym}`,
    requireNoLoop(value) {
      if (!namesUs.test(value)) return
      throw new BffError(
        'upstream_unreachable',
        'the request has been here before: its route leads back to this Cloakroom',
      )
    },
  }
}

type CompiledTemplate = {
  readonly name: string
  /** The header's value; undefined when a claim it names is absent, which leaves the header out. */
  value(claims: BffSession['claims'] | undefined): string | undefined
}

/** Bytes of a header value past which it is left out: more would break the upstream's own limit for all headers. */
const MAX_VALUE_LENGTH = 8192

const PLACEHOLDER = /\{claims\.([^{}]+)\}/

/** Compiles `{claims.NAME}` placeholders; NAME is the claim's whole name, dots included. */
function compileTemplate({ name, value: text }: HeaderTemplate): CompiledTemplate {
  // Splitting at a capturing group leaves literals at even places and claim names at odd ones.
  const parts = text.split(PLACEHOLDER)
  for (let index = 0; index < parts.length; index += 2) parts[index] = printable(parts[index]!, NOT_PRINTABLE)
  if (parts.length === 1) return { name, value: () => parts[0] }

  function value(claims: BffSession['claims'] | undefined): string | undefined {
    let built = ''
    for (let index = 0; index < parts.length; index++) {
      const part = parts[index]!
      const piece = index % 2 === 0 ? part : claimText(claims, part)
      if (piece === undefined) return undefined
      built += piece
    }
    return built.length > MAX_VALUE_LENGTH ? undefined : built
  }
  return { name, value }
}

const NOT_PRINTABLE = /[^\x20-\x7e]/gu
/** The percent sign is encoded too, so that decoding always gives the claim back. */
const NOT_PLAIN = /[^\x20-\x24\x26-\x7e]/gu
/** In a list the comma separates, so an item must not bring its own: `a,admin` is one group and not two. */
const NOT_PLAIN_ITEM = /[^\x20-\x24\x26-\x2b\x2d-\x7e]/gu

/** A claim as header text; a list is joined with commas, an object or an absent claim is undefined. */
function claimText(claims: BffSession['claims'] | undefined, name: string): string | undefined {
  const claim = claims && Object.hasOwn(claims, name) ? claims[name] : undefined
  if (!Array.isArray(claim)) return scalarText(claim, NOT_PLAIN)
  const items = claim.map((item) => scalarText(item, NOT_PLAIN_ITEM))
  return items.includes(undefined) ? undefined : items.join(',')
}

function scalarText(claim: unknown, encoded: RegExp): string | undefined {
  if (typeof claim === 'number' || typeof claim === 'boolean') return String(claim)
  return typeof claim === 'string' ? printable(claim, encoded) : undefined
}

/** Percent-encodes as UTF-8: CR, LF and anything else past printable ASCII must not end a header (ASVS 5.0 4.2). */
function printable(text: string, encoded: RegExp): string {
  return text.toWellFormed().replace(encoded, percentEncoded)
}

function percentEncoded(character: string): string {
  return character === ',' ? '%2C' : encodeURIComponent(character)
}
