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
import type { Config } from './config.ts'
import { crossCheck } from './cross-checks.ts'
import { type Environment, interpolate } from './environment.ts'
import { checkNotBuilt } from './not-built.ts'
import { ConfigError, type ConfigProblem, type FieldPath, fieldName } from './problem.ts'
import { createReport, type FieldPlace, type Position, type Report } from './report.ts'
import { required } from './rule.ts'
import { readFields } from './schema.ts'
import { createSecretReader, reasonOf } from './secret-source.ts'
import { yamlMessage } from './yaml-messages.ts'

export { ConfigError, type ConfigProblem } from './problem.ts'

/** A config file's text and everything it may refer to. */
export type ConfigSource = {
  readonly text: string
  /** Its name in messages; relative secret files start in its folder. */
  readonly file: string
  readonly env: Environment
  /** How secret files are read; default: from the file system. */
  readonly readFile?: (path: string) => string
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
export function loadConfigFile(file: string, env: Environment): LoadedConfig {
  return loadConfig({ text: readConfigText(file), file, env })
}

/** Reads a config file's text. @throws ConfigError naming every problem by line. */
export function loadConfig({ text, file, env, readFile = readTextFile }: ConfigSource): LoadedConfig {
  const { document, positionOf } = parseYaml(text, file)
  const places = new Map<string, FieldPlace>()
  const report = createReport(file, places)
  const raw = readTree({ document, positionOf, places, report, env })
  checkNotBuilt(raw, report)
  const secrets = createSecretReader({ env, folder: dirname(resolve(file)), readFile })
  const { file: fields, draft, issues } = readFields(raw, secrets)
  for (const { path, message, about } of issues) {
    report.problem(path, report.written(path) === undefined ? required(message) : message, about)
  }
  crossCheck(draft, secrets, report)
  report.throwIfAny()
  if (fields === undefined) throw new ConfigError([report.locate([], 'cannot be read')])
  return { config: assembleConfig(fields), warnings: report.warnings(), problemAt: report.locate }
}

function readConfigText(file: string): string {
  try {
    return readTextFile(file)
  } catch (error) {
    const message = `cannot read this config file (${reasonOf(error)}); start from config/cloakroom.example.yaml, or name another file with --config FILE or CLOAKROOM_CONFIG`
    throw new ConfigError([{ file, line: 1, column: 1, path: '', message }])
  }
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
    logLevel: 'silent',
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

// Aliases make a short file expand without end; no honest config comes near.
const MOST_FIELDS = 50_000
const DEEPEST_FIELD = 20

/** The file as plain values with variables filled in; notes where each field stands. */
function readTree(reading: Reading): unknown {
  const { document, places, report } = reading
  if (document.contents === null)
    report.problem([], 'the file is empty; start from config/cloakroom.example.yaml')
  places.set('', { value: { line: 1, column: 1 }, written: {} })
  return readNode(document.contents, [], reading)
}

function readNode(node: Node | null, path: FieldPath, reading: Reading, key?: Position): unknown {
  const { document, places, report, positionOf, env } = reading
  const target = isAlias(node) ? node.resolve(document) : node
  const plain = isScalar(target) ? target.value : isSeq(target) ? [] : isMap(target) ? {} : null
  const value = plain === null || !node?.range ? key : positionOf(node.range[0])
  if (path.length > 0)
    places.set(fieldName(path), { value: value ?? { line: 1, column: 1 }, key, written: plain })
  if (path.length > DEEPEST_FIELD || places.size > MOST_FIELDS) {
    throw new ConfigError([
      report.locate(path, 'is nested too deeply or repeated too often; are YAML aliases in a loop?'),
    ])
  }
  if (isAlias(node) && target === undefined) report.problem(path, `there is no YAML anchor for this alias`)
  if (isMap(target)) return readMap(target, path, reading)
  if (isSeq(target))
    return target.items.map((item, index) => readNode(item as Node, [...path, index], reading))
  if (typeof plain !== 'string') return plain
  const { value: text, problem } = interpolate(plain, env)
  if (problem !== undefined) report.problem(path, problem)
  return text
}

function readMap(map: YAMLMap, path: FieldPath, reading: Reading): Record<string, unknown> {
  const { report, positionOf, places } = reading
  const values: Record<string, unknown> = {}
  for (const { key, value } of map.items as Pair<Node, Node | null>[]) {
    const position = positionOf(key?.range?.[0] ?? 0)
    const name = isScalar(key) && key.value !== null ? String(key.value) : undefined
    if (name === undefined || name === '__proto__' || name === '<<') {
      report.problem(path, `has a key that is not a plain name in line ${position.line}`)
      continue
    }
    const earlier = places.get(fieldName([...path, name]))
    const first = Object.hasOwn(values, name) ? earlier?.key?.line : undefined
    values[name] = readNode(value, [...path, name], reading, position)
    if (first !== undefined) {
      report.problem([...path, name], `is given twice: the first is in line ${first}`, 'key')
    }
  }
  return values
}
