/** A set of HTTP field names that knows them in every spelling that some server takes for the same. */
export type FieldNames = {
  /** The name in its folded spelling if it is in the set, otherwise undefined. */
  find(name: string): string | undefined
}

/**
 * Compiles names, and prefixes of three characters or more written with a trailing `*`, into a set that says no to most
 * names without allocating: it first asks by length or third letter, and by first letter. Every sign counts as a hyphen
 * because CGI-like servers make one variable of all such names, most of them of `_` and `-`, some of any sign;
 * `X_Forwarded.For` would otherwise overrule ours.
 */
export function fieldNames(names: Iterable<string>): FieldNames {
  const exact = new Set<string>()
  const prefixes = new Map<string, string[]>()
  for (const name of names) {
    if (name.endsWith('*')) addPrefix(prefixes, foldFieldName(name.slice(0, -1)))
    else exact.add(foldFieldName(name))
  }
  const byLength = new Uint32Array(MAX_LENGTH + 1)
  for (const name of exact) byLength[Math.min(name.length, MAX_LENGTH)]! |= bitAt(name, 0)
  // 128 entries, so that any character code of ASCII finds one.
  const byThird = new Uint32Array(128)
  for (let code = 0; code < 128; code++) {
    for (const start of prefixes.keys()) {
      if (LETTER_BITS[code] === bitAt(start, 2)) byThird[code]! |= bitAt(start, 0)
    }
  }

  function find(name: string): string | undefined {
    const first = LETTER_BITS[name.charCodeAt(0) & 0x7f]!
    const mayBeExact = (byLength[Math.min(name.length, MAX_LENGTH)]! & first) !== 0
    const mayBegin = name.length > 2 && (byThird[name.charCodeAt(2) & 0x7f]! & first) !== 0
    if (!mayBeExact && !mayBegin) return undefined
    const folded = foldFieldName(name)
    if (mayBeExact && exact.has(folded)) return folded
    if (!mayBegin) return undefined
    const begins = prefixes.get(folded.slice(0, 3))?.some((prefix) => folded.startsWith(prefix))
    return begins ? folded : undefined
  }
  return { find }
}

function addPrefix(prefixes: Map<string, string[]>, prefix: string): void {
  if (prefix.length < 3) throw new Error(`the prefix ${prefix} is too short`)
  const start = prefix.slice(0, 3)
  prefixes.set(start, [...(prefixes.get(start) ?? []), prefix])
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

function bitAt(folded: string, index: number): number {
  return LETTER_BITS[folded.charCodeAt(index)]!
}
