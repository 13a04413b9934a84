const RECENT_MS = 300_000

/** Which resources were renewed of late, and for more sessions than one. */
export type RecentRenewals = {
  /** A token of `resource` was renewed for `session`. */
  add(resource: string, session: string | undefined): void
  /** Whether one was renewed for another session within five minutes. */
  isForOther(resource: string, session: string | undefined): boolean
}

/** Makes an empty memory; two sessions for each resource are enough. @param monotonicNow ms. */
export function createRecentRenewals(monotonicNow: () => number): RecentRenewals {
  const lasts = new Map<string, { readonly session: string; readonly at: number }[]>()
  return {
    add(resource, session) {
      if (session === undefined) return
      const others = (lasts.get(resource) ?? []).filter((last) => last.session !== session)
      lasts.set(resource, [{ session, at: monotonicNow() }, ...others].slice(0, 2))
    },
    isForOther: (resource, session) =>
      (lasts.get(resource) ?? []).some(
        (last) => last.session !== session && monotonicNow() < last.at + RECENT_MS,
      ),
  }
}
