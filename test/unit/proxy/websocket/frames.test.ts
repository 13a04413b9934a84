import assert from 'node:assert/strict'
import type { Writable } from 'node:stream'
import { test } from 'node:test'
import * as ws from 'ws'
import {
  closeFrame,
  createFrameTracker,
  type FramePosition,
  type FrameSender,
} from '../../../../src/proxy/websocket/frames.ts'

/** Parts of npm `ws` that its types leave out. */
const { Receiver, Sender } = ws as unknown as {
  Receiver: new (options: { isServer: boolean }) => Writable
  Sender: { frame(payload: Buffer, options: Options & { readOnly: boolean }): Buffer[] }
}
type Options = { opcode?: number; fin?: boolean; mask?: boolean; rsv1?: boolean }

/** A frame as npm `ws` writes it. */
function frame(
  payload: Buffer,
  { opcode = 2, fin = true, mask = false, rsv1 = false }: Options = {},
): Buffer {
  return Buffer.concat(Sender.frame(payload, { opcode, fin, mask, rsv1, readOnly: true }))
}

const SIZES = [0, 1, 125, 126, 127, 65_535, 65_536, 70_001]
const SENDERS: readonly FrameSender[] = ['server', 'client']

for (const sender of SENDERS) {
  const mask = sender === 'client'

  for (const size of SIZES)
    test(`the end of a frame of ${size} bytes of a ${sender} is found, wherever it is split`, () => {
      const bytes = Buffer.concat([
        frame(Buffer.alloc(size, 7), { mask }),
        frame(Buffer.from('next'), { mask }),
      ])
      const end = bytes.length - (mask ? 10 : 6)
      const near = (at: number) => Array.from({ length: 16 }, (_, i) => at - 8 + i)
      const cuts = new Set([...near(8), ...near(end)].filter((at) => at > 0 && at < end))
      for (const cut of cuts) {
        const tracker = createFrameTracker(sender)
        assert.equal(tracker.follow(bytes.subarray(0, cut), true), cut)
        assert.equal(tracker.position(), 'inside')
        assert.equal(tracker.follow(bytes.subarray(cut), true), end - cut)
        assert.equal(tracker.position(), 'boundary')
      }
    })

  test(`frames of a ${sender} are followed byte by byte as in one piece`, () => {
    const frames = [
      frame(Buffer.from('Hel'), { opcode: 1, fin: false, mask }),
      frame(Buffer.from('ping'), { opcode: 9, mask }),
      frame(Buffer.from('lo'), { opcode: 0, fin: true, mask }),
      frame(Buffer.alloc(200, 1), { mask, rsv1: true }),
      frame(Buffer.alloc(0), { opcode: 10, mask }),
      frame(Buffer.alloc(300, 0x88), { mask }),
    ]
    const boundaries = new Set<number>()
    frames.reduce((sum, each) => {
      boundaries.add(sum + each.length)
      return sum + each.length
    }, 0)
    const whole = createFrameTracker(sender)
    const bytes = Buffer.concat(frames)
    assert.equal(whole.follow(bytes), bytes.length)
    assert.equal(whole.position(), 'boundary')
    const single = createFrameTracker(sender)
    for (let at = 0; at < bytes.length; at++) {
      single.follow(bytes.subarray(at, at + 1))
      assert.equal(single.position(), boundaries.has(at + 1) ? 'boundary' : 'inside', `after byte ${at + 1}`)
    }
  })

  test(`a close frame of a ${sender} is the last, even if bytes follow it`, () => {
    const tracker = createFrameTracker(sender)
    const close = closeFrame(sender, 1000, 'bye')
    tracker.follow(close.subarray(0, -1))
    assert.equal(tracker.position(), 'inside')
    assert.equal(tracker.follow(Buffer.concat([close.subarray(-1), frame(Buffer.from('x'), { mask })])), 1)
    assert.equal(tracker.position(), 'closed')
    assert.equal(tracker.follow(Buffer.from('more')), 0)
  })

  test(`our close frame of a ${sender} is one that npm ws accepts`, async () => {
    const receiver = new Receiver({ isServer: mask })
    const told = Promise.withResolvers<unknown[]>()
    receiver.on('conclude', (code: number, reason: Buffer) => told.resolve([code, String(reason)]))
    receiver.on('error', told.reject)
    receiver.write(closeFrame(sender, 1008, 'session ended'))
    assert.deepEqual(await told.promise, [1008, 'session ended'])
  })
}

function positionAfter(sender: FrameSender, ...bytes: number[]): FramePosition {
  const tracker = createFrameTracker(sender)
  tracker.follow(Uint8Array.from(bytes))
  return tracker.position()
}

test('a length beyond 32 bits is counted', () => {
  const tracker = createFrameTracker('server')
  tracker.follow(Uint8Array.from([0x82, 127, 0, 0, 0, 1, 0, 0, 0, 2]))
  const chunk = new Uint8Array(2 ** 20)
  for (let sent = 0; sent < 2 ** 32; sent += chunk.length) {
    assert.equal(tracker.follow(chunk, true), chunk.length)
    assert.equal(tracker.position(), 'inside')
  }
  assert.equal(tracker.follow(chunk, true), 2)
  assert.equal(tracker.position(), 'boundary')
})

for (const [what, sender, bytes] of [
  ['a masked frame of a server', 'server', [0x81, 0x80, 1, 2, 3, 4]],
  ['an unmasked frame of a client', 'client', [0x81, 0x00]],
  ['a length with its highest bit set', 'server', [0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0]],
  ['a length that no number counts', 'server', [0x82, 127, 0, 0x20, 0, 0, 0, 0, 0, 0]],
  ['a ping of 126 bytes', 'server', [0x89, 126, 0, 126]],
  ['a close frame in pieces', 'server', [0x08, 0]],
] as [string, FrameSender, number[]][])
  test(`${what} is no frame, and whatever follows stays unknown`, () => {
    assert.equal(positionAfter(sender, ...bytes), 'lost')
    assert.equal(positionAfter(sender, ...bytes, 0x81, 0x00, 0x88, 0x00), 'lost')
  })

test('a hundred thousand random frames in random chunks end at a boundary', () => {
  const tracker = createFrameTracker('server')
  const sizes = Array.from({ length: 100_000 }, (_, i) => (i * 7919) % 300)
  const bytes = Buffer.concat(sizes.map((size) => frame(Buffer.alloc(size, size))))
  for (let at = 0, step = 1; at < bytes.length; at += step) {
    step = 1 + ((at * 31) % 4_096)
    tracker.follow(bytes.subarray(at, at + step))
    assert.notEqual(tracker.position(), 'lost')
  }
  assert.equal(tracker.position(), 'boundary')
})
