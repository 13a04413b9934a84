import type { KeyObject } from 'node:crypto'
import type { RouteConfig } from '../../config/config.ts'
import type { AccessToken } from '../../tokens/record/sealing.ts'
import { replaceAccessToken } from '../headers/request.ts'
import { parseChallenges } from '../headers/www-authenticate.ts'

/** Makes proofs of possession (RFC 9449), with the nonce that each server gave last. */
export type Proofs = {
  proofFor(
    key: KeyObject,
    request: { method: string; url: string; accessToken: string; server: string },
  ): string
  /** Notes the `DPoP-Nonce` of an answer; true when it has one. */
  learn(url: string, nonce: unknown): boolean
}

/** Where a request goes, which is what its proof is for. */
export type ProvedTarget = {
  readonly route: Pick<RouteConfig, 'upstream' | 'preserveHost'>
  /** Path and query. */
  readonly target: string
}

/** The proofs that upstreams are shown beside access tokens that are bound to a key. */
export type TokenProofs = {
  /** Adds a new proof to the fields of a request, or takes the last one away when the token is bound to no key. */
  prove(fields: string[], request: ProvedTarget & { method: string; token: AccessToken }): void
  /** Notes the nonce of an answer; true when the answer refuses a proof for the lack of it (§9). */
  lacksNonce(request: ProvedTarget, answer: ProofAnswer): boolean
}

/** What of an answer says how the next proof must be. */
export type ProofAnswer = {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
}

/** Makes the proofs for all upstreams. @param publicUrl what an upstream sees as its own origin with `preserveHost`. */
export function createTokenProofs({ proofFor, learn }: Proofs, publicUrl: string): TokenProofs {
  const originOf = ({ route }: ProvedTarget) => (route.preserveHost ? publicUrl : route.upstream)

  return {
    prove(fields, request) {
      const { method, target, token } = request
      const url = originOf(request) + target
      const server = request.route.upstream
      const proof = token.key && proofFor(token.key, { method, url, accessToken: token.value, server })
      replaceAccessToken(fields, token.value, proof)
    },

    lacksNonce(request, { status, headers }) {
      // By the upstream itself: with `preserveHost` several see the same origin, and each has nonces of its own.
      const hasNonce = learn(request.route.upstream, headers['dpop-nonce'])
      if (!hasNonce || status !== 401) return false
      const fields = [headers['www-authenticate'] ?? []].flat()
      return parseChallenges(fields).some(
        ({ scheme, params }) => scheme === 'dpop' && params.error === 'use_dpop_nonce',
      )
    },
  }
}
