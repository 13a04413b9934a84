import type { LoginRecords } from '../../../src/store/port.ts'

/** Sealed login records in a map that a test can look into, with the time that each was put for. */
export function loginRecordsInSight() {
  const kept = new Map<string, { value: string; ttlMs: number }>()
  /** Keys that were read or taken, in order. */
  const asked: string[] = []
  const failure: { error: Error | undefined } = { error: undefined }

  /** All in one step, as every store does it. */
  async function read(key: string, isTaken = false): Promise<string | undefined> {
    if (failure.error) throw failure.error
    asked.push(key)
    const value = kept.get(key)?.value
    if (isTaken) kept.delete(key)
    return value
  }
  const records: LoginRecords = {
    async put(key, value, ttlMs) {
      if (failure.error) throw failure.error
      kept.set(key, { value, ttlMs })
    },
    read: (key) => read(key),
    take: (key) => read(key, true),
  }
  /** A seal that is easy to see through, and opens with its secret only. */
  const seal = (secret: string, plaintext: string) => JSON.stringify({ sealedUnder: secret, plaintext })
  function open(secret: string, sealed: string): string | undefined {
    const { sealedUnder, plaintext } = JSON.parse(sealed)
    return sealedUnder === secret ? plaintext : undefined
  }
  return { deps: { records, seal, open }, kept, asked, failure }
}
