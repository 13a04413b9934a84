import type { Clock } from '../../async/clock.ts'
import type { Config } from '../../config/config.ts'
import type { DevSession, SessionControl } from '../../demo/dev/switches.ts'
import { LOGIN_LIFETIME_MS } from '../../oidc/sign-in/attempts.ts'
import { createUserSessions } from '../../session/session-index.ts'
import { createMemoryStore, type MemoryContents, type MemoryStore } from '../../store/memory/memory-store.ts'
import type { Store, StoreTimes } from '../../store/port.ts'
import { bindToGrants, createIndexPseudonyms, createSealing } from '../../tokens/record/sealing.ts'

/** A memory store that tells of every use, so that its contents can be written down soon after. */
export function createNotedStore(
  times: StoreTimes,
  options: {
    readonly contents: MemoryContents | undefined
    readonly used: () => void
    readonly closing: () => void
  },
): MemoryStore {
  const store = createMemoryStore(times, { contents: options.contents })
  return {
    ...store,
    sessions: noted(store.sessions, options.used),
    tokens: noted(store.tokens, options.used),
    logins: noted(store.logins, options.used),
    close() {
      options.closing()
      return store.close()
    },
  }
}

function noted<T extends object>(records: T, used: () => void): T {
  const entries = Object.entries(records).map(([name, method]) => [
    name,
    (...args: unknown[]) => {
      used()
      return method(...args)
    },
  ])
  return Object.fromEntries(entries)
}

/** Takes away from each life what passed between the writing and now. */
export function agedContents(contents: MemoryContents, elapsedMs: number): MemoryContents {
  return {
    sessions: contents.sessions.map((session) => ({
      ...session,
      leftMs: session.leftMs - elapsedMs,
      ...(session.endsInMs === undefined ? {} : { endsInMs: session.endsInMs - elapsedMs }),
    })),
    logins: contents.logins.map((login) => ({ ...login, leftMs: login.leftMs - elapsedMs })),
  }
}

/** The sessions of persons, found by their `sub` as a sign-out from elsewhere finds them. */
export function createSessionControl({
  config,
  store,
  persons,
  clock,
}: {
  readonly config: Config
  readonly store: Pick<Store, 'sessions' | 'tokens' | 'index' | 'endings'> & Pick<MemoryStore, 'shorten'>
  /** Every `sub` that may have one. */
  readonly persons: () => readonly string[]
  readonly clock: Clock
}): SessionControl {
  const sealing = bindToGrants(createSealing(config.session.keys), config)
  const sessions = createUserSessions({
    ...{ store, pseudonyms: createIndexPseudonyms(config.session.keys), signInLifetimeMs: LOGIN_LIFETIME_MS },
    sealAbout: (hash, text) => sealing.seal({ id: hash, kind: 'about' }, text),
    openAbout: (hash, sealed) => sealing.open({ id: hash, kind: 'about' }, sealed),
    ended() {},
    now: clock.now,
  })
  const iss = config.provider.issuer
  const meant = (person?: string) => (person === undefined ? persons() : [person])
  const hashesOf = async (person?: string) =>
    (await Promise.all(meant(person).map((sub) => sessions.find({ iss, sub })))).flat()

  async function listOf(person: string): Promise<DevSession[]> {
    const listed = await sessions.list({ iss, sub: person })
    return Promise.all(
      listed.map(async ({ hash, userAgent = '' }) => ({
        ...{ person, id: hash.slice(0, 12), userAgent },
        idleSeconds: Math.round(((await store.sessions.timeLeft(hash)) ?? 0) / 1000),
      })),
    )
  }

  return {
    list: async () => (await Promise.all(persons().map(listOf))).flat(),
    async end(person) {
      const hashes = await hashesOf(person)
      for (const hash of hashes) await store.sessions.end(hash)
      return hashes.length
    },
    async shorten(seconds, person) {
      const hashes = await hashesOf(person)
      for (const hash of hashes) store.shorten(hash, seconds * 1000)
      return hashes.length
    },
    async forgetAccessTokens(person) {
      const hashes = await hashesOf(person)
      for (const hash of hashes) await store.tokens.forgetAll(hash)
      return hashes.length
    },
  }
}
