import { RESOURCE_NAME } from './http-rules.ts'
import { isEntra, isOwnParameter, isQualifiedScope, isResourceIndicator } from './oauth-rules.ts'
import type { Field } from './report.ts'
import { complaint } from './rule.ts'
import type { Draft } from './schema.ts'
import { Secret } from './secret.ts'
import { algorithmsOf } from './secret-rules.ts'

type DraftProvider = NonNullable<Draft['provider']>
type DraftResource = NonNullable<NonNullable<Draft['resources']>[string]>

/** What about `provider:` only its fields together can tell. */
export function checkProvider({ provider }: Draft, field: Field): void {
  checkLoginScopes(provider?.scopes, field.at('scopes'))
  checkClientAuth(provider?.clientAuth, field.at('clientAuth'))
  for (const name of Object.keys(provider?.authorizationParams ?? {})) {
    if (!isOwnParameter(name)) continue
    field.at('authorizationParams', name).problem(`must not be set: Cloakroom sets ${name} itself`, 'key')
  }
  const { issuer = '', allowedTenants } = provider ?? {}
  if (isEntra(issuer) && /\/(?:common|organizations)\//.test(issuer) && allowedTenants?.length === 0) {
    field.at('issuer').warn('lets users of every Entra tenant sign in; list yours in provider.allowedTenants')
  }
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
    if (routes?.every((route) => route !== undefined && route.resource !== name)) {
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

function checkLoginScopes(scopes: DraftProvider['scopes'], field: Field): void {
  if (scopes === undefined || scopes.includes(undefined)) return
  if (!scopes.includes('openid')) {
    field.problem(
      'must include openid, or the provider sends no ID token, e.g. [openid, profile, offline_access]',
    )
  } else if (!scopes.includes('offline_access')) {
    field.warn(
      'lacks offline_access: most providers then send no refresh token, and no access token can be renewed',
    )
  }
}

function checkClientAuth(clientAuth: DraftProvider['clientAuth'], field: Field): void {
  if (clientAuth?.method === 'none') field.warn('makes this a public client: only for tests')
  if (clientAuth?.method !== 'private_key_jwt' || !(clientAuth.key instanceof Secret)) return
  const possible = algorithmsOf(clientAuth.key.reveal())
  const { algorithm } = clientAuth
  if (possible.length === 0) {
    field.at('key').problem('must be an RSA key, an EC key on P-256, P-384 or P-521, or an Ed25519 key')
  } else if (algorithm !== undefined && !possible.includes(algorithm)) {
    field.at('algorithm').problem(complaint('must fit the key', possible.join(' or ')))
  }
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
