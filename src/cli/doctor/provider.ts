import { randomBytes } from 'node:crypto'
import type { Config } from '../../config/config.ts'
import { BffError } from '../../errors.ts'
import { CLIENT_AUTH_CURES } from '../../oidc/client-auth/client-assertion.ts'
import { unlistedMethod } from '../../oidc/provider.ts'
import { keysOf } from '../../oidc/token-endpoint/key-set.ts'
import type { Parameters, ProviderMetadata } from '../../oidc/token-endpoint/openid-client.ts'
import { type FailedGrant, isRefusedClient, refusalOf } from '../../oidc/token-endpoint/provider-errors.ts'
import { agreedReading, CLOCK_CURE, clockDifference } from '../../oidc/token-endpoint/provider-fetch.ts'
import { keySetRequest } from '../../oidc/token-endpoint/relying-party.ts'
import { certificateEnd, peerCertificateEnd } from './certificates.ts'
import { causeOf, cureIn, type Findings, type Found, fail, type Group, ok, warn } from './finding.ts'
import type { ProviderClient } from './provider-client.ts'

type Checked = { readonly config: Config; readonly client: ProviderClient; readonly now: () => number }

/** Discovery, and what needs nothing but its endpoints. Resolves with whether these are known. */
export async function checkProvider(group: Group, checked: Checked): Promise<boolean> {
  const { config, client } = checked
  await group.check('discovery', () => discovery(checked))
  const metadata = client.metadata()
  await Promise.all([
    group.check('certificate', () => providerCertificates(checked, metadata)),
    ...(metadata === undefined ? [] : requestsTo(group, checked, metadata)),
  ])
  await group.check('clock', () => clockSkew(client, config.provider.clockToleranceMs))
  return metadata !== undefined
}

function requestsTo(group: Group, checked: Checked, metadata: ProviderMetadata): Promise<void>[] {
  return [
    group.check('keys', () => signingKeys(checked, metadata)),
    group.check('client authentication', () => clientAuthentication(checked)),
    group.check('authorization', () => authorization(checked, metadata)),
    group.check('sign-out', () => signOut(checked)),
  ]
}

async function discovery({ config: { provider }, client }: Checked): Promise<Findings> {
  try {
    await client.relyingParty.ready()
  } catch (error) {
    const { message, cure } = causeOf(error)
    return fail(message, cure ?? 'correct provider.issuer, or name the endpoints in provider.endpoints')
  }
  const metadata = client.metadata()
  const { endpoints } = provider
  const isConfigured = endpoints?.authorization && endpoints.token && endpoints.jwks
  const found: Found[] = [
    ok(
      isConfigured
        ? 'not used: provider.endpoints names the endpoints'
        : `${provider.issuer} names its endpoints, and the same issuer`,
    ),
  ]
  const unlisted = metadata && unlistedMethod(provider.clientAuth.method, metadata)
  if (unlisted !== undefined) {
    found.push(
      warn(
        `the provider does not list ${unlisted} among its client authentication methods (${listed(metadata?.clientAuthMethods)})`,
        'if the client is refused, choose one of these for provider.clientAuth.method',
      ),
    )
  }
  const challenges = metadata?.document.code_challenge_methods_supported
  if (Array.isArray(challenges) && !challenges.includes('S256')) {
    found.push(
      warn(
        'the provider does not list S256 for PKCE',
        'it may ignore code_challenge; switch PKCE on for the client there',
      ),
    )
  }
  return found
}

function listed(values: readonly string[] | undefined): string {
  return values?.join(', ') ?? 'none'
}

async function signingKeys({ config, client }: Checked, metadata: ProviderMetadata): Promise<Findings> {
  const { jwksUri, signingAlgorithms } = metadata
  if (jwksUri === undefined) {
    return fail(
      'no key set is named, so that no ID token can be verified',
      'name it: provider.endpoints.jwks',
    )
  }
  const keys = await keysOf(keySetRequest({ ...client, provider: config.provider }, jwksUri))
  const usable = keys.filter((key) => (key as { use?: unknown }).use !== 'enc')
  if (usable.length === 0) return fail(`${jwksUri} has no key that signs`, 'look at the keys of the provider')
  const named = new Set(usable.flatMap(({ alg }) => alg ?? []))
  const algorithms = named.size > 0 ? [...named] : signingAlgorithms
  return ok(`${usable.length} at ${jwksUri}, for ${algorithms.slice(0, 4).join(', ')}`)
}

/** The servers that the client asks, each once. */
async function providerCertificates(
  { config: { provider }, client, now }: Checked,
  metadata: ProviderMetadata | undefined,
): Promise<Findings> {
  const { document, jwksUri } = metadata ?? {}
  const urls = [provider.issuer, provider.endpoints?.token, document?.token_endpoint, jwksUri]
  const origins = new Set(
    urls.flatMap((url) => (typeof url === 'string' && url.startsWith('https:') ? [new URL(url).origin] : [])),
  )
  if (client.isThroughProxy) return undefined
  const found = Array.from(origins, async (origin): Promise<Found> => {
    const { hostname, port } = new URL(origin)
    try {
      const host = hostname.replace(/^\[|\]$/g, '')
      const signal = AbortSignal.timeout(provider.timeoutMs)
      const address = { host, port: Number(port || 443), tls: provider.tls, signal }
      return certificateEnd(origin, { notAfter: await peerCertificateEnd(address), now: now() })
    } catch (error) {
      const { message, cure } = causeOf(error)
      return fail(`${origin}: ${message}`, cure?.replace('tls.ca', 'provider.tls.ca'))
    }
  })
  return Promise.all(found)
}

/** Some seconds are lost on the way and in rounding, and harm nothing. */
const NOTABLE_SKEW_MS = 5_000

function clockSkew(client: ProviderClient, toleranceMs: number): Findings {
  const reading = agreedReading(client.readings) ?? client.readings[0]
  if (!reading) {
    const isReached = client.metadata() !== undefined
    return isReached ? ok('cannot be compared: no answer of the provider has a Date') : undefined
  }
  const said = clockDifference(reading)
  const apartMs = Math.abs(reading.aheadMs)
  if (apartMs > toleranceMs) {
    return fail(
      `${said}, more than provider.clockTolerance (${toleranceMs / 1000} s): its tokens are refused`,
      CLOCK_CURE,
    )
  }
  if (apartMs > NOTABLE_SKEW_MS) return warn(said, CLOCK_CURE)
  const seconds = Math.round(apartMs / 1000)
  return ok(`this machine's clock and the provider's are ${seconds <= 1 ? 'the same' : `${seconds} s apart`}`)
}

/**
 * A refresh token that was never given out: RFC 6749 §3.2.1 has the client authenticated first, so that the refusal tells
 * of the client, and nothing is used up.
 */
async function clientAuthentication(checked: Checked): Promise<Findings> {
  const { config, client } = checked
  const { method } = config.provider.clientAuth
  const { readPair } = config.provider.clientAuth as { readPair?: () => { notAfter: number } | undefined }
  const pair = readPair?.()
  const end =
    pair === undefined ? [] : [certificateEnd('provider.clientAuth', { ...pair, now: checked.now() })]
  const madeUp = `doctor-${randomBytes(24).toString('base64url')}`
  const scope: Parameters = config.provider.resourceDialect === 'resource' ? [] : [['scope', 'openid']]
  const answer = await client.relyingParty.refreshGrant(madeUp, scope, {
    keep: async () => {},
    ignoredIdToken() {},
  })
  if (!('error' in answer)) {
    return [
      fail('the provider gave tokens for a refresh token that was made up', 'this is no provider to trust'),
      ...end,
    ]
  }
  return [await judgedClient(checked, answer, method), ...end]
}

async function judgedClient(checked: Checked, failed: FailedGrant, method: string): Promise<Found> {
  const refusal = refusalOf(failed.answer)
  const { oauthError, providerStatus: status, errorCodes } = refusal
  if (status === undefined) {
    const { message, cure } = causeOf(failed.error)
    return fail(message, cure)
  }
  const said = [oauthError ?? `status ${status}`, errorCodes && `(${errorCodes})`].filter(Boolean).join(' ')
  if (isRefusedClient(failed.answer)) return refusedClient(checked, said)
  if (oauthError === 'invalid_grant' && errorCodes !== MALFORMED) {
    return ok(`${method}: the client is known (a made-up refresh token was refused with ${said})`)
  }
  if (oauthError === 'unauthorized_client' || oauthError === 'unsupported_grant_type') {
    return fail(
      `${method}: the client may not use refresh tokens (${said})`,
      'allow the grant types authorization_code and refresh_token for the client at the provider',
    )
  }
  if (errorCodes === MALFORMED) return clientByItsOwnToken(checked, said)
  if (status >= 500) return fail(`the token endpoint answered with ${said}`, 'look at the provider')
  return warn(
    `${method}: whether the client is accepted could not be told (${said})`,
    'sign in once and look at the log',
  )
}

function refusedClient({ config: { provider } }: Checked, said: string): Found {
  const { clientId, clientAuth } = provider
  return fail(
    `${clientAuth.method}: the provider does not accept the client ${JSON.stringify(clientId)} (${said})`,
    `${CLIENT_AUTH_CURES[clientAuth.method]}; or correct provider.clientId`,
  )
}

/** AADSTS9002313: Entra ID may say of a made-up token that it is none, before it looks at the client. */
const MALFORMED = '9002313'

/** Asks for a token of the client for itself, which every application of Entra ID may have, and drops it. */
async function clientByItsOwnToken(checked: Checked, before: string): Promise<Found> {
  const { config, client } = checked
  const { clientId, clientAuth, resourceDialect } = config.provider
  const parameters: Parameters =
    resourceDialect === 'resource' ? [['resource', clientId]] : [['scope', `${clientId}/.default`]]
  const answer = await client.relyingParty.clientCredentialsGrant(parameters)
  if (!('error' in answer))
    return ok(`${clientAuth.method}: the client is known (it got a token for itself, which is dropped)`)
  const { oauthError, errorCodes } = refusalOf(answer.answer)
  const said = [oauthError ?? before, errorCodes && `(${errorCodes})`].filter(Boolean).join(' ')
  if (oauthError === 'invalid_client') return refusedClient(checked, said)
  return warn(
    `${clientAuth.method}: whether the client is accepted could not be told (${said})`,
    'sign in once and look at the log',
  )
}

/** The user is not signed in, and no page may be shown (OpenID Connect Core §3.1.2.6): all else was in order. */
const NO_SESSION = new Set([
  ...['login_required', 'interaction_required', 'consent_required', 'account_selection_required'],
])
/** What providers say of a redirect URI that is not registered, on pages and in errors of their own. */
const ABOUT_REDIRECT = /redirect[ _-]?ur[il]|AADSTS50011|redirect_mismatch/i

/** The authorization request of a sign-in, as a browser without a session at the provider sends it. */
async function authorization(checked: Checked, metadata: ProviderMetadata): Promise<Findings> {
  const { client, config } = checked
  const { pushedRequestEndpoint } = metadata
  const isPushed = pushedRequestEndpoint !== undefined && config.provider.par !== 'off'
  let url: URL
  try {
    url = await client.authorizationUrl()
  } catch (error) {
    return pushFailure(error, checked, client.pageOf(pushedRequestEndpoint))
  }
  const pushed = isPushed ? [ok(`the request was pushed to ${pushedRequestEndpoint} (RFC 9126)`)] : []
  return [...pushed, await answerToBrowser(url, checked)]
}

function toRegister({ redirectUri }: ProviderClient): string {
  return `register this redirect URI for the client, as it is written here: ${redirectUri}`
}

function pushFailure(error: unknown, { client, config }: Checked, page: string): Found {
  const { oauthError, status } = (error instanceof BffError && error.logged) || {}
  if (oauthError === undefined) {
    const { message, cure } = causeOf(error)
    return fail(message, cure ?? 'correct provider.par')
  }
  // RFC 9126 §2.3: as the token endpoint answers.
  if (oauthError === 'invalid_client' || status === 401) {
    return fail(
      `the pushed authorization request is refused: the client is not accepted (${oauthError})`,
      CLIENT_AUTH_CURES[config.provider.clientAuth.method],
    )
  }
  const isOfScope = oauthError === 'invalid_request' && /scope/i.test(page)
  const word = isOfScope ? 'invalid_scope' : String(oauthError)
  return refusedRequest(word, ABOUT_REDIRECT.test(page), client)
}

async function answerToBrowser(url: URL, { client }: Checked): Promise<Found> {
  const { redirectUri } = client
  let page: Awaited<ReturnType<ProviderClient['page']>>
  try {
    page = await client.page(url.href)
  } catch (error) {
    const { message, cure } = causeOf(error)
    return warn(
      `${url.origin} cannot be asked from here, where browsers go to sign in: ${message}`,
      `${cure ?? 'look at it from a browser'}; ${toRegister(client)}`,
    )
  }
  const { status, location, text } = page
  const error = errorIn(page, redirectUri)
  if (error !== undefined) return errorFound(error, client)
  const isAbout = ABOUT_REDIRECT.test(text) || ABOUT_REDIRECT.test(location ?? '')
  if (status >= 400 && status < 500) {
    return isAbout
      ? refusedRequest(`status ${status}`, true, client)
      : fail(
          `the provider refuses the authorization request (status ${status})`,
          `it may be the redirect URI, the client id or the scopes; ${toRegister(client)}`,
        )
  }
  if (isAbout && location === null) return refusedRequest(`status ${status}`, true, client)
  return warn(
    `whether the redirect URI is registered could not be seen (status ${status}${location ? ', leads elsewhere' : ', a page'})`,
    toRegister(client),
  )
}

/** The `error` with which the provider sends the browser back to us, an empty text for none; undefined when it does not. */
function errorIn(
  { location, text }: { location: string | null; text: string },
  redirectUri: string,
): string | undefined {
  const target = location !== null && URL.canParse(location) ? new URL(location) : undefined
  if (target && `${target.origin}${target.pathname}` === redirectUri) {
    const parameters = new URLSearchParams([
      ...target.searchParams,
      ...new URLSearchParams(target.hash.slice(1)),
    ])
    return parameters.get('error') ?? errorOfJwt(parameters.get('response')) ?? ''
  }
  if (target?.searchParams.has('error')) return target.searchParams.get('error') ?? ''
  // response_mode=form_post: a page that posts itself to us.
  const isPosted = text.includes(`action="${redirectUri}"`) || text.includes(`action='${redirectUri}'`)
  if (!isPosted) return undefined
  const [, before, after] =
    /<input[^<>]*name=["']error["'][^<>]*value=["']([\w.-]+)|<input[^<>]*value=["']([\w.-]+)["'][^<>]*name=["']error["']/i.exec(
      text,
    ) ?? []
  return before ?? after ?? ''
}

/** JARM §4.1: nothing depends on it here, so that no key is asked for. */
function errorOfJwt(jwt: string | null): string | undefined {
  try {
    const claims: unknown = JSON.parse(Buffer.from(jwt?.split('.')[1] ?? '', 'base64url').toString())
    return String((claims as { error?: unknown }).error ?? '')
  } catch {
    return undefined
  }
}

function errorFound(error: string, client: ProviderClient): Found {
  const { redirectUri } = client
  if (error === '' || NO_SESSION.has(error)) {
    return ok(`the redirect URI ${redirectUri} is registered, and scopes and resources may be asked for`)
  }
  return refusedRequest(error, ABOUT_REDIRECT.test(error), client)
}

const REQUEST_CURES: Readonly<Record<string, string>> = {
  invalid_scope: 'correct provider.scopes and resources.*.scopes, or allow these scopes to the client',
  invalid_target: 'correct resources.*.resource, or make these resources known to the provider (RFC 8707)',
  unauthorized_client: 'allow the authorization code flow (response type code) to the client',
  unsupported_response_type: 'correct provider.responseType, or allow it to the client',
  unsupported_response_mode: 'correct provider.responseMode, or allow it to the client',
  request_not_supported: 'correct provider.authorizationParams',
}

function refusedRequest(said: string, isOfRedirect: boolean, client: ProviderClient): Found {
  const word = /^[\w.:-]{1,48}$/.test(said) || said.startsWith('status') ? said : 'an error'
  if (isOfRedirect) {
    return fail(`the redirect URI ${client.redirectUri} is not registered (${word})`, toRegister(client))
  }
  return fail(
    `the provider refuses the authorization request: ${word}`,
    cureIn(REQUEST_CURES, said) ??
      `it may be the scopes, the resources or the redirect URI; ${toRegister(client)}`,
  )
}

/** RP-Initiated Logout 1.0 §2, of a browser that has no session: a URI that is not registered is refused then, too. */
async function signOut({ client }: Checked): Promise<Findings> {
  const url = await client.endSessionUrl()
  const register = `register this post-logout redirect URI for the client: ${client.loggedOutUri}`
  if (url === undefined)
    return ok('the provider has no end-session endpoint: a sign-out ends our session only')
  try {
    const { status, text } = await client.page(url)
    if (status >= 400 && status < 500) {
      return ABOUT_REDIRECT.test(text)
        ? fail(
            `the post-logout redirect URI ${client.loggedOutUri} is not registered (status ${status})`,
            register,
          )
        : warn(
            `whether the post-logout redirect URI is registered could not be seen (status ${status})`,
            register,
          )
    }
    return ok(`the post-logout redirect URI ${client.loggedOutUri} is not refused`)
  } catch (error) {
    const { message } = causeOf(error)
    return warn(`the end-session endpoint cannot be asked from here, where browsers go: ${message}`, register)
  }
}
