import type { Readable, Writable } from 'node:stream'

/** A request body that can be sent again from its beginning, as long as all that was sent of it is kept. */
export type ReplayableBody = {
  /** Sends the kept part, and the rest as it comes. */
  sendTo(stream: Writable): void
  /** Stops sending; the rest stays unread. */
  stop(): void
  canReplay(): boolean
}

/** Bytes of a body that are kept until its response begins; only references, so that nothing is copied. */
const MAX_KEPT = 65_536

/** Makes one of a stream, or of a whole body. */
export function createReplayableBody(body: Readable | Buffer): ReplayableBody {
  return Buffer.isBuffer(body) ? wholeBody(body) : streamedBody(body)
}

function wholeBody(body: Buffer): ReplayableBody {
  return { sendTo: (stream) => void stream.end(body), stop() {}, canReplay: () => true }
}

function streamedBody(body: Readable): ReplayableBody {
  let kept: Buffer[] | undefined = []
  let keptBytes = 0
  let target: Writable | undefined

  function keep(chunk: Buffer): void {
    keptBytes += chunk.length
    if (keptBytes > MAX_KEPT) kept = undefined
    kept?.push(chunk)
  }
  function onData(chunk: Buffer): void {
    keep(chunk)
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
      for (const chunk of kept!) stream.write(chunk)
      if (body.readableEnded) stream.end()
      else body.on('data', onData).once('end', onEnd).resume()
    },
    stop() {
      target = undefined
      body.off('data', onData).off('end', onEnd).pause()
    },
    // A stream that has ended is destroyed, too.
    canReplay: () => kept !== undefined && (body.readableEnded || !body.destroyed),
  }
}
