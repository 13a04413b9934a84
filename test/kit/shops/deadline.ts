import { setTimeout as delay } from 'node:timers/promises'

/** Looks again and again until `look` gives something other than undefined or false; throws after `withinMs`. */
export async function eventually<T>(
  what: string,
  look: () => T | Promise<T>,
  { withinMs = 30_000, everyMs = 20 } = {},
): Promise<Exclude<T, undefined | false>> {
  const deadline = Date.now() + withinMs
  for (;;) {
    const seen = await look()
    if (seen !== undefined && seen !== false) return seen as Exclude<T, undefined | false>
    if (Date.now() > deadline) throw new Error(`not within ${withinMs} ms: ${what}`)
    await delay(everyMs)
  }
}

/** Waits for a moment that is known beforehand, such as the end of a token's life. Epoch ms. */
export async function untilAfter(moment: number): Promise<void> {
  while (Date.now() <= moment) await delay(moment - Date.now() + 1)
}
