import { within } from '../async/deadline.ts'
import { createLogThrottle } from '../async/log-throttle.ts'
import type { Config, ResourceConfig } from '../config/config.ts'
import { BffError, describeError, type StepUp } from '../errors.ts'
import type { Logger } from '../log.ts'
import { createConfigFaults, type GrantObserver } from './grants/config-faults.ts'
import { claimsParameter, createDialect, type SignInGrant } from './grants/dialects.ts'
import { createResourceGrants } from './grants/resource-grants.ts'
import { judgeToken, resourcesOfCode } from './grants/token-purpose.ts'
import type { LoginAttempt, SignInGoal } from './sign-in/attempts.ts'
import { type EndSessionRequest, endSessionRequest } from './sign-in/end-session.ts'
import { createOfflineConsent, type OfflineConsentMemory, withConsent } from './sign-in/offline-consent.ts'
import type { ProviderGates } from './token-endpoint/limiters.ts'
import type { AuthorizationChecks } from './token-endpoint/openid-client.ts'
import { createProviderConnections } from './token-endpoint/provider-connections.ts'
import { createProviderFetch } from './token-endpoint/provider-fetch.ts'
import { createRelyingParty } from './token-endpoint/relying-party.ts'
import type { GrantedTokens } from './token-endpoint/token-requests.ts'

/** Longest wait for the provider's endpoints at sign-out, after revocation had its own time. */
const END_SESSION_WAIT_MS = 1_000

/** What one sign-in may ask for beyond the configuration. */
type Wishes = {
  readonly prompt?: string | undefined
  readonly loginHint?: string | undefined
  /** Some of it was chosen by whoever signs in. */
  readonly hasWishes?: boolean
  readonly stepUp?: StepUp | undefined
}

export type ProviderDeps = {
  readonly config: Config
  readonly log: Logger
  readonly now: () => number
  readonly monotonicNow: () => number
  /** Where the gate is found that the configuration before may have used, too. */
  readonly gates: ProviderGates
  /** Absent: nothing is known of the provider. */
  readonly offlineConsent?: OfflineConsentMemory
  readonly observe: GrantObserver
}

/** What is known of the provider's endpoints. */
export type ProviderState = 'ok' | 'unavailable' | 'unknown'

/** The configured OpenID Provider, in the words of the rest of the program; every method rejects with BffError only. */
export function createProvider({
  config,
  log,
  now,
  monotonicNow,
  gates,
  offlineConsent: memory = new Map(),
  observe,
}: ProviderDeps) {
  const redirectUri = `${config.publicUrl}${config.basePath}/callback`
  const inUse = resourcesInUse(config)
  const dialect = createDialect(config.provider, inUse)
  const providerFetch = createProviderFetch({ now, fetch: createProviderConnections(config.provider) })
  const limiter = gates.gateFor(config.provider)
  const faults = createConfigFaults({ log, observe, monotonicNow })
  const relyingParty = createRelyingParty({
    provider: config.provider,
    redirectUri,
    providerFetch,
    limiter,
    now,
    monotonicNow,
    discovered: (error) => faults.noteSignIn('discovery', error && { error }),
  })
  const { clientCapabilities } = config.provider
  const { resources } = config
  const offlineConsent = createOfflineConsent(config.provider, { memory, monotonicNow })
  const throttle = createLogThrottle({ monotonicNow })
  /** The resource whose policies the provider applies at sign-in: the one that asked for it, else the first in use. */
  const loginResource = (stepUp?: StepUp) => (stepUp && signInFor(config, stepUp.resource)) ?? inUse[0]

  tellOfTransport(config.provider, log)

  let state: ProviderState = 'unknown'
  function note(now: ProviderState, error?: unknown): void {
    if (now === 'unavailable' && state !== now) {
      log.warn(
        { url: config.provider.issuer, err: describeError((error as BffError | undefined)?.cause ?? error) },
        'the provider cannot be discovered',
      )
    }
    state = now
  }

  /** Tells of a step of a sign-in, unless it failed before it began. */
  async function noted<T>(step: 'par' | 'code', work: Promise<T>, isOwnRequest = false): Promise<T> {
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

  return {
    ...createResourceGrants({
      ...{ relyingParty, dialect, resources, clientCapabilities, log, monotonicNow, note: faults.note },
    }),
    redirectUri,
    admit: limiter.admit,

    /** From now on the metrics tell of this one, and of `before` no more, whatever answer still comes to it. */
    succeed(before: { retire(): void }): void {
      before.retire()
      limiter.takeOver()
    },
    retire: faults.retire,

    /** Whether the provider's endpoints were known at the last look; looks again without waiting. Never throws. */
    state(): ProviderState {
      relyingParty.ready().then(
        () => note('ok'),
        (error) => note('unavailable', error),
      )
      return state
    },

    /** Resolves when the endpoints are known, or were asked for and are not. Never rejects. */
    discovered: (): Promise<void> => relyingParty.ready().catch((error) => note('unavailable', error)),

    /** What a sign-in asks for, as far as its refresh token is limited by it. */
    signInGrant: (stepUp?: StepUp): SignInGrant => dialect.signInGrant(loginResource(stepUp)),

    /** The `prompt` of the authorization request for a sign-in, if it has one. */
    promptFor(goal: SignInGoal): string | undefined {
      const asked = goal.isRepeated ? undefined : (goal.prompt ?? config.provider.authorizationParams.prompt)
      return offlineConsent.promptFor(goal.asked?.stepUp.consent ? withConsent(asked) : asked, goal)
    },

    /**
     * Whether a sign-in that is finished is to be begun again with prompt=consent, because it brought no refresh token.
     * Where it is not, the log is told what that means and what may cure it.
     */
    isToBeRepeated(attempt: LoginAttempt, { refreshToken }: Pick<GrantedTokens, 'refreshToken'>): boolean {
      const hasRefreshToken = refreshToken !== undefined
      if (inUse.length === 0) return false
      if (offlineConsent.isToBeRepeated(attempt, hasRefreshToken)) return true
      const count = hasRefreshToken ? undefined : throttle.count('no_refresh_token')
      if (count !== undefined)
        log.warn({ reason: 'no_refresh_token', count }, noRefreshToken(config.provider))
      return false
    },

    /** Told of a sign-in that failed. */
    noteFailed(attempt: LoginAttempt, error: unknown): void {
      if (!(error instanceof BffError) || error.logged?.step !== 'authorization') return
      const isRefusal = error.logged.oauthError !== undefined && error.code !== 'provider_unavailable'
      if (isRefusal) offlineConsent.refused(attempt)
    },

    async authorizationUrl(
      checks: AuthorizationChecks,
      { prompt, loginHint, hasWishes, stepUp }: Wishes,
    ): Promise<URL> {
      const extra = new Map(Object.entries(config.provider.authorizationParams))
      if (prompt !== undefined) extra.set('prompt', prompt)
      if (loginHint !== undefined) extra.set('login_hint', loginHint)
      for (const [name, value] of claimsParameter(clientCapabilities, stepUp?.claims)) extra.set(name, value)
      if (stepUp?.acrValues !== undefined) extra.set('acr_values', stepUp.acrValues)
      if (stepUp?.maxAge !== undefined) extra.set('max_age', String(stepUp.maxAge))
      const request = [...dialect.authorizationRequest(loginResource(stepUp)), ...extra]
      // What somebody has put into his own login URL, or an API into its challenge, is no fault of the configuration.
      const isOwnRequest = !hasWishes && stepUp === undefined
      return noted('par', relyingParty.authorizationUrl(checks, request), isOwnRequest)
    },

    async codeGrant(callback: URL, checks: AuthorizationChecks, stepUp?: StepUp): Promise<GrantedTokens> {
      const claims = claimsParameter(clientCapabilities, stepUp?.claims)
      const request = [...dialect.codeGrant(loginResource(stepUp)), ...claims]
      const grant = relyingParty.codeGrant(callback, { ...checks, maxAge: stepUp?.maxAge }, request)
      const granted = await noted('code', grant)
      const { accessToken, refreshToken } = granted
      if (accessToken !== '' || refreshToken !== undefined || inUse.length === 0) return granted
      throw new BffError('invalid_callback', 'the provider sent no token for the APIs')
    },

    /** Name of the resource that the access token of a code grant is for, if it is for one and may be used at all. */
    resourceOf(granted: GrantedTokens, signIn: SignInGrant, stepUp?: StepUp): string | undefined {
      const login = loginResource(stepUp)
      const goodFor = resourcesOfCode(granted, dialect.isCodeForAll ? signIn.scopes : undefined, inUse)
      const [resource = login] = goodFor
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

    /** Best effort, by design: the local logout does not depend on it. Never rejects. */
    async revoke(refreshToken: string): Promise<void> {
      try {
        await relyingParty.revoke(refreshToken)
      } catch (error) {
        log.warn({ err: describeError(error) }, 'the refresh token could not be revoked')
      }
    },

    /**
     * How the browser ends its session at the provider; undefined when there is no such place. `state` comes back to
     * `B/logged-out` with the browser. Never rejects.
     */
    async endSession(
      idToken: string,
      newState: () => Promise<string | undefined>,
    ): Promise<EndSessionRequest | undefined> {
      try {
        const endpoint = await soon(relyingParty.endSessionEndpoint())
        if (endpoint === undefined) return undefined
        const state = await newState()
        return endSessionRequest(endpoint, [
          ['id_token_hint', idToken],
          ['post_logout_redirect_uri', `${config.publicUrl}${config.basePath}/logged-out`],
          ...(state === undefined ? [] : ([['state', state]] as const)),
          ['client_id', config.provider.clientId],
        ])
      } catch (error) {
        log.warn({ err: describeError(error) }, 'no end-session endpoint: the provider does not answer')
        return undefined
      }
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

/** At every start and reload: what an operator must not forget, and where the calls to the provider go. */
function tellOfTransport({ insecureHosts, proxy }: Config['provider'], log: Logger): void {
  for (const host of insecureHosts) {
    log.warn(
      { url: `http://${host}` },
      'provider endpoints at this host may be plain http: whoever is on the way reads the client secret, codes and tokens',
    )
  }
  const proxies = new Set(
    [proxy?.https, proxy?.http].flatMap((url) => (url ? new URL(url.reveal()).origin : [])),
  )
  for (const url of proxies) log.info({ url }, 'calls to the provider go through this proxy')
}

/** Resources whose tokens routes need, as they are or to exchange them, in the order of the routes. */
function resourcesInUse(config: Config): ResourceConfig[] {
  const names = config.routes.flatMap(({ resource }) => resource ?? [])
  const resources = names.flatMap((name) => signInFor(config, name) ?? [])
  return [...new Set(resources)].filter(({ grant }) => grant === 'refresh_token')
}

/** What a user signs in for to reach a resource: the one whose token is exchanged for its token, or itself. */
function signInFor({ resources }: Config, name: string): ResourceConfig | undefined {
  const resource = resources[name]
  return resource?.subject === undefined ? resource : resources[resource.subject]
}

/** Endpoints once known are known at once; somebody who signs out does not wait for a provider never reached yet. */
function soon<T>(work: Promise<T>): Promise<T> {
  return within(work, END_SESSION_WAIT_MS, {
    late() {
      throw new BffError('provider_unavailable', 'the provider was not reached in time')
    },
  })
}
