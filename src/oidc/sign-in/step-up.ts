import { createExpiringMap } from '../../async/expiring-map.ts'
import { BffError, type StepUp, stepUpFingerprint } from '../../errors.ts'
import type { EarlierStepUp } from '../../store/port.ts'
import type { SingleUseReferences } from './single-use-references.ts'

/** Who must come back from a sign-in that a step-up asked for, and what it must bring. */
export type AskedStepUp = {
  readonly stepUp: StepUp
  readonly sub: string
  /** What the session was signed in for before; absent when it was for nothing, and in references of older versions. */
  readonly earlier?: readonly EarlierStepUp[]
  /** The challenge that it was found by; only in an attempt. */
  readonly challenge?: string
}

/** The session that is asked to step up. */
export type SteppingSession = {
  readonly hash: string
  readonly claims: { readonly sub: string }
  /** Epoch ms of its sign-in. */
  readonly createdAt?: number
  /** Fingerprints of the step-ups that its sign-in was for. */
  readonly steppedUp?: readonly string[] | undefined
  /** Those of the sign-ins before it, each of which led to the next. */
  readonly earlierStepUps?: readonly EarlierStepUp[] | undefined
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
/**
 * How long a step-up is remembered in the sessions after it, in ms. Of two routes that each undo the step-up of the other,
 * an application that redirects would go round without an end; a person who comes back later may try again.
 */
export const EARLIER_STEP_UPS_MS = 5 * 60_000
const MAX_EARLIER = 16
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

  /** Those that a sign-in of this session would be the next one after. */
  function stepUpsOf({ steppedUp = [], earlierStepUps = [], createdAt }: SteppingSession): EarlierStepUp[] {
    const since = now() - EARLIER_STEP_UPS_MS
    const own = steppedUp.map((fingerprint) => ({ fingerprint, at: createdAt ?? now() }))
    return [...own, ...earlierStepUps].filter(({ at }) => at > since).slice(0, MAX_EARLIER)
  }

  /** Whether a sign-in for this very step-up did not help, or was undone by the next one. */
  function wasTried(stepUp: StepUp, session: SteppingSession): boolean {
    const wanted = stepUpFingerprint(stepUp)
    const isOwn = session.steppedUp?.includes(wanted) === true
    return isOwn || stepUpsOf(session).some(({ fingerprint }) => fingerprint === wanted)
  }

  return {
    /**
     * The same refusal with a `login_url` that carries its step-up; `access_denied` when this session's sign-in, or one
     * of the minutes before that led to it, was for the very same one: another would be a loop.
     */
    async withLoginUrl(error: unknown, session: SteppingSession): Promise<unknown> {
      if (!(error instanceof BffError) || !error.stepUp) return error
      const { stepUp } = error
      const { logged, retryAfterSeconds } = error
      if (wasTried(stepUp, session) && !hasAged(stepUp, session)) {
        return new BffError('access_denied', 'signing in again did not bring what the API asks for', {
          details: { reason: 'step_up_did_not_help' },
          logged,
        })
      }
      const earlier = stepUpsOf(session)
      const asked = { stepUp, sub: session.claims.sub, ...(earlier.length > 0 && { earlier }) }
      const loginUrl = await urlFor(asked, session)
      return new BffError(error.code, error.message, {
        details: { ...error.details, login_url: loginUrl },
        ...{ retryAfterSeconds, logged },
      })
    },

    /**
     * What the `challenge` of a login URL stands for; undefined when unknown, spent or too old. It begins as many sign-ins
     * as it takes until one is finished: a person may close the popup and click again.
     */
    look: references.look,
    /** The same, and the challenge is spent, because a sign-in has brought what it stands for. */
    take(challenge: unknown): Promise<AskedStepUp | undefined> {
      const key = typeof challenge === 'string' ? keyOf.get(challenge) : undefined
      if (key !== undefined) recent.delete(key)
      return references.take(challenge)
    },
  }
}
