import { randomUUID } from 'node:crypto'
import type { ServerResponse } from 'node:http'
import { AZURE_V1, type AzureDialect, ENTRA_V2 } from '../../../src/demo/azure/azure-dialects.ts'
import type { AzureTrace } from '../../../src/demo/azure/azure-errors.ts'
import type { AzureGrant } from '../../../src/demo/azure/azure-issue.ts'
import type { AzurePolicy } from '../../../src/demo/azure/azure-policy.ts'
import { createAzureTokens } from '../../../src/demo/azure/azure-tokens.ts'
import { createAuthorizationEndpoint } from '../../../src/demo/scripted/authorization-endpoint.ts'
import type { KnownClient } from '../../../src/demo/scripted/client-check.ts'
import { opaque, type Signer } from '../../../src/demo/scripted/signing.ts'
import { field, type RecordedRequest, sendHtml, sendJson, startLocalServer } from '../local-server.ts'
import { endSession } from '../provider/end-session.ts'
import { formSignIn } from '../provider/form-sign-in.ts'
import { createProviderState, endpointsAt, type ProviderSettings } from '../provider/provider-settings.ts'

/** How a scripted Azure AD is set up; everything has a default. */
export type AzureOptions = {
  readonly tenant?: string
  readonly clientId?: string
  /** `null`: no secret is registered. */
  readonly clientSecret?: string | null
  /** SPKI PEM for private_key_jwt. */
  readonly publicKeyPem?: string
  /** What discovery and tokens say; default a loopback URL under which discovery works. */
  readonly issuer?: string
  /** App ID URIs the tenant knows, each with the `aud` of its tokens; any resource is known unless given. */
  readonly resources?: Record<string, { audience?: string; scopes?: string[] }>
  readonly policy?: Partial<AzurePolicy>
  /** Fixes the ids and time of error bodies. */
  readonly trace?: AzureTrace
  /** Epoch ms. */
  readonly now?: () => number
  /** What `Date` says, in epoch ms; `now` unless given. Apart from it, because openid-client holds the nbf of ID tokens against the machine's time. */
  readonly date?: () => number
  readonly port?: number
}

/** A running scripted provider. */
export type ScriptedAzure = {
  readonly origin: string
  readonly issuer: string
  readonly tenant: string
  readonly clientId: string
  readonly clientSecret: string | undefined
  /** For `provider.endpoints`: no discovery needed. */
  readonly endpoints: Record<'authorization' | 'token' | 'jwks' | 'endSession' | 'userinfo', string>
  /** For `provider:`, discovery by issuer. */
  readonly settings: ProviderSettings
  /** Switches; change them at any time. */
  readonly policy: AzurePolicy
  /** Every request, in order of arrival. */
  readonly requests: RecordedRequest[]
  /** The requests to the token endpoint. */
  tokenRequests(): RecordedRequest[]
  /** Every code and token ever issued. */
  readonly issuedSecrets: string[]
  /** What no conforming client would have sent; tests expect none. */
  readonly violations: string[]
  readonly signer: Signer
  /** Revokes every grant: the next refresh is 50173. */
  revokeGrants(): void
  close(): Promise<void>
}

/** Azure AD v1: `resource`, string numbers, multi-resource refresh tokens that stay valid. */
export function startAzureAdV1(options: AzureOptions = {}): Promise<ScriptedAzure> {
  return startAzure(AZURE_V1, options)
}

/** Entra ID v2: scopes name the resource, `resource` is AADSTS901002. */
export function startEntraV2(options: AzureOptions = {}): Promise<ScriptedAzure> {
  return startAzure(ENTRA_V2, options)
}

async function startAzure(dialect: AzureDialect, options: AzureOptions): Promise<ScriptedAzure> {
  const tenant = options.tenant ?? '7fe81447-da57-4385-becb-6de57f21477e'
  const client = knownClient(options)
  const policy = defaultPolicy(options.policy)
  const { signer, codes, issuedSecrets, violations, issue } = await createProviderState()
  const grants = new Map<string, AzureGrant>()
  const assertions = new Map<string, AzureGrant>()
  const paths = dialect.paths(tenant)
  const server = await startLocalServer((request, res) => route(request, res), options.port)
  const issuer = options.issuer ?? server.origin + dialect.issuerPath(tenant)
  const endpoints = endpointsAt(server.origin, paths)
  const authorize = createAuthorizationEndpoint({
    clientId: client.clientId,
    signIn: formSignIn({ interactive: () => policy.interactive, user: () => policy.user }),
    issueCode: (grant) => codes.issue(issue(opaque('OAAABAAAAiL9Kn2Z27UubvWFPbm0gLW')), grant),
    refuse: (query) => policy.authorizationError ?? refuseAuthorization(dialect, query),
    extra: () => ({ session_state: randomUUID() }),
    suffix: '#',
    violation: (text) => violations.push(text),
  })
  const token = createAzureTokens({
    ...{
      dialect,
      tenant,
      client,
      policy,
      signer,
      codes,
      grants,
      assertions,
      violations,
      issue,
      issuer,
      endpoints,
    },
    ...{ resources: options.resources, trace: options.trace, now: options.now ?? Date.now },
  })
  const discovery = () => discoveryDocument(issuer, endpoints)
  const discoveryPath = `${dialect.issuerPath(tenant).replace(/\/$/, '')}/.well-known/openid-configuration`

  const dateOf = options.date ?? options.now

  function route(request: RecordedRequest, res: ServerResponse) {
    if (dateOf) res.setHeader('date', new Date(dateOf()).toUTCString())
    if (request.path === paths.token) return token(request, res)
    if (request.path === paths.authorization) return authorize(request, res)
    if (request.path === paths.endSession) return endSession(request, res)
    if (request.path === paths.userinfo) return sendJson(res, 200, { sub: policy.user })
    const isMetadata = request.path === discoveryPath || request.path === paths.jwks
    if (isMetadata && policy.metadataDown) return sendHtml(res, 503, '<h2>Service unavailable</h2>')
    if (request.path === discoveryPath) return sendJson(res, 200, discovery())
    if (request.path === paths.jwks) return sendJson(res, 200, signer.jwks())
    sendHtml(res, 404, '<h2>404 - File or directory not found.</h2>')
  }

  return {
    ...{
      origin: server.origin,
      issuer,
      tenant,
      clientId: client.clientId,
      clientSecret: client.clientSecret,
    },
    ...{ endpoints, policy, issuedSecrets, violations, signer },
    settings: settingsFor(dialect, issuer, client),
    requests: server.requests,
    tokenRequests: () => server.requests.filter((request) => request.path === paths.token),
    revokeGrants: () => {
      for (const grant of grants.values()) grant.revoked = true
    },
    close: server.close,
  }
}

function knownClient(options: AzureOptions): KnownClient {
  const clientSecret = options.clientSecret ?? 'JqQX2PNo9bpM0uEihUPzyrh'
  return {
    clientId: options.clientId ?? '6731de76-14a6-49ae-97bc-6eba6914391e',
    ...(options.clientSecret === null ? {} : { clientSecret }),
    ...(options.publicKeyPem ? { publicKeyPem: options.publicKeyPem } : {}),
  }
}

function defaultPolicy(given: Partial<AzurePolicy> = {}): AzurePolicy {
  return {
    resources: {},
    interactive: false,
    user: 'frankm',
    accessTokenSeconds: 3600,
    idTokenClaims: {},
    unsignedIdToken: false,
    namesNoResource: false,
    metadataDown: false,
    ...given,
  }
}

function settingsFor(dialect: AzureDialect, issuer: string, client: KnownClient): ProviderSettings {
  const { clientId, clientSecret } = client
  const clientAuth = clientSecret
    ? { method: 'client_secret_post', secret: clientSecret }
    : { method: 'none' }
  return dialect.version === 'v1'
    ? { issuer, clientId, clientAuth, resourceDialect: 'resource', scopes: ['openid'] }
    : {
        ...{ issuer, clientId, clientAuth },
        resourceDialect: 'scope',
        // Known by its host otherwise.
        signInScopes: 'first',
        scopes: ['openid', 'profile', 'email', 'offline_access'],
      }
}

/** v2 refuses `resource` already at the authorization endpoint. */
function refuseAuthorization(dialect: AzureDialect, query: [string, string][]) {
  if (dialect.version !== 'v2' || field(query, 'resource') === undefined) return undefined
  return {
    error: 'invalid_request',
    error_description: "AADSTS901002: The 'resource' request parameter is not supported.",
  }
}

/** As recorded: nothing about PKCE, `iss`, revocation, PAR or back-channel logout. */
function discoveryDocument(issuer: string, endpoints: ScriptedAzure['endpoints']): object {
  return {
    token_endpoint: endpoints.token,
    token_endpoint_auth_methods_supported: ['client_secret_post', 'private_key_jwt', 'client_secret_basic'],
    jwks_uri: endpoints.jwks,
    response_modes_supported: ['query', 'fragment', 'form_post'],
    subject_types_supported: ['pairwise'],
    id_token_signing_alg_values_supported: ['RS256'],
    response_types_supported: ['code', 'id_token', 'code id_token', 'id_token token'],
    scopes_supported: ['openid', 'profile', 'email', 'offline_access'],
    issuer,
    request_uri_parameter_supported: false,
    userinfo_endpoint: endpoints.userinfo,
    authorization_endpoint: endpoints.authorization,
    http_logout_supported: true,
    frontchannel_logout_supported: true,
    end_session_endpoint: endpoints.endSession,
    claims_supported: ['sub', 'iss', 'aud', 'exp', 'iat', 'nonce', 'preferred_username', 'name', 'tid'],
    tenant_region_scope: 'EU',
    cloud_instance_name: 'microsoftonline.com',
  }
}
