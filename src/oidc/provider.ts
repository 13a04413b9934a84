import type { Trace } from '../async/trace.ts'
import type { Config, ResourceConfig } from '../config/config.ts'
import { type BffError, describeError, type ErrorSummary } from '../errors.ts'
import type { Logger } from '../log.ts'
import { createVerifyBearer } from './bearer-token.ts'
import type { CertificateMemory } from './client-auth/certificates.ts'
import { CLIENT_AUTH_CURES, type ClientAuthenticator } from './client-auth/client-assertion.ts'
import { mayProve, proofKeyFor } from './dpop.ts'
import { createVerifyLogoutToken } from './events/logout-token.ts'
import { createTransmitter } from './events/transmitter.ts'
import { createConfigFaults, type GrantObserver } from './grants/config-faults.ts'
import { createDialect } from './grants/dialects.ts'
import { createResourceGrants } from './grants/resource-grants.ts'
import { createAuthorization, signInResource } from './sign-in/authorization.ts'
import { createEndSession, createFrameOrigins } from './sign-in/end-session.ts'
import type { OfflineConsentMemory } from './sign-in/offline-consent.ts'
import { createIsIssuer } from './token-endpoint/endpoints.ts'
import type { KeysRead } from './token-endpoint/key-set.ts'
import type { Limiters } from './token-endpoint/limiter.ts'
import { createClientAuthenticator, type ProviderMetadata } from './token-endpoint/openid-client.ts'
import { createProviderConnections } from './token-endpoint/provider-connections.ts'
import {
  type ClockMemory,
  createProviderClock,
  createProviderFetch,
} from './token-endpoint/provider-fetch.ts'
import { createRelyingParty } from './token-endpoint/relying-party.ts'

export type ProviderDeps = {
  readonly config: Config
  readonly log: Logger
  /** Epoch ms. */
  readonly now: () => number
  readonly monotonicNow: () => number
  /** Those of the process: the configuration before may have used the same limiter. */
  readonly limiters: Limiters
  /** Absent: nothing is known of the provider. */
  readonly offlineConsent?: OfflineConsentMemory
  /** Absent: no certificate was used before. */
  readonly certificates?: CertificateMemory
  /** Absent: nothing is known of the provider's clock. */
  readonly clocks?: ClockMemory
  /** Id of the request that is being served, if one is. */
  readonly requestId?: () => string | undefined
  readonly trace?: Pick<Trace, 'part'> | undefined
  readonly observe: GrantObserver & {
    readonly clientCertificate?: (notAfter: number) => void
    /** How many seconds our clock is ahead of the provider's. */
    readonly clockOffset?: (seconds: number) => void
  }
}

/** What is known of the provider's endpoints. */
export type ProviderState = 'ok' | 'unavailable' | 'unknown'

/** What an operator is shown of the provider. */
export type ProviderStatus = {
  readonly state: ProviderState
  /** Epoch ms. Undefined: not yet, or not since the configuration was read. */
  readonly discoveredAt: number | undefined
  /** How many seconds our clock is ahead of the provider's; undefined while too little is known. */
  readonly clockOffsetSeconds: number | undefined
  /** Why the last discovery failed; undefined when it did not. */
  readonly discoveryError: ErrorSummary | undefined
  readonly keys: KeysRead | undefined
}

/**
 * Makes the configured OpenID Provider, in the words of the rest of the program: sign-ins (sign-in/authorization.ts), tokens
 * for resources (grants/resource-grants.ts), sign-outs. Every method rejects with BffError only.
 */
export function createProvider(deps: ProviderDeps) {
  const { config, log, monotonicNow } = deps
  const { provider, resources } = config
  const redirectUri = `${config.publicUrl}${config.basePath}/callback`
  const inUse = resourcesInUse(config)
  const isIssuer = createIsIssuer(provider)
  logTransport(provider, log)

  const authenticator = createClientAuthenticator(provider, {
    ...{ issuer: provider.issuer, clientId: provider.clientId, now: deps.now, log },
    ...{ certificates: deps.certificates ?? new Map(), observeCertificate: deps.observe.clientCertificate },
  })
  const faults = createConfigFaults({
    ...{ log, observe: deps.observe, monotonicNow },
    clientFacts: () => ({ ...authenticator.facts(), cure: CLIENT_AUTH_CURES[authenticator.method] }),
  })
  const dialect = createDialect(provider, inUse)
  const limiter = deps.limiters.limiterFor(provider)
  const fetch = createProviderConnections(provider)
  const clock = createProviderClock({
    ...{ issuer: provider.issuer, toleranceMs: provider.clockToleranceMs, memory: deps.clocks ?? new Map() },
    ...{ monotonicNow, log, observe: deps.observe.clockOffset ?? (() => undefined) },
  })
  const providerFetch = createProviderFetch({
    ...{ now: deps.now, fetch, noteClock: clock.note, trace: deps.trace },
  })
  const noteClientAuth = createNoteClientAuth(authenticator, log)
  let discoveredAt: number | undefined
  let discoveryError: ErrorSummary | undefined
  const relyingParty = createRelyingParty({
    ...{ provider, authenticator, redirectUri, limiter, providerFetch, now: deps.now, monotonicNow },
    discovered(error, metadata) {
      discoveryError = error && describeError(error.cause ?? error)
      if (!error) discoveredAt = deps.now()
      faults.noteSignIn('discovery', error && { error })
      if (metadata) noteClientAuth(metadata)
    },
  })
  const transmitter =
    provider.sharedSignals &&
    createTransmitter({ ...provider.sharedSignals, provider, providerFetch, monotonicNow })
  const offlineConsent = deps.offlineConsent ?? new Map()

  let state: ProviderState = 'unknown'
  function noteState(next: ProviderState, error?: unknown): void {
    if (next === 'unavailable' && state !== next) {
      const err = describeError((error as BffError | undefined)?.cause ?? error)
      log.warn({ url: provider.issuer, err }, 'the provider cannot be discovered')
    }
    state = next
  }

  return {
    ...createAuthorization({
      ...{ config, relyingParty, dialect, inUse, faults, offlineConsent, log, monotonicNow },
      now: deps.now,
    }),
    ...createResourceGrants({
      ...{ relyingParty, dialect, resources, log, monotonicNow, note: faults.note },
      ...(deps.requestId && { requestId: deps.requestId }),
      clientCapabilities: provider.clientCapabilities,
      ...(mayProve(provider) && { proofKeyFor: (known) => proofKeyFor(provider, known) }),
    }),
    endSession: createEndSession({ config, relyingParty, log }),
    frameOrigins: createFrameOrigins({ config, relyingParty }),
    verifyLogoutToken: createVerifyLogoutToken({ provider, isIssuer, relyingParty, now: deps.now }),
    isIssuer,
    verifyBearer: createVerifyBearer({ provider, relyingParty, now: deps.now, monotonicNow }),
    redirectUri,
    requireSigned: relyingParty.requireSigned,
    /** Throws as `Transmitter` does; a plain Error when no events are configured. */
    async requireSignedByTransmitter(jws: string): Promise<void> {
      if (!transmitter) throw new Error('no transmitter is configured')
      await transmitter.requireSigned(jws)
    },
    admit: limiter.admit,

    /** From now on the metrics tell of this one, and of `before` no more, whatever answer still comes to it. */
    succeed(before: { retire(): void }): void {
      before.retire()
      limiter.takeOver()
      clock.takeOver()
    },
    retire() {
      faults.retire()
      clock.retire()
    },

    /** Whether the provider's endpoints were known at the last look; looks again without waiting. Never throws. */
    state(): ProviderState {
      relyingParty.ready().then(
        () => noteState('ok'),
        (error) => noteState('unavailable', error),
      )
      return state
    },

    status(): ProviderStatus {
      const clockOffsetSeconds = clock.offsetSeconds()
      return { state, discoveredAt, discoveryError, clockOffsetSeconds, keys: relyingParty.signingKeys() }
    },

    /** Resolves when the endpoints are known, or were asked for and are not. Never rejects. */
    discovered: (): Promise<void> => relyingParty.ready().catch((error) => noteState('unavailable', error)),

    /** Revokes a refresh token (RFC 7009) as well as it can: the local logout does not depend on it. Never rejects. */
    async revoke(refreshToken: string): Promise<void> {
      try {
        await relyingParty.revoke(refreshToken)
      } catch (error) {
        log.warn({ err: describeError(error) }, 'the refresh token could not be revoked')
      }
    },
  }
}

/** The registered names of methods whose names are our own, or that have two (OpenID Connect Core §9, RFC 8705 §2). */
const REGISTERED_METHODS: Readonly<Record<string, readonly string[]>> = {
  certificate: ['private_key_jwt'],
  workload_identity: ['private_key_jwt'],
  tls_client_auth: ['tls_client_auth', 'self_signed_tls_client_auth'],
}

/** The registered name of a way to authenticate that the provider's metadata do not list; undefined if they do, or list none. */
export function unlistedMethod(
  method: ClientAuthenticator['method'],
  { clientAuthMethods }: Pick<ProviderMetadata, 'clientAuthMethods'>,
): string | undefined {
  const registered = REGISTERED_METHODS[method] ?? [method]
  const isListed = !clientAuthMethods || registered.some((name) => clientAuthMethods.includes(name))
  return isListed ? undefined : registered[0]
}

/** Says once when the metadata do not list how the client authenticates: no error, because some providers take more than they list. */
function createNoteClientAuth({ method, facts }: ClientAuthenticator, log: Logger) {
  let isTold = false
  return (metadata: ProviderMetadata): void => {
    const unlisted = unlistedMethod(method, metadata)
    if (isTold || unlisted === undefined) return
    isTold = true
    log.warn(
      facts(),
      `the metadata of the provider do not list ${unlisted} (token_endpoint_auth_methods_supported): it may refuse the client`,
    )
  }
}

/** At every start and reload: what an operator must not forget, and where the calls to the provider go. */
function logTransport({ insecureHosts, proxy }: Config['provider'], log: Logger): void {
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
export function resourcesInUse(config: Config): ResourceConfig[] {
  const names = config.routes.flatMap(({ resource }) => resource ?? [])
  const resources = names.flatMap((name) => signInResource(config, name) ?? [])
  return [...new Set(resources)].filter(({ grant }) => grant === 'refresh_token')
}
