import type { Invalidations, SessionHash } from './port.ts'

/** Those in this process who keep copies, and the call that tells them what to drop. */
export type InvalidationListeners = Pick<Invalidations, 'onInvalidate'> & {
  /** Tells every listener at once, before it returns; undefined when any session may have changed. */
  tell(hash: SessionHash | undefined): void
}

/** Keeps a set of listeners. */
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
