/** What one text field accepts, in the operator's words. */
export type Rule<T> = {
  /** Completes "FIELD: …", e.g. `must be a duration with its unit`. */
  readonly must: string
  /** A right value, shown after `e.g.`. */
  readonly example: string
  /** The field's value, or undefined when the text breaks the rule. */
  readonly parse: (text: string) => T | undefined
  /** Says more precisely what is wrong with a text that `parse` refused; undefined falls back to `must`. */
  readonly because?: (text: string) => string | undefined
}

// Marks where the value goes into the message. No message contains a NUL otherwise.
const GOT = '\u0000'

/** A message that will name the value that was read: `must be X (got Y), e.g. Z`. */
export function complaint(must: string, example?: string): string {
  return `${must}${GOT}${example === undefined ? '' : `, e.g. ${example}`}`
}

/** ` (got a list)`: what kind of thing was read, for fields whose value might be a secret; empty when nothing was. */
export function kindOf(value: unknown): string {
  if (value === undefined) return ''
  if (value === null) return ' (got nothing)'
  if (Array.isArray(value)) return ' (got a list)'
  return ` (got ${typeof value === 'object' ? 'a block of keys' : `a ${typeof value}`})`
}

/** The same message for a field that is not there: `is required: X, e.g. Z`. */
export function required(message: string): string {
  return message.replace(/^must (be |hold )?/, 'is required: ').replace(GOT, '')
}

/** Fills the value into a complaint, as it is written in the file; undefined leaves it out. */
export function finishComplaint(message: string, written: unknown): string {
  return message.replace(GOT, () => (written === undefined ? '' : shown(written)))
}

function shown(value: unknown): string {
  if (typeof value !== 'string') return typeof value === 'object' ? kindOf(value) : ` (got ${value})`
  // What stands before an @ in a URL is a user name and password.
  const safe = value.replace(/^(\w+:\/\/)?.*@/s, '$1[redacted]@')
  return ` (got ${JSON.stringify(safe.length > 80 ? `${safe.slice(0, 77)}...` : safe)})`
}
