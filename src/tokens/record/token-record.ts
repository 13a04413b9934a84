import type { SealedTokens, SessionHash } from '../../store/port.ts'
import type { Sealing } from './sealing.ts'

/** Whose tokens: the id opens them, the hash finds them. */
export type TokenOwner = { readonly id: string; readonly hash: SessionHash }

/** Whose token is asked for. */
export type TokenHolder = TokenOwner & {
  readonly claims: { readonly sub: string }
  /** RFC 8707 indicators of the resources that the sign-in asked for. */
  readonly indicators?: readonly string[]
  /** The scopes that the sign-in asked for, and those that it was granted, if its answer said so. */
  readonly scopes?: readonly string[]
  readonly granted?: readonly string[]
  /** Fingerprints of the step-ups that the sign-in was for. */
  readonly steppedUp?: readonly string[]
}

/** One access token as Cloakroom keeps it. Times in epoch ms. */
export type StoredAccessToken = {
  readonly value: string
  readonly expiresAt: number
  /** From here on it is renewed in the background while it is still used. */
  readonly renewAt: number
  /** When it took the place of one that an upstream had rejected; absent = never. */
  readonly forcedAt?: number
}

/** One session's tokens, opened, without the refresh token: that is opened only to be spent. */
export type OpenedTokens = {
  readonly version: number
  readonly accessTokens: ReadonlyMap<string, StoredAccessToken>
}

/** Seals and opens the token record of one session, each part under its own name. */
export type TokenSealer = {
  sealRefreshToken(owner: TokenOwner, refreshToken: string): string
  openRefreshToken(owner: TokenOwner, sealed: string | undefined): string | undefined
  sealAccessToken(owner: TokenOwner, resource: string, token: StoredAccessToken): string
  openTokens(owner: TokenOwner, sealed: SealedTokens): OpenedTokens
}

/** Wraps `sealing` for token records. */
export function createTokenSealer(sealing: Sealing): TokenSealer {
  const accessPurpose = (id: string, name: string) => ({ id, kind: 'access_token', name }) as const
  return {
    sealRefreshToken: ({ id }, refreshToken) => sealing.seal({ id, kind: 'refresh_token' }, refreshToken),
    openRefreshToken: ({ id }, sealed) => sealed && sealing.open({ id, kind: 'refresh_token' }, sealed),
    sealAccessToken: ({ id }, resource, token) => sealing.seal(accessPurpose(id, resource), packToken(token)),
    openTokens({ id }, { version, accessTokens }) {
      const opened = new Map<string, StoredAccessToken>()
      for (const [resource, sealed] of Object.entries(accessTokens)) {
        const text = sealing.open(accessPurpose(id, resource), sealed)
        if (text !== undefined) opened.set(resource, unpackToken(text))
      }
      return { version, accessTokens: opened }
    },
  }
}

/** The text that is sealed for one access token. */
export function packToken({ value, expiresAt, renewAt, forcedAt }: StoredAccessToken): string {
  return JSON.stringify([value, expiresAt, renewAt, forcedAt])
}

/** Reads what `packToken` wrote. */
export function unpackToken(text: string): StoredAccessToken {
  const [value, expiresAt, renewAt, forcedAt] = JSON.parse(text) as [string, number, number, number | null]
  return { value, expiresAt, renewAt, ...(forcedAt ? { forcedAt } : {}) }
}

const RENEWAL_WINDOW_MS = 300_000
/** A token that dies on the way to the upstream is no use: it counts as expired this early. */
const TRAVEL_MS = 5_000

/**
 * Turns a granted lifetime into the times to act on: renewed from 300 s before its end (at most half of a short
 * life), not used in its last 5 s (at most a tenth).
 */
export function storedAccessToken(value: string, obtainedAt: number, expiresAt: number): StoredAccessToken {
  const lifetimeMs = Math.max(0, expiresAt - obtainedAt)
  return {
    value,
    expiresAt: expiresAt - Math.min(TRAVEL_MS, lifetimeMs / 10),
    renewAt: expiresAt - Math.min(RENEWAL_WINDOW_MS, lifetimeMs / 2),
  }
}
