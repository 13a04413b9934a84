import { createHash, randomUUID } from 'node:crypto'
import type { ServerResponse } from 'node:http'
import { escapeHtml, field, fields, type RecordedRequest, sendHtml } from './http-messages.ts'

/** What one successful authorization request granted; the code stands for it. */
export type AuthorizedGrant = {
  readonly id: string
  readonly clientId: string
  readonly redirectUri: string
  readonly user: string
  /** The provider's session, the `sid` of ID and logout tokens. */
  readonly sid: string
  readonly scopes: readonly string[]
  readonly resources: readonly string[]
  readonly audience: string | undefined
  readonly nonce: string | undefined
  readonly codeChallenge: string | undefined
  readonly claims: string | undefined
  readonly prompt: string | undefined
  /** How the user authenticated (OpenID Connect Core §2), where that is told. */
  readonly acr?: string
  /** Epoch seconds of the authentication. */
  readonly authTime?: number
}

/** Who has signed in. */
export type SignedIn = {
  readonly user: string
  /** The provider's session; a new one unless given. */
  readonly sid?: string
  readonly acr?: string
  readonly authTime?: number
}

/**
 * Decides about an authorization request that is in order: who has signed in, with which error it is answered, or what is
 * shown meanwhile; `params` are those of the request, also when `request` is a form of a page that was shown for it.
 */
export type SignIn = (
  request: RecordedRequest,
  params: [string, string][],
  /** For cookies. */
  res: ServerResponse,
) => SignedIn | AuthorizationError | { readonly show: (res: ServerResponse) => unknown }

/** Error parameters for the authorization response (RFC 6749 §4.1.2.1). */
export type AuthorizationError = { readonly error: string; readonly error_description?: string }

/** How a scripted authorization endpoint behaves; functions are asked at each request, so tests can switch at runtime. */
export type AuthorizationEndpointOptions = {
  readonly clientId: string
  /** Those that are registered; any unless given. */
  readonly redirectUris?: readonly string[]
  readonly signIn: SignIn
  readonly issueCode: (grant: AuthorizedGrant) => string
  /** Refuses a request before the sign-in page is shown. */
  readonly refuse?: (query: [string, string][]) => AuthorizationError | undefined
  /** Further response parameters such as `iss` or `session_state`. */
  readonly extra?: (grant: AuthorizedGrant) => Record<string, string>
  /** What stands at the very end of the redirect; Entra leaves an empty fragment. */
  readonly suffix?: string
  /** Told about requests that no conforming client sends. */
  readonly violation: (text: string) => void
  /** Changes the parameters of each response. */
  readonly edit?: (answer: ResponseParameters) => ResponseParameters | Promise<ResponseParameters>
}

/** The parameters of an authorization response, by name. */
export type ResponseParameters = Readonly<Record<string, string>>

/** An authorization endpoint for GET (the request) and POST (the form of a page that it showed). */
export function createAuthorizationEndpoint(options: AuthorizationEndpointOptions) {
  return async function authorize(request: RecordedRequest, res: ServerResponse) {
    const params = field(request.form, 'client_id') === undefined ? request.query : request.form
    const redirectUri = field(params, 'redirect_uri')
    const fault = requestFault(params, options)
    if (fault || !redirectUri) {
      options.violation(`authorization request: ${fault}`)
      return sendHtml(res, 400, `<h1>Bad authorization request</h1><p>${escapeHtml(String(fault))}</p>`)
    }
    const decided = options.refuse?.(params) ?? options.signIn(request, params, res)
    if ('show' in decided) return decided.show(res)
    if ('error' in decided) return respond(res, params, { ...decided }, options)
    const grant = grantOf(params, decided)
    return respond(res, params, { code: options.issueCode(grant), ...options.extra?.(grant) }, options)
  }
}

function requestFault(
  params: [string, string][],
  { clientId, redirectUris }: Pick<AuthorizationEndpointOptions, 'clientId' | 'redirectUris'>,
): string | undefined {
  if (field(params, 'client_id') !== clientId) return 'unknown client_id'
  const redirectUri = field(params, 'redirect_uri')
  if (!redirectUri) return 'no redirect_uri'
  if (redirectUris && !redirectUris.includes(redirectUri)) return 'redirect_uri is not registered'
  if (!['code', 'code id_token'].includes(field(params, 'response_type') ?? ''))
    return 'response_type is not code'
  if (!field(params, 'state')) return 'no state'
  if (!field(params, 'code_challenge')) return 'no code_challenge'
  if (field(params, 'code_challenge_method') !== 'S256') return 'code_challenge_method is not S256'
  const names = params.map(([name]) => name).filter((name) => name !== 'resource')
  const repeated = names.find((name, index) => names.indexOf(name) !== index)
  return repeated ? `parameter sent twice: ${repeated}` : undefined
}

function grantOf(params: [string, string][], signedIn: SignedIn): AuthorizedGrant {
  return {
    id: randomUUID(),
    clientId: field(params, 'client_id') ?? '',
    redirectUri: field(params, 'redirect_uri') ?? '',
    sid: randomUUID(),
    ...signedIn,
    scopes: (field(params, 'scope') ?? '').split(' ').filter(Boolean),
    resources: fields(params, 'resource'),
    audience: field(params, 'audience'),
    nonce: field(params, 'nonce'),
    codeChallenge: field(params, 'code_challenge'),
    claims: field(params, 'claims'),
    prompt: field(params, 'prompt'),
  }
}

/** Sends the authorization response in the asked response mode: query or form_post. */
async function respond(
  res: ServerResponse,
  params: [string, string][],
  answer: Record<string, string>,
  { suffix = '', edit = (same) => same }: Pick<AuthorizationEndpointOptions, 'suffix' | 'edit'>,
) {
  const redirectUri = field(params, 'redirect_uri') ?? ''
  const state = field(params, 'state')
  const all = await edit({ ...answer, ...(state === undefined ? {} : { state }) })
  if (field(params, 'response_mode') === 'form_post') return sendFormPost(res, redirectUri, all)
  const location = new URL(redirectUri)
  for (const [name, value] of Object.entries(all)) location.searchParams.set(name, value)
  res.writeHead(302, { location: location.href + suffix, 'cache-control': 'no-store' })
  res.end()
}

function sendFormPost(res: ServerResponse, action: string, answer: ResponseParameters): void {
  const inputs = Object.entries(answer).map(
    ([name, value]) => `<input type="hidden" name="${escapeHtml(name)}" value="${escapeHtml(value)}">`,
  )
  sendHtml(
    res,
    200,
    `<form method="POST" action="${escapeHtml(action)}">${inputs.join('')}</form><script>document.forms[0].submit()</script>`,
  )
}

/** Why a code is refused. */
export type CodeRefusal = 'unknown' | 'spent' | 'redirect-uri' | 'pkce'

/** Authorization codes: each stands for a grant and is redeemed once. */
export function createCodes() {
  const grants = new Map<string, AuthorizedGrant>()
  const spent = new Set<string>()
  return {
    issue(code: string, grant: AuthorizedGrant): string {
      grants.set(code, grant)
      return code
    },
    /** Whose code it is; undefined when it is spent or unknown. */
    userOf: (code: string) => grants.get(code)?.user,
    /** Spends the code and checks redirect_uri and PKCE (RFC 7636 §4.6). */
    redeem(form: [string, string][]): AuthorizedGrant | CodeRefusal {
      const code = field(form, 'code') ?? ''
      const grant = grants.get(code)
      if (!grant) return spent.has(code) ? 'spent' : 'unknown'
      grants.delete(code)
      spent.add(code)
      if (field(form, 'redirect_uri') !== grant.redirectUri) return 'redirect-uri'
      const verifier = field(form, 'code_verifier') ?? ''
      const challenge = createHash('sha256').update(verifier).digest('base64url')
      return challenge === grant.codeChallenge ? grant : 'pkce'
    },
  }
}
