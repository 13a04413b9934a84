/** A set of HTTP field names that knows them in every spelling that some server takes for the same. */
export type FieldNames = {
  /** The name in its folded spelling if it is in the set, otherwise undefined. */
  find(name: string): string | undefined
}

/**
 * Compiles names, and prefixes written with a trailing `*`, into a set that says no to most names without
 * allocating: it first asks by length and first letter. Every sign counts as a hyphen because CGI-like servers make
 * one variable of all such names, most of them of `_` and `-`, some of any sign; `X_Forwarded.For` would otherwise
 * overrule ours.
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
    if ((letters[length]! & LETTER_BITS[name.charCodeAt(0) & 0x7f]!) === 0) return undefined
    const folded = foldFieldName(name)
    return exact.has(folded) || prefixes.some((prefix) => folded.startsWith(prefix)) ? folded : undefined
  }
  return { find }
}

/** The one spelling under which field names are compared: lower case, a hyphen for every sign. */
export function foldFieldName(name: string): string {
  const lower = name.toLowerCase()
  return SIGN.test(lower) ? lower.replaceAll(EVERY_SIGN, '-') : lower
}

const SIGN = /[^a-z0-9-]/
const EVERY_SIGN = /[^a-z0-9]/g

/** Lengths from here on share one entry of the table. */
const MAX_LENGTH = 63

/** One bit for the first letter of a name in either case, and one for all signs. Digits share theirs with letters. */
const LETTER_BITS = Uint32Array.from({ length: 128 }, (_, code) => {
  const letter = String.fromCharCode(code)
  return /[a-z0-9]/i.test(letter) ? 1 << (code & 31) : 1
})

function lettersByLength(exact: Iterable<string>, prefixes: readonly string[]): Uint32Array {
  const letters = new Uint32Array(MAX_LENGTH + 1)
  for (const name of exact) letters[Math.min(name.length, MAX_LENGTH)]! |= letterBit(name)
  for (const prefix of prefixes) {
    for (let length = prefix.length; length <= MAX_LENGTH; length++) letters[length]! |= letterBit(prefix)
  }
  return letters
}

function letterBit(folded: string): number {
  return LETTER_BITS[folded.charCodeAt(0)]!
}
