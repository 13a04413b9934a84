/**
 * Adds names to the `Vary` of a flat list of fields, as members of the upstream's own list where it has one. `*` says
 * more already, and has to stand alone for the caches that look for that one character (RFC 9110 §12.5.5).
 */
export function addVary(fields: string[], names: readonly string[]): void {
  let known = ''
  let last: number | undefined
  for (let i = 0; i < fields.length; i += 2) {
    if (fields[i]!.length !== 4 || fields[i]!.toLowerCase() !== 'vary') continue
    last = i + 1
    known += `,${fields[last]}`
  }
  if (last === undefined) {
    fields.push('vary', names.length === 1 ? names[0]! : names.join(', '))
    return
  }
  const members = known.split(',').map((member) => member.trim().toLowerCase())
  if (members.includes('*')) return
  const missing = names.filter((name) => !members.includes(name.toLowerCase())).join(', ')
  if (missing !== '') fields[last] = fields[last]!.trim() === '' ? missing : `${fields[last]}, ${missing}`
}
