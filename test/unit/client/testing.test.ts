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
