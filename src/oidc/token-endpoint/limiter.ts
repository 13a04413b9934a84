// Over 400 lines, because what a refresh passes through stays in few files.

import { AsyncLocalStorage } from 'node:async_hooks'
import { createCircuitBreaker } from '../../async/circuit-breaker.ts'
import type { Clock } from '../../async/clock.ts'
import { createThrottledWarning } from '../../async/log-throttle.ts'
import { createPace, type Pace } from '../../async/pace.ts'
import { createRetryAfter } from '../../async/retry-after.ts'
import { createSemaphore, mostWaiting } from '../../async/semaphore.ts'
import type { ProviderConfig } from '../../config/config.ts'
import { BffError } from '../../errors.ts'
import type { Logger } from '../../log.ts'

/** What is asked of the provider through a limiter, as a label. */
export type GrantName =
  | 'authorization_code'
  | 'pushed_authorization'
  | 'refresh_token'
  | 'client_credentials'
  | 'token_exchange'

/** How a call went: `refused` is an answer, and so a sign of life; `fault` is no usable answer. */
export type CallOutcome = 'ok' | 'refused' | 'fault'

/** `half-open`: one probe is in flight. */
export type CircuitState = 'closed' | 'half-open' | 'open'

/**
 * What a call says about the provider; `nothing` when it was not even sent. `page`: status 200 without a JSON object, such
 * as an HTML page. It may be meant for one user, or be shown to all.
 */
export type Finding = {
  readonly kind: CallOutcome | 'page' | 'nothing'
  /** The provider's `Retry-After`. */
  readonly retryAfterSeconds?: number | undefined
  /** Tells whose call it was: different for each session, and never what the session holds itself. */
  readonly holder?: string | undefined
}

/** Told of every change, for metrics and the log. */
export type LimiterObserver = {
  readonly inFlight: (calls: number) => void
  readonly queue: (waiting: number) => void
  readonly breaker: (state: CircuitState) => void
  readonly call: (grant: GrantName, outcome: CallOutcome, seconds: number) => void
}

export type LimiterDeps = {
  /** Most calls at the same time. */
  readonly concurrency: number
  /** Longest wait for a permit, in ms. */
  readonly waitMs: number
  readonly clock: Pick<Clock, 'monotonicNow' | 'after'>
  readonly observe: LimiterObserver
  readonly openTimes?: OpenTimes
  /** Calls go at a pace after a refusal with Retry-After, until none had to wait for a minute. */
  readonly isPaced?: boolean
  /** From 0 to 1, for replicas that are told the same second and must not come back in it together; 0 unless given. */
  readonly random?: () => number
}

/** How long a circuit stays open, in ms. */
export type OpenTimes = {
  /** At most so long by our own choice. */
  readonly maxMs: number
  /** At most so long because the provider asked for it with Retry-After. */
  readonly askedMaxMs: number
}

/** The semaphore and the circuit breaker in front of one kind of request to the provider. */
export type Limiter = {
  /**
   * Waits for a permit, then runs `work`, whose calls go out without waiting again: for work that needs its permit before
   * it takes a lock. Rejects with provider_unavailable when no permit is released in time, and at once while the circuit is
   * open.
   */
  admit<T>(work: () => Promise<T>): Promise<T>
  /** Makes one call, admitted first unless it is already. `findingOf` reads the error of one that failed. */
  call<T>(grant: GrantName, request: () => Promise<T>, findingOf: (error: unknown) => Finding): Promise<T>
}

type Admission = { isOver: boolean; readonly isProbe: boolean }

const MAX_WAITING = mostWaiting(50_000)

/** Makes a limiter with nothing in flight and a closed circuit. */
export function createLimiter(deps: LimiterDeps): Limiter {
  const { concurrency, waitMs, clock, observe, openTimes = OPEN_TIMES } = deps
  const { monotonicNow: now } = clock
  const retryAfter = createRetryAfter({ least: Math.max(1, Math.ceil(waitMs / 1_000)), clock })
  const permits = createSemaphore<BffError>({
    permits: concurrency,
    maxWaiting: MAX_WAITING,
    refusal: () => crowded(retryAfter()),
    observe: observe.queue,
    clock,
  })
  const circuit = createCircuit({ now, most: openTimes, random: deps.random }, (state) => {
    observe.breaker(state)
    if (state === 'open') permits.refuseAll(circuitOpen(circuit.openLeftMs()))
    if (state === 'closed') pacing?.reopened()
  })
  const pacing = deps.isPaced ? createPacing(now, permits.paceBy) : undefined
  const admissions = new AsyncLocalStorage<Admission>()
  let inFlight = 0

  async function admit<T>(work: () => Promise<T>): Promise<T> {
    if (admissions.getStore()?.isOver === false) return work()
    if (!circuit.isPassable()) throw circuitOpen(circuit.openLeftMs())
    return permits.run(() => admitted(work), waitMs)
  }

  /** Others may have opened the circuit while this one waited for its permit. */
  async function admitted<T>(work: () => Promise<T>): Promise<T> {
    const isProbe = circuit.isOpen()
    const period = circuit.enter()
    if (period === undefined) throw circuitOpen(circuit.openLeftMs())
    const admission: Admission = { isOver: false, isProbe }
    try {
      return await admissions.run(admission, work)
    } finally {
      admission.isOver = true
      circuit.ended(period)
    }
  }

  async function send<T>(
    grant: GrantName,
    request: () => Promise<T>,
    findingOf: (error: unknown) => Finding,
  ): Promise<T> {
    const count = circuit.begin()
    const startedAt = now()
    pacing?.begun(startedAt)
    const end = (finding: Finding) => {
      // A probe tells whether the provider is back, and nothing of what it takes.
      if (!circuit.isOpen()) pacing?.ended(finding, startedAt)
      const outcome = finding.kind === 'page' ? 'fault' : finding.kind
      if (outcome !== 'nothing') observe.call(grant, outcome, (now() - startedAt) / 1000)
      count(finding)
    }
    observe.inFlight(++inFlight)
    const answer = request().finally(() => observe.inFlight(--inFlight))
    await answer.then(
      () => end({ kind: 'ok' }),
      (error) => end(findingOf(error)),
    )
    return answer
  }

  return {
    admit,
    call: (grant, request, findingOf) =>
      admit(async () => {
        // Others have opened it since this one was admitted.
        if (circuit.isOpen() && !admissions.getStore()?.isProbe) throw circuitOpen(circuit.openLeftMs())
        return send(grant, request, findingOf)
      }),
  }
}

const SECOND_MS = 1_000

/** What becomes of calls, told to what keeps their pace. */
export type Pacing = ReturnType<typeof createPacing>

/**
 * Keeps no pace while all is well: then each call is counted, so that its rate is known when the provider says that it is
 * too much (429 or 503 with Retry-After, RFC 6585 §4).
 */
export function createPacing(now: () => number, paceBy: (pace: Pace | undefined) => void) {
  let secondBegan = now()
  let [calls, before] = [0, 0]
  let pace: Pace | undefined

  function keep(next: Pace | undefined): void {
    pace = next
    paceBy(next)
  }

  return {
    begun(at: number): void {
      if (at - secondBegan >= SECOND_MS) {
        before = at - secondBegan < 2 * SECOND_MS ? calls : 0
        secondBegan = at
        calls = 0
      }
      calls += 1
    },
    ended({ kind, retryAfterSeconds }: Finding, startedAt: number): void {
      if (kind === 'fault' && retryAfterSeconds !== undefined) {
        if (!pace) keep(createPace(now, Math.max(calls, before)))
        pace!.refused(startedAt)
      } else if (pace && (kind === 'ok' || kind === 'refused')) {
        pace.served()
        if (pace.isOver()) keep(undefined)
      }
    },
    /** The circuit is closed again: what has waited behind a rate limit must not come all at once. */
    reopened: () => pace?.restart(),
  }
}

const FAULTS_TO_OPEN = 5
const OPEN_MIN_MS = 2_000
const OPEN_TIMES: OpenTimes = { maxMs: 30_000, askedMaxMs: 300_000 }
/** Of the time that a provider asks for, and so long at most: a replica comes back up to so much later than it may. */
const JITTER = { share: 0.1, mostMs: 5_000 }

/**
 * Opens after 5 faults in a row, for 2 s, doubling to `maxMs` with each probe that fails, or for as long as the provider
 * asked, up to `askedMaxMs`. One probe goes at a time.
 */
function createCircuit(
  { now, most, random = () => 0 }: { now: () => number; most: OpenTimes; random?: LimiterDeps['random'] },
  tell: (state: CircuitState) => void,
) {
  let askedUntil = 0
  const verdictOn = createPageCount()
  const breaker = createCircuitBreaker({
    failures: FAULTS_TO_OPEN,
    openMs: (times) => Math.max(Math.min(most.maxMs, OPEN_MIN_MS * 2 ** (times - 1)), askedUntil - now()),
    now,
    observe: (change) => tell(change === 'closed' ? 'closed' : 'open'),
  })

  /** Of a finding that does not count. While the circuit is open, a probe that met a page delays the next one. */
  function saidNothing({ kind }: Finding): void {
    if (!breaker.isOpen()) return
    if (kind === 'page') breaker.stayOpen(OPEN_MIN_MS)
    tell('open')
  }

  return {
    ...breaker,
    /** Notes the start of a call; what is returned takes how it went. */
    begin(): (finding: Finding) => void {
      const period = breaker.period()
      if (breaker.isOpen()) tell('half-open')
      return (finding) => {
        // What began before the circuit last changed says nothing about the time after.
        if (period !== breaker.period()) return
        const verdict = verdictOn(finding)
        if (verdict === 'nothing') {
          saidNothing(finding)
          return
        }
        askedUntil = verdict === 'fault' ? Math.max(askedUntil, askedEnd(finding)) : 0
        if (verdict === 'fault') breaker.failed(period)
        else breaker.succeeded()
      }
    },
  }

  function askedEnd({ retryAfterSeconds = 0 }: Finding): number {
    const askedMs = Math.min(most.askedMaxMs, retryAfterSeconds * 1000)
    return now() + askedMs + random() * Math.min(JITTER.share * askedMs, JITTER.mostMs)
  }
}

const MAX_HOLDERS = 100

/**
 * Counts pages once for each holder (a session). The first one since the last `ok` or `refused` answer is a fault, because
 * a gateway in maintenance shows all users a page. Further ones, and those of calls without a holder, are `nothing`: one
 * user who is shown an error screen may ask again and again. After 100 holders the count begins anew.
 */
function createPageCount(): (finding: Finding) => CallOutcome | 'nothing' {
  const holders = new Set<string>()
  return ({ kind, holder }) => {
    if (kind === 'ok' || kind === 'refused') holders.clear()
    if (kind !== 'page') return kind
    if (holder === undefined || holders.has(holder)) return 'nothing'
    if (holders.size === MAX_HOLDERS) holders.clear()
    holders.add(holder)
    return 'fault'
  }
}

function circuitOpen(forMs: number): BffError {
  return new BffError(
    'provider_unavailable',
    'the authorization server fails: its circuit is open for a while',
    { retryAfterSeconds: Math.max(1, Math.ceil(forMs / 1000)) },
  )
}

function crowded(retryAfterSeconds: number): BffError {
  return new BffError('provider_unavailable', 'too many requests wait for the authorization server', {
    retryAfterSeconds,
  })
}

/** The calls of a sign-in, which have limiters of their own. */
export type SignInCall = 'code' | 'par'

/** Told of every change of the limiters of sign-ins. */
export type SignInObserver = {
  readonly [Change in 'inFlight' | 'queue' | 'breaker']: (
    call: SignInCall,
    value: Parameters<LimiterObserver[Change]>[0],
  ) => void
}

export type LimitersDeps = {
  readonly log: Logger
  readonly clock: Pick<Clock, 'monotonicNow' | 'after'>
  /** Told of the limiter for refreshes and other grants of users who are signed in; `call` of every call. */
  readonly observe: LimiterObserver
  readonly observeSignIn?: SignInObserver
}

/** What a limiter depends on: another token endpoint, or other limits, need another limiter. */
export type LimiterSettings = Pick<ProviderConfig, 'issuer' | 'endpoints' | 'concurrency' | 'timeoutMs'>

/**
 * The limiters of one provider, as one. Refreshes and the other grants that a session or the client itself asks for share
 * one; code grants and pushed authorization requests have one each, with as many permits. A stranger can begin a sign-in
 * and make up its code: no answer to that may open the circuit for signed-in users, nor take their permits.
 */
export type HeldLimiter = Limiter & {
  /** From now on the metrics and the log tell of this one, and no more of the one before. */
  takeOver(): void
}

/** Limiters outlive a configuration: what is in flight at a reload still counts, and an open circuit stays open. */
export type Limiters = {
  /** The limiter for these settings: the one in use if it is for the same, else a new one. */
  limiterFor(settings: LimiterSettings): HeldLimiter
}

type KeyedLimiter = HeldLimiter & { readonly key: string }

/**
 * A stranger can make a provider fail at code grants for as long as he likes, and its Retry-After may be meant for him:
 * sign-in is tried again soon, with one probe at a time.
 */
const SIGN_IN_OPEN_TIMES: OpenTimes = { maxMs: 10_000, askedMaxMs: 30_000 }

const SIGN_IN_CALLS: Partial<Record<GrantName, SignInCall>> = {
  authorization_code: 'code',
  pushed_authorization: 'par',
}

/** A user waits for each of these calls; the alert for a slow provider has the same bound. */
const SLOW_SECONDS = 2

/** Makes the register of limiters; the first that is asked for is in use at once. */
export function createLimiters(deps: LimitersDeps): Limiters {
  const { log, clock, observeSignIn } = deps
  const warnOfSlow = createThrottledWarning(log, 'the provider takes long to answer', clock)
  const observe: LimiterObserver = {
    ...deps.observe,
    call(grant, outcome, seconds) {
      deps.observe.call(grant, outcome, seconds)
      // A call without an answer has lines of its own.
      if (seconds > SLOW_SECONDS && outcome !== 'fault')
        warnOfSlow({ reason: grant, durationMs: Math.round(seconds * 1000) })
    },
  }
  let inUse: KeyedLimiter | undefined

  function open(key: string, { issuer, concurrency, timeoutMs }: LimiterSettings): KeyedLimiter {
    const isInUse = () => inUse === opened
    const limits = { concurrency, waitMs: timeoutMs, clock, isInUse }
    const tokens = createObservedLimiter({
      ...{ ...limits, isPaced: true, random: Math.random },
      ...{ observe, logState: circuitLog(log, issuer, TOKENS) },
    })
    const ofSignIn = (call: SignInCall) =>
      createObservedLimiter({
        ...{ ...limits, openTimes: SIGN_IN_OPEN_TIMES },
        observe: {
          call: observe.call,
          inFlight: (calls) => observeSignIn?.inFlight(call, calls),
          queue: (waiting) => observeSignIn?.queue(call, waiting),
          breaker: (state) => observeSignIn?.breaker(call, state),
        },
        logState: circuitLog(log, issuer, call === 'code' ? CODES : PUSHES),
      })
    const signIn = { code: ofSignIn('code'), par: ofSignIn('par') }
    const opened: KeyedLimiter = {
      key,
      admit: tokens.limiter.admit,
      call(grant, request, findingOf) {
        const call = SIGN_IN_CALLS[grant]
        return (call ? signIn[call] : tokens).limiter.call(grant, request, findingOf)
      },
      takeOver() {
        if (isInUse()) return
        inUse = opened
        for (const { reportAll } of [tokens, signIn.code, signIn.par]) reportAll()
      },
    }
    return opened
  }

  return {
    limiterFor(settings) {
      const { issuer, endpoints, concurrency, timeoutMs } = settings
      const key = JSON.stringify([issuer, endpoints?.token, concurrency, timeoutMs])
      if (inUse?.key === key) return inUse
      const opened = open(key, settings)
      inUse ??= opened
      return opened
    },
  }
}

type ObservedLimiterDeps = Omit<Parameters<typeof createLimiter>[0], 'observe'> & {
  readonly observe: LimiterObserver
  readonly logState: (state: CircuitState) => void
  readonly isInUse: () => boolean
}

/** A limiter that is observed while it is in use, and can report all again when it comes into use. */
function createObservedLimiter({ observe, logState, isInUse, ...settings }: ObservedLimiterDeps) {
  const last = { inFlight: 0, waiting: 0, state: 'closed' as CircuitState }
  const limiter = createLimiter({
    ...settings,
    observe: {
      call: observe.call,
      inFlight(calls) {
        last.inFlight = calls
        if (isInUse()) observe.inFlight(calls)
      },
      queue(waiting) {
        last.waiting = waiting
        if (isInUse()) observe.queue(waiting)
      },
      breaker(state) {
        last.state = state
        if (!isInUse()) return
        observe.breaker(state)
        logState(state)
      },
    },
  })
  return {
    limiter,
    reportAll() {
      observe.inFlight(last.inFlight)
      observe.queue(last.waiting)
      observe.breaker(last.state)
    },
  }
}

const TOKENS = 'the token endpoint'
const CODES = 'sign-ins: the token endpoint, asked with codes,'
const PUSHES = 'sign-ins: the endpoint for pushed authorization requests'

/** One line when it opens and one when it closes, however many probes fail in between. */
function circuitLog(log: Logger, issuer: string, what: string): (state: CircuitState) => void {
  let isOpen = false
  return (state) => {
    if (state === 'open' && !isOpen) {
      log.warn({ url: issuer }, `${what} fails again and again: its circuit is open, but for a probe`)
    }
    if (state === 'closed') log.info({ url: issuer }, `${what} answers again`)
    isOpen = state !== 'closed'
  }
}
