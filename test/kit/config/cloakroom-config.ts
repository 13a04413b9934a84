import { randomBytes } from 'node:crypto'

/** A config file as plain data, in the operator's words (contract section 2); JSON is YAML. */
export type ConfigData = { [field: string]: unknown }

/** A new 256-bit session key as the config file takes it. */
export function sessionKey(): string {
  return randomBytes(32).toString('base64url')
}

/** A complete config of one process on 127.0.0.1 with the memory store, and no limits on how often a test may sign in; `overrides` are merged into it. */
export function configWith(
  overrides: ConfigData,
  place: { publicUrl: string; listen: string; adminListen: string },
): ConfigData {
  const base = {
    publicUrl: place.publicUrl,
    listen: place.listen,
    admin: { listen: place.adminListen },
    rateLimits: { login: 'off', callback: 'off', logout: 'off', frontchannelLogout: 'off' },
    session: { store: { type: 'memory' }, keys: [sessionKey()] },
  }
  return merge(base, overrides)
}

/** Objects are merged member by member; lists and single values replace; `undefined` removes. */
function merge(base: ConfigData, overrides: ConfigData): ConfigData {
  const merged = { ...base }
  for (const [field, value] of Object.entries(overrides)) {
    const before = merged[field]
    // A store is one of several kinds; members of the other kind must not stay behind.
    const isWhole = field === 'store' || !isData(before) || !isData(value)
    merged[field] = isWhole ? value : merge(before, value)
  }
  return Object.fromEntries(Object.entries(merged).filter(([, value]) => value !== undefined))
}

function isData(value: unknown): value is ConfigData {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
