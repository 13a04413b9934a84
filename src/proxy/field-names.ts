/** A set of HTTP field names that knows them in any letter case and with `_` in place of `-`. */
export type FieldNames = {
  /** The name in its folded spelling if it is in the set, otherwise undefined. */
  find(name: string): string | undefined
}

/**
 * Compiles names, and prefixes written with a trailing `*`, into a set that says no to most names without
 * allocating: it first asks by length and first letter. Underscores count as hyphens because CGI-like servers
 * fold both into one variable, so `X_Forwarded_For` would otherwise overrule ours.
 */
export function fieldNames(names: Iterable<string>): FieldNames {
  const exact = new Set<string>()
  const prefixes: string[] = []
  for (const name of names) {
    if (name.endsWith('*')) prefixes.push(foldFieldName(name.slice(0, -1)))
    else exact.add(foldFieldName(name))
  }
  const letters = lettersByLength(exact, prefixes)

  function find(name: string): string | undefined {
    const length = Math.min(name.length, MAX_LENGTH)
    if ((letters[length]! & letterBit(name)) === 0) return undefined
    const folded = foldFieldName(name)
    return exact.has(folded) || prefixes.some((prefix) => folded.startsWith(prefix)) ? folded : undefined
  }
  return { find }
}

/** The one spelling under which field names are compared: lower case, hyphens for underscores. */
export function foldFieldName(name: string): string {
  const lower = name.toLowerCase()
  return lower.includes('_') ? lower.replaceAll('_', '-') : lower
}

/** Lengths from here on share one entry of the table. */
const MAX_LENGTH = 63

function lettersByLength(exact: Iterable<string>, prefixes: readonly string[]): Uint32Array {
  const letters = new Uint32Array(MAX_LENGTH + 1)
  for (const name of exact) letters[Math.min(name.length, MAX_LENGTH)]! |= letterBit(name)
  for (const prefix of prefixes) {
    for (let length = prefix.length; length <= MAX_LENGTH; length++) letters[length]! |= letterBit(prefix)
  }
  return letters
}

/** One bit for the first letter in either case; `-` and `_` share theirs. */
function letterBit(name: string): number {
  const code = name.charCodeAt(0)
  return 1 << ((code === 0x5f ? 0x2d : code | 0x20) & 31)
}
