/**
 * What of the chart is made from something else: the schema of `config` in values.schema.json from the program's own, and
 * the chart's README from the comments of values.yaml. `npm run schema` writes both; a test finds what is out of date.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { isMap, type Pair, parse, parseDocument, type Scalar, type YAMLMap } from 'yaml'

type Schema = { [key: string]: unknown }

/** A file of the chart. */
export const chartPath = (name: string) =>
  fileURLToPath(new URL(`../../helm/cloakroom/${name}`, import.meta.url))
const text = (path: string) => readFileSync(path, 'utf8')

/** values.schema.json as it should be: its own text, with the program's schema for `config`. */
export function valuesSchema(): string {
  const values = JSON.parse(text(chartPath('values.schema.json')))
  const program = JSON.parse(
    text(fileURLToPath(new URL('../../config/cloakroom.schema.json', import.meta.url))),
  )
  const { secret } = program.$defs
  const config = forValues({ type: 'object', properties: program.properties, additionalProperties: false })
  allowDefaults((config as Schema).properties as Record<string, Schema>)
  allowNull(config as Schema)
  values.properties.config = {
    description:
      "Cloakroom's configuration file; made from config/cloakroom.schema.json by `npm run schema`.",
    ...(config as Schema),
  }
  values.definitions.secret = forValues(secret)
  return `${JSON.stringify(values, null, 2)}\n`
}

/**
 * A schema of the program's for helm: draft 7 says `definitions`, and an enumeration may be a variable of the
 * environment. Defaults and examples are for editors.
 */
function forValues(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(forValues)
  if (typeof schema !== 'object' || schema === null) return schema
  const { $ref, examples: _, enum: choices, ...rest } = schema as Schema
  if (typeof $ref === 'string') return { $ref: $ref.replace('#/$defs/', '#/definitions/') }
  const children = Object.entries(rest).map(([key, child]) =>
    key === 'default' ? [key, child] : [key, forValues(child)],
  )
  const mapped = Object.fromEntries(children) as Schema
  if (!Array.isArray(choices)) return mapped
  const variable = { type: 'string', pattern: '^\\$\\{' }
  return rest.type === 'string'
    ? { ...mapped, anyOf: [{ enum: choices }, variable] }
    : { ...mapped, enum: choices }
}

/**
 * A later values file takes a key back by null: what may be absent may be null. Not in lists, which are replaced whole.
 */
function allowNull(schema: Schema): void {
  const required = (schema.required ?? []) as string[]
  for (const [key, property] of Object.entries((schema.properties ?? {}) as Record<string, Schema>)) {
    allowNull(property)
    if (!required.includes(key)) Object.assign(property, nullable(property))
  }
  for (const member of (schema.oneOf ?? []) as Schema[]) {
    allowNull(member)
    // What belongs to another member of the union, too.
    member.additionalProperties = { type: 'null' }
  }
  if (typeof schema.additionalProperties !== 'object') return
  const entry = schema.additionalProperties as Schema
  allowNull(entry)
  Object.assign(entry, nullable(entry))
}

function nullable(property: Schema): Schema {
  const none = { type: 'null' }
  if (typeof property.$ref === 'string') {
    const { $ref } = property
    delete property.$ref
    return { anyOf: [{ $ref }, none] }
  }
  const list = property.anyOf ? 'anyOf' : property.oneOf ? 'oneOf' : undefined
  const choices = list ? { [list]: [...(property[list] as Schema[]), none] } : {}
  const type = typeof property.type === 'string' ? { type: [property.type, 'null'] } : {}
  return { ...choices, ...type }
}

/** What the chart has a default or a better message for may be absent. */
function allowDefaults({ provider, session, routes }: Record<string, Schema>): void {
  delete provider!.required
  delete session!.required
  delete routes!.minItems
  const { clientAuth } = provider!.properties as Record<string, Schema>
  const { store } = session!.properties as Record<string, Schema>
  const members = clientAuth!.oneOf as { properties: Schema; required: string[] }[]
  for (const member of members) {
    const method = String((member.properties.method as Schema).const)
    if (method.startsWith('client_secret_'))
      member.required = member.required.filter((key) => key !== 'secret')
    if (method === 'client_secret_post') member.required = member.required.filter((key) => key !== 'method')
  }
  const redis = (store!.oneOf as { properties: Schema; required: string[] }[])[0]!
  redis.required = redis.required.filter((key) => key !== 'type')
}

/** helm/cloakroom/README.md as it should be: every value with its comment (`# -- …`) and its default. */
export function valuesReadme(): string {
  const chart = parse(text(chartPath('Chart.yaml')))
  return [
    `# ${chart.name} ${chart.version}`,
    '',
    `${chart.description}. How to run it is in [helm/README.md](../README.md#kubernetes); every key of \`config\` in [config/README.md](../../config/README.md).`,
    '',
    `Kubernetes ${chart.kubeVersion.replace('-0', '')}. This table is made from \`values.yaml\` by \`npm run schema\`.`,
    '',
    '| value | default | |',
    '|---|---|---|',
    ...valueRows().map(({ path, value, about }) => `| \`${path}\` | ${value} | ${about} |`),
    '',
  ].join('\n')
}

type Row = { path: string; value: string; about: string }

/** Every value with its default and its comment. */
export function valueRows(): Row[] {
  return [...rowsOf(parseDocument(text(chartPath('values.yaml'))).contents as YAMLMap, '')]
}

function* rowsOf(map: YAMLMap, prefix: string): Generator<Row> {
  for (const pair of map.items as Pair<Scalar<string>, YAMLMap | Scalar>[]) {
    const path = `${prefix}${pair.key.value}`
    const about = commentOf(pair, map)
    // A group is described value by value; a map with a comment of its own is one value, but for `config`.
    const isGroup = isMap(pair.value) && pair.value.items.length > 0 && (about === '' || path === 'config')
    if (about !== '' || !isGroup) yield { path, value: isGroup ? '' : cell(pair.value), about }
    if (isGroup) yield* rowsOf(pair.value as YAMLMap, `${path}.`)
  }
}

/** The comment before a key, from `--` on; that of the first key of a map stands before the map. */
function commentOf(pair: Pair<Scalar<string>, unknown>, map: YAMLMap): string {
  const isFirst = map.items[0] === pair
  const comment = pair.key.commentBefore ?? (isFirst ? map.commentBefore : undefined) ?? ''
  const paragraph = comment.split(/\n\n/).at(-1)!
  const start = paragraph.search(/^ --/m)
  if (start < 0) return ''
  return paragraph
    .slice(start)
    .replace(/^ -- ?/, '')
    .replace(/\s*\n\s*/g, ' ')
    .replaceAll('|', '\\|')
    .trim()
}

function cell(node: YAMLMap | Scalar | null): string {
  const value = JSON.stringify(node?.toJSON() ?? null)
  return `\`${value.replaceAll('|', '\\|')}\``
}

if (import.meta.main) {
  writeFileSync(chartPath('values.schema.json'), valuesSchema())
  writeFileSync(chartPath('README.md'), valuesReadme())
}
