import { RESOURCE_NAME } from './http-rules.ts'
import { isEntra, isOwnParameter, isQualifiedScope, isResourceIndicator } from './oauth-rules.ts'
import type { FieldPath } from './problem.ts'
import type { Report } from './report.ts'
import { complaint } from './rule.ts'
import type { Draft } from './schema.ts'
import { Secret } from './secret.ts'
import { algorithmsOf } from './secret-rules.ts'

type DraftResource = NonNullable<NonNullable<Draft['resources']>[string]>

/** What about `provider:` only its fields together can tell. */
export function checkProvider({ provider }: Draft, report: Report): void {
  checkLoginScopes(provider?.scopes, report)
  checkClientAuth(provider?.clientAuth, report)
  for (const name of Object.keys(provider?.authorizationParams ?? {})) {
    if (!isOwnParameter(name)) continue
    report.problem(
      ['provider', 'authorizationParams', name],
      `must not be set: Cloakroom sets ${name} itself`,
      'key',
    )
  }
  const { issuer = '', allowedTenants } = provider ?? {}
  if (isEntra(issuer) && /\/(?:common|organizations)\//.test(issuer) && allowedTenants?.length === 0) {
    report.warn(
      ['provider', 'issuer'],
      'lets users of every Entra tenant sign in; list yours in provider.allowedTenants',
    )
  }
}

/** Whether each resource says what the provider's dialect needs (contract section 3). */
export function checkResources({ provider, resources, routes }: Draft, report: Report): void {
  for (const [name, resource] of Object.entries(resources ?? {})) {
    const path = ['resources', name]
    if (RESOURCE_NAME.parse(name) === undefined) {
      report.problem(path, `${RESOURCE_NAME.must}, e.g. ${RESOURCE_NAME.example}`, 'key')
    }
    if (resource === undefined) continue
    if (provider?.resourceDialect === 'scope') checkScopes(resource, provider.issuer ?? '', path, report)
    else if (provider?.resourceDialect !== undefined) {
      checkIdentifier(resource, provider.resourceDialect, path, report)
    }
    if (routes?.every((route) => route !== undefined && route.resource !== name)) {
      report.warn(path, 'is not used: no route names it', 'key')
    }
  }
}

/** The scopes of a client credentials grant on Entra ID, which knows one only: everything that was granted to the client. */
export function impliedScopes(resource: { grant?: string; resource?: string }, issuer: string): string[] {
  if (resource.grant !== 'client_credentials' || resource.resource === undefined || !isEntra(issuer))
    return []
  return [`${resource.resource}/.default`]
}

function checkLoginScopes(scopes: readonly (string | undefined)[] | undefined, report: Report): void {
  if (scopes === undefined || scopes.includes(undefined)) return
  const path = ['provider', 'scopes']
  if (!scopes.includes('openid')) {
    report.problem(
      path,
      'must include openid, or the provider sends no ID token, e.g. [openid, profile, offline_access]',
    )
  } else if (!scopes.includes('offline_access')) {
    report.warn(
      path,
      'lacks offline_access: most providers then send no refresh token, and sessions end with the first access token',
    )
  }
}

function checkClientAuth(clientAuth: NonNullable<Draft['provider']>['clientAuth'], report: Report): void {
  const path = ['provider', 'clientAuth']
  if (clientAuth?.method === 'none') report.warn(path, 'makes this a public client: only for tests')
  if (clientAuth?.method !== 'private_key_jwt' || !(clientAuth.key instanceof Secret)) return
  const possible = algorithmsOf(clientAuth.key.reveal())
  const { algorithm } = clientAuth
  if (possible.length === 0) {
    report.problem(
      [...path, 'key'],
      'must be an RSA key, an EC key on P-256, P-384 or P-521, or an Ed25519 key',
    )
  } else if (algorithm !== undefined && !possible.includes(algorithm)) {
    report.problem([...path, 'algorithm'], complaint('must fit the key', possible.join(' or ')))
  }
}

function checkScopes(resource: DraftResource, issuer: string, path: FieldPath, report: Report): void {
  const { scopes } = resource
  if (scopes?.length === 0 && impliedScopes(resource, issuer).length === 0) {
    report.problem(
      [...path, 'scopes'],
      'is required: with provider.resourceDialect "scope" the scopes name the resource, e.g. [api://orders/.default]',
    )
  }
  scopes?.forEach((scope, index) => {
    if (scope === undefined || !isEntra(issuer) || isQualifiedScope(scope)) return
    report.warn(
      [...path, 'scopes', index],
      `"${scope}" names no API, so Entra ID takes it for one of Microsoft Graph's; write e.g. api://orders/${scope}`,
    )
  })
}

function checkIdentifier(resource: DraftResource, dialect: string, path: FieldPath, report: Report): void {
  const identifier = resource.resource
  const isGiven = report.written([...path, 'resource']) !== undefined
  if (!isGiven) {
    report.problem(
      [...path, 'resource'],
      `is required: with provider.resourceDialect "${dialect}" it names the resource, e.g. https://billing.example.com`,
    )
  } else if (
    dialect === 'resource-indicator' &&
    identifier !== undefined &&
    !isResourceIndicator(identifier)
  ) {
    const must = 'must be an absolute URI without a fragment (RFC 8707)'
    report.problem([...path, 'resource'], complaint(must, 'https://billing.example.com'))
  }
}
