// As a namespace: `z` by name brings all of zod's locales, 550 kB, into the build.
import * as z from 'zod'
import { didYouMean } from '../report/nearest-name.ts'
import type { FieldPath } from '../report/problem.ts'
import type { Half } from '../report/report.ts'
import { complaint, kindOf, type Rule } from '../rules/rule.ts'
import type { SecretCheck } from '../rules/secret-rules.ts'
import { Secret } from '../secrets/secret.ts'
import type { SecretReader, SecretSource } from '../secrets/secret-source.ts'

/** One field that breaks the schema. */
export type SchemaIssue = {
  path: FieldPath
  message: string
  half: Half
  /** The field that an unknown key was most likely meant for. */
  meant?: FieldPath
}

/** The kinds of field a config file is made of, each with its messages and its part of the JSON Schema. */
export type FieldKit = ReturnType<typeof createFieldKit>

/** What a schema made of kit fields gives for a file, and the same with every field that is wrong or missing left out. */
export type Fields<Schema extends z.ZodType> = z.output<Schema>
export type DraftOf<T> = DeepPartial<T>

/** Checks every field by itself. `file` is there only when there are no issues. */
export function readFields<Schema extends z.ZodType>(
  schema: Schema,
  raw: unknown,
): {
  file: Fields<Schema> | undefined
  draft: DraftOf<Fields<Schema>>
  issues: SchemaIssue[]
} {
  const result = schema.safeParse(raw)
  if (result.success) return { file: result.data, draft: result.data as DraftOf<Fields<Schema>>, issues: [] }
  const draft = (draftOf(schema).parse(raw) ?? {}) as DraftOf<Fields<Schema>>
  return { file: undefined, draft, issues: result.error.issues.flatMap(toSchemaIssues) }
}

/** The JSON Schema (2020-12) of a file as operators write it. */
export function jsonSchemaOf(schema: z.ZodType): Record<string, unknown> {
  return z.toJSONSchema(schema, { io: 'input' })
}

const SECRET_FORMS = '{ env: NAME } or { file: PATH }'

const SECRET_SOURCE = z
  .union([z.strictObject({ file: z.string() }), z.strictObject({ env: z.string() }), z.string()], {
    error: ({ input }) => `must be ${SECRET_FORMS}${kindOf(input)}${unknownSecretKey(input)}`,
  })
  .meta({
    id: 'secret',
    description:
      'A file (read again when it changes), an environment variable, or the text itself (warned about).',
  })

/** The kinds of field of one reading: `secrets` opens what the file names. */
export function createFieldKit(secrets: SecretReader) {
  return {
    text,
    scalar,
    section,
    choice,
    listOf,
    list: <T>(rule: Rule<T>, description: string) =>
      listOf(text(rule, 'Such as the example.'), `[${rule.example}]`).describe(description),
    map: <V extends z.ZodType>(value: V, example: string, description: string) =>
      z
        .record(z.string(), value, {
          error: ({ input }) => `must be a block of keys${kindOf(input)}, e.g. ${example}`,
        })
        .describe(description),
    flag: (description: string) =>
      z.boolean({ error: complaint('must be true or false') }).meta({ description }),
    wholeNumber,
    flagOrAuto: (description: string) =>
      z
        .union([z.boolean(), z.literal('auto')], { error: () => complaint('must be true, false or auto') })
        .meta({
          description,
        }),
    claimsOrNobody: (description: string) =>
      z
        .union([z.literal('nobody'), z.record(z.string(), z.unknown())], {
          error: () => complaint('must be claims of a user, or nobody', '{ groups: [staff] }'),
        })
        .meta({ description }),
    constant: <const T extends string>(value: T) => z.literal(value),
    oneOf,
    secret: (check: SecretCheck, description: string) =>
      opened((secret) => secret, { secrets, check, description }),
    publicText: (check: SecretCheck, description: string) =>
      opened((secret) => secret.reveal(), { secrets, check, description }),
    /** Public, and read again when its file changes; another object than the reader's, because inline it is no secret. */
    publicSource: (check: SecretCheck, description: string) =>
      opened((secret) => new Secret(() => secret.reveal()), { secrets, check, description }),
    /** The absolute path of a file that is read at each use. */
    assertionFile: (description: string) =>
      z
        .string({ error: complaint('must be the path of a file', ASSERTION_FILE) })
        .meta({ examples: [ASSERTION_FILE], description })
        .optional()
        .transform((written, context): string => {
          const found = secrets.assertionFile(written)
          if (typeof found === 'string') return found
          context.addIssue({ code: 'custom', message: found.problem })
          return z.NEVER
        }),
  }
}

const ASSERTION_FILE = '/var/run/secrets/azure/tokens/azure-identity-token'

function text<T>(rule: Rule<T>, description: string) {
  return (
    z
      .string({ error: ({ input }) => unquoted(rule, input) ?? complaint(rule.must, rule.example) })
      // On the text and not on its value: the JSON Schema is of what operators write.
      .meta({ examples: [rule.example] })
      .transform((written, context): T => {
        const value = rule.parse(written)
        if (value !== undefined) return value
        const message = complaint(rule.because?.(written) ?? rule.must, rule.example)
        context.addIssue({ code: 'custom', message })
        return z.NEVER
      })
      .meta({ description })
  )
}

/** A number or a boolean that would be right as text. */
function unquoted<T>(rule: Rule<T>, input: unknown): string | undefined {
  if (typeof input !== 'number' && typeof input !== 'boolean') return undefined
  if (rule.must.includes('in quotes') || rule.parse(String(input)) === undefined) return undefined
  return complaint(`must be text: put it in quotes, because YAML takes it for a ${typeof input}`)
}

/** Text, or a number or boolean that YAML made of it. Never shown in a message: some hold what the operator would not print. */
function scalar<T>(rule: Rule<T>) {
  return z
    .union([z.string(), z.number(), z.boolean()], { error: ({ input }) => `${rule.must}${kindOf(input)}` })
    .transform((written, context): T => {
      // A long id that is read as a number has lost its last digits.
      if (Number.isInteger(written) && !Number.isSafeInteger(written)) {
        context.addIssue({ code: 'custom', message: 'must be in quotes: it is too long for a number' })
        return z.NEVER
      }
      const value = rule.parse(String(written))
      if (value !== undefined) return value
      const must = rule.because?.(String(written)) ?? rule.must
      context.addIssue({ code: 'custom', message: `${must}, e.g. ${rule.example}` })
      return z.NEVER
    })
}

function wholeNumber(range: { min: number; max: number; example: number }, description: string) {
  const { min, max, example } = range
  const error = complaint(`must be a whole number from ${min} to ${max}`, String(example))
  return z.int({ error }).min(min, { error }).max(max, { error }).meta({ description })
}

function section<S extends z.ZodRawShape>(shape: S, example?: string) {
  const known = Object.keys(shape)
  const such = example === undefined ? '' : `, e.g. ${example}`
  return z.strictObject(shape, {
    error: (issue) =>
      issue.code === 'unrecognized_keys'
        ? issue.keys.map((key) => unknownKey(key, known)).join('\n')
        : `must be a block of keys (${known.join(', ')})${kindOf(issue.input)}${such}`,
  })
}

function unknownKey(key: string, known: readonly string[]): string {
  return `is not a known key${didYouMean(key, known) || `; known here: ${known.join(', ')}`}`
}

function choice<const V extends readonly string[]>(values: V, description: string) {
  return z
    .enum(values, {
      error: ({ input }) => complaint(`must be ${anyOf(values)}`) + didYouMean(String(input), values),
    })
    .meta({ description })
}

function oneOf<
  Key extends string,
  const Options extends readonly [z.core.$ZodTypeDiscriminable, ...z.core.$ZodTypeDiscriminable[]],
>(key: Key, options: Options, { values, example }: { values: readonly string[]; example: string }) {
  return z.discriminatedUnion(key, options, {
    error: ({ code, input }) => {
      if (code !== 'invalid_union') return `must be a block of keys${kindOf(input)}, e.g. ${example}`
      const written = String((input as Record<string, unknown>)[key])
      return complaint(`must be ${anyOf(values)}`) + didYouMean(written, values)
    },
  })
}

function listOf<T extends z.ZodType>(item: T, example: string) {
  return z.array(item, {
    error: ({ code, input }: { code?: string; input?: unknown }) =>
      code === 'too_small'
        ? `must not be empty, e.g. ${example}`
        : `must be a list${kindOf(input)}, e.g. ${example}`,
  })
}

type SecretField = { secrets: SecretReader; check: SecretCheck; description: string }

function opened<T>(use: (secret: Secret) => T, { secrets, check, description }: SecretField) {
  return SECRET_SOURCE.transform((source: SecretSource, context): T => {
    const secret = secrets.open(source, check)
    if (secret instanceof Secret) return use(secret)
    context.addIssue({ code: 'custom', message: secret.problem })
    return z.NEVER
  }).meta({ description })
}

/** What others call a secret's file or variable. */
const OTHER_WORDS: Readonly<Record<string, string>> = {
  path: 'file',
  filename: 'file',
  name: 'env',
  var: 'env',
  variable: 'env',
}

function unknownSecretKey(input: unknown): string {
  const keys = typeof input === 'object' && input !== null ? Object.keys(input) : []
  if (keys.includes('env') && keys.includes('file')) return ': one of them, not both'
  const hintFor = (key: string) =>
    Object.hasOwn(OTHER_WORDS, key)
      ? ` (did you mean "${OTHER_WORDS[key]}"?)`
      : didYouMean(key, ['env', 'file'])
  return keys.map(hintFor).find((hint) => hint !== '') ?? ''
}

function anyOf(values: readonly string[]): string {
  return values.length === 1 ? values[0]! : `${values.slice(0, -1).join(', ')} or ${values.at(-1)}`
}

const drafts = new WeakMap<z.ZodType, z.ZodType>()

/** Made once for each schema. */
function draftOf(schema: z.ZodType): z.ZodType {
  const made = drafts.get(schema) ?? tolerant(schema)
  drafts.set(schema, made)
  return made
}

/** The schema with every field optional, and every wrong one read as absent. */
function tolerant(schema: z.ZodType): z.ZodType {
  if (schema instanceof z.ZodOptional) return tolerant(schema.unwrap() as z.ZodType)
  if (schema instanceof z.ZodPrefault) {
    return tolerant(schema.unwrap() as z.ZodType).prefault(schema.def.defaultValue)
  }
  return lenient(schema).optional().catch(undefined)
}

function lenient(schema: z.ZodType): z.ZodType {
  if (schema instanceof z.ZodObject) {
    const fields = Object.entries(schema.shape).map(([name, field]) => [name, tolerant(field as z.ZodType)])
    return z.object(Object.fromEntries(fields))
  }
  if (schema instanceof z.ZodArray) return z.array(tolerant(schema.element as z.ZodType))
  if (schema instanceof z.ZodRecord) return z.record(z.string(), tolerant(schema.valueType as z.ZodType))
  return schema
}

function toSchemaIssues(issue: z.core.$ZodIssue): SchemaIssue[] {
  const path = issue.path.map((step) => (typeof step === 'number' ? step : String(step)))
  if (issue.code !== 'unrecognized_keys') return [{ path, message: issue.message, half: 'value' }]
  const messages = issue.message.split('\n')
  return issue.keys.map((key, index) => {
    const message = messages[index]!
    const [, name] = /\(did you mean "([^"]+)"\?\)$/.exec(message) ?? []
    return { path: [...path, key], message, half: 'key', ...(name ? { meant: [...path, name] } : {}) }
  })
}

type DeepPartial<T> = T extends Secret | URL
  ? T
  : T extends readonly (infer Item)[]
    ? (DeepPartial<Item> | undefined)[]
    : T extends object
      ? { [Key in keyof T]?: DeepPartial<T[Key]> }
      : T
