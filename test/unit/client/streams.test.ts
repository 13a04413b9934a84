import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createCloakroom } from '../../../src/client/client.ts'
import type { StreamEvent } from '../../../src/client/types.ts'
import { type Answer, eventually, fakeBrowser } from '../../kit/browsers/fake-tabs.ts'

const REFUSAL = { code: 'session_required', status: 401 }

test('an event stream is read as HTML §9.2.6 has it, and comes back after a sign-in with its last event id', async (t) => {
  let isSignedIn = true
  const chunks = [
    ...['\ufeffid: 1\r', '\ndata: a\r\n', 'data:b\r\n\r', '\nretry: 1\n: comment\nevent: named\n'],
    ...['data\n\n', 'id: 2\nevent: unsent\n\ndata: last\n\ndata: cut o'],
  ]
  const browser = fakeBrowser(t, ({ path }): Answer => {
    if (path.startsWith('/bff/user'))
      return isSignedIn
        ? { status: 200, json: { sub: 'ada', 'bff:session_expires_in': 60 } }
        : { status: 204 }
    if (!isSignedIn) return REFUSAL
    isSignedIn = browser.count('/api/events') > 1
    if (isSignedIn) return { status: 204 }
    const body = ReadableStream.from(chunks.map((chunk) => new TextEncoder().encode(chunk)))
    return new Response(body as never, { headers: { 'content-type': 'text/event-stream' } })
  })
  const cloakroom = createCloakroom({ fetch: browser.fetch, warnBefore: 1 })
  await cloakroom.refresh()
  const [events, states] = [[] as StreamEvent[], [] as string[]]
  cloakroom.eventSource('/api/events', {
    onMessage: (event) => events.push(event),
    onState: (state) => states.push(state),
  })
  await eventually(() => states.at(-1) === 'signed-out')
  assert.equal(cloakroom.getSnapshot().status, 'signed-out')
  assert.deepEqual(events, [
    { data: 'a\nb', event: 'message', lastEventId: '1' },
    { data: '', event: 'named', lastEventId: '1' },
    { data: 'last', event: 'message', lastEventId: '2' },
  ])
  isSignedIn = true
  await cloakroom.refresh()
  await eventually(() => states.at(-1) === 'closed')
  const expected = ['connecting', 'open', 'connecting', 'signed-out', 'connecting', 'closed']
  assert.deepEqual(states, expected)
  const asked = browser.seen.filter(({ path }) => path === '/api/events')
  assert.deepEqual(
    asked.map(({ headers }) => headers.get('last-event-id')),
    [null, '2', '2'],
  )
})

test('a stream that is closed says so at once', async (t) => {
  const browser = fakeBrowser(t, ({ path }): Answer => {
    if (path.startsWith('/bff/user')) return { status: 204 }
    const body = new ReadableStream({
      start: (controller) => controller.enqueue(new TextEncoder().encode(':\n')),
    })
    return new Response(body as never, { headers: { 'content-type': 'text/event-stream' } })
  })
  const cloakroom = createCloakroom({
    fetch: async (input, init) => {
      const response = await browser.fetch(input, init)
      const { signal } = init ?? {}
      if (!signal || !response.body) return response
      const { readable, writable } = new TransformStream()
      response.body.pipeTo(writable, { signal }).catch(() => {})
      return new Response(readable, response)
    },
  })
  await cloakroom.refresh()
  const states: string[] = []
  const stream = cloakroom.eventSource('/api/events', {
    onMessage() {},
    onState: (state) => states.push(state),
  })
  await eventually(() => states.at(-1) === 'open')
  stream.close()
  // Far less than the time to the next attempt.
  for (let turn = 0; turn < 50; turn += 1) await new Promise((resolve) => setImmediate(resolve))
  assert.deepEqual(states, ['connecting', 'open', 'closed'])
})

test('a WebSocket that came back often holds none of those before it', async (t) => {
  const sockets: { closed: number; onclose?: (event: { code: number }) => void }[] = []
  const before = globalThis.WebSocket
  globalThis.WebSocket = class {
    closed = 0
    onclose?: (event: { code: number }) => void
    constructor() {
      sockets.push(this)
    }
    close() {
      this.closed += 1
      this.onclose?.({ code: 1005 })
    }
  } as never
  t.after(() => {
    globalThis.WebSocket = before
  })
  t.mock.method(Math, 'random', () => 0)
  const browser = fakeBrowser(t, () => ({ status: 200, json: { sub: 'ada', 'bff:session_expires_in': 60 } }))
  const cloakroom = createCloakroom({ fetch: browser.fetch, warnBefore: 1 })
  await cloakroom.refresh()
  const states: string[] = []
  const socket = cloakroom.webSocket('/api/live', { onMessage() {}, onState: (state) => states.push(state) })
  for (let count = 1; count <= 3; count += 1) {
    await eventually(() => sockets.length === count)
    if (count < 3) sockets.at(-1)?.onclose?.({ code: 1006 })
  }
  socket.close()
  await eventually(() => states.at(-1) === 'closed')
  assert.deepEqual(
    sockets.map(({ closed }) => closed),
    [0, 0, 1],
  )
})
