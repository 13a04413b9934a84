import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { data, framedUpstream, head, literal, reset, status } from '../../../kit/upstream/http2-frames.ts'
import { proxyTo, rawClient } from '../../../kit/upstream/sockets.ts'

const LAST = 'Host: a\r\nConnection: close\r\n'
const GET = `GET / HTTP/1.1\r\n${LAST}\r\n`
const PIECE = 'x'.repeat(16_000)
const PIECES = 10

for (const [what, after, isWhole] of [
  ['an answer that ended', (stream: number) => data(stream, 'end', { isLast: true }), true],
  [
    'an answer that ended, and whose stream is reset with NO_ERROR then',
    (stream: number) => Buffer.concat([data(stream, 'end', { isLast: true }), reset(stream, 0)]),
    true,
  ],
  ['an answer that NO_ERROR breaks off', (stream: number) => reset(stream, 0), false],
  ['an answer that CANCEL breaks off', (stream: number) => reset(stream, 8), false],
] as const) {
  test(`${what} ${isWhole ? 'is whole' : 'never looks whole'} when it was paused in between`, async (t) => {
    const upstream = await framedUpstream(t, ({ stream, socket }) => {
      const challenge = literal('www-authenticate', 'Bearer error="invalid_token"')
      const body = Array.from({ length: PIECES }, () => data(stream, PIECE))
      socket.write(
        Buffer.concat([head(stream, Buffer.concat([status(401), challenge])), ...body, after(stream)]),
      )
    })
    // So much of a refusal is not taken from its stream before it is known what becomes of it.
    const onRejectedToken = () => delay(200, { kind: 'relay' } as const)
    const accessToken = { value: 'token', expiresAt: 0, renewAt: 0 }
    const proxy = await proxyTo(
      t,
      { upstream: upstream.origin, http2: true, resource: 'orders' },
      { accessToken, onRejectedToken },
    )
    const { text } = await rawClient(t, proxy.port, GET).closed
    if (isWhole) assert.match(text, /^HTTP\/1\.1 401 [\s\S]*end\r\n0\r\n\r\n$/)
    else assert.doesNotMatch(text, /\r\n0\r\n\r\n$/)
  })
}

const NO_TRANSFER_CODING = literal('transfer-encoding', 'gzip')
const WITH_BODY = { isLast: true }
for (const [what, method, answer] of [
  ['a body behind 204', 'GET', (s: number) => [head(s, status(204)), data(s, 'no', WITH_BODY)]],
  ['a body behind 304', 'GET', (s: number) => [head(s, status(304)), data(s, 'no', WITH_BODY)]],
  ['a body for HEAD', 'HEAD', (s: number) => [head(s, status(200)), data(s, 'no', WITH_BODY)]],
  [
    'a coding for HEAD',
    'HEAD',
    (s: number) => [head(s, Buffer.concat([status(200), NO_TRANSFER_CODING]), WITH_BODY)],
  ],
  ['another status for HEAD', 'HEAD', (s: number) => [head(s, status(600), WITH_BODY)]],
  ['a 204 that never ends', 'GET', (s: number) => [head(s, status(204)), reset(s, 0)]],
] as const) {
  for (const isApart of [false, true]) {
    test(`${what} is no answer, ${isApart ? 'in several packets' : 'in one packet'}`, async (t) => {
      const upstream = await framedUpstream(t, async ({ stream, socket }) => {
        if (!isApart) socket.write(Buffer.concat(answer(stream)))
        else
          for (const one of answer(stream)) {
            socket.write(one)
            await delay(20)
          }
      })
      const proxy = await proxyTo(t, { upstream: upstream.origin, http2: true })
      const { text } = await rawClient(t, proxy.port, GET.replace('GET', method)).closed
      assert.match(text, /^HTTP\/1\.1 500 /)
      assert.deepEqual(proxy.outcomes, ['upstream_unreachable'])
      assert.equal(upstream.requests.length, 1)
    })
  }
}

for (const [what, method, answer] of [
  ['204', 'GET', (s: number) => [head(s, status(204), { isLast: true })]],
  ['204 whose end comes later', 'GET', (s: number) => [head(s, status(204)), data(s, '', { isLast: true })]],
  [
    'HEAD',
    'HEAD',
    (s: number) => [head(s, Buffer.concat([status(200), literal('x-a', 'b')]), { isLast: true })],
  ],
  [
    'HEAD after an interim one',
    'HEAD',
    (s: number) => [head(s, status(103)), head(s, status(200), { isLast: true })],
  ],
] as const) {
  test(`an answer to ${what} passes, and its connection serves the next request`, async (t) => {
    const upstream = await framedUpstream(t, async ({ stream, socket }) => {
      for (const one of answer(stream)) {
        socket.write(one)
        await delay(20)
      }
    })
    const proxy = await proxyTo(t, { upstream: upstream.origin, http2: true })
    const request = `${method} / HTTP/1.1\r\nHost: a\r\n\r\n`
    const client = rawClient(t, proxy.port, request + request.replace('Host: a', LAST.trim()))
    assert.equal((await client.closed).text.match(/^HTTP\/1\.1 20[04] /gm)?.length, 2)
    assert.deepEqual(proxy.outcomes, ['sent', 'sent'])
  })
}
