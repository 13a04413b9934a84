import type { Rule } from './rule.ts'

/** One scope (RFC 6749 §3.3). */
export const SCOPE: Rule<string> = {
  must: 'must be one scope without blanks; each scope is its own item of the list',
  example: 'openid',
  parse: (text) => (/^[\x21\x23-\x5b\x5d-\x7e]+$/.test(text) ? text : undefined),
}

/** What a token request names, byte for byte. An App ID URI or, at Azure AD v1, a plain id: so any text without blanks. */
export const RESOURCE_IDENTIFIER: Rule<string> = {
  must: 'must be the identifier of the API, without blanks',
  example: 'https://billing.example.com',
  parse: opaque,
}

/** A text without blanks that Cloakroom only passes on: a client id, an audience, a key id, a tenant id. */
export function opaqueRule(must: string, example: string): Rule<string> {
  return { must, example, parse: opaque }
}

/** RFC 8707 §2: an absolute URI without a fragment. */
export function isResourceIndicator(text: string): boolean {
  return /^[A-Za-z][A-Za-z0-9+.-]*:[^\s#]+$/.test(text) && URL.canParse(text)
}

const OWN_PARAMETERS =
  /^(?:client_id|redirect_uri|response_type|response_mode|state|nonce|code_challenge.*|dpop_jkt|request.*|scope|resource)$/

/** True for authorization request parameters that Cloakroom sets itself, and so must not be configured. */
export function isOwnParameter(name: string): boolean {
  return OWN_PARAMETERS.test(name)
}

/** True for Entra ID (Azure AD), in any of its clouds. */
export function isEntra(issuer: string): boolean {
  const host = URL.canParse(issuer) ? new URL(issuer).hostname : ''
  return /^(?:login\.microsoftonline\.[a-z0-9.-]+|login\.partner\.microsoftonline\.cn|sts\.windows\.net)$/.test(
    host,
  )
}

/** True for Entra ID and for what is built on it: External ID and Azure AD B2C. */
export function isMicrosoft(issuer: string): boolean {
  const host = URL.canParse(issuer) ? new URL(issuer).hostname : ''
  return isEntra(issuer) || /\.(?:ciamlogin|b2clogin)\.com$/.test(host)
}

const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i

/** True for the id of an Entra tenant. */
export function isTenantId(text: string): boolean {
  return UUID.test(text) && !/^[0-]+$/.test(text)
}

/** Whether two audiences are one. Entra ID calls an API `api://ID` in v1 tokens and `ID` in v2 tokens. */
export function isSameAudience(a: string, b: string): boolean {
  const [bareA, bareB] = [a, b].map((audience) => audience.replace(/^api:\/\//, ''))
  return a === b || (UUID.test(bareA!) && bareA === bareB)
}

const GRAPH = 'https://graph.microsoft.com'

/**
 * The API that a scope of Entra ID belongs to, in one spelling; undefined for a scope of OpenID Connect. A scope that
 * names none is one of Microsoft Graph.
 */
export function entraApiOf(scope: string): string | undefined {
  if (OIDC_SCOPES.has(scope)) return undefined
  if (isBareApi(scope)) return scope.toLowerCase()
  const end = scope.lastIndexOf('/')
  const api = (end === -1 ? GRAPH : scope.slice(0, end)).toLowerCase().replace(/\/+$/, '')
  // `GUID/.default` and `api://GUID/read` may be of one registration.
  const id = api.replace(/^api:\/\//, '')
  if (id === '00000003-0000-0000-c000-000000000000') return GRAPH
  return UUID.test(id) ? id : api
}

/** True for an App ID URI in the place of a scope: `api://orders`, which names no permission of that API. */
export function isBareApi(scope: string): boolean {
  return /^[a-z][a-z0-9+.-]*:\/\/[^/]+\/?$/i.test(scope)
}

/** What an example wrote where an own id belongs, such as `TENANT_ID`, `{tenantid}` or `<client-id>`. */
export function placeholderIn(text: string): string | undefined {
  const words = text.split(/[/.:]/).map((word) => safeDecode(word))
  return words.find((word) => SHOUTED_PLACEHOLDER.test(word) || PLACEHOLDER.test(word))
}

// Matched in upper case only: in lower case they may be real names, such as a realm called "tenant".
const SHOUTED_PLACEHOLDER = /^(?:(?:MY|THE)[-_][A-Z0-9_-]+|TENANT|REALM|DOMAIN|ISSUER)$/
const PLACEHOLDER =
  /^(?:[{<[].*[}>\]]|(?:your|insert|enter)[-_].+|(?:tenant|client)[-_]?(?:id|name|guid)|(?:change|replace)[-_]?me|([0x])\1{7}(?:-\1{4}){3}-\1{12})$/i

function safeDecode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

/** True for a scope that names its API, as Entra ID needs it: `api://orders/read`, `https://graph.microsoft.com/.default`, `GUID/.default`. */
export function isQualifiedScope(scope: string): boolean {
  return scope.includes('/') || OIDC_SCOPES.has(scope)
}

const OIDC_SCOPES = new Set(['openid', 'profile', 'email', 'address', 'phone', 'offline_access'])

function opaque(text: string): string | undefined {
  return /^[^\s\p{Cc}]+$/u.test(text) ? text : undefined
}

/** The value of an additional authorization request parameter. */
export const PARAMETER_VALUE: Rule<string> = {
  must: 'must be text',
  example: '{ domain_hint: contoso.com }',
  parse: (text) => text,
}
