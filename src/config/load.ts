import { readFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { assembleConfig } from './assemble.ts'
import { crossCheck } from './checks/cross-checks.ts'
import type { Config } from './config.ts'
import { type Environment, requireVerifiedTls } from './environment.ts'
import { readOutgoingProxy } from './outgoing-proxy.ts'
import { adviceFor } from './report/nearest-name.ts'
import { ConfigError, type ConfigProblem, type FieldPath } from './report/problem.ts'
import { createReport, type FieldPlace } from './report/report.ts'
import { hiddenSign } from './report/yaml-mistakes.ts'
import { required } from './rules/rule.ts'
import type { SchemaIssue } from './schema/field-kit.ts'
import { configFieldNames, readConfigFields } from './schema/schema.ts'
import { createSecretReader, type ReadTextFile, reasonOf } from './secrets/secret-source.ts'
import { parseYaml, readTree, requireUtf8 } from './yaml-file.ts'

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
  /** That of the file, for the lines that its report shows. */
  readonly text: string
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
  try {
    return readConfig(source)
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    throw new ConfigError(error.problems, source.text)
  }
}

function readConfig(source: ConfigSource): LoadedConfig {
  const { text, file, env, readFile = readTextFile, requireSecrets = true } = source
  requireUtf8(text, file)
  const { document, positionOf } = parseYaml(text, file)
  const places = new Map<string, FieldPlace>()
  const report = createReport(file, places)
  const raw = readTree({ document, positionOf, places, report, env })
  const secrets = createSecretReader({
    ...{ env, folder: dirname(resolve(file)), readFile, mayBeAbsent: !requireSecrets },
  })
  const { file: fields, draft, issues } = readConfigFields(raw, secrets)
  for (const { meant = [] } of issues) {
    const field = report.root.at(...meant)
    // A name with a typing error is not missing as well.
    if (meant.length === 0 || field.written() !== undefined) continue
    field.excuse()
    // Nor does anything follow from its default.
    forget(draft, meant)
  }
  const advised = new Map(
    issues.filter(isNowhere).map((issue) => [issue, adviceFor(issue.path, configFieldNames())]),
  )
  for (const advice of advised.values()) {
    const steps = advice?.home?.split('.') ?? []
    const field = report.root.at(...steps)
    const isPlace = steps.length > 0 && steps.every((step) => step !== 'NAME' && !step.includes('['))
    if (!isPlace || field.written() !== undefined) continue
    // It is there, if at the wrong place.
    field.excuse()
    forget(draft, steps)
  }
  for (const issue of issues) {
    const { path, message, half } = issue
    const field = report.root.at(...path)
    const sign = hiddenSign(String(field.written() ?? ''))
    const hidden = sign && `holds ${sign.name}, which cannot be seen or looks like a blank: type it again`
    const quotes = typographicQuotes(path.length === 0 ? undefined : field.written())
    const empty = emptyVariable(field.written(), valueAt(raw, path))
    const isText = path.length === 0 && typeof raw === 'string'
    const advice = advised.get(issue)
    const elsewhere = advice && `is not a known key here; ${advice.text}`
    const plain = field.written() === undefined ? required(message) : message
    field.problem(elsewhere ?? hidden ?? quotes ?? empty ?? (isText ? NO_KEYS : plain), half)
  }
  crossCheck(draft, secrets, report.root)
  requireVerifiedTls(env, report.root)
  const proxy = readOutgoingProxy(env, report.root)
  report.throwIfAny()
  if (fields === undefined) throw new ConfigError([report.locate([], 'cannot be read')])
  return {
    config: assembleConfig(fields, proxy),
    text,
    warnings: report.warnings(),
    problemAt: report.locate,
  }
}

/** A key that is not known where it stands, and no misspelt one either. */
function isNowhere({ half, message, meant }: SchemaIssue): boolean {
  return half === 'key' && meant === undefined && message.includes('; known here')
}

const NO_KEYS =
  'is one text and has no keys: each line is KEY: VALUE; start from config/cloakroom.example.yaml'

/** What a word processor makes of quotation marks. */
function typographicQuotes(written: unknown): string | undefined {
  return typeof written === 'string' && /^[“”„‟‘’‚«»]/.test(written)
    ? `begins with ${written[0]}, which is no quotation mark for YAML but a part of the text: type " in its place`
    : undefined
}

/** A text that is one variable and nothing else is shown in messages as it is written, never with its value. */
function emptyVariable(written: unknown, value: unknown): string | undefined {
  const [, name] = value === '' ? (/^\$\{(\w+)\}$/.exec(String(written)) ?? []) : []
  return name === undefined ? undefined : `environment variable ${name} is empty`
}

function forget(draft: unknown, path: FieldPath): void {
  const block = valueAt(draft, path.slice(0, -1))
  if (typeof block === 'object' && block !== null) Reflect.deleteProperty(block, path.at(-1)!)
}

function valueAt(raw: unknown, path: FieldPath): unknown {
  let value = raw
  for (const step of path) value = (value as Record<string | number, unknown> | null | undefined)?.[step]
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

function readTextFile(path: string): string {
  return readFileSync(path, 'utf8')
}
