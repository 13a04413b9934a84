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

  /** Nothing that was read: only without `requireSecrets` there are such secrets. */
  get isAbsent(): boolean {
    return this.#read() === ''
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

/** One 256-bit session key: 32 bytes. */
export type SessionKeyBytes = Buffer

/** The 32 bytes of a session key, base64url or base64, already checked; prints, inspects and serialises as `[redacted]`. */
export function sessionKeyBytes(secret: Secret): SessionKeyBytes {
  const bytes = Buffer.from(secret.reveal(), 'base64')
  const redacted = { value: () => REDACTED }
  return Object.defineProperties(bytes, { toJSON: redacted, toString: redacted, [inspect.custom]: redacted })
}
