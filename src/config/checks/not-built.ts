import type { Field } from '../report/report.ts'

/** A part of the public contract that this version does not have yet: using it is an error, never silently ignored. */
type NotBuilt = {
  /** `*` stands for every item of a list and every name of a block. */
  readonly field: string
  /** The values that are not built; absent = the field as a whole. */
  readonly values?: readonly string[]
  /** What works today. */
  readonly instead: string
  /** A field that would otherwise be reported as missing. */
  readonly excuses?: string
}

// A feature that gets built deletes its line here and adds its fields to the schema.
const NOT_BUILT: readonly NotBuilt[] = [
  { field: 'session.store.cluster', instead: 'a single "url" is', excuses: 'session.store.url' },
  { field: 'session.store.sentinels', instead: 'a single "url" is', excuses: 'session.store.url' },
  { field: 'session.store.masterName', instead: 'a single "url" is', excuses: 'session.store.url' },
]

/** Reports every use of what is not built yet. `raw` is the file as plain values. */
export function checkNotBuilt(raw: unknown, root: Field): void {
  for (const { field, values, instead, excuses } of NOT_BUILT) {
    for (const found of fieldsAt(raw, field.split('.'), root)) {
      if (values !== undefined && !values.includes(found.value as string)) continue
      const what = values === undefined ? '' : `"${found.value}" is `
      found.field.problem(`${what}not supported by this version yet; ${instead}`)
      if (excuses !== undefined) root.at(...excuses.split('.')).excuse()
    }
  }
}

function fieldsAt(
  value: unknown,
  steps: readonly string[],
  field: Field,
): { field: Field; value: unknown }[] {
  const [step, ...rest] = steps
  if (step === undefined) return [{ field, value }]
  if (typeof value !== 'object' || value === null) return []
  return Object.entries(value)
    .filter(([name]) => step === '*' || step === name)
    .flatMap(([name, child]) => fieldsAt(child, rest, field.at(Array.isArray(value) ? Number(name) : name)))
}
