import type { Cloakroom, World } from './contenders/cloakroom.ts'
import type { Contender, Scope } from './contenders/contender.ts'
import type { Absent } from './contenders/peers.ts'
import type { Load } from './load/load-order.ts'
import type { Lane } from './measure.ts'

/** Who takes part in a run. */
export type Field = {
  readonly world: World
  readonly load: Load
  /** Seconds of a window. */
  readonly seconds: number
  readonly bare: Contender
  /** An access token of the provider's, for proxies without sessions. */
  readonly bearer: string
  /** This tree's, and with `--against` another one's. */
  readonly cloakrooms: readonly Cloakroom[]
  readonly peers: readonly Contender[]
  readonly absent: readonly Absent[]
}

/** What is measured of each lane. The first lane is what the others are compared with. */
export type Case = {
  readonly title: string
  /** What a cost is; CPU µs a request unless given. */
  readonly measures?: string
  /** The most that Cloakroom's median may be, in costs of the first lane; without `unit` as it stands. */
  readonly budget: number
  /** At most so many rounds, where one takes long. */
  readonly mostRounds?: number
  /** What the first lane is. */
  readonly unit?: string
  lanes(field: Field, t: Scope): Promise<Lane[]>
}
