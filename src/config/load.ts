import { readFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
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
import { assembleConfig } from './assemble.ts'
import { crossCheck } from './checks/cross-checks.ts'
import { checkNotBuilt } from './checks/not-built.ts'
import type { Config } from './config.ts'
import { type Environment, interpolate, requireVerifiedTls } from './environment.ts'
import { readOutgoingProxy } from './outgoing-proxy.ts'
import { ConfigError, type ConfigProblem, type FieldPath, fieldName } from './report/problem.ts'
import { createReport, type FieldPlace, type Position, type Report } from './report/report.ts'
import { required } from './rules/rule.ts'
import { hiddenCharacter } from './rules/secret-rules.ts'
import { readConfigFields } from './schema/schema.ts'
import { createSecretReader, type ReadTextFile, reasonOf } from './secrets/secret-source.ts'

export { ConfigError, type ConfigProblem } from './report/problem.ts'

/** A config file's text and everything it may refer to. */
export type ConfigSource = {
  readonly text: string
  /** Its name in messages; relative secret files start in its folder. */
  readonly file: string
  readonly env: Environment
  /** How secret files are read; default: from the file system. */
  readonly readFile?: ReadTextFile | undefined
  /** False: secret files and variables need not be there, and what is in them is not checked then. */
  readonly requireSecrets?: boolean | undefined
}

/** A configuration that can be used. */
export type LoadedConfig = {
  /** Frozen to the last member. */
  readonly config: Config
  /** What works but should not stay so. */
  readonly warnings: readonly ConfigProblem[]
  /** A problem that was found later (a broken `tests:` item), at its line of the file. */
  problemAt(path: FieldPath, message: string): ConfigProblem
}

/** Reads a config file. @throws ConfigError when it cannot be read or anything in it is wrong. */
export function loadConfigFile(
  file: string,
  env: Environment,
  options: Pick<ConfigSource, 'readFile' | 'requireSecrets'> = {},
): LoadedConfig {
  return loadConfig({ text: readConfigText(file, options.readFile ?? readTextFile), file, env, ...options })
}

/** Reads a config file's text. @throws ConfigError naming every problem by line. */
export function loadConfig(source: ConfigSource): LoadedConfig {
  const { text, file, env, readFile = readTextFile, requireSecrets = true } = source
  requireUtf8(text, file)
  const { document, positionOf } = parseYaml(text, file)
  const places = new Map<string, FieldPlace>()
  const report = createReport(file, places)
  const raw = readTree({ document, positionOf, places, report, env })
  checkNotBuilt(raw, report.root)
  const secrets = createSecretReader({
    ...{ env, folder: dirname(resolve(file)), readFile, mayBeAbsent: !requireSecrets },
  })
  const { file: fields, draft, issues } = readConfigFields(raw, secrets)
  for (const { meant = [] } of issues) {
    const field = report.root.at(...meant)
    // A name with a typing error is not missing as well.
    if (meant.length > 0 && field.written() === undefined) field.excuse()
  }
  for (const { path, message, half } of issues) {
    const field = report.root.at(...path)
    const empty = emptyVariable(field.written(), valueAt(raw, path))
    field.problem(empty ?? (field.written() === undefined ? required(message) : message), half)
  }
  crossCheck(draft, secrets, report.root)
  requireVerifiedTls(env, report.root)
  const proxy = readOutgoingProxy(env, report.root)
  report.throwIfAny()
  if (fields === undefined) throw new ConfigError([report.locate([], 'cannot be read')])
  return { config: assembleConfig(fields, proxy), warnings: report.warnings(), problemAt: report.locate }
}

/** A text that is one variable and nothing else is shown in messages as it is written, never with its value. */
function emptyVariable(written: unknown, value: unknown): string | undefined {
  const [, name] = value === '' ? (/^\$\{(\w+)\}$/.exec(String(written)) ?? []) : []
  return name === undefined ? undefined : `environment variable ${name} is empty`
}

function valueAt(raw: unknown, path: FieldPath): unknown {
  let value = raw
  for (const step of path) value = (value as Record<string | number, unknown> | undefined)?.[step]
  return value
}

function readConfigText(file: string, readFile: ReadTextFile): string {
  try {
    return readFile(file)
  } catch (error) {
    const message = `cannot read this config file (${reasonOf(error)}); start from config/cloakroom.example.yaml, or name another file with --config FILE or CLOAKROOM_CONFIG`
    throw new ConfigError([{ file, line: 1, column: 1, path: '', message }])
  }
}

/** @throws ConfigError for a text that was written in another encoding, of which no field would be found. */
function requireUtf8(text: string, file: string): void {
  const at = text.search(/[\0\ufffd]/)
  if (at === -1) return
  const before = text.slice(0, at).split('\n')
  const message = 'must be UTF-8 text, but is in another encoding (UTF-16?); save it as UTF-8'
  throw new ConfigError([{ file, line: before.length, column: before.at(-1)!.length + 1, path: '', message }])
}

function readTextFile(path: string): string {
  return readFileSync(path, 'utf8')
}

type PositionOf = (offset: number) => Position

function parseYaml(text: string, file: string): { document: Document.Parsed; positionOf: PositionOf } {
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
  const problems = [...document.errors, ...document.warnings]
    .sort((a, b) => a.pos[0] - b.pos[0])
    .map(({ code, pos }) => ({ file, ...positionOf(pos[0]), path: '', message: yamlMessage(code) }))
  // Of several findings in a line, all but the first follow from the same mistake.
  const mistakes = problems.filter(({ line }, index) => problems[index - 1]?.line !== line)
  if (mistakes.length > 0) throw new ConfigError(mistakes)
  return { document, positionOf }
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
function readTree(reading: Reading): unknown {
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
  if (isAlias(node) && target === undefined) field.problem('there is no YAML anchor for this alias')
  if (isMap(target)) return readMap(target, path, reading)
  if (isSeq(target)) {
    return target.items.map((item, index) =>
      readNode({ node: item as Node, path: [...path, index] }, reading),
    )
  }
  if (typeof plain !== 'string') return plain
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

function readMap(map: YAMLMap, path: FieldPath, reading: Reading): Record<string, unknown> {
  const { report, positionOf, places } = reading
  const values: Record<string, unknown> = {}
  for (const { key, value } of map.items as Pair<Node, Node | null>[]) {
    const position = positionOf(key?.range?.[0] ?? 0)
    const name = isScalar(key) && key.value !== null ? String(key.value) : undefined
    if (name === undefined || name === '__proto__' || name === '<<') {
      report.root.at(...path).problem(`has a key that is not a plain name in line ${position.line}`)
      continue
    }
    const own = [...path, name]
    const first = Object.hasOwn(values, name) ? places.get(fieldName(own))?.key : undefined
    values[name] = readNode({ node: value, path: own, key: position }, reading)
    if (first) report.root.at(...own).problem(`is given twice: the first is in line ${first.line}`, 'key')
  }
  return values
}

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

/** One of the YAML parser's error codes in plain words. The parser's own text is not shown: it may quote a secret. */
function yamlMessage(code: string): string {
  const words = Object.hasOwn(MESSAGES, code) ? MESSAGES[code] : `the parser says ${code}`
  return `not valid YAML: ${words}`
}
