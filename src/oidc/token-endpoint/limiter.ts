import { AsyncLocalStorage } from 'node:async_hooks'
import { createCircuitBreaker } from '../../async/circuit-breaker.ts'
import { createSemaphore } from '../../async/semaphore.ts'
import { BffError } from '../../errors.ts'

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

/** Nothing is in flight, and the circuit is closed. */
export function createProviderGate(deps: ProviderGateDeps): ProviderGate {
  const { concurrency, waitMs, now, observe, pauses = PAUSES } = deps
  const permits = createSemaphore<BffError>({
    permits: concurrency,
    maxWaiting: MAX_WAITING,
    refusal: () => crowded(waitMs),
    observe: observe.queue,
  })
  const circuit = createCircuit(now, pauses, (state) => {
    observe.breaker(state)
    if (state === 'open') permits.refuseAll(circuitOpen(circuit.openLeftMs()))
  })
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
    const end = (finding: Finding) => {
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

const FAULTS_TO_OPEN = 5
const OPEN_MIN_MS = 2_000
const PAUSES: GatePauses = { maxMs: 30_000, askedMaxMs: 300_000 }

/**
 * Opens after 5 faults in a row, for 2 s, doubling to `maxMs` with each probe that fails, or for as long as the provider
 * asked, up to `askedMaxMs`. One probe goes at a time.
 */
function createCircuit(now: () => number, most: GatePauses, tell: (state: BreakerState) => void) {
  let askedUntil = 0
  const weigh = createPageScale()
  const breaker = createCircuitBreaker({
    failures: FAULTS_TO_OPEN,
    openMs: (times) => Math.max(Math.min(most.maxMs, OPEN_MIN_MS * 2 ** (times - 1)), askedUntil - now()),
    now,
    observe: (change) => tell(change === 'closed' ? 'closed' : 'open'),
  })

  /** A page says nothing new, and was an answer all the same: the next probe waits its time. */
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
        const verdict = weigh(finding)
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
    return now() + Math.min(most.askedMaxMs, retryAfterSeconds * 1000)
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

function circuitOpen(forMs: number): BffError {
  return new BffError(
    'provider_unavailable',
    'the authorization server fails and is left alone for a while',
    { retryAfterSeconds: Math.max(1, Math.ceil(forMs / 1000)) },
  )
}

function crowded(waitMs: number): BffError {
  return new BffError('provider_unavailable', 'too many requests wait for the authorization server', {
    retryAfterSeconds: Math.max(1, Math.ceil(waitMs / 1000)),
  })
}
