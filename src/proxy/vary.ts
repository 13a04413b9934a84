/**
 * Adds names to the `Vary` of a flat list of fields, as members of the upstream's own list where it has one. `*` says
 * more already, and has to stand alone for the caches that look for that one character (RFC 9110 §12.5.5).
 */
export function addVary(fields: string[], names: readonly string[]): void {
  const known = new Set<string>()
  let last: number | undefined
  for (let i = 0; i < fields.length; i += 2) {
    if (fields[i]!.length !== 4 || fields[i]!.toLowerCase() !== 'vary') continue
    last = i + 1
    for (const member of fields[last]!.split(',')) known.add(member.trim().toLowerCase())
  }
  if (known.has('*')) return
  const missing = names.filter((name) => !known.has(name.toLowerCase()))
  if (missing.length === 0) return
  const added = missing.join(', ')
  if (last === undefined) fields.push('vary', added)
  else fields[last] = fields[last]!.trim() === '' ? added : `${fields[last]}, ${added}`
}
