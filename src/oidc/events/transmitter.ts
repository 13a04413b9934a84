import type { ProviderConfig, SharedSignalsConfig } from '../../config/config.ts'
import { BffError } from '../../errors.ts'
import { isAllowedTransport } from '../token-endpoint/endpoints.ts'
import { createMessageKeys, createProviderKeys } from '../token-endpoint/key-set.ts'
import { createRefreshedClient } from '../token-endpoint/openid-client.ts'
import type { ProviderFetch } from '../token-endpoint/provider-fetch.ts'

/** The transmitter of security events, as far as a push receiver needs it. */
export type Transmitter = {
  /**
   * Throws unless a key of the transmitter verifies the signature of this JWS: a plain Error, or `provider_unavailable`
   * when its metadata or keys cannot be had, so that the push is made again.
   */
  requireSigned(jws: string): Promise<void>
}

export type TransmitterDeps = {
  readonly transmitter: SharedSignalsConfig['transmitter']
  readonly provider: Pick<ProviderConfig, 'insecureHosts' | 'timeoutMs'>
  readonly providerFetch: Pick<ProviderFetch, 'fetch'>
  readonly monotonicNow: () => number
}

const WELL_KNOWN = '/.well-known/ssf-configuration'

/** Makes the transmitter, whose metadata (SSF 1.0 §7) and keys are read when they are first needed, and again in time. */
export function createTransmitter(deps: TransmitterDeps): Transmitter {
  const { monotonicNow } = deps
  const jwksUri = createRefreshedClient(() => discoverKeys(deps), monotonicNow)
  const read = (url: string) => get(url, deps)
  const keys = createMessageKeys(createProviderKeys({ read, monotonicNow }), deps)

  return {
    async requireSigned(jws) {
      try {
        await keys.requireSigned(jws, await jwksUri())
      } catch (error) {
        throw error instanceof BffError ? unavailable(error) : error
      }
    },
  }
}

/** The addresses of an issuer's metadata: §7.2 inserts the well-known part before the path; some, such as Keycloak, append it. */
export function metadataUrls(issuer: string): string[] {
  const { origin, pathname } = new URL(issuer)
  const path = pathname.replace(/\/$/, '')
  return [...new Set([`${origin}${WELL_KNOWN}${path}`, `${origin}${path}${WELL_KNOWN}`])]
}

/** Reads `jwks_uri` from the metadata at the first address that has the transmitter's own (§7.2.3). */
async function discoverKeys(deps: TransmitterDeps): Promise<string> {
  let problem = new Error('the transmitter has no metadata')
  for (const url of metadataUrls(deps.transmitter)) {
    const answer = await get(url, deps).catch((error) => {
      throw unavailable(error)
    })
    const { status } = answer
    if (status >= 500 || status === 429) throw unavailable(statusError(status))
    const metadata = status === 200 ? await answer.json().catch(() => undefined) : undefined
    const { issuer, jwks_uri: jwksUri } = (metadata ?? {}) as Record<string, unknown>
    if (issuer === deps.transmitter) return usableUrl(jwksUri, deps)
    if (status === 200) problem = new Error(ANOTHER_ISSUER)
    else if (problem.message !== ANOTHER_ISSUER) problem = statusError(status)
  }
  throw unavailable(problem)
}

const ANOTHER_ISSUER =
  'the metadata of the transmitter name another issuer than provider.sharedSignals.transmitter: they must be equal'

function statusError(status: number): Error {
  return new Error(`the metadata of the transmitter were answered with status ${status}`)
}

function usableUrl(jwksUri: unknown, { transmitter, provider }: TransmitterDeps): string {
  const url = typeof jwksUri === 'string' && URL.canParse(jwksUri) ? new URL(jwksUri) : undefined
  if (!url) throw unavailable(new Error('the metadata of the transmitter have no jwks_uri'))
  if (isAllowedTransport(url, { issuer: transmitter, insecureHosts: provider.insecureHosts })) return url.href
  throw unavailable(
    new Error(
      `the metadata of the transmitter name a jwks_uri at ${url.origin}, which is not https: ` +
        `correct it there, or allow the host: provider.insecureHosts: [${url.host}]`,
    ),
  )
}

/** Whatever keeps the signature from being checked is said with 503: the transmitter keeps the event and sends it again. */
function unavailable(error: unknown): BffError {
  const { cause } = error as BffError
  const message = 'the keys of the transmitter cannot be read'
  return new BffError('provider_unavailable', message, {
    cause: error instanceof BffError ? (cause ?? error) : error,
    retryAfterSeconds: 2,
    logged: { step: 'shared_signals' },
  })
}

function get(url: string, { providerFetch, provider }: TransmitterDeps): Promise<Response> {
  return providerFetch.fetch(url, {
    method: 'GET',
    headers: { accept: 'application/json, application/jwk-set+json' },
    redirect: 'manual',
    signal: AbortSignal.timeout(provider.timeoutMs),
  })
}
