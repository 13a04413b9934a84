import { inspect } from 'node:util'

const REDACTED = '[redacted]'

/** A secret text that prints, inspects and serialises as `[redacted]`; only `reveal()` gives the value. */
export class Secret {
  readonly #read: () => string

  constructor(value: string | (() => string)) {
    this.#read = typeof value === 'string' ? () => value : value
  }

  /** The secret itself; a file-backed one is read again when the file changed. */
  reveal(): string {
    return this.#read()
  }

  toString(): string {
    return REDACTED
  }

  toJSON(): string {
    return REDACTED
  }

  [inspect.custom](): string {
    return REDACTED
  }
}
