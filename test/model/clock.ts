/** The time of one explored run: it stands still, except when it leaps past everybody's patience. */
export type Clock = {
  ms: number
  leaps: number
  /** Leaps while somebody had something to do: as if that replica had been paused. */
  pauses: number
}

/** Some moment, in epoch ms. */
const START = 1_800_000_000_000

/** Epoch ms of a clock. */
export function epochOf(clock: Clock): number {
  return START + clock.ms
}
