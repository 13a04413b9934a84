/** Decodings of one path that are looked at; a path that is encoded more often is refused. */
const MOST_DECODINGS = 5

/**
 * What some upstream may take a canonical path for, each in one spelling: percent-encodings decoded once, and as often
 * again as that changes anything; letters without their case (Express, ASP.NET, IIS), compatibility forms as their plain
 * ones (IIS's best fit, macOS); backslashes as slashes; path parameters cut off (servlets), and what follows an encoded
 * `?` or `#`; no blanks and dots at the end of a segment, and no NTFS stream name (Windows); no empty and no dot segments.
 * Undefined when it is encoded more often than that.
 */
export function readingsOf(path: string): string[] | undefined {
  const lower = path.toLowerCase()
  if (!UNUSUAL.test(lower)) return [lower === '/' || !lower.endsWith('/') ? lower : lower.slice(0, -1)]
  const readings: string[] = []
  let text = path
  for (let n = 0; n <= MOST_DECODINGS; n++) {
    const decoded = decodedOnce(text)
    if (n > 0 && decoded === text) return readings
    readings.push(plainPath(decoded))
    text = decoded
  }
  return undefined
}

/** What makes a canonical path have a reading that is more than its small letters. */
const UNUSUAL = /[^a-z0-9/_~.!$&'()*+,=:@-]|\.(?:\/|$)|:\$/

/** One character for each octet. */
function decodedOnce(text: string): string {
  return text.replaceAll(/%([0-9a-f]{2})/gi, (_, octet) => String.fromCharCode(Number.parseInt(octet, 16)))
}

function plainPath(octets: string): string {
  const segments: string[] = []
  const [path = ''] = withoutCase(octets)
    .replaceAll(/[\\\u2044\u2215]/g, '/')
    .split(/[?#]/, 1)
  for (const segment of path.split('/')) {
    const name = segment.replace(/;.*|::?\$.*/s, '').trim()
    if (name === '..') segments.pop()
    else if (name !== '') segments.push(withoutEnd(name))
  }
  return `/${segments.filter(Boolean).join('/')}`
}

/** Without the dots and blanks at its end. */
function withoutEnd(name: string): string {
  let end = name.length
  while (end > 0 && (name[end - 1] === '.' || name[end - 1]!.trim() === '')) end--
  return name.slice(0, end)
}

/** Through capitals, because some letters have more than one small form: a dotless i, a long s, a final sigma. */
function withoutCase(octets: string): string {
  if (!/[^\0-\x7f]/.test(octets)) return octets.toLowerCase()
  const text = Buffer.from(octets, 'latin1').toString().normalize('NFKC')
  const visible = text.replaceAll(/\p{Default_Ignorable_Code_Point}/gu, '')
  return visible.replaceAll('\u0130', 'I').toUpperCase().toLowerCase()
}
