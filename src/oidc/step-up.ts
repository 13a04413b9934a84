import { createHash, randomBytes } from 'node:crypto'
import { BffError, type StepUp } from '../errors.ts'
import type { LoginRecords } from '../store/port.ts'

/** Who must come back from a sign-in that a step-up asked for, and what it must bring. */
export type AskedStepUp = { readonly stepUp: StepUp; readonly sub: string }

/** The session that is asked to step up. */
export type SteppingSession = {
  readonly hash: string
  readonly claims: { readonly sub: string }
  /** Fingerprints of the step-ups that its sign-in was for. */
  readonly steppedUp?: readonly string[]
}

export type StepUpsDeps = {
  readonly records: LoginRecords
  readonly seal: (secret: string, plaintext: string) => string
  readonly open: (secret: string, sealed: string) => string | undefined
  /** The path of `B/login`. */
  readonly loginPath: string
  readonly now: () => number
}

const LIFETIME_MS = 15 * 60_000
const SHARED_MS = 10_000
const MAX_RECENT = 10_000

/** Step-ups on their way through the browser as an opaque handle: what is asked for stays on our side. */
export function createStepUps({ records, seal, open, loginPath, now }: StepUpsDeps) {
  /** Refusals come in crowds: for a few seconds, those of one session for one step-up share a handle. */
  const recent = new Map<string, { readonly at: number; readonly url: Promise<string> }>()

  function urlFor(asked: AskedStepUp, session: SteppingSession): Promise<string> {
    const key = session.hash + stepUpFingerprint(asked.stepUp)
    for (const [oldest, { at }] of recent) {
      if (recent.size < MAX_RECENT && now() < at + SHARED_MS) break
      recent.delete(oldest)
    }
    const found = recent.get(key)
    if (found) return found.url
    const url = newUrl(asked)
    recent.set(key, { at: now(), url })
    // One that could not be stored leads nowhere.
    url.catch(() => recent.delete(key))
    return url
  }

  async function newUrl(asked: AskedStepUp): Promise<string> {
    const handle = randomBytes(32).toString('base64url')
    await records.put(hashed(handle), seal(handle, JSON.stringify(asked)), LIFETIME_MS)
    return `${loginPath}?challenge=${handle}`
  }

  return {
    /**
     * The same refusal with a `login_url` that carries its step-up; `access_denied` when this session's sign-in was
     * for the very same one and did not help, so that nobody is sent round in circles.
     */
    async withLoginUrl(error: unknown, session: SteppingSession): Promise<unknown> {
      if (!(error instanceof BffError) || !error.stepUp) return error
      const { stepUp } = error
      if (session.steppedUp?.includes(stepUpFingerprint(stepUp))) {
        return new BffError('access_denied', 'signing in again did not bring what the API asks for', {
          details: { reason: 'step_up_did_not_help' },
        })
      }
      return new BffError(error.code, error.message, {
        details: { ...error.details, login_url: await urlFor({ stepUp, sub: session.claims.sub }, session) },
        retryAfterSeconds: error.retryAfterSeconds,
      })
    },

    /** What a handle stands for; good once, undefined when unknown or too old. */
    async take(handle: unknown): Promise<AskedStepUp | undefined> {
      if (typeof handle !== 'string' || !/^[\w-]{43}$/.test(handle)) return undefined
      const sealed = await records.take(hashed(handle))
      const text = sealed === undefined ? undefined : open(handle, sealed)
      return text === undefined ? undefined : (JSON.parse(text) as AskedStepUp)
    },
  }
}

/** Names one step-up, for the record of those that were tried. */
export function stepUpFingerprint({ resource, claims, acrValues, maxAge, consent, lacks }: StepUp): string {
  const more = consent === undefined && lacks === undefined ? [] : [consent, lacks]
  return hashed(JSON.stringify([resource, claims, acrValues, maxAge, ...more])).slice(0, 22)
}

function hashed(text: string): string {
  return createHash('sha256').update(`step-up ${text}`).digest('base64url')
}
