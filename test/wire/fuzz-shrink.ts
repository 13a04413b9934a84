import type { FuzzCase } from './fuzz.ts'

const MOST_LOOKS = 250

/** Makes a case smaller for as long as it shows the same kind of fault; every size is tried, from halves to bytes. */
export async function shrink(
  one: FuzzCase,
  faults: readonly string[],
  look: (smaller: FuzzCase) => Promise<readonly string[]>,
): Promise<{ minimal: FuzzCase; minimalFaults: readonly string[] }> {
  const kinds = new Set(faults.map(kindOf))
  let minimal = one
  let minimalFaults = faults
  let looks = 0

  async function isStill(smaller: FuzzCase): Promise<boolean> {
    looks += 1
    const found = (await look(smaller)).filter((fault) => kinds.has(kindOf(fault)))
    if (found.length === 0) return false
    minimal = smaller
    minimalFaults = found
    return true
  }

  if (one.cuts.length > 0) await isStill({ bytes: one.bytes, cuts: [] })
  for (const unit of [/(?<=\r\n\r\n)/, /(?<=\r\n)/, /(?<=[ ;:,=/])/, /(?:)/]) {
    let size = Math.ceil(minimal.bytes.split(unit).length / 2)
    for (; size >= 1 && looks < MOST_LOOKS; size = size === 1 ? 0 : Math.ceil(size / 2)) {
      for (let at = 0; looks < MOST_LOOKS; ) {
        const parts = minimal.bytes.split(unit)
        if (at >= parts.length) break
        const bytes = [...parts.slice(0, at), ...parts.slice(at + size)].join('')
        if (bytes === '' || !(await isStill(without(minimal, bytes)))) at += size
      }
    }
  }
  return { minimal, minimalFaults }
}

/** Cuts stay where they are, counted from the end. */
function without({ bytes: before, cuts }: FuzzCase, bytes: string): FuzzCase {
  const shift = before.length - bytes.length
  return { bytes, cuts: cuts.map((cut) => cut - shift).filter((cut) => cut > 0 && cut < bytes.length) }
}

function kindOf(fault: string): string {
  return fault.split(':', 1)[0]!
}
