import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { eventually } from '../../../kit/shops/deadline.ts'
import { http2Upstream } from '../../../kit/upstream/http2-kit.ts'
import {
  onlySecond,
  proxyWithToken,
  request,
  type Seen,
  settle,
  upstreamOf,
} from '../../../kit/upstream/rejected-token-kit.ts'
import { ends, isWholeHead, proxyTo, type RawClient, rawClient } from '../../../kit/upstream/sockets.ts'

/** Around the most that is sent as one buffer, and the least that a socket's read does not hold with its head. */
const LENGTHS = [1, 2, 16_384, 65_400, 65_535, 65_536, 65_537]

/** A body whose every line could be taken for a request. */
function bodyOf(length: number): string {
  const line = (n: number) => `POST /smuggled-${n} HTTP/1.1\r\nHost: a\r\n\r\n\xff\x00`
  return Array.from({ length: Math.ceil(length / 36) }, (_, n) => line(n))
    .join('')
    .slice(0, length)
}

/** Where the bytes of a request can be cut, by what is behind the cut. */
function cutsOf(head: number, length: number): [string, number[]][] {
  const whole = head + length
  const every = (bytes: number) =>
    Array.from({ length: Math.floor(whole / bytes) }, (_, n) => (n + 1) * bytes)
  const cuts: [string, number[]][] = [
    ['all at once', []],
    ['the last byte of the head', [head - 1]],
    ['the body', [head]],
    ['all of the body but its first byte', [head + 1]],
    ['the last byte', [whole - 1]],
    ['the body, byte by byte at both ends', [head, head + 1, whole - 2, whole - 1]],
    ['pieces of 4 KiB', every(4_096)],
    ['pieces of 64 KiB', every(65_536)],
  ]
  const inside = (at: number) => at > 0 && at < whole
  return cuts.map(([what, all]) => [what, [...new Set(all.filter(inside))].toSorted((a, b) => a - b)])
}

/** Sends the pieces between cuts, each in a read of its own. */
async function sendCut({ socket }: RawClient, bytes: string, cuts: readonly number[]): Promise<void> {
  socket.setNoDelay(true)
  for (const [n, cut] of [0, ...cuts].entries()) {
    socket.write(bytes.slice(cut, cuts[n] ?? bytes.length), 'latin1')
    await settle()
  }
}

function chunkedRequest(body: string): string {
  const head = 'POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n'
  return `${head}${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`
}

const answersIn = (text: string) => text.split('HTTP/1.1 200 ').length - 1

describe('a request body of about 64 KiB', () => {
  test('reaches its upstream byte for byte, wherever its segments end, and the connection serves on', async (t) => {
    const upstream = await upstreamOf(t, (_, res) => res.end('ok'))
    const proxy = await proxyTo(t, { upstream: upstream.origin })
    const client = rawClient(t, proxy.port, '')
    const expected: string[] = []
    for (const length of LENGTHS) {
      const body = bodyOf(length)
      for (const bytes of [request('POST /sized', body), chunkedRequest(body)]) {
        for (const [, cuts] of cutsOf(
          bytes.indexOf('\r\n\r\n') + 4,
          bytes.length - bytes.indexOf('\r\n\r\n') - 4,
        )) {
          expected.push(body)
          await sendCut(client, bytes, cuts)
          await client.until((text) => answersIn(text) === expected.length)
        }
      }
    }
    assert.equal(upstream.seen.length, expected.length)
    for (const [n, { line, body }] of upstream.seen.entries()) {
      assert.match(line, /^POST \/(?:sized|chunked)$/)
      assert.ok(body.equals(Buffer.from(expected[n]!, 'latin1')), `the body of request ${n} is another one`)
    }
  })

  test('reaches an upstream that speaks HTTP/2 the same', async (t) => {
    const seen: Buffer[] = []
    const upstream = await http2Upstream(t, (stream) => {
      const chunks: Buffer[] = []
      stream.on('data', (chunk: Buffer) => chunks.push(chunk))
      stream.on('end', () => {
        seen.push(Buffer.concat(chunks))
        stream.respond({ ':status': 200 })
        stream.end('ok')
      })
    })
    const proxy = await proxyTo(t, upstream.route)
    const client = rawClient(t, proxy.port, '')
    const expected: string[] = []
    for (const length of [1, 16_384, 65_536, 65_537]) {
      const [body, head] = [bodyOf(length), request('POST /', bodyOf(length)).length - length]
      for (const [, cuts] of cutsOf(head, length)) {
        expected.push(body)
        await sendCut(client, request('POST /', body), cuts)
        await client.until((text) => answersIn(text) === expected.length)
      }
    }
    assert.ok(seen.every((body, n) => body.equals(Buffer.from(expected[n]!, 'latin1'))))
    assert.equal(seen.length, expected.length)
  })

  test('that its client breaks off is whole for no upstream, wherever it ends', async (t) => {
    const upstream = await upstreamOf(t, (_, res) => res.end('ok'))
    const proxy = await proxyTo(t, { upstream: upstream.origin })
    for (const length of LENGTHS) {
      const body = bodyOf(length)
      for (const bytes of [request('POST /', body), chunkedRequest(body)]) {
        const head = bytes.indexOf('\r\n\r\n') + 4
        for (const end of new Set([head, head + 1, head + 4_096, bytes.length - 1])) {
          if (end >= bytes.length) continue
          const client = rawClient(t, proxy.port, '')
          const settled = proxy.settled()
          await sendCut(client, bytes.slice(0, end), [])
          client.socket.destroy()
          assert.equal(await settled, 'sent')
        }
      }
    }
    assert.deepEqual(upstream.seen, [])
  })

  test('goes again with a new token, byte for byte, wherever its segments ended; a longer one does not', async (t) => {
    const upstream = await upstreamOf(t, onlySecond)
    const proxy = await proxyWithToken(t, upstream)
    for (const length of [1, 16_384, 65_535, 65_536, 65_537]) {
      const body = bodyOf(length)
      const bytes = request('POST /', body)
      for (const [what, cuts] of cutsOf(bytes.length - length, length)) {
        const before = upstream.seen.length
        const client = rawClient(t, proxy.port, '')
        await sendCut(client, bytes, cuts)
        const answer = await client.until(isWholeHead)
        const isRepeatable = length <= 65_536
        assert.match(answer, isRepeatable ? /^HTTP\/1.1 200 / : /^HTTP\/1.1 401 /, `${length} bytes, ${what}`)
        const tries: Seen[] = upstream.seen.slice(before)
        assert.equal(tries.length, isRepeatable ? 2 : 1)
        for (const one of tries) assert.ok(one.body.equals(Buffer.from(body, 'latin1')))
      }
    }
  })

  for (const [status, method] of [
    [204, 'POST'],
    [304, 'POST'],
    [200, 'HEAD'],
  ] as const) {
    test(`leaves the connection in order when the answer to ${method} is a ${status} without a body`, async (t) => {
      const upstream = await upstreamOf(t, (_, res) => res.writeHead(status).end())
      const proxy = await proxyTo(t, { upstream: upstream.origin })
      const client = rawClient(t, proxy.port, '')
      const body = bodyOf(16_384)
      for (const [n, cuts] of [[], [16_000], []].entries()) {
        await sendCut(client, request(`${method} /`, body), cuts)
        await client.until((text) => text.split(`HTTP/1.1 ${status} `).length === n + 2)
      }
      assert.deepEqual(
        upstream.seen.map(({ line }) => line),
        [`${method} /`, `${method} /`, `${method} /`],
      )
    })
  }

  test('is one body though it came in pieces while its request waited', async (t) => {
    const answers: (() => void)[] = []
    const upstream = await upstreamOf(t, (_, res) => void answers.push(() => res.end('ok')))
    const proxy = await proxyTo(t, { upstream: upstream.origin, connections: 1 })
    const first = rawClient(t, proxy.port, request('GET /'))
    await eventually('the first request is at the upstream', () => answers.length === 1)
    const body = bodyOf(65_536)
    const bytes = request('POST /', body)
    const second = rawClient(t, proxy.port, '')
    await sendCut(second, bytes, [1_000, 30_000, 65_000])
    answers[0]!()
    await first.until(ends('ok'))
    await eventually('the second request is at the upstream', () => answers.length === 2)
    answers[1]!()
    await second.until(ends('ok'))
    assert.ok(upstream.seen[1]!.body.equals(Buffer.from(body, 'latin1')))
  })

  test('may follow its head at once though the client announced to wait for 100 Continue', async (t) => {
    const upstream = await upstreamOf(t, (_, res) => res.end('ok'))
    const proxy = await proxyTo(t, { upstream: upstream.origin })
    const body = bodyOf(16_384)
    const bytes = request('POST /', body).replace('Host: a', 'Host: a\r\nExpect: 100-continue')
    for (const cuts of [[], [bytes.length - body.length], [bytes.length - 1]]) {
      const client = rawClient(t, proxy.port, '')
      await sendCut(client, bytes, cuts)
      const answer = await client.until((text) => answersIn(text) === 1)
      assert.match(answer, /^(?:HTTP\/1.1 100 Continue\r\n\r\n)?HTTP\/1.1 200 /)
      assert.ok(upstream.seen.at(-1)?.body.equals(Buffer.from(body, 'latin1')))
    }
    assert.equal(upstream.seen.length, 3)
  })
})
