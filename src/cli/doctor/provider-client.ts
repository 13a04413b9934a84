import { randomBytes } from 'node:crypto'
import { systemClock } from '../../async/clock.ts'
import { silentLog } from '../../async/log-throttle.ts'
import type { Config } from '../../config/config.ts'
import { mayProve, proofKeyFor } from '../../oidc/dpop.ts'
import type { GrantResult } from '../../oidc/grants/config-faults.ts'
import { createDialect } from '../../oidc/grants/dialects.ts'
import { createResourceGrants } from '../../oidc/grants/resource-grants.ts'
import { resourcesInUse } from '../../oidc/provider.ts'
import { createAuthorization } from '../../oidc/sign-in/authorization.ts'
import { createEndSession } from '../../oidc/sign-in/end-session.ts'
import { createClientAuthenticator, type ProviderMetadata } from '../../oidc/token-endpoint/openid-client.ts'
import { createProviderConnections } from '../../oidc/token-endpoint/provider-connections.ts'
import { type ClockReading, createProviderFetch } from '../../oidc/token-endpoint/provider-fetch.ts'
import { createRelyingParty } from '../../oidc/token-endpoint/relying-party.ts'

/** The provider as the proxy asks it, and what is heard beside the answers. */
export type ProviderClient = ReturnType<typeof createProviderClient>

/**
 * The same parts that the proxy asks the provider with, without its limiter and its memory: each request of the doctor is
 * sent, and is sent once.
 */
export function createProviderClient(config: Config) {
  const { provider, resources } = config
  const { now, monotonicNow } = systemClock
  const readings: ClockReading[] = []
  const pages = new Map<string, string>()
  const connections = createProviderConnections(provider)
  const send = connections ?? ((url: string, options: object) => fetch(url, options as RequestInit))
  const results: GrantResult[] = []
  const faults = { note: (result: GrantResult) => results.push(result) > 0, noteSignIn() {} }
  let metadata: ProviderMetadata | undefined

  const providerFetch = createProviderFetch({
    now,
    noteClock: (reading) => void readings.push(reading),
    async fetch(url, options) {
      const answer = await send(url, options)
      if (answer.status >= 400) pages.set(url, (await answer.clone().text()).slice(0, 100_000))
      return answer
    },
  })
  const authenticator = createClientAuthenticator(provider, {
    ...{ issuer: provider.issuer, clientId: provider.clientId, now, log: silentLog, certificates: new Map() },
  })
  const redirectUri = `${config.publicUrl}${config.basePath}/callback`
  const relyingParty = createRelyingParty({
    ...{ provider, authenticator, redirectUri, providerFetch, now, monotonicNow },
    limiter: { call: (_grant, work) => work() },
    discovered(_error, found) {
      metadata = found
    },
  })
  const inUse = resourcesInUse(config)
  const dialect = createDialect(provider, inUse)
  const authorization = createAuthorization({
    ...{ config, relyingParty, dialect, inUse, faults, offlineConsent: new Map() },
    ...{ log: silentLog, now, monotonicNow },
  })
  const grants = createResourceGrants({
    ...{ relyingParty, dialect, resources, log: silentLog, monotonicNow, note: faults.note },
    clientCapabilities: provider.clientCapabilities,
    ...(mayProve(provider) && { proofKeyFor: (known) => proofKeyFor(provider, known) }),
  })
  const endSession = createEndSession({ config, relyingParty, log: silentLog })
  const random = () => randomBytes(32).toString('base64url')

  return {
    ...{ relyingParty, authenticator, inUse, redirectUri, readings, providerFetch, grants },
    loggedOutUri: `${config.publicUrl}${config.basePath}/logged-out`,
    isThroughProxy: connections !== undefined && provider.proxy !== undefined,
    metadata: () => metadata,
    /** What the last grant for a resource was worth. */
    lastResult: (resource: string) => results.findLast((one) => one.resource === resource),

    /** What a page or an error of this URL said; for a look at it, and never to be shown. */
    pageOf: (url: string | undefined) => (url === undefined ? '' : (pages.get(url) ?? '')),

    /** The authorization request of a sign-in that shows no page; pushed first where the provider takes that. */
    authorizationUrl: () =>
      authorization.authorizationUrl(
        { state: random(), nonce: random(), codeVerifier: random(), ...authorization.newResponseForm() },
        { prompt: 'none' },
      ),

    /** The end-session request of a browser without a session; undefined where the provider has none. */
    async endSessionUrl(): Promise<string | undefined> {
      return (await endSession('', async () => undefined))?.urlWithoutHint
    },

    /** A page as a browser without cookies gets it; no redirect is followed. */
    async page(url: string) {
      const signal = AbortSignal.timeout(provider.timeoutMs)
      const answer = await providerFetch.fetch(url, { method: 'GET', redirect: 'manual', signal })
      return { status: answer.status, location: answer.headers.get('location'), text: await answer.text() }
    },
  }
}
