import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { startCloakroom } from '../kit/cloakroom.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { startUpstream } from '../kit/upstream/upstream.ts'

/** One whose `/x` leads to that upstream without a session. */
async function startWith(t: TestContext, upstream: string | ((port: number) => string)) {
  const provider = await startRotatingProvider()
  t.after(() => provider.close())
  const cloakroom = await startCloakroom(({ publicPort }) => ({
    provider: provider.settings,
    routes: [
      {
        path: '/x',
        upstream: typeof upstream === 'string' ? upstream : upstream(publicPort),
        auth: 'anonymous',
      },
    ],
  }))
  t.after(() => cloakroom.close())
  return cloakroom
}

test('a route that leads back to its own Cloakroom is refused at the second look, and one to another is served', async (t) => {
  const upstream = await startUpstream()
  t.after(() => upstream.close())
  const inner = await startWith(t, upstream.url)
  const outer = await startWith(t, inner.listenUrl)
  assert.equal((await fetch(`${outer.publicUrl}/x`)).status, 200)
  const [first, second] = String(upstream.requests[0]!.headers.via).split(', ')
  assert.match(first!, /^1\.1 cloakroom-[0-9a-f]{8}$/)
  assert.match(second!, /^1\.1 cloakroom-[0-9a-f]{8}$/)
  assert.notEqual(first, second)

  const itself = await startWith(t, (port) => `http://127.0.0.1:${port}`)
  const answer = await fetch(`${itself.publicUrl}/x`)
  assert.equal(answer.status, 502)
  assert.equal(((await answer.json()) as { code: string }).code, 'upstream_unreachable')
})
