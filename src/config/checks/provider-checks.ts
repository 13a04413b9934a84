import { systemClock } from '../../async/clock.ts'
import { didYouMean } from '../report/nearest-name.ts'
import type { Field } from '../report/report.ts'
import { insecureProviderUrl } from '../rules/addresses.ts'
import { certificatePair, certificateWarning } from '../rules/certificates.ts'
import { RESOURCE_NAME } from '../rules/http-rules.ts'
import {
  isEntra,
  isMicrosoft,
  isOwnParameter,
  isQualifiedScope,
  isResourceIndicator,
} from '../rules/oauth-rules.ts'
import { complaint } from '../rules/rule.ts'
import { algorithmsOf } from '../rules/secret-rules.ts'
import type { Draft } from '../schema/schema.ts'
import { Secret } from '../secrets/secret.ts'
import { checkTls } from './tls-check.ts'

type DraftProvider = NonNullable<Draft['provider']>
type DraftResource = NonNullable<NonNullable<Draft['resources']>[string]>

/** Checks that span the fields of `provider:`. */
export function checkProvider({ provider }: Draft, field: Field): void {
  checkLoginScopes(provider ?? {}, field)
  checkClientAuth(provider?.clientAuth, field.at('clientAuth'))
  checkTlsIdentity(provider ?? {}, field)
  checkUserInfo(provider ?? {}, field)
  for (const name of Object.keys(provider?.authorizationParams ?? {})) {
    if (!isOwnParameter(name)) continue
    field.at('authorizationParams', name).problem(`must not be set: Cloakroom sets ${name} itself`, 'key')
  }
  if (provider?.responseType === 'code id_token' && provider.responseMode !== 'form_post') {
    const why = 'brings an ID token, which must not stand in a URL: needs "responseMode: form_post"'
    if (provider.responseMode !== undefined) field.at('responseType').problem(why)
  }
  checkSharedSignals(provider?.sharedSignals, field.at('sharedSignals'))
  checkMicrosoft(provider ?? {}, field)
  checkTls(field.at('tls'), true)
  checkTransport(provider, field)
}

function checkSharedSignals(signals: DraftProvider['sharedSignals'], field: Field): void {
  if (signals === undefined) return
  if (field.at('authorization').written() === undefined) {
    field.warn(
      'lacks authorization: anybody can make Cloakroom check signatures; write what the transmitter sends, e.g. authorization: { file: /run/secrets/ssf-authorization }',
    )
  }
}

/** Entra ID and what is built on it answers in the query or by form_post, and knows neither JARM nor DPoP. */
function checkMicrosoft({ issuer, responseMode, dpop }: DraftProvider, field: Field): void {
  if (issuer === undefined || !isMicrosoft(issuer)) return
  const cure = 'this provider does not have it, so that every sign-in would fail'
  if (responseMode === 'jwt')
    field.at('responseMode').warn(`"jwt": ${cure}; form_post keeps the code out of URLs`)
  if (dpop !== undefined && dpop !== 'off') field.at('dpop').warn(`"${dpop}": ${cure}; set off`)
}

/** Plain http is allowed for this machine and for `insecureHosts` only. */
function checkTransport(provider: Draft['provider'], field: Field): void {
  const { insecureHosts } = provider ?? {}
  if (insecureHosts === undefined) return
  const hosts = insecureHosts.filter((host) => host !== undefined)
  const urls: [url: string | undefined, at: Field][] = [
    [provider?.issuer, field.at('issuer')],
    ...Object.entries(provider?.endpoints ?? {}).map(([name, url]): [string | undefined, Field] => [
      url,
      field.at('endpoints', name),
    ]),
    [provider?.sharedSignals?.transmitter, field.at('sharedSignals', 'transmitter')],
  ]
  for (const [url, at] of urls) {
    const why = url === undefined ? undefined : insecureProviderUrl(url, hosts)
    if (why !== undefined) at.problem(why)
  }
  insecureHosts.forEach((host, index) => {
    if (host === undefined) return
    field
      .at('insecureHosts', index)
      .warn(
        'allows plain http: whoever is on the way reads the client secret, codes and tokens; only for a network that encrypts by itself',
      )
  })
}

/** Whether each resource says what the provider's dialect needs (contract section 3). */
export function checkResources({ provider = {}, resources, routes }: Draft, field: Field): void {
  for (const [name, resource] of Object.entries(resources ?? {})) {
    const own = field.at(name)
    if (RESOURCE_NAME.parse(name) === undefined) {
      own.problem(`${RESOURCE_NAME.must}, e.g. ${RESOURCE_NAME.example}`, 'key')
    }
    if (resource === undefined) continue
    if (provider.resourceDialect === 'scope') checkScopes(resource, provider, own.at('scopes'))
    else if (provider.resourceDialect !== undefined) {
      checkIdentifier(resource, provider.resourceDialect, own.at('resource'))
    }
    checkGrant(resource, provider, own.at('grant'))
    checkExchange(resource, resources, own)
    const isSubject = Object.values(resources ?? {}).some((other) => other?.subject === name)
    if (!isSubject && routes?.every((route) => route !== undefined && route.resource !== name)) {
      own.warn('is not used: no route names it', 'key')
    }
  }
}

/** The scopes of a client credentials grant on Entra ID, which knows one only: everything that was granted to the client. */
export function impliedScopes(resource: { grant?: string; resource?: string }, issuer: string): string[] {
  if (resource.grant !== 'client_credentials' || resource.resource === undefined || !isEntra(issuer))
    return []
  return [`${resource.resource}/.default`]
}

/** How a token is exchanged unless the operator says: Entra ID does not know RFC 8693. */
export function impliedExchange(issuer: string): 'rfc8693' | 'on_behalf_of' {
  return isEntra(issuer) ? 'on_behalf_of' : 'rfc8693'
}

/**
 * Whose scopes a sign-in asks for unless the operator says. Everywhere but at Entra ID a refresh may narrow what the
 * sign-in asked for, and never widen it (RFC 6749 §6). With a `resource` or an `audience` the sign-in names one API only.
 */
export function impliedSignInScopes({
  issuer,
  resourceDialect,
}: {
  readonly issuer: string
  readonly resourceDialect: string
}): 'all' | 'first' {
  const namesOne = resourceDialect === 'resource' || resourceDialect === 'audience'
  return namesOne || isEntra(issuer) ? 'first' : 'all'
}

function checkGrant(resource: DraftResource, { clientAuth, issuer }: DraftProvider, field: Field): void {
  if (clientAuth?.method !== 'none') return
  const why = 'needs a client that can prove itself: provider.clientAuth.method is none'
  if (resource.grant === 'client_credentials') field.problem(complaint(why, 'refresh_token'))
  if (resource.grant !== 'token_exchange' || issuer === undefined) return
  const exchange = resource.exchange ?? impliedExchange(issuer)
  if (exchange !== 'on_behalf_of') return
  const cure = 'set that to client_secret_post or private_key_jwt'
  field.problem(`with "exchange: on_behalf_of" ${why}; ${cure}`)
}

/** The subject token must come from a refresh grant: one exchange, no chain and no circle. */
function checkExchange(
  { grant, subject, exchange }: DraftResource,
  resources: Draft['resources'],
  field: Field,
): void {
  const own = field.at('subject')
  if (grant !== 'token_exchange') {
    const why = 'is for "grant: token_exchange" only; remove it, or set that grant'
    if (grant !== undefined && subject !== undefined) own.problem(why)
    if (grant !== undefined && exchange !== undefined) field.at('exchange').problem(why)
    return
  }
  if (own.written() === undefined) {
    own.problem('is required: the name of the resource whose access token is exchanged, e.g. orders')
  }
  if (subject === undefined || resources === undefined) return
  if (!Object.hasOwn(resources, subject)) {
    const known = Object.keys(resources)
    own.problem(
      `there is no resource "${subject}"${didYouMean(subject, known) || `; there are ${known.join(', ')}`}`,
    )
  } else if ((resources[subject]?.grant ?? 'refresh_token') !== 'refresh_token') {
    own.problem(complaint('must name a resource with "grant: refresh_token"'))
  }
}

function checkLoginScopes(
  { scopes, issuer = '', resourceDialect, authorizationParams }: DraftProvider,
  provider: Field,
): void {
  const field = provider.at('scopes')
  if (scopes === undefined || scopes.includes(undefined)) return
  if (!scopes.includes('openid')) {
    field.problem(
      'must include openid, or the provider sends no ID token, e.g. [openid, profile, offline_access]',
    )
    return
  }
  const isAsked = scopes.includes('offline_access')
  const habit = offlineHabitOf(issuer)
  if (habit === 'refused' && isAsked) {
    field.warn(
      'has offline_access, which this provider refuses (invalid_scope); leave it out, e.g. [openid, profile, email]',
    )
    // Azure AD v1 and AD FS have no scope for it.
  } else if (habit === undefined && !isAsked && resourceDialect !== 'resource') {
    field.warn(
      'lacks offline_access: most providers then send no refresh token, and no access token can be renewed',
    )
  }
  if (isGoogle(issuer) && authorizationParams?.access_type !== 'offline') {
    const cure = '{ access_type: offline, prompt: consent }'
    provider
      .at('authorizationParams')
      .warn(`lacks access_type: Google sends a refresh token with ${cure} only`)
  }
}

/** Providers whose refresh tokens need no `offline_access`; some refuse a sign-in that asks for it. */
function offlineHabitOf(issuer: string): 'refused' | 'not needed' | undefined {
  const { hostname, pathname } = URL.canParse(issuer) ? new URL(issuer) : { hostname: '', pathname: '' }
  if (isGoogle(issuer) || /^cognito-idp\.[a-z0-9-]+\.amazonaws\.com$/.test(hostname)) return 'refused'
  // Keycloak refreshes within its own session; PingOne has it as a setting of the application.
  const isKeycloak = /\/realms\/[^/]+$/.test(pathname)
  return isKeycloak || /^auth\.pingone\.[a-z.]+$/.test(hostname) ? 'not needed' : undefined
}

function isGoogle(issuer: string): boolean {
  return /^https:\/\/accounts\.google\.com\/?$/.test(issuer)
}

function checkClientAuth(clientAuth: DraftProvider['clientAuth'], field: Field): void {
  if (clientAuth?.method === 'none') field.warn('makes this a public client: only for tests')
  const isSigned = clientAuth?.method === 'private_key_jwt' || clientAuth?.method === 'certificate'
  if (!isSigned || !(clientAuth.key instanceof Secret) || clientAuth.key.isAbsent) return
  if (clientAuth.method === 'certificate') checkCertificate(clientAuth, field)
  const possible = algorithmsOf(clientAuth.key.reveal())
  const { algorithm } = clientAuth
  if (possible.length === 0) {
    field.at('key').problem('must be an RSA key, an EC key on P-256, P-384 or P-521, or an Ed25519 key')
  } else if (algorithm !== undefined && !possible.includes(algorithm)) {
    field.at('algorithm').problem(complaint('must fit the key', possible.join(' or ')))
  }
}

function checkUserInfo(
  { userinfo, endpoints, resourceDialect, issuer = '' }: DraftProvider,
  field: Field,
): void {
  if (!userinfo) return
  const at = field.at('userinfo')
  if (endpoints?.authorization && endpoints.token && endpoints.jwks && !endpoints.userinfo) {
    at.problem('needs provider.endpoints.userinfo, because nothing is discovered')
  }
  if (!isMicrosoft(issuer) && resourceDialect !== 'resource') return
  at.warn(
    "fails where the token of the code is for an API: this provider's UserInfo endpoint takes none; have the claims put into the ID token instead",
  )
}

type DraftCertificate = { readonly key?: unknown; readonly certificate?: unknown }

function checkCertificate({ key, certificate }: DraftCertificate, field: Field): void {
  if (!(key instanceof Secret) || !(certificate instanceof Secret) || certificate.isAbsent) return
  const at = field.at('certificate')
  const pair = certificatePair(key.reveal(), certificate.reveal())
  if (!pair)
    at.problem('is not for the key beside it: while the two are replaced, the pair before is used on')
  const warning = pair && certificateWarning(pair, systemClock.now())
  if (warning !== undefined) at.warn(warning)
}

/** RFC 8705 §2: the certificate of the connection is the client's proof. */
function checkTlsIdentity({ clientAuth, tls, issuer = '' }: DraftProvider, field: Field): void {
  const { cert, key } = tls ?? {}
  const isProof = clientAuth?.method === 'tls_client_auth'
  if (isProof && (field.at('tls', 'cert').written() ?? field.at('tls', 'key').written()) === undefined) {
    const cure = 'tls: { cert: { file: tls.crt }, key: { file: tls.key } }'
    field.at('clientAuth').problem(`needs a client certificate for calls to the provider: provider.${cure}`)
  }
  if (isProof && issuer.startsWith('http:')) {
    field.at('clientAuth').problem('needs a provider in https: without TLS there is no client certificate')
  }
  if (!cert || !(key instanceof Secret) || key.isAbsent) return
  const pair = certificatePair(key.reveal(), cert)
  if (!pair) field.at('tls', 'cert').problem('is not for the key beside it')
  const warning = pair && certificateWarning(pair, systemClock.now())
  if (warning !== undefined) field.at('tls', 'cert').warn(warning)
}

function checkScopes(resource: DraftResource, { issuer = '' }: DraftProvider, field: Field): void {
  const { scopes } = resource
  if (scopes?.length === 0 && impliedScopes(resource, issuer).length === 0) {
    field.problem(
      'is required: with provider.resourceDialect "scope" the scopes name the resource, e.g. [api://orders/.default]',
    )
  }
  scopes?.forEach((scope, index) => {
    if (scope === undefined || !isEntra(issuer) || isQualifiedScope(scope)) return
    const cure = `write e.g. api://orders/${scope}`
    field
      .at(index)
      .warn(`"${scope}" names no API, so Entra ID takes it for one of Microsoft Graph's; ${cure}`)
  })
}

function checkIdentifier({ resource }: DraftResource, dialect: string, field: Field): void {
  if (field.written() === undefined) {
    const why = `with provider.resourceDialect "${dialect}" it names the resource`
    field.problem(`is required: ${why}, e.g. https://billing.example.com`)
  } else if (dialect === 'resource-indicator' && resource !== undefined && !isResourceIndicator(resource)) {
    field.problem(
      complaint('must be an absolute URI without a fragment (RFC 8707)', 'https://billing.example.com'),
    )
  }
}
