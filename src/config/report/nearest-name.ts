/** ` (did you mean "x"?)` for the known name closest to what was written, or an empty string when none is close. */
export function didYouMean(written: string, known: readonly string[]): string {
  const nearest = nearestName(written, known)
  return nearest === undefined ? '' : ` (did you mean "${nearest}"?)`
}

/** The known name that `written` most likely meant: same letters in another case, or a few typing errors away. */
export function nearestName(written: string, known: readonly string[]): string | undefined {
  const wanted = plain(written)
  const limit = Math.max(1, Math.floor(wanted.length / 3))
  const ranked = known
    .map((name) => ({ name, distance: editDistance(wanted, plain(name)) }))
    .filter(({ distance }) => distance <= limit)
    .sort((a, b) => a.distance - b.distance)
  return ranked[0]?.name
}

/** client_id, client-id and ClientID all mean clientId. */
function plain(name: string): string {
  return name.toLowerCase().replaceAll(/[-_]/g, '').slice(0, 60)
}

/** Damerau-Levenshtein (optimal string alignment): two swapped letters are one error. */
function editDistance(a: string, b: string): number {
  const rows = [Array.from({ length: b.length + 1 }, (_, column) => column)]
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const change = a[i - 1] === b[j - 1] ? 0 : 1
      let best = Math.min(rows[i - 1]![j]! + 1, row[j - 1]! + 1, rows[i - 1]![j - 1]! + change)
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        best = Math.min(best, rows[i - 2]![j - 2]! + 1)
      }
      row.push(best)
    }
    rows.push(row)
  }
  return rows[a.length]![b.length]!
}
