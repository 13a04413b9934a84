/** The members this memory looks at of what the library stores. */
type Payload = { grantId?: string; uid?: string; consumed?: unknown }

type Entry = { readonly payload: Payload; readonly expiresAt: number }

type Memory = {
  upsert(id: string, payload: Payload, expiresInSeconds?: number): Promise<void>
  find(id: string): Promise<Payload | undefined>
  findByUid(uid: string): Promise<Payload | undefined>
  findByUserCode(userCode: string): Promise<undefined>
  consume(id: string): Promise<void>
  destroy(id: string): Promise<void>
  revokeByGrantId(grantId: string): Promise<void>
}

const SWEEP_EVERY = 1000

/**
 * Where the demo's identity provider keeps its sessions, codes and tokens: maps in this process.
 * The library's own in-memory adapter forgets the oldest entries beyond a thousand, which would end sessions at random.
 */
export function createProviderMemory(): (model: string) => Memory {
  const entries = new Map<string, Entry>()
  const keysByGrant = new Map<string, Set<string>>()
  const keyByUid = new Map<string, string>()
  let writes = 0

  const live = (key: string | undefined) => {
    const entry = key === undefined ? undefined : entries.get(key)
    return entry && entry.expiresAt > Date.now() ? entry.payload : undefined
  }

  const remove = (key: string) => {
    const { grantId, uid } = entries.get(key)?.payload ?? {}
    entries.delete(key)
    if (uid && keyByUid.get(uid) === key) keyByUid.delete(uid)
    const keys = grantId ? keysByGrant.get(grantId) : undefined
    keys?.delete(key)
    if (grantId && keys?.size === 0) keysByGrant.delete(grantId)
  }

  const sweep = () => {
    const now = Date.now()
    for (const [key, entry] of entries) if (entry.expiresAt <= now) remove(key)
  }

  return (model) => ({
    async upsert(id, payload, expiresInSeconds) {
      if (++writes % SWEEP_EVERY === 0) sweep()
      const key = `${model}:${id}`
      entries.set(key, {
        payload,
        expiresAt: expiresInSeconds ? Date.now() + expiresInSeconds * 1000 : Infinity,
      })
      if (payload.uid) keyByUid.set(payload.uid, key)
      if (!payload.grantId || model === 'Interaction') return
      const keys = keysByGrant.get(payload.grantId) ?? new Set()
      keysByGrant.set(payload.grantId, keys.add(key))
    },
    async find(id) {
      return live(`${model}:${id}`)
    },
    async findByUid(uid) {
      return live(keyByUid.get(uid))
    },
    // Only the device flow has user codes, and this provider does not offer it.
    async findByUserCode() {
      return undefined
    },
    async consume(id) {
      const payload = live(`${model}:${id}`)
      if (payload) payload.consumed = Math.floor(Date.now() / 1000)
    },
    async destroy(id) {
      remove(`${model}:${id}`)
    },
    async revokeByGrantId(grantId) {
      for (const key of keysByGrant.get(grantId) ?? []) entries.delete(key)
      keysByGrant.delete(grantId)
    },
  })
}
