import type { CertificatePair } from './rules/certificates.ts'
import type { Secret, SessionKeyBytes } from './secrets/secret.ts'

/** A socket to listen on. Port 0 lets the system choose. */
export type ListenAddress = { readonly host: string; readonly port: number }

/** How a token request names one resource (contract section 3). */
export type ResourceDialect = 'resource' | 'scope' | 'resource-indicator' | 'audience'

/** How Cloakroom proves to the token endpoint that it is the client (OpenID Connect Core §9). */
export type ClientAuthConfig =
  | { readonly method: 'client_secret_basic' | 'client_secret_post'; readonly secret: Secret }
  | {
      readonly method: 'client_secret_jwt'
      /** At least 32 bytes, for HS256. */
      readonly secret: Secret
      readonly audience: AssertionAudience
    }
  | {
      readonly method: 'private_key_jwt'
      /** PKCS#8 PEM. */
      readonly key: Secret
      readonly keyId?: string
      /** JWS algorithm, e.g. RS256, PS256, ES256. */
      readonly algorithm: string
      readonly audience: AssertionAudience
    }
  | {
      readonly method: 'certificate'
      /** PEM. */
      readonly key: Secret
      /** The key and its certificate as they are now; undefined while the two do not belong together. */
      readonly readPair: () => CertificatePair | undefined
      readonly algorithm: string
      readonly audience: AssertionAudience
    }
  | {
      readonly method: 'workload_identity'
      /** Absolute path of a JWT that another issuer signed, read at each use. */
      readonly assertionFile: string
    }
  /** `tls` of the provider has the certificate. */
  | { readonly method: 'tls_client_auth' }
  | { readonly method: 'none' }

/** The `aud` of a client assertion (RFC 7523 §3). */
export type AssertionAudience = 'issuer' | 'token_endpoint'

/** A parameter of the authorization request (OpenID Connect Core §3.1.2.1) that a login URL may set. */
export type LoginParam = 'prompt' | 'login_hint' | 'acr_values' | 'max_age' | 'ui_locales'

/** The provider's endpoints when they are not discovered, or override what was. Absolute URLs. */
export type ProviderEndpoints = {
  readonly authorization?: string
  readonly token?: string
  readonly jwks?: string
  readonly revocation?: string
  readonly endSession?: string
  readonly userinfo?: string
}

/** The OpenID Provider / authorization server. */
export type ProviderConfig = {
  readonly issuer: string
  /** Present: explicit endpoints. When authorization, token and jwks are all given, nothing is discovered. */
  readonly endpoints?: ProviderEndpoints
  readonly clientId: string
  readonly clientAuth: ClientAuthConfig
  readonly resourceDialect: ResourceDialect
  readonly scopes: readonly string[]
  /** Whose scopes a sign-in asks for: those of all resources in use, or of the first (contract section 3). */
  readonly signInScopes: 'all' | 'first'
  /** Whether a sign-in asks with prompt=consent for `offline_access` (OpenID Connect Core §11). `auto`: that is learned. */
  readonly offlineConsent: 'auto' | 'always' | 'never'
  /** How the authorization response comes: in the query, by a POST, or signed (JARM) in the query. */
  readonly responseMode: 'query' | 'form_post' | 'jwt'
  /** What it brings: a code, or an ID token beside it (OpenID Connect Core §3.3), by form_post only. */
  readonly responseType: 'code' | 'code id_token'
  readonly par: 'auto' | 'required' | 'off'
  /** Whether tokens are bound to a key of their session (RFC 9449), and whether upstreams are shown the proof, too. */
  readonly dpop: 'off' | 'provider' | 'end-to-end'
  readonly authorizationParams: Readonly<Record<string, string>>
  /** What the query of `B/login` may pass on to the authorization request. */
  readonly loginParams: readonly LoginParam[]
  /** Whether the claims of the UserInfo endpoint are added to those of the ID token at sign-in. */
  readonly userinfo: boolean
  /** Entra `tid` allow-list; empty = not checked. */
  readonly allowedTenants: readonly string[]
  /** Entra ID client capabilities, such as `cp1`: sent as `xms_cc` with every request for tokens. */
  readonly clientCapabilities: readonly string[]
  /** How far the provider's clock may be from ours: for iat, nbf and exp alike. */
  readonly clockToleranceMs: number
  /** For calls to the provider: CA certificates in the place of the system's, and a client certificate. */
  readonly tls?: Omit<TlsConfig, 'servername'>
  /** From the environment. */
  readonly proxy?: OutgoingProxy
  /** `host` or `host:port` of provider endpoints that may be plain http, lower case. */
  readonly insecureHosts: readonly string[]
  readonly timeoutMs: number
  /** Most requests for tokens at the same time, for each replica. */
  readonly concurrency: number
  /** What a logout token must have that OpenID Connect Back-Channel Logout 1.0 §2.4 did not always ask for. */
  readonly logoutToken: { readonly requireExp: boolean; readonly requireType: boolean }
  /** Whether a used refresh token stays good. `auto`: it is offered again after a lost answer, and the provider decides. */
  readonly reusesRefreshTokens: boolean | 'auto'
  readonly sharedSignals?: SharedSignalsConfig
  /** Whether `B/global-token-revocation` is served. */
  readonly globalTokenRevocation?: boolean
}

/** Whose security events are received (OpenID Shared Signals Framework 1.0), and what is believed of them. */
export type SharedSignalsConfig = {
  /** Issuer of the events. */
  readonly transmitter: string
  /** What their `aud` has. */
  readonly audience: string
  /** The whole value of the `Authorization` field that pushes come with; absent: the signature alone is looked at. */
  readonly authorization?: Secret
  /** How an event may name a user. Sessions of the provider may be named in any case. */
  readonly subjects: readonly ('iss_sub' | 'email')[]
}

/** Proxies on the way out. Their URLs may hold a password. */
export type OutgoingProxy = {
  /** For https URLs, and for http URLs. */
  readonly https?: Secret
  readonly http?: Secret
  /** What is asked without them, as NO_PROXY has it. */
  readonly except: readonly string[]
}

/** TLS towards the provider, Redis or an upstream; PEM texts. */
export type TlsConfig = {
  readonly ca?: string
  readonly cert?: string
  readonly key?: Secret
  readonly servername?: string
}

/** Where sessions and tokens are kept. */
export type StoreConfig =
  | ({
      readonly type: 'redis'
      readonly username?: string
      readonly password?: Secret
      readonly tls?: TlsConfig
      readonly keyPrefix: string
      readonly durability: 'none' | 'replica'
    } & RedisServersConfig)
  | { readonly type: 'memory' }

/** One address, some nodes of a Redis Cluster, or the sentinels that know where the primary is. */
export type RedisServersConfig =
  | { readonly url: string }
  | { readonly cluster: readonly ListenAddress[] }
  | {
      readonly sentinels: readonly ListenAddress[]
      readonly masterName: string
      readonly sentinelUsername?: string
      readonly sentinelPassword?: Secret
      readonly sentinelTls?: boolean
    }

/** The browser's session. */
export type SessionConfig = {
  readonly store: StoreConfig
  /** The first seals, all open; never empty. */
  readonly keys: readonly SessionKeyBytes[]
  readonly idleTimeoutMs: number
  readonly absoluteTimeoutMs: number
  /** Most sessions of one user; 0 = no limit. */
  readonly maxPerUser: number
  readonly cookie: { readonly name: string; readonly sameSite: 'strict' | 'lax'; readonly secure: boolean }
}

/** One downstream resource: what the refresh token is exchanged for. */
export type ResourceConfig = {
  readonly name: string
  readonly resource?: string
  readonly scopes: readonly string[]
  /** Expected `aud` of a JWT access token; absent = not checked. */
  readonly audience?: string
  readonly grant: 'refresh_token' | 'client_credentials' | 'token_exchange'
  /** For `token_exchange`: name of the resource, of grant `refresh_token`, whose access token is exchanged. */
  readonly subject?: string
  /** For `token_exchange`, always there: RFC 8693, or Entra ID's on-behalf-of flow. */
  readonly exchange?: 'rfc8693' | 'on_behalf_of'
}

/** One header added for the upstream: literal text with `{claims.NAME}` placeholders. */
export type HeaderTemplate = { readonly name: string; readonly value: string }

/** When the circuit of a failing upstream opens. */
export type UpstreamBreaker = {
  /** Failures in a row, none of them an answer; 0 = never. */
  readonly failures: number
  /** Until one request may try again. */
  readonly pauseMs: number
}

/** One claim that a route asks for: the claim, or one item of it, is one of these, written as text. */
export type ClaimRule = { readonly name: string; readonly values: readonly string[] }

/** What a route asks of whoever calls it: all of these members, each by one of its values. */
export type AccessRules = {
  readonly claims?: readonly ClaimRule[]
  /** Authentication context classes (OpenID Connect Core §2). */
  readonly acr?: readonly string[]
  /** Since the authentication, by `auth_time`. */
  readonly maxAgeMs?: number
  /** Of the route's access token, or of the bearer. */
  readonly scopes?: readonly string[]
}

/** Which access tokens a route takes from clients that bring one of their own. */
export type BearerConfig = {
  readonly audience: string
  /** All are needed. */
  readonly scopes: readonly string[]
  /** Whether the upstream gets the token of the route's resource in exchange; otherwise the token itself. */
  readonly isExchanged: boolean
}

/** One route, paths and units already checked. */
export type RouteConfig = {
  /** Label in metrics and logs. */
  readonly id: string
  /** Canonical absolute path prefix without a trailing slash, `/` for the root. */
  readonly path: string
  /** Origin of the upstream, `http(s)://host[:port]`, nothing else. */
  readonly upstream: string
  /** Replaces the matched prefix; absent = the path is kept as it is. */
  readonly rewrite?: string
  /** A key of `Config.resources`; absent = no token is sent. */
  readonly resource?: string
  readonly auth: 'required' | 'optional' | 'anonymous'
  /** Upper-case methods; absent = all. */
  readonly methods?: readonly string[]
  readonly csrf: 'header' | 'fetch-metadata'
  readonly timeout: { readonly connectMs: number; readonly responseMs: number; readonly idleMs: number }
  readonly websocket: boolean
  /** Bytes; absent = unlimited. */
  readonly maxBody?: number
  /** Whether the upstream is spoken to in HTTP/2, which it must know: nothing is negotiated without TLS. */
  readonly http2: boolean
  /** Most connections to the upstream, for each replica; absent = unlimited. */
  readonly connections?: number
  readonly breaker: UpstreamBreaker
  readonly tls?: TlsConfig
  readonly headers: readonly HeaderTemplate[]
  /** Whether `%2F` in a path is refused, or goes on as it is. */
  readonly encodedSlashes: 'reject' | 'pass'
  /** Whether the upstream sees the public Host instead of its own. */
  readonly preserveHost: boolean
  /** Absent = whoever is signed in may call it. */
  readonly require?: AccessRules
  /** Absent = a token of the client's own is dropped. */
  readonly bearer?: BearerConfig
}

/** One line of the config file's own `tests:`. */
export type RouteTest = {
  readonly method: string
  /** Path and query. */
  readonly target: string
  /** The claims of who asks; absent = access rules are not judged. */
  readonly as?: 'nobody' | Readonly<Record<string, unknown>>
  readonly expect: {
    readonly route?: string
    readonly upstream?: string
    readonly resource?: string | null
    readonly code?: string
  }
}

/** What the public listener takes, for each replica. */
export type ListenerLimits = {
  readonly connections: number
  /** Open connections of one peer address that is no trusted proxy. */
  readonly connectionsPerClient: number
  /** Bytes of a request's head, request line included. */
  readonly headerSize: number
  /** Field lines of a request's head. */
  readonly headerCount: number
  /** Bytes of a request target. */
  readonly urlLength: number
  /** Until the head of a request is whole. */
  readonly headerTimeoutMs: number
  /** Bytes per second that a request's body must come with on average; 0 = any. */
  readonly bodyRate: number
  /** How long a connection may wait for its next request. */
  readonly keepAliveMs: number
  /** WebSockets of one session that are open at the same time. */
  readonly webSocketsPerSession: number
  /** The same of one client address without a session. */
  readonly webSocketsPerClient: number
}

/** So many requests in so much time. */
export type RateLimit = { readonly requests: number; readonly perMs: number }

/** Limits on our own endpoints for each client address, over all replicas; absent = none. */
export type RateLimits = {
  readonly login?: RateLimit
  readonly callback?: RateLimit
  readonly logout?: RateLimit
  readonly frontchannelLogout?: RateLimit
  /** What is refused counts, and nothing else. */
  readonly backchannelLogout?: RateLimit
  /** The same, where nothing but the signature tells who asks. */
  readonly events?: RateLimit
}

/** The whole configuration, validated and frozen: durations in ms, sizes in bytes, secrets wrapped. */
export type Config = {
  /** Origin as browsers see it, e.g. `https://app.example.com`. */
  readonly publicUrl: string
  readonly listen: ListenAddress
  /** How long a process that is told to end still accepts, while it is not ready. */
  readonly drainDelayMs: number
  readonly admin: {
    readonly listen: ListenAddress
    readonly strictReadiness: boolean
    /** Names it may be called by beside its own: `host`, with any port, or `host:port`; lower case. */
    readonly hosts: readonly string[]
  }
  /** CIDRs whose X-Forwarded-* are believed. */
  readonly trustProxy: readonly string[]
  /** Starts with `/`, no trailing slash. */
  readonly basePath: string
  readonly allowedOrigins: readonly string[]
  /** Values of `Host` that are served beside the public one: `host` or `host:port`, lower case. */
  readonly hosts: readonly string[]
  readonly limits: ListenerLimits
  readonly rateLimits: RateLimits
  readonly provider: ProviderConfig
  readonly session: SessionConfig
  readonly resources: Readonly<Record<string, ResourceConfig>>
  readonly routes: readonly RouteConfig[]
  readonly tests: readonly RouteTest[]
}
