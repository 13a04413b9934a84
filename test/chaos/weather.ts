import type { TokenFault } from './refresh-ledger.ts'
import type { SeededRandom } from './seeded-random.ts'

/** What goes wrong at the token endpoint just now. */
export type Weather = {
  /** `calm`: nothing. `rough`: a few faults of every kind. `down`: no request is served. */
  set(state: WeatherState): void
  chooseFault(leg: 'code' | 'refresh'): TokenFault | undefined
  /** How often each fault struck a refresh. */
  readonly struck: Readonly<Record<string, number>>
}

/** State of the token endpoint. */
export type WeatherState = 'calm' | 'rough' | 'down'

type Row = readonly [probability: number, make: (random: SeededRandom, timeoutMs: number) => TokenFault]

/** Only `drop-after` and a delay past the timeout lose an answer for good; they are rare, or nobody would stay signed in. */
const ROUGH: readonly Row[] = [
  [0.02, () => ({ kind: 'drop-before' })],
  [0.004, () => ({ kind: 'drop-after' })],
  [0.02, () => ({ kind: 'status', status: 503 })],
  [0.01, () => ({ kind: 'status', status: 500 })],
  [0.1, (random, timeoutMs) => ({ kind: 'delay', ms: random.between(0.02, 0.35) * timeoutMs })],
  [0.004, (random, timeoutMs) => ({ kind: 'delay', ms: random.between(1.3, 2.5) * timeoutMs })],
]

const DOWN: readonly Row[] = [
  [0.5, () => ({ kind: 'drop-before' })],
  [1, () => ({ kind: 'status', status: 503 })],
]

/** Makes the weather, calm. @param timeoutMs how long a replica waits for the provider. */
export function createWeather(random: SeededRandom, timeoutMs: number): Weather {
  let rows: readonly Row[] = []
  const struck: Record<string, number> = {}
  return {
    struck,
    set(state) {
      rows = { calm: [], rough: ROUGH, down: DOWN }[state]
    },
    chooseFault(leg) {
      const row = rows.find(([probability]) => random.chance(probability))
      const fault = row?.[1](random, timeoutMs)
      if (fault && leg === 'refresh') struck[nameOf(fault)] = (struck[nameOf(fault)] ?? 0) + 1
      return fault
    },
  }

  function nameOf(fault: TokenFault): string {
    if (fault.kind === 'status') return String(fault.status)
    if (fault.kind === 'delay') return fault.ms > timeoutMs ? 'delayed past the timeout' : 'delayed'
    return fault.kind
  }
}
