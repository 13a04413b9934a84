import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect as connectHttp2 } from 'node:http2'
import type { Socket } from 'node:net'
import { type TestContext, test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { buildConnector, Client, type Dispatcher } from 'undici'
import {
  createBufferCollector,
  noteBreaks,
  noteStreamEnd,
  readResponses,
} from '../../../../src/proxy/upstream/undocumented.ts'
import { frame, rawHttp2Upstream, uint32 } from '../../../kit/upstream/http2-kit.ts'
import { rawUpstream } from '../../../kit/upstream/sockets.ts'

/** A client of undici whose every new socket is handed over by `handOver`. */
function clientWith(
  t: TestContext,
  origin: string,
  handOver: (socket: Socket, callback: () => void) => void = (_, callback) => callback(),
): Client {
  const connector = buildConnector({})
  const client = new Client(origin, {
    connect: (options, callback) =>
      connector(options, (...outcome) => {
        const [error, socket] = outcome
        if (error) callback(...outcome)
        else handOver(socket, () => callback(null, socket))
      }),
  })
  t.after(() => client.destroy())
  return client
}

/** What becomes of one GET, told at once: the status and body of its answer, or the code of the error. */
function get(client: Client, told: (outcome: string) => void = () => {}): Promise<string> {
  return new Promise((resolve) => {
    let answer = ''
    const end = (outcome: string) => {
      told(outcome)
      resolve(outcome)
    }
    const handler: Dispatcher.DispatchHandler = {
      onRequestStart() {},
      onResponseStart(_, status) {
        answer = `${status} `
      },
      onResponseData(_, chunk) {
        answer += chunk
      },
      onResponseEnd: () => end(answer),
      onResponseError: (_, error) => end(`failed with ${(error as { code?: string }).code}`),
    }
    client.dispatch({ path: '/', method: 'GET' }, handler)
  })
}

const UNASKED = 'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'

test('undici ends a connection at a 100 Continue that nothing asked for, unless its parser is told of 102', async (t) => {
  const { origin } = await rawUpstream(t, (socket) => void socket.write(UNASKED))
  assert.match(await get(clientWith(t, origin)), /^failed with /, 'readResponses is not needed any more')
  const client = clientWith(t, origin, (socket, callback) => {
    callback()
    readResponses(socket)
  })
  assert.equal(await get(client), '200 ok')
})

test('undici reports a reset as the end of a body without another end, while its error listener runs', async (t) => {
  const { origin } = await rawUpstream(t, (socket) => {
    socket.write('HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf', () => {
      setTimeout(() => socket.resetAndDestroy(), 50)
    })
  })
  const seen: string[] = []
  const client = clientWith(t, origin, (socket, callback) => {
    noteBreaks(socket, callback, (is) => seen.push(is ? 'breaks' : 'broken'))
  })
  await get(client, (text) => seen.push(text))
  await setImmediate()
  assert.deepEqual(seen, ['breaks', '200 half', 'broken'])
})

/** Whether the first stream to this upstream ended whole, and what its reader saw. */
async function streamEnd(
  t: TestContext,
  origin: string,
): Promise<{ isWhole: boolean | undefined; last: string }> {
  const session = connectHttp2(origin)
  t.after(() => session.destroy())
  session.on('error', () => {})
  const stream = session.request({ ':path': '/', 'x-fill': 'x'.repeat(80) })
  let isWhole: boolean | undefined
  noteStreamEnd(stream, (is) => {
    isWhole ??= is
  })
  stream.resume()
  const last = await Promise.race([
    once(stream, 'end').then(() => 'end'),
    once(stream, 'error').then(() => 'error'),
  ])
  return { isWhole, last }
}

const DATA = 0
const RST_STREAM = 3
const END_STREAM = 1
const NO_ERROR = 0

test('Node ends a stream that is reset with NO_ERROR like one that ended well; only its push tells them apart', async (t) => {
  const reset = await rawHttp2Upstream(
    t,
    (socket) => void socket.write(frame(RST_STREAM, 0, 1, uint32(NO_ERROR))),
  )
  assert.deepEqual(await streamEnd(t, reset), { isWhole: false, last: 'end' })
  const whole = await rawHttp2Upstream(t, (socket) => void socket.write(frame(DATA, END_STREAM, 1)))
  assert.deepEqual(await streamEnd(t, whole), { isWhole: true, last: 'end' })
})

test('after every 8 MiB of bodies the buffers that nothing refers to are gone', () => {
  const passed = createBufferCollector()
  assert.equal(Reflect.get(globalThis, 'gc'), undefined, 'the collector is not exposed to the process')
  const before = process.memoryUsage().arrayBuffers
  let most = 0
  for (let n = 0; n < 4_096; n += 1) {
    passed(Buffer.allocUnsafeSlow(65_536).length)
    most = Math.max(most, process.memoryUsage().arrayBuffers - before)
  }
  assert.ok(most < 24 * 1_048_576, `${most} bytes of buffers piled up`)
})
