import type { Config, ResourceConfig } from '../config/config.ts'
import { describeError } from '../errors.ts'
import type { Logger } from '../log.ts'
import { createDialect } from './dialects.ts'
import type { AuthorizationChecks, GrantedTokens } from './grant-types.ts'
import { createRelyingParty } from './relying-party.ts'
import { createResourceGrants, isForResource } from './resource-grants.ts'
import { createProviderFetch } from './token-answer.ts'

/** What one sign-in may ask for beyond the configuration. */
type Wishes = { readonly prompt?: string; readonly loginHint?: string }

/** What is known of the provider's endpoints. */
export type ProviderState = 'ok' | 'unavailable' | 'unknown'

/** Above this an `id_token_hint` makes URLs that providers and proxies refuse (attack case H3). */
const MAX_HINT_LENGTH = 2000

/** The configured OpenID Provider, in the words of the rest of the program; every method rejects with BffError only. */
export function createProvider({ config, log, now }: { config: Config; log: Logger; now: () => number }) {
  const redirectUri = `${config.publicUrl}${config.basePath}/callback`
  const inUse = resourcesInUse(config)
  const dialect = createDialect(config.provider, inUse)
  const providerFetch = createProviderFetch({ now })
  const relyingParty = createRelyingParty({ provider: config.provider, redirectUri, providerFetch, now })
  const grants = createResourceGrants({ relyingParty, dialect, resources: config.resources, log })

  let state: ProviderState = 'unknown'
  function note(now: ProviderState, error?: unknown): void {
    if (now === 'unavailable' && state !== now) {
      log.warn(
        { url: config.provider.issuer, err: describeError(error) },
        'the provider cannot be discovered',
      )
    }
    state = now
  }

  return {
    ...grants,
    redirectUri,

    /** Whether the provider's endpoints were known at the last look; looks again without waiting. Never throws. */
    state(): ProviderState {
      relyingParty.ready().then(
        () => note('ok'),
        (error) => note('unavailable', error),
      )
      return state
    },

    authorizationUrl(checks: AuthorizationChecks, { prompt, loginHint }: Wishes): Promise<URL> {
      const extra = new Map(Object.entries(config.provider.authorizationParams))
      if (prompt !== undefined) extra.set('prompt', prompt)
      if (loginHint !== undefined) extra.set('login_hint', loginHint)
      return relyingParty.authorizationUrl(checks, [...dialect.authorizationRequest(), ...extra])
    },

    codeGrant: (callback: URL, checks: AuthorizationChecks): Promise<GrantedTokens> =>
      relyingParty.codeGrant(callback, checks, dialect.codeGrant()),

    /** Name of the resource that the access token of a code grant is for, if it may be used at all. */
    resourceOf(granted: GrantedTokens): string | undefined {
      const [first] = inUse
      return first && isForResource(granted, first) ? first.name : undefined
    },

    /** Best effort, by design: the local logout does not depend on it. Never rejects. */
    async revoke(refreshToken: string): Promise<void> {
      try {
        await relyingParty.revoke(refreshToken)
      } catch (error) {
        log.warn({ err: describeError(error) }, 'the refresh token could not be revoked')
      }
    },

    /** Where the browser ends its session at the provider; undefined when there is no such place. Never rejects. */
    async endSessionUrl(idToken: string, returnUrl: string): Promise<string | undefined> {
      try {
        const url = await relyingParty.endSessionUrl({
          ...(idToken.length <= MAX_HINT_LENGTH ? { id_token_hint: idToken } : {}),
          post_logout_redirect_uri: config.publicUrl + returnUrl,
        })
        return url?.href
      } catch (error) {
        log.warn({ err: describeError(error) }, 'no end-session endpoint: the provider does not answer')
        return undefined
      }
    },
  }
}

/** Resources that routes reach with the session's refresh token, in the order of the routes. */
function resourcesInUse({ routes, resources }: Config): ResourceConfig[] {
  const names = new Set(routes.flatMap(({ resource }) => resource ?? []))
  return [...names].flatMap((name) => resources[name] ?? []).filter(({ grant }) => grant === 'refresh_token')
}
