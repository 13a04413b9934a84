/** A line of the file, what of it may be shown, and the part that a problem is about. */
type Shown = { readonly text: string; readonly from: number; readonly to: number }

/**
 * The line of a problem with a caret below, as compilers print it: three lines. Empty where there is no such line. What may
 * be a secret is masked, for a report goes into the logs of CI systems.
 */
export function excerptOf(
  { line, column }: { readonly line: number; readonly column: number },
  text: string,
): string {
  const lines = text.split(/\r\n|\r|\n/)
  const written = lines[line - 1]
  if (written === undefined || written.trim() === '' || written.includes('\0')) return ''
  const withoutMark = line === 1 && written.startsWith('\ufeff') ? ` ${written.slice(1)}` : written
  const from = Math.min(column - 1, withoutMark.length)
  const to = from + Math.max(1, lengthOf(withoutMark.slice(from)))
  const shown = cut(masked({ text: withoutMark, from, to }, secretsIn(withoutMark, lines.slice(0, line - 1))))
  const margin = ' '.repeat(String(line).length)
  const mark = ' '.repeat(shown.from) + '^'.repeat(shown.to - shown.from)
  return `\n${margin} |\n${line} | ${visible(shown.text)}\n${margin} | ${mark}`
}

/** Length of the key or value that begins a text. */
function lengthOf(text: string): number {
  const quoted = /^(["'])(?:(?!\1).)*\1/.exec(text)
  if (quoted) return quoted[0].length
  const opening = /^[[{]/.test(text)
  if (opening) return 1
  return /^(?:(?!:(?:\s|$)|\s+#|\s*[,\]}]|\s+$).)+/.exec(text)?.[0].length ?? 1
}

type Range = readonly [from: number, to: number]

const MASK = '[redacted]'

function masked({ text, from, to }: Shown, ranges: readonly Range[]): Shown {
  let built = ''
  let copied = 0
  const places = new Map<number, number>()
  const place = (offset: number) => places.get(offset) ?? offset
  for (const [start, end] of ranges) {
    if (start < copied) continue
    built += text.slice(copied, start)
    for (const offset of [from, to]) {
      if (offset >= end) places.set(offset, offset + built.length + MASK.length - end)
      else if (offset > start) places.set(offset, offset === to ? built.length + MASK.length : built.length)
    }
    if (from === start) places.set(from, built.length)
    built += MASK
    copied = end
  }
  const begin = place(from)
  return { text: built + text.slice(copied), from: begin, to: Math.max(begin + 1, place(to)) }
}

/** Keys whose values are secret, or may be one that was put there by mistake. */
const SECRET_KEY =
  /secret|passw|passphrase|pwd|token|credential|authorization(?!params)|authorizationparams|private|(?:^|[-_])pem$|keys?$|^clientauth$|^assertion/i
const PUBLIC_KEY = /^(?:keyId|keyPrefix|logoutToken|globalTokenRevocation|reusesRefreshTokens)$/
/** A secret that is named, and the flags and numbers that stand under such keys. */
const NAMED =
  /^(?:\{\s*(?:env|file)\s*:\s*[^{},]*\}|\[\s*\]|\{\s*\}|true|false|auto|\d{1,6}|[|>][-+]?)?\s*,?\s*(?:#.*)?$/

/** The parts of a line that are not shown, in their order. */
function secretsIn(line: string, above: readonly string[]): Range[] {
  const found: Range[] = []
  const add = (start: number, length: number) => {
    if (length > 0) found.push([start, start + length])
  }
  // A user name and password in a URL, even if it is none: what stands before the last @, from the value's beginning.
  const [, before = '', user = ''] =
    /^(.*?(?::\s+|-\s+|^(?!.*[:-]\s)\s*)["'[{]?(?:\w+:\/\/)?)(\S.*)@/.exec(line) ?? []
  add(before.length, user.length)
  // What looks random: keys, tokens, lines of PEM; not an id with its hyphens.
  for (const match of line.matchAll(/[A-Za-z0-9+/_=-]{24,}/g)) {
    if (match[0].split('/').some(looksRandom)) add(match.index, match[0].length)
  }
  const ancestors = ancestorsOf(line, above)
  if (ancestors.some(isSecretKey)) {
    const [whole = '', own = ''] = /^(\s*(?:-\s+)*)\S.*$/.exec(line) ?? []
    const rest = whole.slice(own.length)
    const isNamed = NAMED.test(rest) || /^(?:env|file)\s*:/.test(rest)
    const keyed = /^[\w-]+\s*:\s*/.exec(rest)?.[0]
    if (!isNamed && keyed === undefined) add(own.length, rest.length)
    else if (keyed !== undefined && !isNamed && !isPlain(keyed, rest.slice(keyed.length)))
      add(own.length + keyed.length, rest.length - keyed.length)
  }
  // The first word may lack its colon.
  for (const match of line.matchAll(
    /(?:^\s*(?:-\s+)*["']?([\w-]+)["']?[\s:=]+|[\s{,]["']?([\w-]+)["']?\s*:\s*)/g,
  )) {
    if (!isSecretKey(match[1] ?? match[2]!)) continue
    const start = match.index + match[0].length
    const rest = line.slice(start)
    const [named = ''] = /^\{\s*(?:env|file)\s*:\s*[^{},]*\}/.exec(rest) ?? []
    if (named !== '' || NAMED.test(rest) || /^[[{](?=\s*(?:\{\s*)?(?:method|env|file)\s*:)/.test(rest))
      continue
    add(start, rest.length)
  }
  return found.sort((a, b) => a[0] - b[0] || b[1] - a[1])
}

function looksRandom(word: string): boolean {
  const isId = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(word)
  return word.length >= 16 && !isId && /\d/.test(word) && /[a-z]/i.test(word)
}

/** Where the secret is, or a setting beside it, which is none. */
function isPlain(key: string, value: string): boolean {
  return (
    NAMED.test(value) ||
    (/^(?:method|audience|algorithm|keyId)\s*:/.test(key) && /^[\w-]*$/.test(value.trim()))
  )
}

function isSecretKey(name: string): boolean {
  return SECRET_KEY.test(name) && !PUBLIC_KEY.test(name)
}

/** The keys of the blocks that a line is in, by its indentation. */
function ancestorsOf(line: string, before: readonly string[]): string[] {
  const keys: string[] = []
  let depth = indentOf(line)
  for (let at = before.length - 1; at >= 0 && (depth > 0 || /^\s*-/.test(line)); at--) {
    const above = before[at]!
    const [, key] = /^\s*(?:-\s+)*["']?([\w-]+)["']?\s*:/.exec(above) ?? []
    const own = indentOf(above)
    // An item of a list may stand as deep as the key of the list.
    const isAbove = own < depth || (own === depth && /^\s*-/.test(line) && !/^\s*-/.test(above))
    if (key === undefined || !isAbove) continue
    keys.push(key)
    depth = own
    if (depth === 0) break
  }
  return keys
}

function indentOf(line: string): number {
  return /^\s*/.exec(line)![0].length
}

const MOST_SHOWN = 120
const BEFORE_CARET = 60

/** A long line around the part that is meant. */
function cut({ text, from, to }: Shown): Shown {
  if (text.length <= MOST_SHOWN) return { text, from, to }
  const start = from <= BEFORE_CARET ? 0 : from - BEFORE_CARET
  const end = Math.min(text.length, start + MOST_SHOWN)
  const lead = start > 0 ? '…' : ''
  const shownFrom = from - start + lead.length
  return {
    text: `${lead}${text.slice(start, end)}${end < text.length ? '…' : ''}`,
    from: shownFrom,
    to: Math.max(shownFrom + 1, Math.min(to, end) - start + lead.length),
  }
}

/** One column for each sign: tabs and invisible signs are made visible, and nothing steers the terminal. */
function visible(text: string): string {
  return text
    .replaceAll('\t', '→')
    .replaceAll(/(?! )[\p{Zs}]/gu, '␣')
    .replaceAll(/[\p{Cc}\p{Cf}\p{Cs}\p{Co}\u2028\u2029]/gu, '·')
}
