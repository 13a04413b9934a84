/** What the YAML parser found, and where: both from 1. */
export type YamlFinding = { readonly code: string; readonly line: number; readonly column: number }

/** A mistake in the operator's words, and where it was made. */
export type YamlMistake = { readonly line: number; readonly column: number; readonly message: string }

const MESSAGES: Readonly<Record<string, string>> = {
  TAB_AS_INDENT: 'a tab cannot indent YAML: use blanks',
  BAD_INDENT: 'the indentation does not match the lines around it, or a bracket is not closed',
  BLOCK_AS_IMPLICIT_KEY:
    'a second "key:" on one line: put it on its own line, or the text in quotes; or a line below is not indented like this one, or a blank is missing behind a "-"',
  MULTILINE_IMPLICIT_KEY: 'a key must stand on one line: is a ":" missing, or the indentation wrong?',
  MISSING_CHAR: 'something is missing here or above: a ":", a closing quote or a closing bracket',
  BAD_SCALAR_START: 'a text that starts with this character must stand in quotes',
  BAD_DQ_ESCAPE: 'unknown \\ escape in double quotes: use \\\\ or single quotes',
  MULTIPLE_DOCS:
    'a second YAML document begins here, and only the first would be read: remove the "---" or "..." that divides them, or give it a file of its own',
  BAD_ALIAS: 'an alias (*name) without a name',
  TAG_RESOLVE_FAILED: 'unknown YAML tag: a text that starts with "!" must stand in quotes',
  UNEXPECTED_TOKEN: 'this cannot stand here: is a quote, a bracket or a line break missing before it?',
}

/**
 * The mistake behind a finding. A parser stops where nothing fits any more, which is often a line or more below: the usual
 * mistakes are looked for by how they look. The parser's own text is not shown: it may quote a secret.
 */
export function mistakeBehind(finding: YamlFinding, lines: readonly string[]): YamlMistake {
  const { code, line, column } = finding
  const at = (index: number, position: number, message: string): YamlMistake => ({
    ...{ line: index + 1, column: position + 1 },
    message: `not valid YAML: ${message}`,
  })
  const index = line - 1
  const plain =
    code === 'MULTIPLE_DOCS'
      ? undefined
      : (hiddenBlank(index, lines, at) ??
        (code === 'TAB_AS_INDENT' ? tabs(index, lines, at) : undefined) ??
        openQuote(finding, lines, at) ??
        openBracket(finding, lines, at) ??
        missingBlank(index, lines, at) ??
        wrongIndentation(index, lines, at))
  const words = Object.hasOwn(MESSAGES, code) ? MESSAGES[code]! : `the parser says ${code}`
  return plain ?? at(index, column - 1, words)
}

type At = (index: number, position: number, message: string) => YamlMistake

/** Signs that look like a blank, or like nothing, and are not one: YAML takes them for text. */
const HIDDEN = /[\u00a0\u1680\u2000-\u200f\u202f\u205f\u2060\u3000\ufeff]/u
const NAMES: Readonly<Record<string, string>> = {
  ...{ '00A0': 'no-break space', '200B': 'zero-width space', '202F': 'narrow no-break space' },
  ...{ '3000': 'ideographic space', FEFF: 'byte order mark', '200D': 'zero-width joiner' },
}

/** The first such sign of a text, and its name; undefined when it has none. */
export function hiddenSign(text: string): { readonly at: number; readonly name: string } | undefined {
  const at = text.search(HIDDEN)
  if (at === -1) return undefined
  const code = text.charCodeAt(at).toString(16).toUpperCase().padStart(4, '0')
  const name = Object.hasOwn(NAMES, code) ? ` (${NAMES[code]})` : ''
  return { at, name: `U+${code}${name}` }
}

/** The text without such signs at its ends, and with blanks in place of those inside. */
export function withoutHiddenSigns(text: string): string {
  return text.replaceAll(new RegExp(HIDDEN, 'gu'), ' ').trim()
}

function hiddenBlank(index: number, lines: readonly string[], at: At): YamlMistake | undefined {
  for (const near of [index, index - 1]) {
    const code = lines[near]?.replace(/(?:^|\s)#.*$/, '').replace(/^\ufeff/, ' ') ?? ''
    const found = hiddenSign(code)
    if (found)
      return at(near, found.at, `${found.name} stands here, which is no blank for YAML: type a blank`)
  }
  return undefined
}

const TAB_INDENT = /^[ ]*\t/

function tabs(index: number, lines: readonly string[], at: At): YamlMistake {
  const count = lines.slice(index + 1).filter((line) => TAB_INDENT.test(line) && line.trim() !== '').length
  const more =
    count === 0 ? '' : `; so do ${count} more lines below`.replace(/do (1 more) lines/, 'does $1 line')
  return at(index, Math.max(0, lines[index]!.indexOf('\t')), `${MESSAGES.TAB_AS_INDENT}${more}`)
}

function openQuote({ code, line }: YamlFinding, lines: readonly string[], at: At): YamlMistake | undefined {
  if (code !== 'MISSING_CHAR' && code !== 'UNEXPECTED_TOKEN' && code !== 'BAD_INDENT') return undefined
  for (let index = Math.min(line, lines.length) - 1; index >= 0; index--) {
    const { quoteAt } = stateAfter(lines[index]!)
    if (quoteAt !== undefined) return at(index, quoteAt, 'a quote is opened here and never closed')
  }
  return undefined
}

function openBracket({ code, line }: YamlFinding, lines: readonly string[], at: At): YamlMistake | undefined {
  if (code !== 'MISSING_CHAR' && code !== 'BAD_INDENT') return undefined
  for (let index = Math.min(line, lines.length) - 1; index >= Math.max(0, line - 4); index--) {
    const [open] = stateAfter(lines[index]!).brackets
    if (open !== undefined)
      return at(index, open, `a "${lines[index]![open]}" is opened here and not closed on this line or below`)
  }
  return undefined
}

/** What is open at the end of a line that begins outside of quotes and brackets. */
function stateAfter(line: string): { quoteAt: number | undefined; brackets: number[] } {
  const brackets: number[] = []
  let quoteAt: number | undefined
  for (let at = 0; at < line.length; at++) {
    const sign = line[at]!
    const isStart = at === 0 || /[\s[{,:-]/.test(line[at - 1]!)
    if (quoteAt !== undefined) {
      if (sign === '\\' && line[quoteAt] === '"') at += 1
      else if (sign === line[quoteAt]) quoteAt = undefined
    } else if (sign === '#' && (at === 0 || /\s/.test(line[at - 1]!))) break
    else if ((sign === '"' || sign === "'") && isStart) quoteAt = at
    else if ((sign === '[' || sign === '{') && isStart) brackets.push(at)
    else if (sign === ']' || sign === '}') brackets.pop()
  }
  return { quoteAt, brackets }
}

function missingBlank(index: number, lines: readonly string[], at: At): YamlMistake | undefined {
  for (const near of [index, index - 1]) {
    const line = lines[near] ?? ''
    const [, dash] = /^(\s*)-(?=[\w"'{]+\s*:?)/.exec(line) ?? []
    if (dash !== undefined) return at(near, dash.length, 'a blank is missing behind this "-"')
    const [, before, key] = /^(\s*(?:- +)*)([A-Za-z][\w-]*):(?=[^\s/]|\/(?!\/))/.exec(line) ?? []
    if (key !== undefined) return at(near, before!.length, `a blank is missing behind "${key}:"`)
  }
  const [, indent, word] = /^(\s*(?:- +)*)([A-Za-z]\w*)(?:\s+[^\s:#]\S*)?\s*$/.exec(lines[index] ?? '') ?? []
  return word === undefined ? undefined : at(index, indent!.length, `a ":" is missing behind "${word}"`)
}

/** A line whose indentation fits none of the blocks that are open there. */
function wrongIndentation(index: number, lines: readonly string[], at: At): YamlMistake | undefined {
  for (const near of [index, index + 1]) {
    const line = lines[near]
    const depth = line === undefined ? 0 : depthOf(line)
    if (line === undefined || depth === 0 || !isContent(line)) continue
    const above = lines.slice(0, near).findLastIndex(isContent)
    if (above === -1) continue
    const levels = openLevels(lines.slice(0, near))
    const opensBlock = /:\s*(?:#.*)?$/.test(lines[above]!) || /^\s*-\s*$/.test(lines[above]!)
    const most = levels[0] ?? 0
    if (levels.includes(depth) || (opensBlock && depth > most)) continue
    const fitting = levels.filter((level) => level > 0).toSorted((a, b) => a - b)
    return at(
      near,
      depth,
      `this line is indented by ${depth}, where the lines above are by ${fitting.join(' or ') || '0'}`,
    )
  }
  return undefined
}

/** The depths at which a line may stand below these, the deepest first. */
function openLevels(lines: readonly string[]): number[] {
  const levels: number[] = []
  let deepest = Number.POSITIVE_INFINITY
  for (const line of lines.toReversed()) {
    if (!isContent(line)) continue
    const own = depthOf(line)
    const inside = /^\s*(?:-\s+)+/.exec(line)?.[0].length
    for (const depth of inside === undefined ? [own] : [inside, own]) {
      if (depth < deepest) {
        levels.push(depth)
        deepest = depth
      }
    }
  }
  return levels
}

function depthOf(line: string): number {
  return /^ */.exec(line)![0].length
}

function isContent(line: string): boolean {
  return line.trim() !== '' && !/^\s*#/.test(line)
}

/**
 * The text with those blocks emptied that a mistake may have spoiled, so that the rest can be read: from a line at the
 * margin to the next. Line numbers stay.
 */
export function withoutBlocksOf({ code, line }: YamlFinding, mistake: YamlMistake, text: string): string {
  const lines = text.split('\n')
  const starts = lines.flatMap((one, index) => (/^[^\s#\-}\]]/.test(one) ? [index] : []))
  const blockAt = (index: number) => starts.findLastIndex((start) => start <= index)
  const spoilt = new Set([blockAt(line - 1), blockAt(mistake.line - 1)])
  // What is not closed above ends at the margin.
  if (starts.includes(line - 1)) spoilt.add(blockAt(line - 2))
  if (code === 'TAB_AS_INDENT') {
    lines.forEach((one, index) => {
      if (TAB_INDENT.test(one)) spoilt.add(blockAt(index))
    })
  }
  return lines.map((one, index) => (spoilt.has(blockAt(index)) ? '' : one)).join('\n')
}
