import { within } from '../../async/deadline.ts'
import type { Config } from '../../config/config.ts'
import { BffError, describeError } from '../../errors.ts'
import type { Logger } from '../../log.ts'
import type { RelyingParty } from '../token-endpoint/relying-party.ts'

/** How the browser ends its session at the provider (OpenID Connect RP-Initiated Logout 1.0 §2, which takes GET and POST). */
export type EndSessionRequest = {
  readonly url: string
  /** The URL is longer than providers and proxies before them take (attack case H3): the form is to be posted. */
  readonly isTooLong: boolean
  readonly form: { readonly action: string; readonly fields: readonly (readonly [string, string])[] }
  /** For a browser that cannot post the form: the provider asks the user then. */
  readonly urlWithoutHint: string
}

export type EndSessionDeps = {
  readonly config: Pick<Config, 'publicUrl' | 'basePath' | 'provider'>
  readonly relyingParty: Pick<RelyingParty, 'endSessionEndpoint'>
  readonly log: Logger
}

const LONGEST_URL = 2000
/** Longest wait for the provider's endpoints at sign-out, after revocation had its own time. */
const ENDPOINT_WAIT_MS = 1_000

/** Makes the end of a session at the provider. */
export function createEndSession({ config, relyingParty, log }: EndSessionDeps) {
  /**
   * How the browser ends its session at the provider; undefined when the provider has no end-session endpoint, or does not
   * answer. `newState` makes what comes back to `B/logged-out` with the browser. Never rejects.
   */
  return async function endSession(
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
  }
}

/** Makes the list of the origins whose pages may show ours in a frame: those of the provider. Never rejects. */
export function createFrameOrigins({
  config: { provider },
  relyingParty,
}: {
  readonly config: Pick<Config, 'provider'>
  readonly relyingParty: Pick<RelyingParty, 'pageEndpoints'>
}) {
  return async function frameOrigins(): Promise<readonly string[]> {
    const pages = await soon(relyingParty.pageEndpoints()).catch(() => [])
    return [...new Set([provider.issuer, ...pages].map((url) => new URL(url).origin))]
  }
}

/** Waits for the endpoints only shortly: a user who signs out does not wait for a provider that was never reached. */
function soon<T>(work: Promise<T>): Promise<T> {
  return within(work, ENDPOINT_WAIT_MS, {
    late() {
      throw new BffError('provider_unavailable', 'the provider was not reached in time')
    },
  })
}

/** @param endpoint the provider's, with what its own query has. @param fields the parameters of the request. */
function endSessionRequest(
  endpoint: string,
  fields: readonly (readonly [name: string, value: string])[],
): EndSessionRequest {
  const urlOf = (some: typeof fields) => {
    const url = new URL(endpoint)
    for (const [name, value] of some) url.searchParams.append(name, value)
    return url.href
  }
  const url = urlOf(fields)
  return {
    url,
    isTooLong: url.length > LONGEST_URL,
    form: { action: endpoint, fields },
    urlWithoutHint: urlOf(fields.filter(([name]) => name !== 'id_token_hint')),
  }
}
