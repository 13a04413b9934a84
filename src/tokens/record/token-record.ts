import type { SealedTokens, SessionGrant, SessionHash, UserClaims } from '../../store/port.ts'
import type { Sealing } from './sealing.ts'

/** Whose tokens: the id opens them, the hash finds them. */
export type TokenOwner = { readonly id: string; readonly hash: SessionHash }

/** Whose token is asked for. */
export type TokenHolder = TokenOwner & SessionGrant & { readonly claims: UserClaims }

/** A fresh token that is needed. */
export type WantedToken = {
  readonly holder: TokenHolder
  /** Name of the resource in the config. */
  readonly resource: string
  /** A token that an upstream has rejected: any other will do, this one will not, whatever the clock says. */
  readonly rejected?: string
  /** JSON text of the claims that the new token must bring (OpenID Connect Core §5.5). */
  readonly claims?: string | undefined
}

/**
 * Gets a fresh token: with the refresh token, or in exchange for another token of the session.
 * Rejects with session_required, reauthentication_required, provider_rejected, provider_unavailable, store_unavailable.
 */
export type RenewToken = (wanted: WantedToken) => Promise<AccessToken>

/** One access token as Cloakroom keeps it. Times in epoch ms. */
export type AccessToken = {
  /** What goes after `Bearer `. */
  readonly value: string
  readonly expiresAt: number
  /** From here on it is renewed in the background while it is still used. */
  readonly renewAt: number
  /** When it took the place of one that an upstream had rejected; absent = never. */
  readonly forcedAt?: number
}

/** What a grant gave, as the authorization server said it. Times in epoch ms. */
export type GrantedAccessToken = {
  readonly accessToken: string
  readonly obtainedAt: number
  readonly expiresAt: number
}

/** One session's tokens, opened, without the refresh token: that is opened only to be offered. */
export type OpenedTokens = {
  readonly version: number
  readonly accessTokens: ReadonlyMap<string, AccessToken>
}

/** Seals and opens the token record of one session, each part under its own name. */
export type TokenSealer = {
  sealRefreshToken(owner: TokenOwner, refreshToken: string): string
  openRefreshToken(owner: TokenOwner, sealed: string | undefined): string | undefined
  sealAccessToken(owner: TokenOwner, resource: string, token: AccessToken): string
  /** The token of one resource; undefined when there is none, or it does not open. */
  openAccessToken(owner: TokenOwner, resource: string, sealed: SealedTokens): AccessToken | undefined
  openTokens(owner: TokenOwner, sealed: SealedTokens): OpenedTokens
}

/** Wraps `sealing` for token records. */
export function createTokenSealer(sealing: Sealing): TokenSealer {
  const accessPurpose = (id: string, name: string) => ({ id, kind: 'access_token', name }) as const

  const openAccessToken: TokenSealer['openAccessToken'] = ({ id }, resource, { accessTokens }) => {
    const sealed = Object.hasOwn(accessTokens, resource) ? accessTokens[resource] : undefined
    const text = sealed === undefined ? undefined : sealing.open(accessPurpose(id, resource), sealed)
    return text === undefined ? undefined : unpackToken(text)
  }

  return {
    sealRefreshToken: ({ id }, refreshToken) => sealing.seal({ id, kind: 'refresh_token' }, refreshToken),
    openRefreshToken: ({ id }, sealed) => sealed && sealing.open({ id, kind: 'refresh_token' }, sealed),
    sealAccessToken: ({ id }, resource, token) => sealing.seal(accessPurpose(id, resource), packToken(token)),
    openAccessToken,
    openTokens(owner, sealed) {
      const opened = new Map<string, AccessToken>()
      for (const resource of Object.keys(sealed.accessTokens)) {
        const token = openAccessToken(owner, resource, sealed)
        if (token) opened.set(resource, token)
      }
      return { version: sealed.version, accessTokens: opened }
    },
  }
}

/** The text that is sealed for one access token. */
export function packToken({ value, expiresAt, renewAt, forcedAt }: AccessToken): string {
  return JSON.stringify([value, expiresAt, renewAt, forcedAt])
}

/** Reads what `packToken` wrote. */
export function unpackToken(text: string): AccessToken {
  const [value, expiresAt, renewAt, forcedAt] = JSON.parse(text) as [string, number, number, number | null]
  return { value, expiresAt, renewAt, ...(forcedAt ? { forcedAt } : {}) }
}

const RENEWAL_WINDOW_MS = 300_000
/** A token that expires on the way to the upstream is no use: it counts as expired this early. */
const TRAVEL_MS = 5_000

/**
 * Turns a granted lifetime into the times to act on: renewed from 300 s before its end (at most half of a short
 * life), not used in its last 5 s (at most a tenth).
 *
 * @param forcedAt epoch ms, when it takes the place of a token that an upstream has rejected.
 */
export function storedAccessToken(granted: GrantedAccessToken, forcedAt?: number): AccessToken {
  const { accessToken, obtainedAt, expiresAt } = granted
  const lifetimeMs = Math.max(0, expiresAt - obtainedAt)
  return {
    value: accessToken,
    expiresAt: expiresAt - Math.min(TRAVEL_MS, lifetimeMs / 10),
    renewAt: expiresAt - Math.min(RENEWAL_WINDOW_MS, lifetimeMs / 2),
    ...(forcedAt === undefined ? {} : { forcedAt }),
  }
}

/** The token, if it needs no renewal yet and is not the one that was rejected. */
export function freshOrUndefined(
  token: AccessToken | undefined,
  rejected: string | undefined,
  now: number,
): AccessToken | undefined {
  return token && token.value !== rejected && now < token.renewAt ? token : undefined
}
