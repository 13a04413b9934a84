import { generateKeyPairSync, randomBytes } from 'node:crypto'
import type { RequestListener } from 'node:http'
import { createRequire } from 'node:module'
import type { ClientMetadata, Configuration, JWKS, KoaContextWithOIDC, Provider } from 'oidc-provider'
import type {
  IdentityProviderOptions,
  Person,
  RegisteredClient,
  TokenRequest,
} from './identity-provider-options.ts'
import { createProviderListener } from './provider-listener.ts'
import { createProviderMemory } from './provider-memory.ts'
import { errorPage, signedOutPage, signingOutPage, signOutPage } from './provider-pages.ts'
import { SECOND_FACTOR_MISSING, wantsAcr } from './sign-in.ts'

const oidc = requireOidcProvider()

/** A running provider, still without a socket. */
export type IdentityProvider = {
  /** For `http.createServer`. */
  readonly callback: RequestListener
  /** The library's own object: events, `use(middleware)`, models. */
  readonly provider: Provider
}

/**
 * An OpenID Provider with a sign-in page: authorization code with PKCE, resource indicators, JWT access tokens,
 * rotating refresh tokens, revocation, RP-initiated and back-channel logout. For the demo and for tests.
 */
export function createIdentityProvider(options: IdentityProviderOptions): IdentityProvider {
  const persons = new Map((options.persons ?? DEFAULT_PERSONS).map((person) => [person.sub, person]))
  const offlinePushed = new Set<string>()
  const provider = new oidc.Provider(options.issuer, {
    ...providerConfiguration(options, persons),
    interactions: {
      policy: signInOnlyPolicy(offlinePushed, options.secondFactorAcr),
      url: (_ctx, interaction) => `/interaction/${interaction.uid}`,
    },
  })
  provider.use(async (ctx: KoaContextWithOIDC, next) => {
    await next()
    const { route, body } = (ctx.oidc as KoaContextWithOIDC['oidc'] | undefined) ?? {}
    if (route === 'token') options.onTokenRequest?.(tokenRequest(ctx))
    if (route === 'pushed_authorization_request' && asksOfflineAccess(body)) {
      offlinePushed.add((ctx.body as { request_uri?: string }).request_uri ?? '')
    }
  })
  const { clients } = options
  const callback = createProviderListener({
    oidc: provider.callback(),
    interactions: provider,
    persons,
    clients,
    ...(options.secondFactorAcr && { secondFactorAcr: options.secondFactorAcr }),
  })
  return { provider, callback }
}

const DEFAULT_PERSONS: readonly Person[] = [
  { sub: 'ada', name: 'Ada Lovelace', email: 'ada@example.com', title: 'Analyst' },
  { sub: 'grace', name: 'Grace Hopper', email: 'grace@example.com', title: 'Rear admiral' },
]

function providerConfiguration(
  options: IdentityProviderOptions,
  persons: Map<string, Person>,
): Configuration {
  const scopes = ['openid', 'offline_access', 'profile', 'email']
  return {
    adapter: createProviderMemory(),
    clients: options.clients.map(clientMetadata),
    jwks: options.jwks ?? newSigningKeys(),
    // Cookies are shared by all ports of a host: the usual names could meet those of another program.
    cookies: {
      keys: [randomBytes(32).toString('base64url')],
      names: { session: 'idp_session', interaction: 'idp_interaction', resume: 'idp_resume' },
    },
    scopes,
    ...(options.secondFactorAcr && { acrValues: [options.secondFactorAcr] }),
    claims: {
      openid: ['sub', ...extraClaims(persons)],
      profile: ['name'],
      email: ['email', 'email_verified'],
    },
    // Scope claims in the ID token itself, as most providers do; the library would keep them for the userinfo endpoint.
    conformIdTokenClaims: false,
    pkce: { required: () => true },
    rotateRefreshToken: options.rotateRefreshToken ?? true,
    expiresWithSession: async () => false,
    issueRefreshToken: async (_ctx, client, source) =>
      client.grantTypeAllowed('refresh_token') && source.scopes.has('offline_access'),
    findAccount: async (_ctx, sub) => account(persons.get(sub)),
    loadExistingGrant: (ctx) => grantEverythingAsked(ctx, scopes),
    renderError: (ctx, out) => {
      ctx.type = 'html'
      ctx.body = errorPage(out.error_description ?? out.error)
    },
    // The library refuses to call loopback addresses; here relying parties live on them.
    fetch: (url, init) => fetch(url, { ...init, dispatcher: undefined } as RequestInit),
    ttl: {
      AccessToken: (_ctx, token) => token.resourceServer?.accessTokenTTL ?? 300,
      ClientCredentials: (_ctx, token) => token.resourceServer?.accessTokenTTL ?? 300,
      RefreshToken: options.refreshTokenTtlSeconds ?? 86400,
      Session: 86400,
      Grant: 86400,
      IdToken: 3600,
      Interaction: 600,
      AuthorizationCode: 60,
    },
    features: providerFeatures(options),
  }
}

function providerFeatures(options: IdentityProviderOptions): NonNullable<Configuration['features']> {
  return {
    ...options.features,
    devInteractions: { enabled: false },
    pushedAuthorizationRequests: { enabled: options.pushedAuthorizationRequests ?? true },
    revocation: {
      enabled: true,
      allowedPolicy: async (_ctx, client, token) => token.clientId === client.clientId,
    },
    clientCredentials: { enabled: true },
    backchannelLogout: { enabled: true },
    rpInitiatedLogout: {
      enabled: true,
      logoutSource: (ctx, form) => {
        // With an id_token_hint the application that signed the user in asks; without, it may be anybody.
        ctx.body = ctx.oidc.entities.IdTokenHint ? signingOutPage(form) : signOutPage(form)
      },
      postLogoutSuccessSource: (ctx) => {
        ctx.body = signedOutPage()
      },
    },
    resourceIndicators: {
      enabled: true,
      useGrantedResource: async () => true,
      defaultResource: async (_ctx, _client, oneOf) => oneOf?.[0] ?? [],
      getResourceServerInfo: async (_ctx, indicator) => {
        const resource = Object.hasOwn(options.resources, indicator) && options.resources[indicator]
        if (!resource) throw new oidc.errors.InvalidTarget()
        const { audience, scope, accessTokenTtlSeconds: accessTokenTTL } = resource
        return { audience, scope, accessTokenTTL, accessTokenFormat: 'jwt', jwt: { sign: { alg: 'RS256' } } }
      },
    },
  }
}

function clientMetadata(client: RegisteredClient): ClientMetadata {
  return {
    client_id: client.clientId,
    client_name: client.clientName,
    client_secret: client.clientSecret,
    token_endpoint_auth_method: client.authMethod,
    jwks: client.jwks as JWKS | undefined,
    grant_types: client.grantTypes ?? ['authorization_code', 'refresh_token'],
    redirect_uris: client.redirectUris,
    response_types: client.redirectUris.length > 0 ? ['code'] : [],
    post_logout_redirect_uris: client.postLogoutRedirectUris,
    ...(client.backchannelLogoutUri && {
      backchannel_logout_uri: client.backchannelLogoutUri,
      backchannel_logout_session_required: true,
    }),
    ...client.metadata,
  }
}

function newSigningKeys(): JWKS {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const kid = randomBytes(8).toString('base64url')
  return {
    keys: [
      { ...privateKey.export({ format: 'jwk' }), kid, alg: 'RS256', use: 'sig' } as JWKS['keys'][number],
    ],
  }
}

function extraClaims(persons: Map<string, Person>): string[] {
  const standard = new Set(['sub', 'name', 'email', 'email_verified'])
  return [...new Set([...persons.values()].flatMap(Object.keys))].filter((claim) => !standard.has(claim))
}

function account(person: Person | undefined) {
  if (!person) return undefined
  return { accountId: person.sub, claims: async () => ({ email_verified: true, ...person }) }
}

/** Who signs in agrees to everything. A grant per login, so that revoking one login's refresh token leaves the others alone. */
async function grantEverythingAsked(ctx: KoaContextWithOIDC, scopes: readonly string[]) {
  const grant = new ctx.oidc.provider.Grant({
    accountId: ctx.oidc.session?.accountId,
    clientId: ctx.oidc.client?.clientId,
  })
  grant.addOIDCScope(scopes.join(' '))
  grant.addOIDCClaims([...ctx.oidc.requestParamClaims])
  for (const [indicator, resource] of Object.entries(ctx.oidc.resourceServers ?? {})) {
    grant.addResourceScope(indicator, resource.scope ?? '')
  }
  await grant.save()
  return grant
}

/**
 * Asks who it is, and for the second factor when it is wanted and was not shown in this session; and keeps `offline_access`,
 * which the library grants with prompt=consent only.
 */
function signInOnlyPolicy(offlinePushed: ReadonlySet<string>, secondFactorAcr: string | undefined) {
  const { base, Prompt, Check } = oidc.interactionPolicy
  const policy = base()
  policy.get('consent')?.checks.clear()
  policy.add(new Prompt({ name: 'select_account', requestable: true }), 0)
  const keepOfflineAccess = new Check('offline_access', 'never asks anything', (ctx) => {
    const request = ctx.oidc
    const asked = request.body ?? ctx.query
    const { params, client } = request
    const wanted = asksOfflineAccess(asked) || offlinePushed.has(String(asked.request_uri))
    if (wanted && params && client?.grantTypeAllowed('refresh_token')) {
      // OpenID Connect Core §11 allows offline access on other grounds than prompt=consent.
      params.scope = [...new Set([...request.requestParamScopes, 'offline_access'])].join(' ')
    }
    return Check.NO_NEED_TO_PROMPT
  })
  policy.get('select_account')?.checks.add(keepOfflineAccess, 0)
  const askSecondFactor = new Check(SECOND_FACTOR_MISSING, 'a second factor is required', (ctx) => {
    const { params, acr } = ctx.oidc
    const isMissing = wantsAcr(params?.acr_values, secondFactorAcr) && acr !== secondFactorAcr
    return isMissing ? Check.REQUEST_PROMPT : Check.NO_NEED_TO_PROMPT
  })
  policy.get('login')?.checks.add(askSecondFactor)
  return policy
}

function asksOfflineAccess(asked: Readonly<Record<string, unknown>> | undefined): boolean {
  return typeof asked?.scope === 'string' && asked.scope.split(' ').includes('offline_access')
}

function tokenRequest(ctx: KoaContextWithOIDC): TokenRequest {
  const params = { ...(ctx.oidc.body as Record<string, unknown> | undefined) }
  return {
    clientId: ctx.oidc.client?.clientId,
    grantType: typeof params.grant_type === 'string' ? params.grant_type : undefined,
    params,
    status: ctx.status,
    answer: { ...(ctx.body as Record<string, unknown> | undefined) },
  }
}

/** Loads the library without its remark that a Node.js release before its LTS date, or packaged by npm, is no LTS. */
function requireOidcProvider(): typeof import('oidc-provider') {
  const { warn } = console
  console.warn = (...args: unknown[]) => {
    if (!String(args[0]).includes('oidc-provider WARNING: Unsupported runtime')) warn(...args)
  }
  try {
    return createRequire(import.meta.url)('oidc-provider')
  } finally {
    console.warn = warn
  }
}
