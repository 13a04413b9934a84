import type { SealedTokens, TokenRecords, TokenWrite } from '../../src/store/port.ts'
import type { Mutation } from './configuration.ts'

/** The store takes every write, whatever version it names. */
export const ignoredVersion: Mutation = {
  store: (tokens) => ({
    ...tokens,
    async write(hash, change) {
      const expectedVersion = (await tokens.read(hash))?.version ?? change.expectedVersion
      return tokens.write(hash, { ...change, expectedVersion })
    },
  }),
}

/** A beginning is fenced by its version, the writes after it are not. */
export const unfencedWrites: Mutation = {
  store: (tokens) => ({
    ...tokens,
    async write(hash, change) {
      if (change.attempt?.startsWith('open:')) return tokens.write(hash, change)
      const expectedVersion = (await tokens.read(hash))?.version ?? change.expectedVersion
      return tokens.write(hash, { ...change, expectedVersion })
    },
  }),
}

/** The mark does not say whose it is, so that two beginnings are word for word the same. */
export const anonymousMark: Mutation = {
  store: (tokens) => ({
    ...tokens,
    write: (hash, change) =>
      tokens.write(hash, change.attempt?.startsWith('open:') ? { ...change, attempt: 'open:' } : change),
  }),
}

/** The store does not say that a session has ended, only that somebody else wrote. */
export const silentEnd: Mutation = {
  store: (tokens) => ({
    ...tokens,
    async write(hash, change) {
      const outcome = await tokens.write(hash, change)
      return outcome === 'gone' ? 'superseded' : outcome
    },
  }),
}

/** The refresh lock is anybody's. */
export const noLock: Mutation = {
  store: (tokens) => ({ ...tokens, lock: async () => true }),
}

/** Whoever has the lock does not look whether a refresh attempt is in flight. */
export const ignoredMark: Mutation = {
  replica: (records) => ({
    ...records,
    async read(hash) {
      const record = await records.read(hash)
      if (!record) return undefined
      const { attempt: _, ...others } = record
      return others
    },
  }),
}

/** The rotated refresh token is stored after the access token, and the mark goes with the latter. */
export const rotatedTokenLast: Mutation = {
  replica(records) {
    let rotated: TokenWrite | undefined
    return {
      ...records,
      async write(hash, change) {
        if (change.refreshToken) {
          rotated = change
          return 'written'
        }
        if (!rotated) return records.write(hash, change)
        const { expectedVersion, refreshToken } = rotated
        rotated = undefined
        const outcome = await records.write(hash, { ...change, expectedVersion })
        if (outcome !== 'written') return outcome
        return records.write(hash, { expectedVersion: expectedVersion + 1, refreshToken })
      },
    }
  },
}

/** What was read before the lock is believed under it. */
export const noLookUnderLock: Mutation = {
  replica(records) {
    let before: SealedTokens | undefined
    let owner: string | undefined
    return {
      ...records,
      async read(hash) {
        if (owner !== undefined && before) return before
        before = await records.read(hash)
        return before
      },
      async lock(hash, name, ttlMs) {
        const isTaken = await records.lock(hash, name, ttlMs)
        if (isTaken) owner = name
        return isTaken
      },
      async unlock(hash, name) {
        await records.unlock(hash, name)
        if (owner === name) owner = undefined
      },
    } satisfies TokenRecords
  },
}
