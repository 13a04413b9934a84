import type { TokenRecords } from '../../src/store/port.ts'
import type { StepFault } from './schedule.ts'

/** Who asks a replica for which resource. */
export type Caller = {
  readonly replica: string
  readonly resource: string
  /** Tells two callers for one resource in one replica apart. */
  readonly as?: string
  /** An upstream has rejected the token that is in the store. */
  readonly isForced?: boolean
}

/** What may go wrong. A `pause` is so long that everybody else loses patience. */
export type FaultKind = StepFault | 'crash' | 'pause'

/** Something broken on purpose: in the store, or between one replica's code and the store. */
export type Mutation = {
  readonly store?: (tokens: TokenRecords) => TokenRecords
  readonly replica?: (records: TokenRecords) => TokenRecords
}

/** A system to explore. */
export type Configuration = {
  readonly callers: readonly Caller[]
  /** How often each may happen in one run. */
  readonly faults?: Partial<Record<FaultKind, number>>
  /** Somebody signs the user out, at any point. */
  readonly hasSignOut?: boolean
  /** The operator said that a refresh token which may be used up must not be offered again. */
  readonly isStrict?: boolean
  readonly mutation?: Mutation
}

/**
 * `merged`: states with the same future are one, and a fault comes only where it makes a difference. `exact`: states
 * are one only when everything in them came about alike, and a crash may come anywhere.
 */
export type Precision = 'merged' | 'exact'
