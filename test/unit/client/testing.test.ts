import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createTestCloakroom } from '../../../src/client/testing.ts'

test('the test double is the helper without a server', async () => {
  const asked: string[] = []
  const cloakroom = createTestCloakroom({
    user: { sub: 'ada' },
    answer: ({ url }) => (url.endsWith('/api/orders') ? Response.json(['one']) : undefined),
    onSignInNeeded: ({ code }) => asked.push(code),
  })
  assert.equal((await cloakroom.refresh()).user?.sub, 'ada')
  assert.deepEqual(await (await cloakroom.fetch('/api/orders')).json(), ['one'])
  assert.equal((await cloakroom.fetch('/api/none')).status, 404)
  cloakroom.refuseNext('access_denied', 403, 'claims')
  await assert.rejects(cloakroom.fetch('/api/orders'), {
    code: 'access_denied',
    reason: 'claims',
    needsSignIn: false,
  })

  cloakroom.expireSession()
  const waiting = cloakroom.fetch('/api/orders', { method: 'POST', body: 'x', whenSignedOut: 'wait' })
  await new Promise((resolve) => setTimeout(resolve, 10))
  assert.deepEqual([asked, cloakroom.getSnapshot().status], [['session_required'], 'signed-out'])
  await cloakroom.signInAs({ sub: 'ada' })
  assert.equal((await waiting).status, 200)
  await cloakroom.signOut()
  assert.equal(cloakroom.getSnapshot().status, 'signed-out')
  assert.equal(cloakroom.requests.at(-2)?.method, 'POST')
})

test('the test double opens no window, leaves no page, and hears of no other test', async () => {
  const [cloakroom, stranger] = [createTestCloakroom({ user: { sub: 'ada' } }), createTestCloakroom()]
  await Promise.all([cloakroom.refresh(), stranger.refresh()])
  cloakroom.expireSession()
  await assert.rejects(cloakroom.fetch('/api/orders'), { code: 'session_required' })
  const failing = cloakroom.signIn({ mode: 'popup' })
  cloakroom.failSignIn('popup_closed')
  await assert.rejects(failing, { reason: 'popup_closed', needsSignIn: true })
  const changes: unknown[] = []
  cloakroom.on('user-changed', ({ user }) => changes.push(user?.sub))
  const signingIn = cloakroom.signIn({ prompt: 'login' })
  await cloakroom.signInAs({ sub: 'grace' })
  assert.deepEqual([(await signingIn).user, changes], [{ sub: 'grace' }, ['grace']])
  assert.deepEqual(cloakroom.signIns, [{ mode: 'popup' }, { prompt: 'login' }])
  assert.equal(stranger.getSnapshot().status, 'signed-out')

  await cloakroom.expireIn(30)
  assert.equal(cloakroom.getSnapshot().expiring, true)
  cloakroom.close()
})

test('the test double has streams, WebSockets and uploads', async () => {
  const event = new TextEncoder().encode('id: 1\ndata: hello\n\n')
  const cloakroom = createTestCloakroom({
    user: { sub: 'ada' },
    answer: ({ url, method }) =>
      method === 'POST'
        ? new Response(null, { status: 201 })
        : new Response(url.endsWith('/events') ? event : 'no', {
            headers: { 'content-type': 'text/event-stream' },
          }),
  })
  const seen: unknown[] = []
  await new Promise<void>((resolve) => {
    const stream = cloakroom.eventSource('/api/events', {
      onMessage({ data }) {
        seen.push(data)
        stream.close()
        resolve()
      },
    })
  })
  const progress: number[] = []
  const sent = await cloakroom.upload('/api/files', 'content', {
    onProgress: ({ loaded, total }) => progress.push(loaded / total),
  })
  const socket = cloakroom.webSocket('/api/live', { onMessage: (data) => seen.push(data) })
  assert.equal(socket.send('hi'), true)
  cloakroom.sockets[0]!.receive('there')
  socket.close()
  assert.equal(socket.send('late'), false)
  assert.deepEqual([seen, sent.status, progress.at(-1)], [['hello', 'there'], 201, 1])
  assert.deepEqual(cloakroom.sockets[0]!.sent, ['hi'])
  cloakroom.close()
})
