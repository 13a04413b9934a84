import { impliedExchange, impliedScopes, impliedSignInScopes } from './checks/provider-checks.ts'
import { deliveryOf } from './checks/route-checks.ts'
import type {
  AccessRules,
  ClientAuthConfig,
  Config,
  ListenerLimits,
  OutgoingProxy,
  ProviderConfig,
  RateLimits,
  RedisServersConfig,
  ResourceConfig,
  RouteConfig,
  SessionConfig,
  StoreConfig,
  TlsConfig,
} from './config.ts'
import { certificatePair } from './rules/certificates.ts'
import { HEADER_NAME } from './rules/http-rules.ts'
import { isMicrosoft } from './rules/oauth-rules.ts'
import { algorithmsOf } from './rules/secret-rules.ts'
import type { FileConfig } from './schema/schema.ts'
import { Secret, sessionKeyBytes } from './secrets/secret.ts'

type FileRoute = FileConfig['routes'][number]
type FileTls = NonNullable<FileRoute['tls']>
type FileStore = FileConfig['session']['store']

/** Turns a checked file into the configuration that the program runs with, frozen to its last member. */
export function assembleConfig(file: FileConfig, proxy?: OutgoingProxy): Config {
  const { publicUrl, listen, admin, trustProxy, basePath, allowedOrigins, hosts, tests } = file
  return frozen({
    ...{ publicUrl, listen, admin, trustProxy, basePath, allowedOrigins, hosts },
    drainDelayMs: file.drainDelay,
    limits: assembleLimits(file.limits),
    rateLimits: assembleRateLimits(file.rateLimits),
    provider: assembleProvider(file.provider, proxy),
    session: assembleSession(file),
    resources: assembleResources(file),
    routes: file.routes.map((route) => assembleRoute(route, file.resources)),
    tests: tests.map(({ request, expect, as }) => ({
      ...request,
      ...(as === undefined ? {} : { as }),
      expect,
    })),
  })
}

function assembleLimits({ headerTimeout, keepAlive, ...same }: FileConfig['limits']): ListenerLimits {
  return { ...same, headerTimeoutMs: headerTimeout, keepAliveMs: keepAlive }
}

function assembleRateLimits(file: FileConfig['rateLimits']): RateLimits {
  return Object.fromEntries(Object.entries(file).filter(([, limit]) => limit !== 'off'))
}

function assembleProvider(file: FileConfig['provider'], proxy: OutgoingProxy | undefined): ProviderConfig {
  const { timeout, clockTolerance, clientAuth, tls, ...same } = file
  return {
    ...same,
    clientAuth: assembleClientAuth(clientAuth, file.issuer),
    // `tid` has small letters; a GUID may have been written in capital ones.
    allowedTenants: file.allowedTenants.map((tenant) => tenant.toLowerCase()),
    clockToleranceMs: clockTolerance,
    ...assembleTls(tls),
    ...(proxy ? { proxy } : {}),
    timeoutMs: timeout,
    signInScopes: file.signInScopes === 'auto' ? impliedSignInScopes(file) : file.signInScopes,
    // Entra ID keeps consent once it is given, and sends refresh tokens without another one.
    offlineConsent:
      file.offlineConsent === 'auto' && isMicrosoft(file.issuer) ? 'never' : file.offlineConsent,
  }
}

function assembleClientAuth(file: FileConfig['provider']['clientAuth'], issuer: string): ClientAuthConfig {
  if (!('audience' in file)) return file
  // Entra ID and AD FS want the URL; FAPI 2.0 §5.3.3.1 the issuer.
  const isMicrosofts = file.method === 'certificate' || isMicrosoft(issuer)
  const implied = isMicrosofts ? ('token_endpoint' as const) : ('issuer' as const)
  const audience = file.audience === 'auto' ? implied : file.audience
  if (file.method === 'client_secret_jwt') return { ...file, audience }
  const usual = algorithmsOf(file.key.reveal())
  if (file.method === 'private_key_jwt') {
    return { ...file, audience, algorithm: file.algorithm ?? usual[0]! }
  }
  const { method, key, certificate } = file
  const algorithm = file.algorithm ?? usual.find((one) => one === 'PS256') ?? usual[0]!
  return { method, key, readPair: pairReader(key, certificate), algorithm, audience }
}

/** Reads both at each call, and parses what has changed. */
function pairReader(key: Secret, certificate: Secret) {
  let last: { texts: string; pair: ReturnType<typeof certificatePair> } | undefined
  return function readPair() {
    const [keyText, certificateText] = [key.reveal(), certificate.reveal()]
    const texts = keyText + certificateText
    if (last?.texts !== texts) last = { texts, pair: certificatePair(keyText, certificateText) }
    return last.pair
  }
}

function assembleSession({ publicUrl, session }: FileConfig): SessionConfig {
  const { store, keys, idleTimeout, absoluteTimeout, maxPerUser, cookie } = session
  const secure = publicUrl.startsWith('https:')
  return {
    store: assembleStore(store),
    keys: keys.map(sessionKeyBytes),
    idleTimeoutMs: idleTimeout,
    absoluteTimeoutMs: absoluteTimeout,
    maxPerUser,
    cookie: {
      // RFC 6265bis §4.1.3: a browser refuses the prefix on a cookie without Secure, and Secure without TLS.
      name: cookie.name ?? (secure ? '__Host-Http-cloakroom' : 'cloakroom'),
      sameSite: cookie.sameSite,
      secure,
    },
  }
}

function assembleStore(file: FileStore): StoreConfig {
  if (file.type === 'memory') return file
  const { url, tls, keyPrefix, durability } = file
  const password = file.password ?? (url?.password ? new Secret(decodeURIComponent(url.password)) : undefined)
  const username = file.username ?? decodeURIComponent(url?.username ?? '')
  return {
    type: 'redis',
    ...assembleServers(file),
    ...(username === '' ? {} : { username }),
    ...(password === undefined ? {} : { password }),
    ...assembleTls(tls),
    ...{ keyPrefix, durability },
  }
}

/** Exactly one of the three is there. User name and password are moved out of the URL, so that it can be logged. */
function assembleServers(file: Extract<FileStore, { type: 'redis' }>): RedisServersConfig {
  const { url, cluster, sentinels, masterName, sentinelUsername, sentinelPassword, sentinelTls } = file
  if (cluster) return { cluster }
  if (sentinels)
    return {
      ...{ sentinels, masterName: masterName! },
      ...(sentinelUsername === undefined ? {} : { sentinelUsername }),
      ...(sentinelPassword === undefined ? {} : { sentinelPassword }),
      ...(sentinelTls === undefined ? {} : { sentinelTls }),
    }
  const bare = new URL(url!)
  bare.username = ''
  bare.password = ''
  return { url: bare.href }
}

function assembleResources({ resources, provider }: FileConfig): Record<string, ResourceConfig> {
  const { resourceDialect, issuer } = provider
  const entries = Object.entries(resources).map(([name, resource]): [string, ResourceConfig] => {
    const isNamedByScopes = resourceDialect === 'scope' && resource.scopes.length === 0
    // With dialect "resource" scopes are registered and never asked for: no answer is to be compared with them.
    const asked = resourceDialect === 'resource' ? [] : resource.scopes
    const scopes = isNamedByScopes ? impliedScopes(resource, issuer) : asked
    return [name, { name, ...resource, ...exchangeOf(resource, issuer), scopes }]
  })
  return Object.fromEntries(entries)
}

function exchangeOf(
  { grant, exchange }: FileConfig['resources'][string],
  issuer: string,
): Pick<ResourceConfig, 'exchange'> {
  if (grant !== 'token_exchange') return {}
  return { exchange: exchange ?? impliedExchange(issuer) }
}

function assembleRoute(
  { timeout, headers, tls, breaker, require, bearer, ...route }: FileRoute,
  resources: FileConfig['resources'],
): RouteConfig {
  return {
    ...route,
    id: route.id ?? route.path,
    timeout: { connectMs: timeout.connect, responseMs: timeout.response, idleMs: timeout.idle },
    breaker: { failures: breaker.failures, pauseMs: breaker.pause },
    ...assembleTls(tls),
    headers: Object.entries(headers).map(([name, value]) => ({ name: HEADER_NAME.parse(name)!, value })),
    ...(require === undefined ? {} : { require: assembleAccessRules(require) }),
    ...(bearer === undefined
      ? {}
      : {
          bearer: {
            ...bearer,
            isExchanged: deliveryOf(bearer, resources[route.resource ?? '']) === 'exchanged',
          },
        }),
  }
}

function assembleAccessRules({ claims, maxAge, ...same }: NonNullable<FileRoute['require']>): AccessRules {
  return {
    ...same,
    ...(claims === undefined
      ? {}
      : { claims: Object.entries(claims).map(([name, values]) => ({ name, values })) }),
    ...(maxAge === undefined ? {} : { maxAgeMs: maxAge }),
  }
}

function assembleTls(tls: FileTls | undefined): { tls?: TlsConfig } {
  const given = Object.entries(tls ?? {}).filter(([, value]) => value !== undefined && value !== null)
  return given.length === 0 ? {} : { tls: Object.fromEntries(given) }
}

/** Buffers cannot be frozen, and a Secret has nothing to change. */
function frozen<T>(value: T): T {
  if (typeof value !== 'object' || value === null || Buffer.isBuffer(value)) return value
  for (const child of Object.values(value)) frozen(child)
  return Object.freeze(value)
}
