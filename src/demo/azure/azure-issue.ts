import { randomUUID } from 'node:crypto'
import type { createCodes } from '../scripted/authorization-endpoint.ts'
import type { KnownClient } from '../scripted/client-check.ts'
import { field, type RecordedRequest } from '../scripted/http-messages.ts'
import { opaque, type Signer, unsignedJwt } from '../scripted/signing.ts'
import type { AzureDialect } from './azure-dialects.ts'
import type { AzureAnswer, AzureTrace } from './azure-errors.ts'
import type { AzurePolicy, AzureSignIn } from './azure-policy.ts'

/** What a refresh token stands for: one sign-in. Tokens of one grant all stay valid (they are not revoked by use). */
export type AzureGrant = AzureSignIn & {
  readonly sid: string
  /** Resources that the authorization request named. */
  readonly named: readonly string[]
  revoked: boolean
}

/** What the token endpoint works with. */
export type AzureTokensDeps = {
  readonly dialect: AzureDialect
  readonly tenant: string
  readonly client: KnownClient
  readonly policy: AzurePolicy
  readonly signer: Signer
  readonly codes: ReturnType<typeof createCodes>
  readonly grants: Map<string, AzureGrant>
  /** Access tokens that may be exchanged, with whose they are. */
  readonly assertions: Map<string, AzureGrant>
  readonly violations: string[]
  readonly issue: (secret: string) => string
  readonly issuer: string
  readonly endpoints: { readonly token: string }
  readonly resources: Record<string, { audience?: string; scopes?: string[] }> | undefined
  readonly trace: AzureTrace | undefined
  readonly now: () => number
  /** Told of each answer. */
  readonly observe?: (request: RecordedRequest, answer: AzureAnswer) => void
}

/** Which grant a token request uses. */
export type Leg = 'code' | 'refresh' | 'client_credentials' | 'on_behalf_of'
/** A token request whose code, refresh token or client was accepted. */
export type Opened = { readonly leg: Leg; readonly grant: AzureGrant; readonly nonce?: string }

/** Signs and remembers the tokens of one successful request, and writes the answer. */
export async function issueTokens(
  deps: AzureTokensDeps,
  form: [string, string][],
  opened: Opened,
  asked: { resource: string; scopes: readonly string[] },
): Promise<Record<string, unknown>> {
  const { dialect, policy, issue } = deps
  const { leg, grant } = opened
  const now = Math.floor(deps.now() / 1000)
  const askedScopes = (field(form, 'scope') ?? '').split(' ').filter(Boolean)
  const isV1 = dialect.version === 'v1'
  const scopes = grantedScopes(deps, asked)
  const accessToken = issue(await deps.signer.sign(accessClaims(deps, grant, { ...asked, scopes }, now)))
  deps.assertions.set(accessToken, grant)
  const wantsRefresh = leg !== 'client_credentials' && (isV1 || askedScopes.includes('offline_access'))
  const refreshToken = wantsRefresh ? issue(opaque(isV1 ? 'AwABAAAAvPM1' : '0.ARoAv4j5cvGG', 96)) : undefined
  if (refreshToken) deps.grants.set(refreshToken, grant)
  const wantsId = isV1 ? leg === 'code' : leg !== 'client_credentials' && askedScopes.includes('openid')
  const idToken = wantsId ? issue(await signIdToken(deps, opened, now)) : undefined
  const lifetimeSeconds = policy.accessTokenSeconds
  const answer = dialect.tokenResponse({
    ...{ resource: asked.resource, scopes, askedScopes, lifetimeSeconds, now },
    ...{ accessToken, refreshToken, idToken },
  })
  if (policy.namesNoResource) delete answer.resource
  return answer
}

function grantedScopes(
  { dialect, resources }: AzureTokensDeps,
  asked: { resource: string; scopes: readonly string[] },
): readonly string[] {
  if (dialect.version === 'v1') return ['user_impersonation']
  const isDefault = asked.scopes.some((scope) => scope.endsWith('/.default'))
  if (!isDefault) return asked.scopes
  const permitted = resources?.[asked.resource]?.scopes ?? ['user_impersonation']
  return [...permitted, '.default'].map((scope) => `${asked.resource}/${scope}`)
}

function accessClaims(
  deps: AzureTokensDeps,
  grant: AzureGrant,
  granted: { resource: string; scopes: readonly string[] },
  now: number,
): Record<string, unknown> {
  const { dialect, policy, tenant, client } = deps
  const common = {
    aud: deps.resources?.[granted.resource]?.audience ?? granted.resource,
    iss: deps.issuer,
    iat: now,
    nbf: now,
    exp: now + policy.accessTokenSeconds,
    oid: objectId(grant.user),
    sub: grant.user,
    tid: tenant,
    uti: randomUUID(),
    ...policy.claimsOf?.(grant, 'access'),
  }
  const scp = granted.scopes
    .filter((scope) => !scope.endsWith('.default'))
    .map((scope) => scope.slice(scope.lastIndexOf('/') + 1))
    .join(' ')
  return dialect.version === 'v1'
    ? { ...common, appid: client.clientId, appidacr: '1', acr: '1', scp, ver: '1.0' }
    : { ...common, azp: client.clientId, azpacr: '1', scp, ver: '2.0' }
}

async function signIdToken(deps: AzureTokensDeps, { grant, nonce }: Opened, now: number): Promise<string> {
  const { dialect, policy, tenant, client } = deps
  const name = dialect.version === 'v1' ? 'upn' : 'preferred_username'
  const claims = {
    ...{ aud: client.clientId, iss: deps.issuer, iat: now, nbf: now, exp: now + 3600 },
    ...{ oid: objectId(grant.user), sub: grant.user, sid: grant.sid, tid: tenant, uti: randomUUID() },
    ...{
      name: grant.user,
      [name]: `${grant.user}@contoso.com`,
      ver: dialect.version === 'v1' ? '1.0' : '2.0',
    },
    ...(nonce === undefined ? {} : { nonce }),
    ...policy.idTokenClaims,
    ...policy.claimsOf?.(grant, 'id'),
  }
  if (dialect.version === 'v1' && policy.unsignedIdToken) return unsignedJwt(claims)
  return deps.signer.sign(claims)
}

/** A stable GUID-shaped id for a user. */
function objectId(user: string): string {
  const hex = Buffer.from(user.padEnd(16, '\0')).toString('hex').slice(0, 32)
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
}
