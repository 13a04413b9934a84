import type { ProviderConfig } from '../../config/config.ts'
import { BffError } from '../../errors.ts'
import type { UserClaims } from '../../store/port.ts'
import type { ClientAuthenticator } from '../client-auth/client-assertion.ts'
import { createProofs, proofKeyFromJwk, thumbprintOf } from '../dpop.ts'
import { createMessageKeys, createProviderKeys, type KeysRead } from './key-set.ts'
import type { Limiter } from './limiter.ts'
import {
  type AuthorizationChecks,
  codeChallengeOf,
  createRefreshedClient,
  type DiscoveredClient,
  discoverClient,
  type Parameters,
  type ProviderMetadata,
} from './openid-client.ts'
import { failedCall, failedDiscovery, failedPush, failedUserInfo, findingOf } from './provider-errors.ts'
import type { ProviderFetch, TokenAnswer } from './provider-fetch.ts'
import {
  beginRequest,
  createTokenRequests,
  isRefusalOfReplacedCredential,
  type TokenRequests,
} from './token-requests.ts'

/** One OpenID Provider as seen by its Relying Party: each call is one request of OpenID Connect or OAuth 2.0. */
export type RelyingParty = TokenRequests & {
  /** Resolves when the provider's endpoints are known. */
  ready(): Promise<void>
  /** OpenID Connect Core §3.1.2.1, PKCE S256; pushed first (RFC 9126) when the provider takes that. */
  authorizationUrl(checks: AuthorizationChecks, parameters: Parameters): Promise<URL>
  /** RFC 7009. Resolves false when the provider has no revocation endpoint. */
  revoke(refreshToken: string): Promise<boolean>
  /**
   * The claims of the UserInfo endpoint (OpenID Connect Core §5.3), which are of this subject. Rejects with invalid_callback
   * for those of another, or when no key of the provider verifies a signed answer.
   *
   * @param dpopKey the key that the access token is bound to, if it is (RFC 9449 §7.1).
   */
  userInfo(
    accessToken: string,
    subject: string,
    dpopKey?: AuthorizationChecks['dpopKey'],
  ): Promise<UserClaims>
  /** The end-session endpoint (RP-Initiated Logout 1.0 §2.1); undefined when the provider has none. */
  endSessionEndpoint(): Promise<string | undefined>
  /** Where the provider shows pages to the user. */
  pageEndpoints(): Promise<readonly string[]>
  /**
   * Throws a plain Error unless the provider signed this JWS, under the rules for its ID tokens (OpenID Connect Core
   * §3.1.3.7 rules 6 to 8); BffError when its keys cannot be read, or not again just now for a key that may be new: what
   * is signed is sent again then.
   */
  requireSigned(jws: string): Promise<void>
  /** The same, by whatever algorithm of its keys: an API may ask for another one than ID tokens have. */
  requireSignedAccessToken(jws: string): Promise<void>
  /** As discovery names it: Entra ID writes `{tenantid}` where tokens have their tenant. */
  issuer(): Promise<string>
  /** The signing keys as they were last read; undefined before the first token. */
  signingKeys(): KeysRead | undefined
}

export type RelyingPartyDeps = {
  readonly provider: ProviderConfig
  readonly authenticator: ClientAuthenticator
  readonly redirectUri: string
  readonly providerFetch: ProviderFetch
  /** Every grant and pushed request goes through it; revocation and discovery do not. */
  readonly limiter: Pick<Limiter, 'call'>
  /** Epoch ms. */
  readonly now: () => number
  readonly monotonicNow: () => number
  /** Told how each attempt at discovery ended. */
  readonly discovered?: (error: BffError | undefined, metadata?: ProviderMetadata) => void
}

/** Makes the Relying Party at one provider. Every method rejects with BffError only. */
export function createRelyingParty(deps: RelyingPartyDeps): RelyingParty {
  const { provider, redirectUri, monotonicNow } = deps
  const client = createRefreshedClient(() => observedDiscovery(deps), monotonicNow)
  const read = (jwksUri: string) => keySetRequest(deps, jwksUri)
  const keys = createProviderKeys({ read, monotonicNow })
  // Apart, because the reads that strangers cause with made-up tokens must not keep a sign-in from a new key.
  const keysForStrangers = createProviderKeys({ read, monotonicNow })
  const messageKeys = createMessageKeys(keysForStrangers, deps)

  const proofs = createProofs(deps)
  return {
    ...createTokenRequests({ ...deps, client, keys, proofs }),

    async ready() {
      await client()
    },

    async authorizationUrl({ state, nonce, codeVerifier, ...form }, parameters) {
      const request: Parameters = [
        ...parameters,
        ['redirect_uri', redirectUri],
        ['state', state],
        ['nonce', nonce],
        ['code_challenge', await codeChallengeOf(codeVerifier)],
        ['code_challenge_method', 'S256'],
        ...formParameters(form),
      ]
      const known = await client()
      if (form.dpopKey) requireProofAlgorithm(known)
      try {
        return isPushed(provider, known)
          ? await pushedRequest(deps, known, request)
          : known.authorizationUrl(request)
      } catch (error) {
        throw failedCall(error, undefined)
      }
    },

    async revoke(refreshToken) {
      try {
        const known = await client()
        if (!known.metadata.revocationEndpoint) return false
        await known.revoke(refreshToken)
        return true
      } catch (error) {
        throw failedCall(error, undefined)
      }
    },

    async userInfo(accessToken, subject, dpopKey) {
      const key = dpopKey && proofKeyFromJwk(dpopKey)
      const proof = key && {
        for: (url: string) => proofs.proofFor(key, { method: 'GET', url, accessToken }),
        learn: proofs.learn,
      }
      try {
        const known = await client()
        const { claims, signed } = await known.userInfo({ accessToken, subject, proof })
        if (signed !== undefined) await keys.requireSigned(signed, known.metadata.jwksUri)
        return claims
      } catch (error) {
        throw failedUserInfo(error, deps.now())
      }
    },

    async endSessionEndpoint() {
      return (await client()).metadata.endSessionEndpoint
    },

    async pageEndpoints() {
      const { authorizationEndpoint, endSessionEndpoint } = (await client()).metadata
      return [authorizationEndpoint, endSessionEndpoint].filter((url) => url !== undefined)
    },

    async requireSigned(jws) {
      const { jwksUri, signingAlgorithms } = (await client()).metadata
      await messageKeys.requireSigned(jws, jwksUri, signingAlgorithms)
    },

    async requireSignedAccessToken(jws) {
      await keysForStrangers.requireSigned(jws, (await client()).metadata.jwksUri)
    },

    async issuer() {
      return (await client()).metadata.issuer
    },

    signingKeys: keys.lastRead,
  }
}

/** How the response is to come, and the key that its code is to be bound to (RFC 9449 §10). */
function formParameters({
  responseMode,
  responseType,
  dpopKey,
}: Pick<AuthorizationChecks, 'responseMode' | 'responseType' | 'dpopKey'>): Parameters {
  const named = {
    ...{ response_mode: responseMode, response_type: responseType },
    dpop_jkt: dpopKey && thumbprintOf(proofKeyFromJwk(dpopKey)),
  }
  return Object.entries(named).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]]))
}

function requireProofAlgorithm({ metadata: { proofSigningAlgorithms } }: DiscoveredClient): void {
  if (proofSigningAlgorithms === undefined || proofSigningAlgorithms.includes('ES256')) return
  throw new BffError(
    'provider_rejected',
    'the authorization server takes no DPoP proofs that are signed with ES256: set provider.dpop: off',
  )
}

function isPushed({ par }: ProviderConfig, { metadata }: DiscoveredClient): boolean {
  const isOffered = metadata.pushedRequestEndpoint !== undefined
  if (par === 'required' && !isOffered) {
    throw new BffError('provider_rejected', 'the authorization server takes no pushed authorization requests')
  }
  return isOffered && par !== 'off'
}

/** RFC 9126, through a limiter of its own, because a stranger can make us push. */
async function pushedRequest(
  deps: RelyingPartyDeps,
  client: DiscoveredClient,
  request: Parameters,
): Promise<URL> {
  let answer: TokenAnswer | undefined
  let begun: ReturnType<typeof beginRequest> | undefined
  const hooks = {
    answer(received: TokenAnswer) {
      answer = received
    },
  }
  function send(): Promise<URL> {
    answer = undefined
    begun = beginRequest(deps)
    return deps.providerFetch.withHooks(hooks, () => client.pushedAuthorizationUrl(request))
  }
  const attempt = () => deps.limiter.call('pushed_authorization', send, (error) => findingOf(error, answer))
  try {
    return await attempt().catch((error) => {
      // As for tokens: a certificate that is not registered yet must not keep users from signing in.
      if (!isRefusalOfReplacedCredential(deps, { begun, answer })) throw error
      return attempt()
    })
  } catch (error) {
    throw failedPush(error, answer)
  }
}

/** RFC 7517 §8.5. */
export function keySetRequest(
  { provider, providerFetch }: Pick<RelyingPartyDeps, 'provider' | 'providerFetch'>,
  jwksUri: string,
): Promise<Response> {
  return providerFetch.fetch(jwksUri, {
    method: 'GET',
    headers: { accept: 'application/json, application/jwk-set+json' },
    redirect: 'manual',
    signal: AbortSignal.timeout(provider.timeoutMs),
  })
}

/** Discovery; rejects with BffError, and tells how it ended. */
async function observedDiscovery(deps: RelyingPartyDeps): Promise<DiscoveredClient> {
  try {
    const client = await discoverClient({ ...deps, client: deps.authenticator })
    deps.discovered?.(undefined, client.metadata)
    return client
  } catch (error) {
    const problem = failedDiscovery(error, deps.now(), deps.provider.issuer)
    deps.discovered?.(problem)
    throw problem
  }
}
