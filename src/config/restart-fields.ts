import type { Config } from './config.ts'
import { Secret } from './secrets/secret.ts'

/** What only a restart changes: sockets that are bound, the store that is open, limits that the server was made with. */
const RESTART_FIELDS = ['listen', 'admin.listen', 'session.store', 'limits'] as const

/** `wanted` with the values of `running` in the fields that need a restart, and the names of those that differ. */
export function withoutRestartFields(
  wanted: Config,
  running: Config,
): { config: Config; needRestart: readonly string[] } {
  const changed: Readonly<Record<(typeof RESTART_FIELDS)[number], boolean>> = {
    listen: differ(wanted.listen, running.listen),
    'admin.listen': differ(wanted.admin.listen, running.admin.listen),
    'session.store': differ(wanted.session.store, running.session.store),
    limits: differ(wanted.limits, running.limits),
  }
  const config = {
    ...wanted,
    listen: running.listen,
    admin: { ...wanted.admin, listen: running.admin.listen },
    session: { ...wanted.session, store: running.session.store },
    limits: running.limits,
  }
  return { config, needRestart: RESTART_FIELDS.filter((field) => changed[field]) }
}

function differ(a: unknown, b: unknown): boolean {
  return JSON.stringify(revealed(a)) !== JSON.stringify(revealed(b))
}

/** A secret shows nothing of itself, so that two of them would always look alike. */
function revealed(value: unknown): unknown {
  if (value instanceof Secret) return value.reveal()
  if (typeof value !== 'object' || value === null) return value
  return Object.entries(value).map(([name, child]) => [name, revealed(child)])
}
