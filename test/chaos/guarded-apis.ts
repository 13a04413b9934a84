import { createLocalJWKSet, jwtVerify } from 'jose'
import { sendJson, startLocalServer } from '../kit/local-server.ts'
import type { RotatingProvider } from '../kit/provider/rotating-provider.ts'
import { bearerToken } from '../kit/upstream/upstream.ts'

/** Header in which the user agent says who it is; Cloakroom passes it on like any other. */
export const ASKED_BY = 'x-asked-by'
/** Route ids, paths below `/api/` and names of the resources. */
export const RESOURCES = ['orders', 'billing', 'stock', 'audit'] as const

/** One API with its own resource. */
export type ResourceName = (typeof RESOURCES)[number]

/** What an API answers: whose token it got. */
export type ApiAnswer = { readonly resource: ResourceName; readonly sub: unknown }

/** APIs that each insist on a token for themselves and for whoever asks. */
export type GuardedApis = {
  readonly url: (resource: ResourceName) => string
  readonly served: () => number
  close(): Promise<void>
}

/** The `aud` of one API. */
export function audienceOf(resource: ResourceName): string {
  return `https://${resource}.example.com`
}

/**
 * The provider counts in whole seconds, so that a token may end up to one before the time it was granted for; and a busy
 * machine may keep a request on its way for some seconds.
 */
const CLOCK_TOLERANCE_SECONDS = 6

/** Starts all of them. @param violation told of every token that should not have come. */
export async function startGuardedApis(
  provider: RotatingProvider,
  violation: (text: string) => void,
): Promise<GuardedApis> {
  const keys = createLocalJWKSet(provider.signer.jwks())
  let served = 0

  async function start(resource: ResourceName) {
    const expected = {
      issuer: provider.issuer,
      audience: audienceOf(resource),
      clockTolerance: CLOCK_TOLERANCE_SECONDS,
    }
    return startLocalServer(async (request, res) => {
      const askedBy = request.headers[ASKED_BY]
      try {
        const { payload } = await jwtVerify(bearerToken(request) ?? '', keys, expected)
        if (payload.sub !== askedBy)
          violation(`${resource}: ${askedBy} came with the token of ${payload.sub}`)
        served += 1
        sendJson(res, 200, { resource, sub: payload.sub } satisfies ApiAnswer)
      } catch (error) {
        violation(`${resource}: ${askedBy} came with a token that is no good here: ${String(error)}`)
        sendJson(res, 418, { error: 'unacceptable token' })
      }
    })
  }

  const servers = new Map(
    await Promise.all(RESOURCES.map(async (resource) => [resource, await start(resource)] as const)),
  )
  return {
    url: (resource) => servers.get(resource)!.origin,
    served: () => served,
    async close() {
      await Promise.all([...servers.values()].map((server) => server.close()))
    },
  }
}
