import { createHash, randomBytes } from 'node:crypto'
import type { LoginRecords } from '../../store/port.ts'

/** Short-lived records that only the holder of their handle can find and open. */
export type HandlesDeps = {
  readonly records: LoginRecords
  readonly seal: (handle: string, plaintext: string) => string
  /** Undefined when nothing opens it. */
  readonly open: (handle: string, sealed: string) => string | undefined
}

/** Values that go through the browser as an opaque handle: what they are stays with us. */
export type Handles<T> = {
  /** Keeps a value; resolves with its new handle, 256 random bits. */
  keep(value: T): Promise<string>
  /** Keeps a value under a secret that the browser or the provider knows already. */
  keepUnder(handle: string, value: T): Promise<void>
  /** What a handle stands for, which stays good; undefined when it is unknown, spent or too old. */
  look(handle: unknown): Promise<T | undefined>
  /** The same, and the handle is spent: of two who ask at once, one gets the value. */
  take(handle: unknown): Promise<T | undefined>
}

/** @param kind keeps handles for different things apart: one is never good for another. */
export function createHandles<T>(
  { records, seal, open }: HandlesDeps,
  { kind, lifetimeMs }: { kind: string; lifetimeMs: number },
): Handles<T> {
  const keyOf = (handle: string) => createHash('sha256').update(`${kind} ${handle}`).digest('base64url')

  async function found(
    handle: unknown,
    read: (key: string) => Promise<string | undefined>,
  ): Promise<T | undefined> {
    // Nothing else was ever given out; a look at the store is not free.
    if (typeof handle !== 'string' || !/^[\w-]{43}$/.test(handle)) return undefined
    const sealed = await read(keyOf(handle))
    const text = sealed === undefined ? undefined : open(handle, sealed)
    return text === undefined ? undefined : (JSON.parse(text) as T)
  }

  function keepUnder(handle: string, value: T): Promise<void> {
    return records.put(keyOf(handle), seal(handle, JSON.stringify(value)), lifetimeMs)
  }

  return {
    async keep(value) {
      const handle = randomBytes(32).toString('base64url')
      await keepUnder(handle, value)
      return handle
    },
    keepUnder,
    look: (handle) => found(handle, records.read),
    take: (handle) => found(handle, records.take),
  }
}
