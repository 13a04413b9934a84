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
  /^(?:client_id|redirect_uri|response_type|response_mode|state|nonce|code_challenge.*|request.*|scope|resource)$/

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
