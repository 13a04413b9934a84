import '../kit/untracked.ts'
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type TestContext, test } from 'node:test'
import { WebSocket } from 'ws'
import { seededRandom } from '../chaos/seeded-random.ts'
import { startChatUpstream } from '../kit/shops/websocket-shop.ts'
import {
  pythonVisit,
  rawExchange,
  skipWithoutPython,
  startInFrontOf,
  startPythonEcho,
} from './websocket-kit.ts'

const FRAMES = 10_000
const ODD = [0, 1, 2, 125, 126, 127, 128, 1_000, 4_095]
const LARGE = [65_535, 65_536, 65_537, 200_000]
const TEXT = 1
const BINARY = 2
const PING = 9
const CLOSE = 8

type Message = { readonly data: Buffer; readonly isBinary: boolean }

/** The same ten thousand messages each time. */
function messages(): Message[] {
  const random = seededRandom(20_261_120)
  return Array.from({ length: FRAMES }, (_, n) => {
    const size =
      n % 40 === 0 ? LARGE[(n / 40) % LARGE.length]! : n % 3 ? random.pick(ODD) : random.between(0, 3_000)
    return { data: Buffer.alloc(size, `${n} of many, `), isBinary: n % 2 === 0 }
  })
}

function maskedFrame(opcode: number, data: Buffer, isFinal = true): Buffer {
  const mask = Buffer.of(0x37, 0xfa, 0x21, 0x3d)
  const length = data.length
  const size = length < 126 ? [length] : length < 65_536 ? [126, length >> 8, length & 255] : []
  const long = Buffer.alloc(9, 0)
  long[0] = 127
  long.writeUInt32BE(length, 5)
  const lengthBytes = size.length ? Buffer.from(size) : long
  lengthBytes[0]! |= 0x80
  const masked = Buffer.from(data)
  for (let i = 0; i < masked.length; i++) masked[i]! ^= mask[i % 4]!
  return Buffer.concat([Buffer.of((isFinal ? 0x80 : 0) | opcode, ...lengthBytes), mask, masked])
}

/** Every seventh message in three pieces with a ping between them; a close frame at the end. */
function rawFrames(): Buffer[] {
  const frames = messages().flatMap(({ data, isBinary }, n) => {
    const opcode = isBinary ? BINARY : TEXT
    if (n % 7) return [maskedFrame(opcode, data)]
    const third = Math.floor(data.length / 3)
    return [
      maskedFrame(opcode, data.subarray(0, third), false),
      maskedFrame(PING, Buffer.from(`ping ${n}`)),
      maskedFrame(0, data.subarray(third, 2 * third), false),
      maskedFrame(0, data.subarray(2 * third)),
    ]
  })
  return [...frames, maskedFrame(CLOSE, Buffer.of(3, 232))]
}

test('the bytes that an echo answers to 10000 frames are the same through Cloakroom as directly', async (t) => {
  const { url: echo } = await startChatUpstream(t)
  const { origin, cookie } = await startInFrontOf(t, echo)
  const frames = rawFrames()
  const direct = await rawExchange(Number(new URL(echo).port), {}, frames)
  const startedAt = performance.now()
  const proxied = await rawExchange(Number(new URL(origin).port), { Origin: origin, Cookie: cookie }, frames)
  const seconds = (performance.now() - startedAt) / 1_000
  t.diagnostic(`${frames.length} frames out, ${direct.bytes} bytes back in ${seconds.toFixed(1)} s`)
  assert.ok(direct.bytes > 20_000_000)
  assert.deepEqual(proxied, direct)
})

for (const perMessageDeflate of [false, true])
  test(`10000 messages of npm ws come back as they were sent, ${perMessageDeflate ? '' : 'not '}compressed`, async (t) => {
    const { url: echo } = await startChatUpstream(t, { perMessageDeflate })
    const { origin, url, cookie } = await startInFrontOf(t, echo)
    const socket = new WebSocket(url, { origin, headers: { cookie }, perMessageDeflate })
    await echoAll(t, socket)
    assert.equal(socket.extensions, perMessageDeflate ? 'permessage-deflate' : '')
  })

test('a small frame that unfolds into a hundred megabytes is not unfolded on its way', async (t) => {
  const upstream = await startChatUpstream(t, { perMessageDeflate: true })
  const { origin, url, cookie } = await startInFrontOf(t, upstream.url)
  const socket = new WebSocket(url, {
    origin,
    headers: { cookie },
    perMessageDeflate: true,
    maxPayload: 2 ** 28,
  })
  t.after(() => socket.terminate())
  await once(socket, 'open')
  socket.send(Buffer.alloc(100_000_000))
  const [echo] = (await once(socket, 'message')) as [Buffer]
  assert.equal(echo.length, 100_000_000)
  const { bytesRead } = upstream.handshakes[0]!.socket
  assert.ok(bytesRead < 1_000_000, `${bytesRead} bytes reached the upstream`)
})

const skip = skipWithoutPython()

test('10000 messages to python3-websockets come back as they were sent', { skip }, async (t) => {
  const { origin, url, cookie } = await startInFrontOf(t, await startPythonEcho(t))
  await echoAll(t, new WebSocket(url, { origin, headers: { cookie } }))
})

test('python3-websockets gets the same through Cloakroom as directly', { skip }, async (t) => {
  const { url: echo } = await startChatUpstream(t)
  const { origin, url, cookie } = await startInFrontOf(t, echo)
  const direct = await pythonVisit(echo.replace('http', 'ws'), echo, FRAMES)
  const proxied = await pythonVisit(url, origin, FRAMES, cookie)
  assert.deepEqual([direct.same, direct.code], [FRAMES, 1000])
  assert.deepEqual(proxied, direct)
})

async function echoAll(t: TestContext, socket: WebSocket): Promise<void> {
  t.after(() => socket.terminate())
  await once(socket, 'open')
  const sent = messages()
  let next = 0
  const all = new Promise<void>((resolve, reject) => {
    socket.on('close', () => reject(new Error(`closed after ${next} messages`)))
    socket.on('message', (data: Buffer, isBinary) => {
      const expected = sent[next]!
      const isSame = isBinary === expected.isBinary && data.equals(expected.data)
      if (!isSame) reject(new Error(`message ${next} came back differently`))
      next += 1
      if (next === sent.length) resolve()
    })
  })
  for (const { data, isBinary } of sent) socket.send(data, { binary: isBinary })
  await all
  socket.close(1000)
  const [code] = await once(socket, 'close')
  assert.equal(code, 1000)
}
