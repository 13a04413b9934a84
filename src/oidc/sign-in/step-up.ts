import { createExpiringMap } from '../../async/expiring-map.ts'
import { BffError, type StepUp, stepUpFingerprint } from '../../errors.ts'
import type { SingleUseReferences } from './single-use-references.ts'

/** Who must come back from a sign-in that a step-up asked for, and what it must bring. */
export type AskedStepUp = { readonly stepUp: StepUp; readonly sub: string }

/** The session that is asked to step up. */
export type SteppingSession = {
  readonly hash: string
  readonly claims: { readonly sub: string }
  /** Epoch ms of its sign-in. */
  readonly createdAt?: number
  /** Fingerprints of the step-ups that its sign-in was for. */
  readonly steppedUp?: readonly string[]
}

export type StepUpsDeps = {
  readonly references: SingleUseReferences<AskedStepUp>
  /** The path of `B/login`. */
  readonly loginPath: string
  /** Epoch ms. */
  readonly now: () => number
  readonly monotonicNow: () => number
}

/** Lifetime of the reference to a step-up, in ms. */
export const STEP_UP_LIFETIME_MS = 15 * 60_000
const SHARED_MS = 10_000
const MAX_RECENT = 10_000

/** Step-ups that the browser carries as an opaque reference: what is asked for stays in the store. */
export function createStepUps({ references, loginPath, now, monotonicNow }: StepUpsDeps) {
  /** Refusals come in crowds: for a few seconds, those of one session for one step-up share a reference. */
  const recent = createExpiringMap<string, Promise<string>>({ monotonicNow, max: MAX_RECENT })
  const keyOf = createExpiringMap<string, string>({ monotonicNow, max: MAX_RECENT })

  function urlFor(asked: AskedStepUp, session: SteppingSession): Promise<string> {
    const key = session.hash + stepUpFingerprint(asked.stepUp)
    const found = recent.get(key)
    if (found) return found
    const url = references.keep(asked).then((reference) => {
      keyOf.set(reference, key, SHARED_MS)
      return `${loginPath}?challenge=${reference}`
    })
    recent.set(key, url, SHARED_MS)
    // One that could not be stored leads nowhere.
    url.catch(() => recent.delete(key))
    return url
  }

  /** Whether only time has passed since the sign-in that brought it: to ask once more is no loop then. */
  function hasAged({ ofRoute, hasAged, maxAge }: StepUp, { createdAt }: SteppingSession): boolean {
    if (ofRoute) return hasAged === true
    return maxAge !== undefined && createdAt !== undefined && now() - createdAt > maxAge * 1000
  }

  return {
    /**
     * The same refusal with a `login_url` that carries its step-up; `access_denied` when this session's sign-in was
     * for the very same one and did not help: another would be a loop.
     */
    async withLoginUrl(error: unknown, session: SteppingSession): Promise<unknown> {
      if (!(error instanceof BffError) || !error.stepUp) return error
      const { stepUp } = error
      const { logged, retryAfterSeconds } = error
      if (session.steppedUp?.includes(stepUpFingerprint(stepUp)) && !hasAged(stepUp, session)) {
        return new BffError('access_denied', 'signing in again did not bring what the API asks for', {
          details: { reason: 'step_up_did_not_help' },
          logged,
        })
      }
      const loginUrl = await urlFor({ stepUp, sub: session.claims.sub }, session)
      return new BffError(error.code, error.message, {
        details: { ...error.details, login_url: loginUrl },
        ...{ retryAfterSeconds, logged },
      })
    },

    /** What the `challenge` of a login URL stands for; undefined when unknown, spent or too old. */
    look: references.look,
    /** The same, and the challenge is spent: the next refusal gets a new one. */
    take(challenge: unknown): Promise<AskedStepUp | undefined> {
      const key = typeof challenge === 'string' ? keyOf.get(challenge) : undefined
      if (key !== undefined) recent.delete(key)
      return references.take(challenge)
    },
  }
}
