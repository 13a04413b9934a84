import type { ProviderConfig } from '../config/config.ts'
import type { Logger } from '../log.ts'
import {
  type BreakerState,
  createProviderGate,
  type GateObserver,
  type ProviderGate,
} from './provider-gate.ts'

export type ProviderGatesDeps = {
  readonly log: Logger
  readonly now: () => number
  readonly observe: GateObserver
}

/** What a gate depends on: another token endpoint, or other limits, need another gate. */
export type GateSettings = Pick<ProviderConfig, 'issuer' | 'endpoints' | 'concurrency' | 'timeoutMs'>

/** A gate, and whether it is the one that the metrics tell of. */
export type HeldGate = ProviderGate & {
  /** From now on the metrics and the log tell of this gate; what happens at the one before is its own affair. */
  takeOver(): void
}

/** Gates outlive a configuration: what is in flight at a reload still counts afterwards, and what is open stays open. */
export type ProviderGates = {
  /** The gate for these settings: the one in use if it is for the same, else a new one. */
  gateFor(settings: GateSettings): HeldGate
}

type Held = HeldGate & { readonly key: string }

/** Makes the place where the gate in use is found; the first one asked for is in use at once. */
export function createProviderGates({ log, now, observe }: ProviderGatesDeps): ProviderGates {
  let inUse: Held | undefined

  function open(key: string, { issuer, concurrency, timeoutMs }: GateSettings): Held {
    const last = { inFlight: 0, waiting: 0, state: 'closed' as BreakerState }
    const tell = (change: () => void) => {
      if (inUse === held) change()
    }
    const logState = breakerLog(log, issuer)
    const gate = createProviderGate({
      concurrency,
      waitMs: timeoutMs,
      now,
      observe: {
        call: observe.call,
        inFlight(calls) {
          last.inFlight = calls
          tell(() => observe.inFlight(calls))
        },
        queue(waiting) {
          last.waiting = waiting
          tell(() => observe.queue(waiting))
        },
        breaker(state) {
          last.state = state
          tell(() => {
            observe.breaker(state)
            logState(state)
          })
        },
      },
    })
    const held: Held = {
      ...gate,
      key,
      takeOver() {
        if (inUse === held) return
        inUse = held
        observe.inFlight(last.inFlight)
        observe.queue(last.waiting)
        observe.breaker(last.state)
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

/** One line when it opens and one when it closes, however many probes fail in between. */
function breakerLog(log: Logger, issuer: string): (state: BreakerState) => void {
  let isOpen = false
  return (state) => {
    if (state === 'open' && !isOpen) {
      log.warn({ url: issuer }, 'the token endpoint fails again and again: it is left alone, but for a probe')
    }
    if (state === 'closed') log.info({ url: issuer }, 'the token endpoint answers again')
    isOpen = state !== 'closed'
  }
}
