import { createExpiringMap } from '../../async/expiring-map.ts'
import { singleFlight } from '../../async/single-flight.ts'
import { BffError } from '../../errors.ts'
import {
  isVerifiedBy,
  type JsonWebKey,
  keysThatFit,
  maySignFor,
  signatureHeaderOf,
  unverifiedKeyId,
} from './jwt.ts'
import { unavailable } from './provider-errors.ts'

/** The provider's signing keys (OpenID Connect Core §10.1). */
export type ProviderKeys = {
  /**
   * Throws unless one of the keys at `jwksUri` verifies the signature of this JWS, made by one of `algorithms` where they
   * are given: a plain Error that names the rule (an UnreadKeysError where a newer key might verify it), or provider_unavailable or provider_rejected when the keys cannot be read.
   */
  requireSigned(
    jws: string,
    jwksUri: string | undefined,
    algorithms?: readonly string[] | undefined,
  ): Promise<void>
}

/** No key that is known verifies a signature, and it is too early to read the keys again: a newer one might. */
export class UnreadKeysError extends Error {
  /** Whether the set has a key of the name that the token says. */
  readonly isKeyKnown: boolean

  constructor(message: string, isKeyKnown: boolean) {
    super(message)
    this.name = 'UnreadKeysError'
    this.isKeyKnown = isKeyKnown
  }
}

export type ProviderKeysDeps = {
  /** Asks for a key set; rejects with a TypeError when no answer comes. */
  readonly read: (jwksUri: string) => Promise<Response>
  readonly monotonicNow: () => number
}

type KeySet = {
  readonly keys: readonly JsonWebKey[]
  readonly readAt: number
  /** Whether the wait for the next read was decided: by the first token that this set was tried for. */
  isWeighed: boolean
}

/** A key that the provider has taken out of its set is not trusted for longer than this, unless the set cannot be read. */
const FRESH_MS = 300_000
/** And then not for longer than this. */
const STALE_MS = 3_600_000
/** Rests after a read that did not help, and after one that failed. */
const USELESS = { minMs: 10_000, maxMs: 60_000 }
const FAILED = { minMs: 2_000, maxMs: 30_000 }

const UNVERIFIED = 'no key of the provider verifies the signature of the token'

/** What was last read of a key set. */
export type KeysRead = {
  readonly count: number
  readonly ageMs: number
}

/** Makes the keys of one provider, read when they are first needed. */
export function createProviderKeys(
  deps: ProviderKeysDeps,
): ProviderKeys & { lastRead(): KeysRead | undefined } {
  let known: ReturnType<typeof createKeySource> | undefined

  return {
    lastRead: () => known?.lastRead(),
    async requireSigned(jws, jwksUri, algorithms) {
      if (!jwksUri) throw unusable('the authorization server names no jwks_uri')
      if (known?.jwksUri !== jwksUri) known = createKeySource(jwksUri, deps)
      const source = known
      const header = signatureHeaderOf(jws)
      if (algorithms && !algorithms.includes(header.alg)) {
        throw new Error('the token is signed with another algorithm than the provider signs its tokens with')
      }
      const set = await source.current()
      if (await source.verifies(set, jws, header)) return
      const wasReadForThis = !set.isWeighed
      const newer = await source.newerThan(set)
      if (newer && (await source.verifies(newer, jws, header))) return
      if (newer) source.weigh(newer, false)
      if (newer || wasReadForThis) throw new Error(UNVERIFIED)
      throw new UnreadKeysError(
        UNVERIFIED,
        set.keys.some(({ kid }) => kid === header.kid),
      )
    },
  }
}

/** For how long a key that no read found is said to be none of the provider's, and how many of these are remembered. */
const STRANGE_MS = 60_000
const MAX_STRANGE_KEYS = 1_000

/**
 * The same keys for messages whose sender sends them again when it is told so: throws `provider_unavailable` in place of
 * an UnreadKeysError for a key that may be new, because a message that is refused is lost. Forged ones, which keep the set
 * from being read again, would else make every message under a new key be refused.
 */
export function createMessageKeys(
  keys: ProviderKeys,
  { monotonicNow }: Pick<ProviderKeysDeps, 'monotonicNow'>,
): ProviderKeys {
  const strangeKeys = createExpiringMap<string, true>({ monotonicNow, max: MAX_STRANGE_KEYS })

  function isPossiblyNew(jws: string, error: unknown): boolean {
    const keyId = unverifiedKeyId(jws)
    if (!(error instanceof UnreadKeysError)) {
      if (keyId !== undefined) strangeKeys.set(keyId, true, STRANGE_MS)
      return false
    }
    return keyId !== undefined && !error.isKeyKnown && !strangeKeys.get(keyId)
  }

  return {
    async requireSigned(jws, ...more) {
      try {
        await keys.requireSigned(jws, ...more)
      } catch (error) {
        throw !(error instanceof BffError) && isPossiblyNew(jws, error) ? unavailable(error) : error
      }
    },
  }
}

/**
 * One key set. It is read again at once for a token that no key of it verifies, because the provider may have a new key,
 * even one under an old kid. After a read that did not help the set is not read for 10 s, doubling to 60 s; one that helped ends that. This
 * bounds the reads that tokens signed with unknown keys can cause. A set that cannot be read is asked for again after 2 s,
 * doubling to 30 s.
 */
function createKeySource(jwksUri: string, { read, monotonicNow }: ProviderKeysDeps) {
  let set: KeySet | undefined
  let failure: unknown
  let restMs = 0
  let restUntil = Number.NEGATIVE_INFINITY

  function rest({ minMs, maxMs }: typeof FAILED): void {
    restMs = Math.min(maxMs, Math.max(minMs, restMs * 2))
    restUntil = monotonicNow() + restMs
  }

  /** The set as a new read gives it; everybody who asks meanwhile shares that. */
  const reread = singleFlight(async (): Promise<KeySet> => {
    try {
      set = { keys: await keysOf(read(jwksUri)), readAt: monotonicNow(), isWeighed: false }
      failure = undefined
      return set
    } catch (error) {
      failure = error
      rest(FAILED)
      throw error
    }
  })

  /** The first token that a set was read for tells whether the read helped. */
  function weigh(tried: KeySet, hasHelped: boolean): void {
    if (tried.isWeighed) return
    tried.isWeighed = true
    if (!hasHelped) {
      rest(USELESS)
      return
    }
    restMs = 0
    restUntil = Number.NEGATIVE_INFINITY
  }

  return {
    jwksUri,
    weigh,
    lastRead: (): KeysRead | undefined =>
      set && { count: set.keys.length, ageMs: monotonicNow() - set.readAt },

    async current(): Promise<KeySet> {
      const age = set ? monotonicNow() - set.readAt : Number.POSITIVE_INFINITY
      if (set && age < FRESH_MS && age >= 0) return set
      const isResting = monotonicNow() < restUntil
      if (set && age < STALE_MS) return isResting ? set : reread().catch(() => set!)
      if (isResting && failure) throw failure
      return reread()
    },

    async verifies(
      tried: KeySet,
      jws: string,
      header: ReturnType<typeof signatureHeaderOf>,
    ): Promise<boolean> {
      for (const key of keysThatFit(tried.keys, header)) {
        if (!maySignFor(key, jws)) continue
        if (!(await isVerifiedBy(key, jws, header.alg))) continue
        weigh(tried, true)
        return true
      }
      return false
    },

    /** What a read after `tried` gave; undefined when there was none, and it is too early for one. */
    async newerThan(tried: KeySet): Promise<KeySet | undefined> {
      if (set && set !== tried) return set
      // It was read just now, for this very token.
      if (!tried.isWeighed) return void weigh(tried, false)
      if (monotonicNow() < restUntil) {
        if (failure) throw failure
        return undefined
      }
      return reread()
    },
  }
}

/** The keys of an answer (RFC 7517 §5): members that are none are passed over, as §5 asks for keys that are not understood. */
export async function keysOf(read: Promise<Response>): Promise<readonly JsonWebKey[]> {
  const answer = await read.catch((error) => {
    throw unavailable(error)
  })
  const { status } = answer
  if (status !== 200) {
    const isPassing = status >= 500 || status === 429 || status === 408
    if (isPassing) throw unavailable(new Error(`the key set was answered with status ${status}`))
    throw unusable(`the key set of the authorization server was answered with status ${status}`)
  }
  const set: unknown = await answer.json().catch(() => undefined)
  const keys = typeof set === 'object' && set !== null && 'keys' in set ? set.keys : undefined
  // A page of some gateway, for example.
  if (!Array.isArray(keys)) throw unavailable(new Error('the key set was answered without keys'))
  return keys.filter((key) => typeof key === 'object' && key !== null)
}

function unusable(message: string): BffError {
  return new BffError('provider_rejected', message, { logged: { step: 'keys' } })
}
