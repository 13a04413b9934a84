import type { IncomingMessage, ServerResponse } from 'node:http'
import { type LoopbackServer, listenOnLoopback } from '../loopback-server.ts'
import type { Person } from '../provider/identity-provider-options.ts'
import { errorPage, signedOutPage } from '../provider/provider-pages.ts'
import { createAuthorizationEndpoint, createCodes } from '../scripted/authorization-endpoint.ts'
import { field, type RecordedRequest, recordRequest, sendJson } from '../scripted/http-messages.ts'
import { createSigner, newSigningKey, opaque } from '../scripted/signing.ts'
import { loadStaticFiles, sendStaticFile } from '../static-files.ts'
import { createPersonSignIn, type SavedSignIn, type Ticket } from './person-sign-in.ts'
import type { Profile, ProfileApi, ProfileDeps, TokenEvent } from './profile.ts'

/** How a scripted provider is set up. */
export type ScriptedProviderOptions = {
  readonly profile: Profile
  /** Default: any free one. */
  readonly port?: number | undefined
  readonly client: { readonly clientId: string; readonly clientSecret: string }
  readonly clientName: string
  readonly redirectUri: string
  readonly postLogoutRedirectUri: string
  readonly persons: readonly Person[]
  readonly apis: readonly ProfileApi[]
  readonly accessTokenSeconds: number
  /** What `save` of the same profile returned, from before a restart. */
  readonly saved?: SavedProvider | undefined
  /** Told after every token request, without tokens. */
  readonly observe?: (event: TokenEvent) => void
  /** Epoch ms; the machine's unless given. */
  readonly now?: () => number
}

/** Everything that must outlive a restart. Holds a private key and live tokens. */
export type SavedProvider = {
  readonly signingKey: Awaited<ReturnType<typeof newSigningKey>>
  readonly tokens: unknown
  readonly signIn: SavedSignIn
}

/** A running scripted provider, and its switches. */
export type ScriptedProvider = {
  /** `http://127.0.0.1:PORT`. */
  readonly origin: string
  readonly issuer: string
  readonly jwksUrl: string
  /** A `login_hint` that signs in as this person, once and within a minute. Throws for a person that is not known. */
  ticketFor(ticket: Ticket): string
  /** Ends the grants of a user, or all: their refresh tokens are refused from now on. */
  endGrants(user?: string): void
  /** While it is down, every connection is cut. */
  setDown(isDown: boolean): void
  /** The claims of a person from now on, in the tokens that are issued from now on. */
  setClaims(user: string, claims: Readonly<Record<string, unknown>>): void
  persons(): readonly Person[]
  hadSecondFactor(accessToken: string): boolean
  save(): SavedProvider
  close(): Promise<void>
}

const MAX_BODY_BYTES = 65_536

/** Starts a provider on 127.0.0.1. Rejects with the system's error when the port is taken. */
export async function startScriptedProvider(options: ScriptedProviderOptions): Promise<ScriptedProvider> {
  const { saved, persons } = options
  const signingKey = saved?.signingKey ?? (await newSigningKey())
  const signer = await createSigner({ privateJwk: signingKey })
  let parts: ReturnType<typeof createParts> | undefined
  let isDown = false
  const claims = new Map(persons.map((person) => [person.sub, person]))
  const server: LoopbackServer = await listenOnLoopback((origin) => {
    const made = createParts({ ...options, origin, signer, claims })
    parts = made
    if (saved) {
      made.tokens.load(saved.tokens)
      made.signIn.load(saved.signIn)
    }
    return (req, res) => (isDown ? void res.socket?.destroy() : void handle(made, req, res))
  }, options.port)
  const { issuer, tokens, signIn } = parts!
  return {
    ...{ origin: server.origin, issuer, jwksUrl: server.origin + options.profile.paths.jwks },
    ticketFor(ticket) {
      if (!claims.has(ticket.user)) throw new RangeError(`no person "${ticket.user}"`)
      return signIn.ticketFor(ticket)
    },
    endGrants: tokens.endGrants,
    setDown: (down) => {
      isDown = down
    },
    setClaims: (user, changed) => void claims.set(user, { name: user, ...changed, sub: user }),
    persons: () => [...claims.values()],
    hadSecondFactor: tokens.hadSecondFactor,
    save: () => ({ signingKey, tokens: tokens.save(), signIn: signIn.save() }),
    close: server.close,
  }
}

type PartsOptions = ScriptedProviderOptions & {
  readonly origin: string
  readonly signer: ProfileDeps['signer']
  readonly claims: Map<string, Person>
}

/** The endpoints of one provider. */
function createParts({ profile, origin, signer, claims, ...options }: PartsOptions) {
  const { client, apis, now = Date.now } = options
  const issuer = origin + profile.issuerPath
  const codes = createCodes()
  const tokens = profile.createTokens({
    ...{ issuer, tokenEndpoint: origin + profile.paths.token, client, apis, signer, codes, now },
    claimsOf: (user) => ({ email_verified: true, ...claims.get(user) }),
    accessTokenSeconds: options.accessTokenSeconds,
    observe: (event) => options.observe?.(event),
  })
  const policy = pagePolicy([options.redirectUri, options.postLogoutRedirectUri])
  const signIn = createPersonSignIn({
    ...{ persons: claims, clientName: options.clientName, now },
    // Cookies are shared by all ports of a host.
    cookieName: `example_id_${new URL(origin).port}`,
    asksConsent: (query) => profile.asksConsent?.(query) ?? false,
    sendPage: (res, status, html) => sendPage(res, { status, html, policy }),
  })
  const authorize = createAuthorizationEndpoint({
    clientId: client.clientId,
    redirectUris: [options.redirectUri],
    signIn: signIn.signIn,
    issueCode: (grant) => codes.issue(opaque('code_'), grant),
    refuse: (query) => profile.refuseAuthorization?.(query, apis),
    extra: (grant) => profile.responseParameters(issuer, grant),
    ...(profile.redirectSuffix === undefined ? {} : { suffix: profile.redirectSuffix }),
    violation() {},
  })
  const assets = loadStaticFiles(new URL('../provider/pages/', import.meta.url))
  const metadata = discoveryDocument({ profile, origin, issuer })
  return { profile, origin, issuer, tokens, signIn, authorize, signer, assets, policy, metadata, options }
}

async function handle(
  parts: ReturnType<typeof createParts>,
  req: IncomingMessage,
  res: ServerResponse,
): Promise<void> {
  try {
    // A name that was made to point here (DNS rebinding) is none of ours.
    if (req.headers.host !== new URL(parts.origin).host) return void res.writeHead(421).end()
    await answer(parts, await recordRequest(req, MAX_BODY_BYTES), res)
  } catch {
    if (res.headersSent) res.destroy()
    else res.writeHead(400).end()
  }
}

async function answer(
  { profile, origin, assets, ...parts }: ReturnType<typeof createParts>,
  request: RecordedRequest,
  res: ServerResponse,
): Promise<unknown> {
  const { path, method } = request
  const { paths, issuerPath } = profile
  const asset = path.startsWith('/assets/') ? assets.get(path.slice('/assets/'.length)) : undefined
  res.setHeader('x-content-type-options', 'nosniff')
  if (asset) return sendStaticFile(res, asset, { 'cache-control': 'no-cache' })
  if (path === `${issuerPath.replace(/\/$/, '')}/.well-known/openid-configuration`)
    return sendJson(res, 200, parts.metadata)
  if (path === paths.jwks) return sendJson(res, 200, parts.signer.jwks())
  if (path === paths.authorization) return parts.authorize(request, res)
  if (path === paths.endSession) return endSession(parts, request, res)
  if (path === paths.token && method === 'POST') return parts.tokens.token(request, res)
  if (path === paths.revocation && method === 'POST' && parts.tokens.revoke)
    return parts.tokens.revoke(request, res)
  sendPage(res, { status: 404, html: errorPage('There is no such page.'), policy: parts.policy })
}

/** OpenID Connect RP-Initiated Logout 1.0 §2: back to the application, if it is the registered one that asks. */
function endSession(
  { signIn, options, policy }: Pick<ReturnType<typeof createParts>, 'signIn' | 'options' | 'policy'>,
  request: RecordedRequest,
  res: ServerResponse,
): void {
  const params = request.method === 'POST' ? request.form : request.query
  signIn.signOut(request, res)
  if (field(params, 'post_logout_redirect_uri') !== options.postLogoutRedirectUri)
    return void sendPage(res, { status: 200, html: signedOutPage(), policy })
  const location = new URL(options.postLogoutRedirectUri)
  const state = field(params, 'state')
  if (state !== undefined) location.searchParams.set('state', state)
  res.writeHead(302, { location: location.href, 'cache-control': 'no-store' }).end()
}

function sendPage(
  res: ServerResponse,
  { status, html, policy }: { status: number; html: string; policy: string },
): void {
  const headers = { 'content-type': 'text/html; charset=utf-8', 'cache-control': 'no-store' }
  const strict = { 'content-security-policy': policy, 'referrer-policy': 'no-referrer' }
  res.writeHead(status, { ...headers, ...strict })
  res.end(html)
}

/** Browsers apply form-action to the redirects after a form too, so the application's origin belongs in it. */
function pagePolicy(targets: readonly string[]): string {
  const origins = new Set(targets.map((uri) => new URL(uri).origin))
  const own = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; base-uri 'none'"
  return `${own}; frame-ancestors 'none'; form-action 'self' ${[...origins].join(' ')}`
}

function discoveryDocument({
  profile: { paths, metadata },
  origin,
  issuer,
}: {
  profile: Profile
  origin: string
  issuer: string
}): object {
  return {
    issuer,
    authorization_endpoint: origin + paths.authorization,
    token_endpoint: origin + paths.token,
    jwks_uri: origin + paths.jwks,
    end_session_endpoint: origin + paths.endSession,
    ...(paths.revocation === undefined ? {} : { revocation_endpoint: origin + paths.revocation }),
    response_types_supported: ['code'],
    grant_types_supported: ['authorization_code', 'refresh_token', 'client_credentials'],
    subject_types_supported: ['public'],
    id_token_signing_alg_values_supported: ['RS256'],
    token_endpoint_auth_methods_supported: ['client_secret_post', 'client_secret_basic'],
    ...metadata,
  }
}
