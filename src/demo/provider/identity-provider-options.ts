/** Somebody who can sign in: claims of the ID token. */
export type Person = {
  /** Stable and unique at this provider. */
  readonly sub: string
  readonly name: string
  readonly email?: string
  readonly [claim: string]: unknown
}

/** A client registered at the provider (OpenID Connect Dynamic Client Registration 1.0 §2). */
export type RegisteredClient = {
  readonly clientId: string
  /** Shown on the sign-in page; default the client id. */
  readonly clientName?: string
  readonly redirectUris: readonly string[]
  readonly authMethod: 'client_secret_basic' | 'client_secret_post' | 'private_key_jwt' | 'none'
  /** For the two client_secret methods. */
  readonly clientSecret?: string
  /** Public keys, for private_key_jwt. */
  readonly jwks?: { readonly keys: readonly object[] }
  /** Default: authorization_code and refresh_token. */
  readonly grantTypes?: readonly string[]
  readonly postLogoutRedirectUris?: readonly string[]
  readonly backchannelLogoutUri?: string
  /** Further metadata by its registered name, e.g. `{ require_pushed_authorization_requests: true }`. */
  readonly metadata?: Readonly<Record<string, unknown>>
}

/** A protected resource: what its access tokens look like. */
export type ProtectedResource = {
  /** The `aud` of its access tokens. */
  readonly audience: string
  /** Space-separated scopes it knows. */
  readonly scope: string
  readonly accessTokenTtlSeconds: number
}

/** One request to the token endpoint and its answer. Holds live tokens and credentials: for tests to count and inspect, never to log. */
export type TokenRequest = {
  readonly clientId: string | undefined
  readonly grantType: string | undefined
  /** Form parameters as sent; a repeated one is an array. */
  readonly params: Readonly<Record<string, unknown>>
  readonly status: number
  /** The JSON answer: tokens, or `error` and `error_description`. */
  readonly answer: Readonly<Record<string, unknown>>
}

/** What a provider is made of; only `issuer`, `clients` and `resources` are needed. */
export type IdentityProviderOptions = {
  /** Its origin, without a trailing slash, e.g. `http://127.0.0.1:4000`. */
  readonly issuer: string
  readonly clients: readonly RegisteredClient[]
  /** By resource indicator (RFC 8707): the absolute URI a client names. */
  readonly resources: Readonly<Record<string, ProtectedResource>>
  /** Who can sign in with one click. Default: Ada Lovelace and Grace Hopper. Extra members become ID-token claims. */
  readonly persons?: readonly Person[]
  /** The `acr` (OpenID Connect Core §2) of a sign-in with a second factor, which `acr_values` asks for. Absent: there is none. */
  readonly secondFactorAcr?: string
  /** A new refresh token with every refresh, and the grant revoked when an old one comes back. Default true. */
  readonly rotateRefreshToken?: boolean
  readonly refreshTokenTtlSeconds?: number
  /** Private signing keys; default: one RSA key made now. */
  readonly jwks?: { readonly keys: readonly object[] }
  /** Offer pushed authorization requests (RFC 9126). Default true. */
  readonly pushedAuthorizationRequests?: boolean
  /** Further features of the library by their names, such as `{ dPoP: { enabled: true } }`. */
  readonly features?: Readonly<Record<string, object>>
  /** Told after every request to the token endpoint, successful or not. */
  readonly onTokenRequest?: (request: TokenRequest) => void
}
