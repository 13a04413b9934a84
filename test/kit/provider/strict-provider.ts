import { randomBytes } from 'node:crypto'
import type { Configuration, KoaContextWithOIDC } from 'oidc-provider'
// Loads the library first, and keeps its remark on the runtime from the output.
import '../../../src/demo/provider/identity-provider.ts'
import { listenOnLoopback } from '../../../src/demo/loopback-server.ts'
import { createProviderMemory } from '../../../src/demo/provider/provider-memory.ts'

/** One token request at a strict provider. */
export type StrictTokenRequest = {
  readonly params: Readonly<Record<string, unknown>>
  readonly status: number
  readonly answer: Readonly<Record<string, unknown>>
}

/** A running oidc-provider whose every policy is the library's own default. */
export type StrictProvider = {
  readonly issuer: string
  readonly tokenRequests: readonly StrictTokenRequest[]
  /** The scopes of an access token that it has issued, and its audience. */
  inspect(accessToken: string): Promise<{ scopes: readonly string[]; aud: unknown } | undefined>
  close(): Promise<void>
}

export const STRICT_CLIENT = { clientId: 'shop', clientSecret: 'strict-client-secret' }

/**
 * Starts one. Its defaults are RFC 6749 §6 (a refresh never widens), OpenID Connect Core §11 (no `offline_access` without
 * prompt=consent), RFC 8707 §2.2, rotation only near the end, opaque access tokens, and pages that ask for consent.
 */
export async function startStrictProvider(options: {
  readonly redirectUri: string
  readonly scopes: readonly string[]
  /** By RFC 8707 indicator: the scopes that its access tokens may have. Absent: the feature is as it comes. */
  readonly resources?: Readonly<Record<string, string>>
}): Promise<StrictProvider> {
  const { Provider } = await import('oidc-provider')
  const tokenRequests: StrictTokenRequest[] = []
  let inspect: StrictProvider['inspect'] = async () => undefined
  const server = await listenOnLoopback((issuer) => {
    const provider = quietly(() => new Provider(issuer, configuration(options)))
    provider.use(async (ctx: KoaContextWithOIDC, next: () => Promise<unknown>) => {
      await next()
      if (ctx.oidc?.route !== 'token') return
      tokenRequests.push({
        params: { ...(ctx.oidc.body as Record<string, unknown>) },
        status: ctx.status,
        answer: { ...(ctx.body as Record<string, unknown>) },
      })
    })
    inspect = async (token) => {
      const found = await provider.AccessToken.find(token)
      return found && { scopes: [...found.scopes], aud: found.aud }
    }
    return provider.callback()
  })
  return { issuer: server.origin, tokenRequests, inspect: (token) => inspect(token), close: server.close }
}

function configuration({
  redirectUri,
  scopes,
  resources,
}: Parameters<typeof startStrictProvider>[0]): Configuration {
  return {
    adapter: createProviderMemory(),
    clients: [
      {
        client_id: STRICT_CLIENT.clientId,
        client_secret: STRICT_CLIENT.clientSecret,
        redirect_uris: [redirectUri],
        grant_types: ['authorization_code', 'refresh_token'],
      },
    ],
    cookies: { keys: [randomBytes(32).toString('base64url')] },
    scopes: ['openid', 'offline_access', ...scopes],
    findAccount: (_ctx, sub) => ({ accountId: sub, claims: async () => ({ sub }) }),
    ...(resources && {
      features: {
        resourceIndicators: {
          enabled: true,
          getResourceServerInfo: (_ctx, indicator) => ({
            audience: indicator,
            scope: resources[indicator] ?? '',
            accessTokenFormat: 'opaque',
          }),
        },
      },
    }),
  }
}

/** The library remarks on what a test leaves as it comes, such as its signing keys. */
function quietly<T>(make: () => T): T {
  const { warn, info } = console
  console.warn = console.info = () => undefined
  try {
    return make()
  } finally {
    console.warn = warn
    console.info = info
  }
}
