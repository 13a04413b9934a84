import { createLogThrottle } from '../../async/log-throttle.ts'
import type { Config, ResourceConfig } from '../../config/config.ts'
import { BffError, type StepUp } from '../../errors.ts'
import type { Logger } from '../../log.ts'
import { proofKeyFor, proofKeyToJwk } from '../dpop.ts'
import type { ConfigFaults } from '../grants/config-faults.ts'
import { claimsParameter, type Dialect, type SignInGrant } from '../grants/dialects.ts'
import { judgeToken, resourcesOfCode } from '../grants/scopes.ts'
import type { AuthorizationChecks } from '../token-endpoint/openid-client.ts'
import type { RelyingParty } from '../token-endpoint/relying-party.ts'
import type { GrantedTokens } from '../token-endpoint/token-requests.ts'
import type { LoginAttempt, LoginAttempts, LoginCookie, LoginParams, SignInGoal } from './attempts.ts'
import { createOfflineConsent, type OfflineConsentMemory, withConsent } from './offline-consent.ts'
import { createUserInfo } from './user-info.ts'

/** What one authorization request asks for beyond the configuration. */
export type AuthorizationRequest = {
  readonly prompt?: string | undefined
  readonly loginHint?: string | undefined
  readonly params?: LoginParams | undefined
  /** The person who signs in has put something of it into the login URL. */
  readonly isOfUser?: boolean
  readonly stepUp?: StepUp | undefined
}

export type AuthorizationDeps = {
  readonly config: Config
  readonly relyingParty: Pick<RelyingParty, 'authorizationUrl' | 'codeGrant' | 'userInfo'>
  readonly dialect: Dialect
  /** Resources that sign-ins are for, in the order of the routes. */
  readonly inUse: readonly ResourceConfig[]
  readonly faults: Pick<ConfigFaults, 'note' | 'noteSignIn'>
  readonly offlineConsent: OfflineConsentMemory
  readonly log: Logger
  /** Epoch ms. */
  readonly now: () => number
  readonly monotonicNow: () => number
}

/** What an authorization response is checked against. */
export type SignInChecks = AuthorizationChecks & Pick<LoginAttempt, 'params' | 'startedAt'>

/** One sign-in at the authorization server. Every method that returns a promise rejects with BffError only. */
export type Authorization = {
  /** What a sign-in asks for, as far as its refresh token is limited by it. */
  signInGrant(stepUp?: StepUp): SignInGrant
  /** How the authorization response of a sign-in that begins now is to come, and the key of its tokens. */
  newResponseForm(): Pick<AuthorizationChecks, 'responseMode' | 'responseType' | 'dpopKey'>
  /** The `prompt` of the authorization request for a sign-in, if it has one. */
  promptFor(goal: SignInGoal): string | undefined
  /** Where the browser signs in; the request is pushed first where the provider takes that. */
  authorizationUrl(checks: AuthorizationChecks, request: AuthorizationRequest): Promise<URL>
  /** Redeems the code of the authorization response `callback`. Rejects when a token for the APIs was wanted and none came. */
  codeGrant(callback: URL, checks: SignInChecks, stepUp?: StepUp): Promise<GrantedTokens>
  /** Name of the resource that the access token of a code grant is for, if it is for one and may be used at all. */
  resourceOf(granted: GrantedTokens, signIn: SignInGrant, stepUp?: StepUp): string | undefined
  /**
   * Whether a finished sign-in is to be begun again with prompt=consent, because it brought no refresh token. Otherwise the
   * log says what a missing refresh token means and what may cure it.
   */
  isToBeRepeated(attempt: LoginAttempt, granted: Pick<GrantedTokens, 'refreshToken'>): boolean
  /** Learns from a sign-in that failed. */
  noteFailed(attempt: LoginAttempt, error: unknown): void
}

/** What a user signs in for to reach a resource: the one whose token is exchanged for its token, or itself. */
export function signInResource({ resources }: Config, name: string): ResourceConfig | undefined {
  const resource = resources[name]
  return resource?.subject === undefined ? resource : resources[resource.subject]
}

/** Makes the sign-ins of one configuration. */
export function createAuthorization(deps: AuthorizationDeps): Authorization {
  const { config, relyingParty, dialect, inUse, faults, log, monotonicNow } = deps
  const { provider, resources } = config
  const consent = createOfflineConsent(provider, { memory: deps.offlineConsent, monotonicNow })
  const throttle = createLogThrottle({ monotonicNow })
  const withUserInfo = createUserInfo({ provider, relyingParty })
  const claimsOf = (stepUp?: StepUp) => claimsParameter(provider.clientCapabilities, stepUp?.claims)
  /** The resource whose policies the provider applies at sign-in: the one that asked for it, else the first in use. */
  const loginResource = (stepUp?: StepUp) => (stepUp && signInResource(config, stepUp.resource)) ?? inUse[0]

  /** Notes how a step of a sign-in ended, unless it failed before it began. */
  async function noted<T>(
    step: 'par' | 'code' | 'userinfo',
    work: Promise<T>,
    isOwnRequest = false,
  ): Promise<T> {
    try {
      const result = await work
      faults.noteSignIn(step)
      return result
    } catch (error) {
      const isOfDiscovery = error instanceof BffError && error.logged?.step === 'discovery'
      if (error instanceof BffError && !isOfDiscovery) faults.noteSignIn(step, { error, isOwnRequest })
      throw error
    }
  }

  /**
   * The `max_age` of the request (OpenID Connect Core §3.1.2.1), with which `auth_time` must come. Counted from the request
   * on: what the user takes to sign in does not make the authentication old.
   */
  function maxAgeAt({ params, startedAt }: SignInChecks, stepUp?: StepUp): { maxAge?: number } {
    // A route that asks for a fresh sign-in judges `auth_time` itself, and says when it did not help.
    if (stepUp?.ofRoute && stepUp.maxAge !== undefined) return {}
    const asked = params?.max_age ?? provider.authorizationParams.max_age
    const maxAge = stepUp?.maxAge ?? (asked === undefined ? undefined : Number(asked))
    if (maxAge === undefined || !Number.isFinite(maxAge)) return {}
    const elapsedMs = startedAt === undefined ? 0 : Math.max(0, deps.now() - startedAt)
    return { maxAge: maxAge + Math.ceil(elapsedMs / 1000) }
  }

  return {
    newResponseForm() {
      const { responseMode, responseType } = provider
      const key = proofKeyFor(provider)
      return {
        ...(responseMode === 'query' ? {} : { responseMode }),
        ...(responseType === 'code' ? {} : { responseType }),
        ...(key && { dpopKey: proofKeyToJwk(key) }),
      }
    },
    signInGrant: (stepUp) => dialect.signInGrant(loginResource(stepUp)),

    promptFor(goal) {
      const asked = goal.isRepeated ? undefined : (goal.prompt ?? provider.authorizationParams.prompt)
      return consent.promptFor(goal.asked?.stepUp.consent ? withConsent(asked) : asked, goal)
    },

    authorizationUrl(checks, { prompt, loginHint, params = {}, isOfUser, stepUp }) {
      const extra = new Map(Object.entries(provider.authorizationParams))
      if (prompt !== undefined) extra.set('prompt', prompt)
      if (loginHint !== undefined) extra.set('login_hint', loginHint)
      for (const [name, value] of Object.entries(params)) extra.set(name, value)
      for (const [name, value] of claimsOf(stepUp)) extra.set(name, value)
      if (stepUp?.acrValues !== undefined) extra.set('acr_values', stepUp.acrValues)
      if (stepUp?.maxAge !== undefined) extra.set('max_age', String(stepUp.maxAge))
      const parameters = [...dialect.authorizationRequest(loginResource(stepUp)), ...extra]
      // What a user has put into the login URL, or an API into its challenge, is no fault of the configuration.
      const isOwnRequest = !isOfUser && stepUp === undefined
      return noted('par', relyingParty.authorizationUrl(checks, parameters), isOwnRequest)
    },

    async codeGrant(callback, checks, stepUp) {
      const parameters = [...dialect.codeGrant(loginResource(stepUp)), ...claimsOf(stepUp)]
      const maxAge = maxAgeAt(checks, stepUp)
      const grant = relyingParty.codeGrant(callback, { ...checks, ...maxAge }, parameters)
      const redeemed = await noted('code', grant)
      const granted = provider.userinfo ? await noted('userinfo', withUserInfo(redeemed, checks)) : redeemed
      const { accessToken, refreshToken } = granted
      if (accessToken !== '' || refreshToken !== undefined || inUse.length === 0) return granted
      throw new BffError('invalid_callback', 'the provider sent no token for the APIs')
    },

    resourceOf(granted, signIn, stepUp) {
      if (dialect.isCodeForUserInfo) return undefined
      const goodFor = resourcesOfCode(granted, dialect.isCodeForAll ? signIn.scopes : undefined, inUse)
      const [resource = loginResource(stepUp)] = goodFor
      if (!resource || goodFor.length > 1 || granted.accessToken === '') return undefined
      const fault = judgeToken(granted, resource, resources)
      if (!fault) return resource.name
      faults.note({ resource: resource.name, ...fault, isOfUser: true })
      const count = throttle.count(`${resource.name} ${fault.outcome}`)
      const fields = { resource: resource.name, ...fault, count }
      if (count !== undefined)
        log.warn(fields, 'the access token of a sign-in is not for its resource: not sent')
      return undefined
    },

    isToBeRepeated(attempt, { refreshToken }) {
      const hasRefreshToken = refreshToken !== undefined
      if (inUse.length === 0) return false
      if (consent.isToBeRepeated(attempt, hasRefreshToken)) return true
      const count = hasRefreshToken ? undefined : throttle.count('no_refresh_token')
      if (count !== undefined) log.warn({ reason: 'no_refresh_token', count }, noRefreshToken(provider))
      return false
    },

    noteFailed(attempt, error) {
      if (!(error instanceof BffError) || error.logged?.step !== 'authorization') return
      const isRefusal = error.logged.oauthError !== undefined && error.code !== 'provider_unavailable'
      if (isRefusal) consent.refused(attempt)
    },
  }
}

function noRefreshToken({ scopes, offlineConsent }: Config['provider']): string {
  const why = !scopes.includes('offline_access')
    ? 'provider.scopes lacks offline_access'
    : offlineConsent === 'always'
      ? 'is the client registered for refresh tokens?'
      : 'the provider may want prompt=consent for offline_access (set provider.offlineConsent: always), or the client is not registered for refresh tokens'
  return `a sign-in brought no refresh token: no access token of its session can be renewed; ${why}`
}

/** Begins a sign-in: the attempt is stored, and the browser is to go to `url` with the cookie of the attempt. */
export type BeginSignIn = (goal: SignInGoal) => Promise<BegunSignIn>
export type BegunSignIn = { readonly url: URL; readonly cookie: LoginCookie }

export type BeginSignInDeps = {
  readonly attempts: Pick<LoginAttempts, 'start'>
  readonly provider: Pick<Authorization, 'signInGrant' | 'promptFor' | 'newResponseForm' | 'authorizationUrl'>
  /** Epoch ms. */
  readonly now: () => number
  /** Told of each sign-in that the browser is sent to the provider for. */
  readonly begun?: () => void
}

/** Makes the one way to the authorization endpoint, for sign-ins and for the repetition of one. */
export function createBeginSignIn({ attempts, provider, now, begun }: BeginSignInDeps): BeginSignIn {
  return async function beginSignIn(goal) {
    const stepUp = goal.asked?.stepUp
    const prompt = provider.promptFor(goal)
    const wanted = {
      ...{ ...goal, ...provider.signInGrant(stepUp), ...provider.newResponseForm(), startedAt: now() },
      ...(prompt === undefined ? {} : { prompt }),
    }
    const { attempt, cookie } = await attempts.start(wanted)
    const { loginHint, params } = goal
    const isOfUser = goal.prompt !== undefined || loginHint !== undefined || params !== undefined
    const url = await provider.authorizationUrl(attempt, { prompt, loginHint, params, isOfUser, stepUp })
    begun?.()
    return { url, cookie }
  }
}
