import type { ProviderConfig } from '../../config/config.ts'
import type { Logger } from '../../log.ts'
import {
  type BreakerState,
  createProviderGate,
  type GateObserver,
  type GatePauses,
  type GrantName,
  type ProviderGate,
} from './limiter.ts'

/** What of a sign-in is asked of the provider through a gate of its own. */
export type SignInCall = 'code' | 'par'

/** Told of the gates that sign-ins have. */
export type SignInObserver = {
  readonly [Change in 'inFlight' | 'queue' | 'breaker']: (
    call: SignInCall,
    value: Parameters<GateObserver[Change]>[0],
  ) => void
}

export type ProviderGatesDeps = {
  readonly log: Logger
  /** A clock that never goes back, in ms. */
  readonly now: () => number
  /** Told of the gate for refreshes and other grants of users who are signed in; `call` of every call. */
  readonly observe: GateObserver
  readonly observeSignIn?: SignInObserver
}

/** What a gate depends on: another token endpoint, or other limits, need another gate. */
export type GateSettings = Pick<ProviderConfig, 'issuer' | 'endpoints' | 'concurrency' | 'timeoutMs'>

/**
 * The gates towards one provider, as one. Refreshes and the other grants that a session or the client itself asks for
 * have one gate; code grants and pushed authorization requests have one each, with as many places. Anybody can begin a
 * sign-in and make up its code: no answer to that may close the way for those who are signed in, nor fill their places.
 */
export type HeldGate = ProviderGate & {
  /** From now on the metrics and the log tell of this one; what happens at the one before is its own affair. */
  takeOver(): void
}

/** Gates outlive a configuration: what is in flight at a reload still counts afterwards, and what is open stays open. */
export type ProviderGates = {
  /** The gate for these settings: the one in use if it is for the same, else a new one. */
  gateFor(settings: GateSettings): HeldGate
}

type Held = HeldGate & { readonly key: string }

/**
 * A stranger can make a provider fail at code grants for as long as he likes, and its Retry-After may be meant for him:
 * sign-in is tried again soon, with one probe at a time.
 */
const SIGN_IN_PAUSES: GatePauses = { maxMs: 10_000, askedMaxMs: 30_000 }

const SIGN_IN_CALLS: Partial<Record<GrantName, SignInCall>> = {
  authorization_code: 'code',
  pushed_authorization: 'par',
}

/** Makes the place where the gates in use are found; the first asked for are in use at once. */
export function createProviderGates(deps: ProviderGatesDeps): ProviderGates {
  const { log, now, observe, observeSignIn } = deps
  let inUse: Held | undefined

  function open(key: string, { issuer, concurrency, timeoutMs }: GateSettings): Held {
    const isInUse = () => inUse === held
    const limits = { concurrency, waitMs: timeoutMs, now, isInUse }
    const tokens = createToldGate({ ...limits, observe, logState: breakerLog(log, issuer, TOKENS) })
    const ofSignIn = (call: SignInCall) =>
      createToldGate({
        ...{ ...limits, pauses: SIGN_IN_PAUSES },
        observe: {
          call: observe.call,
          inFlight: (calls) => observeSignIn?.inFlight(call, calls),
          queue: (waiting) => observeSignIn?.queue(call, waiting),
          breaker: (state) => observeSignIn?.breaker(call, state),
        },
        logState: breakerLog(log, issuer, call === 'code' ? CODES : PUSHES),
      })
    const signIn = { code: ofSignIn('code'), par: ofSignIn('par') }
    const held: Held = {
      key,
      admit: tokens.gate.admit,
      call(grant, request, findingOf) {
        const call = SIGN_IN_CALLS[grant]
        return (call ? signIn[call] : tokens).gate.call(grant, request, findingOf)
      },
      takeOver() {
        if (isInUse()) return
        inUse = held
        for (const { tellAll } of [tokens, signIn.code, signIn.par]) tellAll()
      },
    }
    return held
  }

  return {
    gateFor(settings) {
      const { issuer, endpoints, concurrency, timeoutMs } = settings
      const key = JSON.stringify([issuer, endpoints?.token, concurrency, timeoutMs])
      if (inUse?.key === key) return inUse
      const held = open(key, settings)
      inUse ??= held
      return held
    },
  }
}

type ToldGateDeps = Omit<Parameters<typeof createProviderGate>[0], 'observe'> & {
  readonly observe: GateObserver
  readonly logState: (state: BreakerState) => void
  readonly isInUse: () => boolean
}

/** A gate that tells of itself while it is in use, and can tell all again when it comes into use. */
function createToldGate({ observe, logState, isInUse, ...settings }: ToldGateDeps) {
  const last = { inFlight: 0, waiting: 0, state: 'closed' as BreakerState }
  const gate = createProviderGate({
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
    gate,
    tellAll() {
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
function breakerLog(log: Logger, issuer: string, what: string): (state: BreakerState) => void {
  let isOpen = false
  return (state) => {
    if (state === 'open' && !isOpen) {
      log.warn({ url: issuer }, `${what} fails again and again: it is left alone, but for a probe`)
    }
    if (state === 'closed') log.info({ url: issuer }, `${what} answers again`)
    isOpen = state !== 'closed'
  }
}
