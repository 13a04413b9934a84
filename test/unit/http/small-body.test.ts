import assert from 'node:assert/strict'
import type { IncomingMessage } from 'node:http'
import { PassThrough } from 'node:stream'
import { suite, test } from 'node:test'
import type { BffError } from '../../../src/errors.ts'
import { readSmallBody } from '../../../src/http/small-body.ts'
import { createTestClock, settled } from '../../kit/clock.ts'

const FORM = 'application/x-www-form-urlencoded'

function setUp(headers: Record<string, string> = {}) {
  const body = new PassThrough()
  const clock = createTestClock()
  let continued = 0
  const req = Object.assign(body, {
    headers: { 'content-type': FORM, ...headers },
    httpVersion: '1.1',
  }) as unknown as IncomingMessage
  const rules = { types: [FORM], maxBytes: 10, withinMs: 5_000, clock }
  const res = {
    writeContinue() {
      continued += 1
    },
  }
  const read = readSmallBody(req, res, rules).then(
    (text) => text,
    (error: BffError) => [error.code, error.status],
  )
  return { body, clock, read, continued: () => continued }
}

suite('a body that one of our endpoints reads', () => {
  test('is read in pieces, with parameters of its type, and may be as long as the limit', async () => {
    const { body, read, clock } = setUp({
      'content-type': `Application/X-WWW-Form-Urlencoded; charset=utf-8`,
    })
    body.write('a=é')
    await settled()
    body.end('bcdefg')
    assert.equal(await read, 'a=ébcdefg')
    assert.equal(clock.planned(), 0)
  })

  test('is refused before it is read for its type, its coding or its announced length', async () => {
    for (const [headers, refusal] of [
      [{ 'content-type': 'text/plain' }, ['bad_request', undefined]],
      [{ 'content-type': '' }, ['bad_request', undefined]],
      [{ 'content-type': `text/plain, ${FORM}` }, ['bad_request', undefined]],
      [{ 'content-encoding': 'gzip' }, ['bad_request', undefined]],
      [{ 'content-length': '11' }, ['body_too_large', undefined]],
    ] as const) {
      const { body, read, continued } = setUp({ expect: '100-continue', ...headers })
      assert.deepEqual(await read, refusal, JSON.stringify(headers))
      assert.equal(body.listenerCount('data'), 0)
      assert.equal(continued(), 0)
    }
  })

  test('is asked for when the client waits for that', async () => {
    const { body, read, continued } = setUp({ expect: '100-continue', 'content-length': '1' })
    await settled()
    assert.equal(continued(), 1)
    body.end('a')
    assert.equal(await read, 'a')
  })

  test('is given up when it gets too long, too late, stops short or is no text; errors after that end nothing', async () => {
    const failures: [(setup: ReturnType<typeof setUp>) => void, unknown][] = [
      [({ body }) => void body.write('x'.repeat(11)), ['body_too_large', undefined]],
      [({ clock }) => clock.advance(5_000), ['bad_request', 408]],
      [({ body }) => void body.destroy(), ['bad_request', undefined]],
      [({ body }) => void body.destroy(new Error('reset')), ['bad_request', undefined]],
      [({ body }) => void body.end(Buffer.from([0xc3, 0x28])), ['bad_request', undefined]],
    ]
    for (const [fail, refusal] of failures) {
      const setup = setUp()
      setup.body.write('a')
      await settled()
      fail(setup)
      assert.deepEqual(await setup.read, refusal)
      setup.body.destroy(new Error('late'))
      await settled()
      assert.equal(setup.clock.planned(), 0)
    }
  })

  test('of a client that has left already is given up at once', async () => {
    const body = new PassThrough()
    body.on('error', () => undefined).destroy()
    await settled()
    const req = Object.assign(body, { headers: { 'content-type': FORM }, httpVersion: '1.1' })
    const rules = { types: [FORM], maxBytes: 10, withinMs: 5_000, clock: createTestClock() }
    const reading = readSmallBody(req as unknown as IncomingMessage, { writeContinue() {} }, rules)
    await assert.rejects(reading, { code: 'bad_request' })
  })
})
