import type { ProviderConfig } from '../../../src/config/config.ts'
import type { BffError } from '../../../src/errors.ts'
import type { Finding, GrantName } from '../../../src/oidc/token-endpoint/limiter.ts'
import { createClientAuthenticator } from '../../../src/oidc/token-endpoint/openid-client.ts'
import { createProviderFetch } from '../../../src/oidc/token-endpoint/provider-fetch.ts'
import { createRelyingParty } from '../../../src/oidc/token-endpoint/relying-party.ts'
import { captureLog } from '../cloakroom.ts'

/** The issuer of `scriptedProvider`. */
export const ISSUER = 'https://id.example.com'

/** Where the clock of `scriptedProvider` begins, in epoch ms: openid-client judges ID tokens by the clock of the machine. */
export const NOW = Math.floor(Date.now() / 1000) * 1000

/** A request as the scripted provider got it. */
export type ScriptedRequest = {
  readonly method: string
  readonly path: string
  readonly form: URLSearchParams
  readonly headers: Headers
}
/** Answers one request; what is thrown is no answer. */
export type Script = (request: ScriptedRequest) => Response | Promise<Response>

/** A discovery document with an endpoint of each kind. */
export const METADATA = {
  issuer: ISSUER,
  authorization_endpoint: `${ISSUER}/authorize`,
  token_endpoint: `${ISSUER}/token`,
  jwks_uri: `${ISSUER}/keys`,
  revocation_endpoint: `${ISSUER}/revoke`,
  end_session_endpoint: `${ISSUER}/end`,
  response_types_supported: ['code'],
  id_token_signing_alg_values_supported: ['ES256'],
}

const PROVIDER: ProviderConfig = {
  ...{ issuer: ISSUER, clientId: 'shop', clientAuth: { method: 'none' }, resourceDialect: 'scope' },
  ...{
    scopes: ['openid'],
    signInScopes: 'all',
    offlineConsent: 'auto',
    par: 'auto',
    authorizationParams: {},
    loginParams: ['prompt', 'login_hint'],
    userinfo: false,
  },
  ...{ allowedTenants: [], clientCapabilities: [], clockToleranceMs: 60_000, insecureHosts: [] },
  ...{ timeoutMs: 5_000, concurrency: 32, reusesRefreshTokens: 'auto' },
  logoutToken: { requireExp: true, requireType: false },
  ...{ responseMode: 'query', responseType: 'code', dpop: 'off' },
}

/** A Relying Party, with openid-client and all, whose provider is a script instead of a server. */
export function scriptedProvider({
  metadata = {},
  provider = {},
}: {
  metadata?: object
  provider?: Partial<ProviderConfig>
} = {}) {
  const clock = { at: NOW }
  const requests: ScriptedRequest[] = []
  const scripts = new Map<string, Script>([
    ['/.well-known/openid-configuration', () => Response.json({ ...METADATA, ...metadata })],
  ])
  const limited: { grant: GrantName; finding: Finding | undefined }[] = []
  const discoveries: (BffError | undefined)[] = []
  const config = { ...PROVIDER, ...provider }
  const logged = captureLog()
  const certificates = new Map()
  const relyingParty = createRelyingParty({
    provider: config,
    authenticator: createClientAuthenticator(config, {
      ...{ issuer: config.issuer, clientId: config.clientId, now: () => clock.at, certificates },
      log: logged.log,
    }),
    redirectUri: 'https://shop.example.com/bff/callback',
    now: () => clock.at,
    monotonicNow: () => clock.at,
    discovered: (error) => void discoveries.push(error),
    providerFetch: createProviderFetch({
      now: () => clock.at,
      async fetch(url, { method = 'GET', body, headers }) {
        const path = new URL(url).pathname
        const request = {
          ...{ method, path, form: new URLSearchParams(String(body ?? '')) },
          headers: new Headers(headers as ConstructorParameters<typeof Headers>[0]),
        }
        requests.push(request)
        const script = scripts.get(path)
        if (!script) throw new TypeError('fetch failed')
        return script(request)
      },
    }),
    limiter: {
      async call(grant, request, findingOf) {
        const seen: (typeof limited)[number] = { grant, finding: undefined }
        limited.push(seen)
        try {
          return await request()
        } catch (error) {
          seen.finding = findingOf(error)
          throw error
        }
      },
    },
  })
  return { relyingParty, clock, requests, scripts, limited, discoveries, logs: logged.lines }
}
