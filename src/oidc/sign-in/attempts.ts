import { createHash, randomBytes } from 'node:crypto'
import type { EndingRecords, LoginRecords, SessionGrant, SessionHash } from '../../store/port.ts'
import type { AuthorizationChecks } from '../token-endpoint/openid-client.ts'
import type { AskedStepUp } from './step-up.ts'

/** One sign-in in flight: what its authorization response is checked against, and where it goes on afterwards. */
export type LoginAttempt = Pick<SessionGrant, 'indicators' | 'scopes'> &
  Omit<AuthorizationChecks, 'maxAge'> & {
    readonly returnUrl: string
    /** What an API or the provider wanted of this sign-in, and who must come back from it. */
    readonly asked?: AskedStepUp
    /** The `prompt` of its authorization request. */
    readonly prompt?: string
    readonly loginHint?: string
    /** What else of the login URL its authorization request has. */
    readonly params?: LoginParams
    /** Epoch ms; absent in one that an earlier version began. */
    readonly startedAt?: number
    /** It repeats, with prompt=consent, one that brought no refresh token. */
    readonly isRepeated?: boolean
    /** The session that this browser had when it began; it ends when the new one begins. */
    readonly previous?: PreviousSession
    /** The browser sent a session cookie when it began, valid or not. */
    readonly hadCookie?: boolean
    /** The number of the last sign-out from elsewhere when it began (`EndingRecords`): a later one may be about its user. */
    readonly endingsBefore: number
    /** Began with a page that needed a session, which may be a download: it leaves the tab on the page before. */
    readonly beganAtRoute?: boolean
  }

/** Parameters of the authorization request, checked (OpenID Connect Core §3.1.2.1). */
export type LoginParams = Readonly<Partial<Record<'acr_values' | 'max_age' | 'ui_locales', string>>>

/** A session that a sign-in in the same browser is to end. */
export type PreviousSession = {
  readonly id: string
  readonly hash: SessionHash
  readonly sub: string
  /** The provider's name for its own session. */
  readonly sid?: string
}

/** A session as its cookie opens it. */
type OwnSession = { readonly id: string }

/** The cookie of an attempt: `id` is part of its name, `secret` its value. */
export type LoginCookie = { readonly id: string; readonly secret: string }

/** A login may take this long: the user may have to find a second factor. */
export const LOGIN_LIFETIME_MS = 15 * 60_000

export type LoginAttemptsDeps = {
  readonly records: LoginRecords
  readonly endings: Pick<EndingRecords, 'last'>
  readonly seal: (secret: string, plaintext: string) => string
  readonly open: (secret: string, sealed: string) => string | undefined
}

/** Attempts are bound to the browser by their own cookie, to the response by `state`, and consumed once. */
export type LoginAttempts = {
  /** Starts one: fresh state, nonce and PKCE verifier (RFC 7636 §4.1, 256 bits each). */
  start(
    goal: Omit<LoginAttempt, 'state' | 'nonce' | 'codeVerifier' | 'endingsBefore'>,
  ): Promise<{ attempt: LoginAttempt; cookie: LoginCookie }>
  /** The attempt that `state` and the browser's secret belong to; taking it deletes it. */
  take(state: string, secret: string): Promise<LoginAttempt | undefined>

  /** Tells the other attempts of its browser, given by their secrets, of a session that has begun. Never rejects. */
  leavePrevious(secrets: readonly string[], session: PreviousSession): Promise<void>
  /** The session that began in this browser while the attempt was in flight. Never rejects. */
  takePrevious(secret: string): Promise<PreviousSession | undefined>

  /** Notes that the response with this `state` has made a session; false when that could not be kept. Never rejects. */
  keepFinished(state: string, session: OwnSession, returnUrl: string): Promise<boolean>
  /** Whether a response with this `state` has made a session, of whatever user. */
  isFinished(state: string): Promise<boolean>
  /** Where a response led that has made a session: its own page for that very session, the start page for another. */
  finished(state: string, session: OwnSession): Promise<{ readonly returnUrl: string } | undefined>
}

/** Keeps attempts in the store, sealed under the secret that only the browser's cookie holds. */
export function createLoginAttempts(deps: LoginAttemptsDeps): LoginAttempts {
  const { records, seal, open } = deps
  const put = (key: string, secret: string, value: unknown) =>
    records.put(hashed(key), seal(secret, JSON.stringify(value)), LOGIN_LIFETIME_MS)
  function opened<T>(secret: string, sealed: string | undefined): T | undefined {
    const text = sealed === undefined ? undefined : open(secret, sealed)
    return text === undefined ? undefined : (JSON.parse(text) as T)
  }

  return {
    async start(goal) {
      const endingsBefore = await deps.endings.last()
      const attempt = { ...goal, state: random(), nonce: random(), codeVerifier: random(), endingsBefore }
      const cookie = { id: loginAttemptId(attempt.state), secret: random() }
      await put(cookie.secret, cookie.secret, storedOf(attempt))
      return { attempt, cookie }
    },
    async take(state, secret) {
      const stored = opened<StoredAttempt>(secret, await records.take(hashed(secret)))
      return stored?.state === state ? attemptOf(stored) : undefined
    },

    async leavePrevious(secrets, session) {
      const left = secrets.filter(isRandom).map((secret) => put(`earlier ${secret}`, secret, session))
      await Promise.allSettled(left)
    },
    takePrevious: (secret) =>
      records.take(hashed(`earlier ${secret}`)).then(
        (sealed) => opened<PreviousSession>(secret, sealed),
        () => undefined,
      ),

    keepFinished: (state, { id }, returnUrl) =>
      put(`finished ${state}`, id, { returnUrl }).then(
        () => true,
        () => false,
      ),
    async isFinished(state) {
      return isRandom(state) && (await records.read(hashed(`finished ${state}`))) !== undefined
    },
    async finished(state, { id }) {
      const sealed = isRandom(state) ? await records.read(hashed(`finished ${state}`)) : undefined
      if (sealed === undefined) return undefined
      // Only where the response was: a link from elsewhere must not choose a page for a session of our own.
      return opened<{ returnUrl: string }>(id, sealed) ?? { returnUrl: '/' }
    },
  }
}

/** What a sign-in is for; the rest of its attempt is made here or follows from the configuration. */
export type SignInGoal = Pick<
  LoginAttempt,
  | 'returnUrl'
  | 'previous'
  | 'hadCookie'
  | 'beganAtRoute'
  | 'asked'
  | 'isRepeated'
  | 'prompt'
  | 'loginHint'
  | 'params'
>

/** An attempt as it is stored, where the previous session has the name that earlier versions gave it. */
type StoredAttempt = Omit<LoginAttempt, 'previous' | 'endingsBefore'> & {
  readonly earlier?: PreviousSession
  /** Absent in attempts of earlier versions. */
  readonly endingsBefore?: number
}

function storedOf({ previous, ...attempt }: LoginAttempt): StoredAttempt {
  return previous ? { ...attempt, earlier: previous } : attempt
}

function attemptOf({ earlier, endingsBefore = 0, ...rest }: StoredAttempt): LoginAttempt {
  const attempt = { ...rest, endingsBefore }
  return earlier ? { ...attempt, previous: earlier } : attempt
}

/** Names the attempt with this `state`, and its cookie, so that several tabs may sign in at once. */
export function loginAttemptId(state: string): string {
  return hashed(state).slice(0, 16)
}

function random(): string {
  return randomBytes(32).toString('base64url')
}

/** Whether it could be one of ours; a look at the store is not free. */
function isRandom(text: string): boolean {
  return /^[\w-]{43}$/.test(text)
}

function hashed(text: string): string {
  return createHash('sha256').update(text).digest('base64url')
}
