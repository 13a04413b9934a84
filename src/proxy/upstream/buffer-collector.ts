import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

/** Bytes of bodies between two collections; each costs about a millisecond. */
const COLLECT_EVERY = 8_388_608

/**
 * Told of each piece of a body that passes, it has the young generation collected now and then. Every piece arrives in a
 * buffer of its own, and V8 lets 64 MB of them pile up before it looks for itself.
 */
export function createBufferCollector(): (bytes: number) => void {
  const collect = youngCollection()
  let passed = 0
  return function bodyPassed(bytes) {
    passed += bytes
    if (passed < COLLECT_EVERY) return
    passed = 0
    collect?.({ type: 'minor' })
  }
}

/** V8 hands its collector to contexts that are made while it is exposed, and to no other. */
function youngCollection(): ((options: { type: 'minor' }) => void) | undefined {
  setFlagsFromString('--expose-gc')
  try {
    return runInNewContext('globalThis.gc')
  } finally {
    setFlagsFromString('--no-expose-gc')
  }
}
