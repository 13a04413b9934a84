import { createHash, randomBytes } from 'node:crypto'
import type { LoginRecords } from '../../store/port.ts'

/** Short-lived records that only the holder of their reference can find and open. */
export type SingleUseReferencesDeps = {
  readonly records: LoginRecords
  readonly seal: (reference: string, plaintext: string) => string
  /** Undefined when nothing opens it. */
  readonly open: (reference: string, sealed: string) => string | undefined
}

/** Values that the browser carries as an opaque reference, while the values themselves stay in the store. */
export type SingleUseReferences<T> = {
  /** Stores a value; resolves with a new reference to it, 256 random bits. */
  keep(value: T): Promise<string>
  /** Reads a value, whose reference stays good; undefined when the reference is unknown, used or too old. */
  look(reference: unknown): Promise<T | undefined>
  /** Reads a value and uses its reference up: of two concurrent callers, one gets the value. */
  take(reference: unknown): Promise<T | undefined>
}

/** Makes references of one kind. @param kind keeps references apart: one of a kind is never good for another. */
export function createSingleUseReferences<T>(
  { records, seal, open }: SingleUseReferencesDeps,
  { kind, lifetimeMs }: { kind: string; lifetimeMs: number },
): SingleUseReferences<T> {
  const keyOf = (reference: string) => createHash('sha256').update(`${kind} ${reference}`).digest('base64url')

  async function found(
    reference: unknown,
    read: (key: string) => Promise<string | undefined>,
  ): Promise<T | undefined> {
    // Checks the form first, because a look at the store is not free.
    if (typeof reference !== 'string' || !/^[\w-]{43}$/.test(reference)) return undefined
    const sealed = await read(keyOf(reference))
    const text = sealed === undefined ? undefined : open(reference, sealed)
    return text === undefined ? undefined : (JSON.parse(text) as T)
  }

  return {
    async keep(value) {
      const reference = randomBytes(32).toString('base64url')
      await records.put(keyOf(reference), seal(reference, JSON.stringify(value)), lifetimeMs)
      return reference
    },
    look: (reference) => found(reference, records.read),
    take: (reference) => found(reference, records.take),
  }
}
