/** An answer as it was read, whole. */
export type ReadAnswer = { readonly response: Response; readonly text: string }

type Read<Options> = (url: string, options: Options) => Promise<ReadAnswer>
type Held = { readonly answer: Promise<ReadAnswer>; heldUntil: number; waitMs: number }

const GOOD_MS = 1_000
const BAD_MIN_MS = 1_000
const BAD_MAX_MS = 30_000

/**
 * Reads of key sets (RFC 7517 §5), shared: one at a time, whose answer is everybody's who asks meanwhile and for 1 s
 * after; 1 s doubling to 30 s when it has no keys. Tokens under kids that nobody knows, or a key endpoint that is away,
 * can so make us ask no more often than that, however many they are.
 */
export function createKeyReads<Options>(read: Read<Options>, now: () => number): Read<Options> {
  const reads = new Map<string, Held>()

  return function readKeys(url, options) {
    const before = reads.get(url)
    if (before && now() < before.heldUntil) return before.answer
    const held: Held = {
      answer: read(url, options),
      heldUntil: Number.POSITIVE_INFINITY,
      waitMs: before?.waitMs ?? 0,
    }
    reads.set(url, held)
    const end = (isGood: boolean) => {
      held.waitMs = isGood ? 0 : Math.min(BAD_MAX_MS, Math.max(BAD_MIN_MS, held.waitMs * 2))
      held.heldUntil = now() + (isGood ? GOOD_MS : held.waitMs)
    }
    held.answer.then(
      ({ response, text }) => end(response.status === 200 && hasKeys(text)),
      () => end(false),
    )
    return held.answer
  }
}

function hasKeys(text: string): boolean {
  try {
    return Array.isArray(JSON.parse(text)?.keys)
  } catch {
    return false
  }
}
