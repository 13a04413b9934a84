import type { Invalidations, SessionHash } from './port.ts'

/** The listeners of this process that keep copies of sessions, and the call that tells them what to drop. */
export type InvalidationListeners = Pick<Invalidations, 'onInvalidate'> & {
  /** Tells every listener at once, before it returns; undefined when any session may have changed. */
  tell(hash: SessionHash | undefined): void
}

/** Makes an empty set of listeners. */
export function createInvalidationListeners(): InvalidationListeners {
  const listeners = new Set<(hash: SessionHash | undefined) => void>()
  return {
    onInvalidate(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
    tell(hash) {
      for (const listener of listeners) listener(hash)
    },
  }
}
