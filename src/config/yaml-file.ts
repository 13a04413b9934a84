import {
  type Document,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  type Pair,
  parseDocument,
  type YAMLMap,
} from 'yaml'
import { type Environment, interpolate } from './environment.ts'
import { ConfigError, type FieldPath, fieldName } from './report/problem.ts'
import type { FieldPlace, Position, Report } from './report/report.ts'
import {
  hiddenSign,
  mistakeBehind,
  withoutBlocksOf,
  withoutHiddenSigns,
  type YamlFinding,
  type YamlMistake,
} from './report/yaml-mistakes.ts'
import { hiddenCharacter } from './rules/secret-rules.ts'

/** @throws ConfigError for a text that was written in another encoding, of which no field would be found. */
export function requireUtf8(text: string, file: string): void {
  const at = text.search(/[\0\ufffd]/)
  if (at !== -1) {
    const before = text.slice(0, at).split('\n')
    const encoding = text.includes('\0') ? 'UTF-16' : 'another encoding (Latin-1, Windows-1252?)'
    const message = `must be UTF-8 text, but is in ${encoding}; save it as UTF-8`
    throw new ConfigError([
      { file, line: before.length, column: before.at(-1)!.length + 1, path: '', message },
    ])
  }
  if (!/\r(?!\n)/.test(text) || text.includes('\n')) return
  const message =
    'must have lines that end in LF or CRLF, but they end in CR alone; save it with other line ends'
  throw new ConfigError([{ file, line: 1, column: text.indexOf('\r') + 1, path: '', message }])
}

type PositionOf = (offset: number) => Position

/** Most mistakes that are looked for: each costs a reading of the file. */
const MOST_MISTAKES = 20

/** Parses a file. @throws ConfigError with the mistakes in it, each once: none that only follows from another. */
export function parseYaml(text: string, file: string): { document: Document.Parsed; positionOf: PositionOf } {
  const { document, positionOf, finding } = parseOnce(text)
  if (!finding) return { document, positionOf }
  const lines = text.split(/\r?\n/)
  const mistakes: YamlMistake[] = []
  let next: YamlFinding | undefined = finding
  let rest = text
  let last = 0
  // What is found behind a mistake follows from it more often than not: only other blocks of the file are looked at.
  while (next && next.line > last && mistakes.length < MOST_MISTAKES) {
    const mistake = mistakeBehind(next, lines)
    mistakes.push(mistake)
    last = Math.max(next.line, mistake.line)
    rest = withoutBlocksOf(next, mistake, rest)
    next = parseOnce(rest).finding
  }
  throw new ConfigError(mistakes.map((mistake) => ({ file, path: '', ...mistake })))
}

function parseOnce(text: string): {
  document: Document.Parsed
  positionOf: PositionOf
  finding: YamlFinding | undefined
} {
  const lineCounter = new LineCounter()
  const document = parseDocument(text, {
    lineCounter,
    version: '1.2',
    schema: 'core',
    prettyErrors: false,
    // Found by us, which names the field and the other line.
    uniqueKeys: false,
    // The parser is silent about a second document otherwise, and its content would be ignored.
    logLevel: 'error',
  })
  const positionOf: PositionOf = (offset) => {
    const { line, col } = lineCounter.linePos(offset)
    return { line: Math.max(line, 1), column: Math.max(col, 1) }
  }
  const [first] = [...document.errors, ...document.warnings].sort((a, b) => a.pos[0] - b.pos[0])
  const finding = first && { code: first.code, ...positionOf(first.pos[0]) }
  return { document, positionOf, finding }
}

type Reading = {
  readonly document: Document.Parsed
  readonly positionOf: PositionOf
  readonly places: Map<string, FieldPlace>
  readonly report: Report
  readonly env: Environment
}

/** A node and where it stands: its path, and its key's position unless it is an item of a list. */
type Spot = { readonly node: Node | null; readonly path: FieldPath; readonly key?: Position }

// Bounds the expansion of YAML aliases: a short file could otherwise expand without end.
const MOST_FIELDS = 50_000
const DEEPEST_FIELD = 20

/** The file as plain values with variables filled in; notes where each field stands. */
export function readTree(reading: Reading): unknown {
  const { document, places, report } = reading
  const start = { line: 1, column: 1 }
  places.set('', { value: start, written: {} })
  if (document.contents === null) {
    report.root.problem('the file is empty; start from config/cloakroom.example.yaml')
  }
  return readNode({ node: document.contents, path: [], key: start }, reading)
}

function readNode({ node, path, key }: Spot, reading: Reading): unknown {
  const { document, report, env } = reading
  const target = isAlias(node) ? node.resolve(document) : node
  const plain = isScalar(target) ? target.value : isSeq(target) ? [] : isMap(target) ? {} : null
  notePlace({ node, path, key }, plain, reading)
  const field = report.root.at(...path)
  if (isAlias(node) && target === undefined)
    field.problem(
      `there is no YAML anchor for this alias: put &${node.source} before the value that is meant, or quotes around a text that begins with *`,
    )
  if (isMap(target)) return readMap(target, path, reading)
  if (isSeq(target)) {
    return target.items.map((item, index) =>
      readNode({ node: item as Node, path: [...path, index] }, reading),
    )
  }
  if (typeof plain !== 'string') return plain
  if (/^\$[A-Za-z_]\w*$/.test(plain)) {
    // biome-ignore lint/suspicious/noTemplateCurlyInString: it is what the operator writes
    field.warn('is taken as it is written: a variable is written ${NAME}')
  }
  const { value, problem } = interpolate(plain, env)
  if (problem !== undefined) field.problem(problem)
  const hidden = hiddenCharacter(value)
  if (hidden !== undefined) field.warn(hidden)
  return value
}

/** A field without a value is shown at its key. */
function notePlace(
  { node, path, key }: Spot,
  written: unknown,
  { places, positionOf, report }: Reading,
): void {
  const own = node?.range ? positionOf(node.range[0]) : undefined
  const value = (written === null ? (key ?? own) : own) ?? { line: 1, column: 1 }
  if (path.length > 0) places.set(fieldName(path), { value, key, written })
  if (path.length <= DEEPEST_FIELD && places.size <= MOST_FIELDS) return
  const message = 'is nested too deeply or repeated too often; are YAML aliases in a loop?'
  throw new ConfigError([report.locate(path, message)])
}

const MERGE_KEY =
  'is a merge key of YAML 1.1, which is not read: write its keys out here, or give a whole value an alias, e.g. timeout: *slow'

function readMap(map: YAMLMap, path: FieldPath, reading: Reading): Record<string, unknown> {
  const { report, positionOf, places } = reading
  const values: Record<string, unknown> = {}
  for (const { key, value } of map.items as Pair<Node, Node | null>[]) {
    const position = positionOf(key?.range?.[0] ?? 0)
    const written = isScalar(key) && key.value !== null ? String(key.value) : undefined
    if (written === '<<') {
      report.root.at(...path, '<<').problem(MERGE_KEY, 'key', position)
      continue
    }
    if (written === undefined || written === '__proto__') {
      const message = isMap(key)
        ? 'holds a template ({{ … }}) that was not filled in: render it first, or put it in quotes'
        : `has a key that is not a plain name in line ${position.line}`
      report.root.at(...path).problem(message, 'key', position)
      continue
    }
    const hidden = hiddenSign(written)
    const name = hidden ? withoutHiddenSigns(written).replaceAll(' ', '') : written
    const own = [...path, name]
    const first = Object.hasOwn(values, name) ? places.get(fieldName(own))?.key : undefined
    values[name] = readNode({ node: value, path: own, key: position }, reading)
    if (hidden) {
      const sign = `${hidden.name} is in this name, which cannot be seen`
      report.root.at(...own).problem(`${sign}: type it again, e.g. ${name}`, 'key')
    }
    if (first) report.root.at(...own).problem(`is given twice: the first is in line ${first.line}`, 'key')
  }
  return values
}
