import type { Readable, Writable } from 'node:stream'

/** A request body that can be sent from its begin again, as long as what was sent of it is still held. */
export type ReplayableBody = {
  /** Sends what is held, and what is still to come. */
  sendTo(stream: Writable): void
  /** Leaves the rest where it is. */
  stop(): void
  canReplay(): boolean
}

/** Bytes of a body that are held until its answer begins; only references, so that nothing is copied. */
const MOST_HELD = 65_536

/** Makes one of a body that is read once, or is at hand whole. */
export function createReplayableBody(body: Readable | Buffer): ReplayableBody {
  return Buffer.isBuffer(body) ? wholeBody(body) : streamedBody(body)
}

function wholeBody(body: Buffer): ReplayableBody {
  return { sendTo: (stream) => void stream.end(body), stop() {}, canReplay: () => true }
}

function streamedBody(body: Readable): ReplayableBody {
  let held: Buffer[] | undefined = []
  let heldBytes = 0
  let target: Writable | undefined

  function hold(chunk: Buffer): void {
    heldBytes += chunk.length
    if (heldBytes > MOST_HELD) held = undefined
    held?.push(chunk)
  }
  function onData(chunk: Buffer): void {
    hold(chunk)
    if (target!.write(chunk)) return
    const waiting = target!
    body.pause()
    waiting.once('drain', () => {
      if (target === waiting) body.resume()
    })
  }
  function onEnd(): void {
    target!.end()
  }
  return {
    sendTo(stream) {
      target = stream
      for (const chunk of held!) stream.write(chunk)
      if (body.readableEnded) stream.end()
      else body.on('data', onData).once('end', onEnd).resume()
    },
    stop() {
      target = undefined
      body.off('data', onData).off('end', onEnd).pause()
    },
    // A stream that has ended is destroyed, too.
    canReplay: () => held !== undefined && (body.readableEnded || !body.destroyed),
  }
}
