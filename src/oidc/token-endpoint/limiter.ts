import { AsyncLocalStorage } from 'node:async_hooks'
import { ConsecutiveBreaker, circuitBreaker, handleWhenResult } from 'cockatiel'
import { BffError } from '../../errors.ts'
import { createFairQueue } from './fair-queue.ts'

/** What is asked of the provider through a gate, as a label. */
export type GrantName =
  | 'authorization_code'
  | 'pushed_authorization'
  | 'refresh_token'
  | 'client_credentials'
  | 'token_exchange'

/** How a call went: `refused` is an answer, and so a sign of life; `fault` is no usable answer. */
export type CallOutcome = 'ok' | 'refused' | 'fault'

/** `half-open`: one probe is under way. */
export type BreakerState = 'closed' | 'half-open' | 'open'

/**
 * What a call says about the provider; `nothing` when it was not even sent. `page`: an answer of status 200 that holds no
 * token answer, which may be meant for one user, or be in everybody's way.
 */
export type Finding = {
  readonly kind: CallOutcome | 'page' | 'nothing'
  /** The provider's own wish. */
  readonly retryAfterSeconds?: number | undefined
  /** Whose call it was: different for each session, and never what the session holds itself. */
  readonly holder?: string | undefined
}

/** Told of every change, for metrics and the log. */
export type GateObserver = {
  readonly inFlight: (calls: number) => void
  readonly queue: (waiting: number) => void
  readonly breaker: (state: BreakerState) => void
  readonly call: (grant: GrantName, outcome: CallOutcome, seconds: number) => void
}

export type ProviderGateDeps = {
  /** Most calls at the same time. */
  readonly concurrency: number
  /** Longest wait for a place, in ms. */
  readonly waitMs: number
  /** A clock that never goes back, in ms. */
  readonly now: () => number
  readonly observe: GateObserver
  readonly pauses?: GatePauses
}

/** How long an open circuit stays so, in ms. */
export type GatePauses = {
  /** Longest pause of our own choice. */
  readonly maxMs: number
  /** Longest pause that a provider is granted with Retry-After. */
  readonly askedMaxMs: number
}

/** The throttle and the circuit breaker in front of one kind of request to the provider. */
export type ProviderGate = {
  /**
   * Waits for a place, then runs `work`, whose calls go out without waiting again: for work that must have its place
   * before it takes a lock. Rejects with provider_unavailable when no place falls free in time, and at once while the
   * provider is left alone.
   */
  admit<T>(work: () => Promise<T>): Promise<T>
  /** Makes one call, admitted first unless it is already. `findingOf` reads the error of one that failed. */
  call<T>(grant: GrantName, request: () => Promise<T>, findingOf: (error: unknown) => Finding): Promise<T>
}

type Admission = { isOver: boolean; readonly isProbe: boolean }

const MAX_WAITING = 50_000

/** Makes the gate, open and empty. */
export function createProviderGate(deps: ProviderGateDeps): ProviderGate {
  const { concurrency, waitMs, now, observe, pauses = PAUSES } = deps
  // cockatiel's bulkhead would let newcomers overtake its queue, and answer nobody before a place falls free.
  const queue = createFairQueue({
    places: concurrency,
    maxWaiting: MAX_WAITING,
    waitMs,
    observe: observe.queue,
  })
  const circuit = createCircuit(now, pauses, (state) => {
    observe.breaker(state)
    if (state === 'open') queue.refuseAll(leftAlone(circuit.pauseMs()))
  })
  const admissions = new AsyncLocalStorage<Admission>()
  let probe: Admission | undefined
  let inFlight = 0

  function requireAdmittance(): void {
    if (circuit.isOpen() && (probe || circuit.pauseMs() > 0)) throw leftAlone(circuit.pauseMs())
  }

  async function admit<T>(work: () => Promise<T>): Promise<T> {
    if (admissions.getStore()?.isOver === false) return work()
    requireAdmittance()
    return queue.run(async () => {
      requireAdmittance()
      const admission: Admission = { isOver: false, isProbe: circuit.isOpen() }
      if (admission.isProbe) probe = admission
      try {
        return await admissions.run(admission, work)
      } finally {
        admission.isOver = true
        if (admission.isProbe) probe = undefined
      }
    })
  }

  async function send<T>(
    grant: GrantName,
    request: () => Promise<T>,
    findingOf: (error: unknown) => Finding,
  ): Promise<T> {
    const count = circuit.begin()
    const startedAt = now()
    const end = async (finding: Finding) => {
      const outcome = finding.kind === 'page' ? 'fault' : finding.kind
      if (outcome !== 'nothing') observe.call(grant, outcome, (now() - startedAt) / 1000)
      await count(finding)
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
        // Others have made it open since this one was admitted.
        if (circuit.isOpen() && !admissions.getStore()?.isProbe) throw leftAlone(circuit.pauseMs())
        return send(grant, request, findingOf)
      }),
  }
}

const FAULTS_TO_OPEN = 5
const PAUSE_MIN_MS = 2_000
const PAUSES: GatePauses = { maxMs: 30_000, askedMaxMs: 300_000 }

/**
 * Opens after 5 faults in a row, for 2 s, doubling to `maxMs` with each probe that fails, or for as long as the provider
 * asked, up to `askedMaxMs`. cockatiel counts and decides; the calls themselves are not run in it, because it would make
 * everybody wait for the probe, take a probe that was never sent for a good one, and count what is long out of date.
 */
function createCircuit(now: () => number, most: GatePauses, onChange: (state: BreakerState) => void) {
  let pauseEndsAt = 0
  let askedUntil = 0
  let isOpen = false
  let changes = 0
  const weigh = createPageScale()

  const pauses = {
    // It would measure by the system clock; the gate has asked ours before it lets a probe pass.
    duration: Number.NEGATIVE_INFINITY,
    next({ attempt }: { attempt: number }) {
      const pauseMs = Math.min(most.maxMs, PAUSE_MIN_MS * 2 ** (attempt - 1))
      pauseEndsAt = Math.max(now() + pauseMs, askedUntil)
      return pauses
    },
  }
  const breaker = circuitBreaker(
    handleWhenResult((verdict) => verdict === 'fault'),
    { halfOpenAfter: pauses, breaker: new ConsecutiveBreaker(FAULTS_TO_OPEN) },
  )
  const change = (open: boolean) => {
    isOpen = open
    changes += 1
    onChange(open ? 'open' : 'closed')
  }
  breaker.onBreak(() => change(true))
  breaker.onReset(() => change(false))

  return {
    isOpen: () => isOpen,
    /** How long the provider is still left alone, in ms; not positive once a probe may go. */
    pauseMs: () => pauseEndsAt - now(),

    /** Notes the start of a call; what is returned takes how it went. */
    begin(): (finding: Finding) => Promise<void> {
      const before = changes
      if (isOpen) onChange('half-open')
      return async (finding) => {
        // News from before the last change must neither open nor close it again.
        if (before !== changes) return
        const verdict = weigh(finding)
        if (verdict === 'nothing') {
          if (!isOpen) return
          // A page says nothing new, and was an answer all the same: the next one waits its turn.
          if (finding.kind === 'page') pauseEndsAt = Math.max(pauseEndsAt, now() + PAUSE_MIN_MS)
          onChange('open')
          return
        }
        const asked = verdict === 'fault' ? (finding.retryAfterSeconds ?? 0) * 1000 : undefined
        askedUntil = asked === undefined ? 0 : Math.max(askedUntil, now() + Math.min(most.askedMaxMs, asked))
        await breaker.execute(() => verdict)
      }
    },
  }
}

const MAX_HOLDERS = 100

/**
 * Weighs pages against one another. Each session's first one since the last usable answer counts as a fault: a gateway
 * in maintenance shows everybody one. Those that follow it say nothing, because one user who is shown an error screen
 * may ask again and again, and must not close the way for all.
 */
function createPageScale(): (finding: Finding) => CallOutcome | 'nothing' {
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

function leftAlone(forMs: number): BffError {
  return new BffError(
    'provider_unavailable',
    'the authorization server fails and is left alone for a while',
    {
      retryAfterSeconds: Math.max(1, Math.ceil(forMs / 1000)),
    },
  )
}
