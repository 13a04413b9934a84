import type { Field } from '../report/report.ts'
import {
  entraApiOf,
  isBareApi,
  isEntra,
  isMicrosoft,
  isTenantId,
  placeholderIn,
} from '../rules/oauth-rules.ts'
import type { Draft } from '../schema/schema.ts'

type DraftProvider = NonNullable<Draft['provider']>

/** Names in the place of a tenant that mean more than one. */
const SHARED_TENANTS = new Set(['common', 'organizations', 'consumers'])

/** Settings that other providers accept and that mean something else, or nothing, at Microsoft's. */
export function checkEntra({ provider = {}, resources, routes }: Draft, root: Field): void {
  const { issuer = '', clientId, endpoints, resourceDialect, scopes } = provider
  const field = root.at('provider')
  warnOfPlaceholders({ issuer, clientId, endpoints }, field)
  if (isEntra(issuer)) checkTenant(provider, issuer, field)
  if (isEntra(issuer) && provider.clientAuth?.method === 'private_key_jwt') {
    field
      .at('clientAuth', 'method')
      .warn('should be "certificate": Entra ID finds a key by the thumbprint of its certificate (x5t#S256)')
  }
  if (isEntra(issuer)) checkVersion(issuer, resourceDialect, field.at('issuer'))
  if (isEntra(issuer)) checkBearers(routes, root.at('routes'))
  if (resourceDialect !== 'scope' || !isMicrosoft(issuer)) return
  scopes?.forEach((scope, index) => {
    const api = scope === undefined ? undefined : entraApiOf(scope)
    if (api === undefined) return
    const why = 'a token is for one API, and a code grant that asks for two is refused (AADSTS28000)'
    field
      .at('scopes', index)
      .warn(`is a scope of an API, ${api}: give it a resource of its own, because ${why}`)
  })
  checkSignInScopes(provider, resources, field.at('signInScopes'))
  for (const [name, resource] of Object.entries(resources ?? {})) {
    const given = resource?.scopes?.filter((scope) => scope !== undefined) ?? []
    checkOneApi(given, root.at('resources', name, 'scopes'))
  }
}

type Named = Pick<DraftProvider, 'issuer' | 'clientId' | 'endpoints'>

function warnOfPlaceholders({ issuer, clientId, endpoints = {} }: Named, field: Field): void {
  for (const [name, text] of Object.entries({ issuer, clientId })) {
    warnOfPlaceholder(text, field.at(name))
  }
  for (const [name, url] of Object.entries(endpoints)) warnOfPlaceholder(url, field.at('endpoints', name))
}

function warnOfPlaceholder(text: string | undefined, field: Field): void {
  const placeholder = text === undefined ? undefined : placeholderIn(text)
  if (placeholder === undefined) return
  field.warn(`still has the placeholder "${placeholder}" of an example; put in your own id`)
}

/** The path of an issuer begins with the tenant: an id, a domain, or a name for many. */
function checkTenant({ allowedTenants = [] }: DraftProvider, issuer: string, field: Field): void {
  const tenant = decodeURIComponent(new URL(issuer).pathname.split('/')[1] ?? '')
  const isShared = SHARED_TENANTS.has(tenant.toLowerCase())
  if (isShared && tenant.toLowerCase() !== 'consumers' && allowedTenants.length === 0) {
    field.at('issuer').warn('lets users of every Entra tenant sign in; list yours in provider.allowedTenants')
  } else if (
    !isShared &&
    !isTenantId(tenant) &&
    !tenant.includes('.') &&
    placeholderIn(issuer) === undefined
  ) {
    const cure = 'its id or domain (Entra admin center, Overview), or "organizations" for several'
    field.at('issuer').warn(`names no tenant: "${tenant}" is none; write ${cure}`)
  }
  allowedTenants.forEach((allowed, index) => {
    if (allowed === undefined || isTenantId(allowed)) return
    field
      .at('allowedTenants', index)
      .warn('is no tenant id, and `tid` in a token always is one: it lets nobody in')
  })
  if (!isTenantId(tenant) || allowedTenants.length === 0) return
  if (allowedTenants.some((allowed) => allowed?.toLowerCase() === tenant.toLowerCase())) return
  field.at('allowedTenants').warn("lacks the issuer's own tenant, the only one that can sign in: nobody can")
}

function checkVersion(issuer: string, dialect: DraftProvider['resourceDialect'], field: Field): void {
  const isV2 = /\/v2\.0\/?$/.test(new URL(issuer).pathname)
  if (dialect === 'scope' && !isV2) {
    const tenant = new URL(issuer).pathname.split('/')[1] || 'TENANT_ID'
    const v2 = `https://login.microsoftonline.com/${decodeURIComponent(tenant)}/v2.0`
    field.warn(
      `is that of Entra's v1 endpoints, which do not know scopes: a token would be for another API; write ${v2}, or set provider.resourceDialect to "resource"`,
    )
  } else if (dialect !== undefined && dialect !== 'scope' && isV2) {
    field.warn(
      `is that of Entra's v2.0 endpoints, which take scopes alone and refuse a request that names its API otherwise (AADSTS901002); set provider.resourceDialect to "scope"`,
    )
  }
}

/** Entra ID gives every application of the tenant a token for an API, whether or not it was granted anything of it. */
function checkBearers(routes: Draft['routes'], field: Field): void {
  routes?.forEach((route, index) => {
    const { bearer, require = {} } = route ?? {}
    if (bearer?.scopes?.length !== 0 || require.claims !== undefined || require.scopes !== undefined) return
    field
      .at(index, 'bearer')
      .warn(
        'lets every application of the tenant in: Entra ID gives each a token for this audience, without any permission; write scopes, or for applications require: { claims: { roles: [ROLE] } }',
      )
  })
}

/** A sign-in may name several APIs, but `.default` of one only. It need not name more: a refresh widens at Entra ID. */
function checkSignInScopes(
  { issuer = '', signInScopes }: DraftProvider,
  resources: Draft['resources'],
  field: Field,
): void {
  const scopes = Object.values(resources ?? {})
    .filter((resource) => resource?.grant === 'refresh_token')
    .flatMap((resource) => resource?.scopes ?? [])
    .filter((scope) => scope !== undefined)
  const apis = new Set(scopes.map(entraApiOf).filter((api) => api !== undefined))
  if (apis.size < 2) return
  const why = 'a refresh gets a token for any API that was consented to'
  if (signInScopes === 'auto' && !isEntra(issuer)) {
    field.warn(
      `should be "first" for this host: ${why}, and one sign-in for ${apis.size} APIs may be refused`,
    )
  } else if (signInScopes === 'all' && scopes.filter((scope) => scope.endsWith('/.default')).length > 1) {
    field.warn(`should be "first": a sign-in may ask for one ".default" only (AADSTS70011), and ${why}`)
  }
}

/** Entra ID issues a token for the first API of a request and says nothing of the second. */
function checkOneApi(scopes: readonly string[], field: Field): void {
  const bare = scopes.find(isBareApi)
  if (bare !== undefined) {
    const all = `${bare.replace(/\/$/, '')}/.default`
    field.warn(`have ${bare}, which names an API and none of its scopes (AADSTS70011); write e.g. ${all}`)
  }
  const apis = new Map<string, string[]>()
  for (const scope of scopes) {
    const api = entraApiOf(scope)
    if (api !== undefined) apis.set(api, [...(apis.get(api) ?? []), scope])
  }
  for (const own of apis.values()) {
    const all = own.find((scope) => scope.endsWith('/.default'))
    if (all === undefined || own.length === 1) continue
    const cure = `it already means every scope that was consented to; write ${all} alone, or the scopes without it`
    field.problem(`must not have "${all}" beside other scopes of the same API (AADSTS70011): ${cure}`)
  }
  const [first, ...others] = apis.keys()
  const other = others[0]
  if (first === undefined || other === undefined) return
  const message = `name two APIs, ${first} and ${other}, and a token is for one: Entra ID would issue it for the first alone; make a resource of each`
  // An App ID URI may end with a path, and a scope may hold a slash: below one host only a person can tell.
  if (hostOf(first) === hostOf(other)) field.warn(message)
  else field.problem(message)
}

function hostOf(api: string): string {
  return /^[a-z]+:\/\/[^/]+/.exec(api)?.[0] ?? api
}
