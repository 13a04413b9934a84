import type { Readable, Writable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import { seededRandom } from '../../chaos/seeded-random.ts'

/** A prime, so that no buffer size divides it: a piece lost, doubled or moved does not fit the pattern any more. */
const PERIOD = 1_048_573
const LONGEST_PIECE = 262_144

const PATTERN = Buffer.alloc(PERIOD + LONGEST_PIECE)
const random = seededRandom(4)
for (let at = 0; at < PERIOD; at += 1) PATTERN[at] = random.between(0, 256)
PATTERN.copy(PATTERN, PERIOD, 0, LONGEST_PIECE)

/** `length` bytes of the pattern from `at` on; at most 262144. */
export function patternPiece(at: number, length: number): Buffer {
  const from = at % PERIOD
  return PATTERN.subarray(from, from + length)
}

/** Writes `bytes` bytes of the pattern as fast as `to` takes them, and ends it. `written` is told after each piece. */
export async function writePattern(
  to: Writable,
  bytes: number,
  { pieceBytes = 65_536, written }: { pieceBytes?: number; written?: (total: number) => void } = {},
): Promise<void> {
  let at = 0
  while (at < bytes && !to.destroyed) {
    const piece = patternPiece(at, Math.min(pieceBytes, bytes - at))
    at += piece.length
    const takesMore = to.write(piece)
    written?.(at)
    if (!takesMore) await untilDrained(to)
  }
  if (!to.destroyed) to.end()
}

function untilDrained(to: Writable): Promise<void> {
  return new Promise((resolve) => {
    function goOn(): void {
      to.off('drain', goOn).off('close', goOn)
      resolve()
    }
    to.on('drain', goOn).on('close', goOn)
  })
}

/** What came of a body: its length, and where it first differed from the pattern. */
export type PatternCheck = { bytes: number; firstWrong: number | null }

/** How a reader reads: as fast as it can, or with a pause of `pauseMs` after every `burstBytes`. */
export type ReadingPace = 'fast' | { readonly burstBytes: number; readonly pauseMs: number }

/** Reads a body to its end and compares every byte; rejects when it is cut. */
export async function checkPattern(
  from: Readable,
  pace: ReadingPace = 'fast',
  check: PatternCheck = { bytes: 0, firstWrong: null },
): Promise<PatternCheck> {
  let sincePause = 0
  for await (const chunk of from as AsyncIterable<Buffer>) {
    compare(chunk, check)
    sincePause += chunk.length
    if (pace === 'fast' || sincePause < pace.burstBytes) continue
    sincePause = 0
    await delay(pace.pauseMs)
  }
  return check
}

function compare(chunk: Buffer, check: PatternCheck): void {
  for (let at = 0; at < chunk.length; at += LONGEST_PIECE) {
    const piece = chunk.subarray(at, at + LONGEST_PIECE)
    const isRight = piece.equals(patternPiece(check.bytes, piece.length))
    if (!isRight) check.firstWrong ??= check.bytes
    check.bytes += piece.length
  }
}
