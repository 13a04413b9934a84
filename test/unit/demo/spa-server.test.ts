import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { createSpaServer } from '../../../src/demo/demo-backends.ts'
import { listenOnLoopback } from '../../../src/demo/loopback-server.ts'

async function startSpa(t: TestContext): Promise<string> {
  const server = await listenOnLoopback(createSpaServer)
  t.after(() => server.close())
  return server.origin
}

describe('the SPA server', () => {
  it('serves the page for every path of the application, under a strict policy', async (t) => {
    const origin = await startSpa(t)
    for (const path of ['/', '/orders/42', '/?x=1']) {
      const response = await fetch(origin + path)
      assert.match(await response.text(), /<!doctype html>/i)
      assert.match(response.headers.get('content-security-policy') ?? '', /^default-src 'self';/)
    }
  })

  it('serves everything the page names, and the page names nothing of another origin', async (t) => {
    const origin = await startSpa(t)
    const page = await (await fetch(`${origin}/`)).text()
    const named = [...page.matchAll(/(?:src|href)="([^"#]+)"/g)].map(([, address]) => address ?? '')
    assert.ok(named.length >= 2)
    for (const address of named.filter((address) => !address.startsWith('/bff/'))) {
      assert.match(address, /^\/[\w.-]*$/)
      assert.equal((await fetch(origin + address)).status, 200, address)
    }
    assert.doesNotMatch(page, /<style|style="|onclick=|<script>/)
  })

  it('has no file outside its directory', async (t) => {
    const origin = await startSpa(t)
    for (const path of ['/missing.js', '/..%2fspa-server.ts', '/%2e%2e/demo-api.ts']) {
      assert.equal((await fetch(origin + path)).status, 404, path)
    }
  })

  it('answers HEAD without a body and no other method', async (t) => {
    const origin = await startSpa(t)
    const head = await fetch(`${origin}/base.css`, { method: 'HEAD' })
    assert.equal(await head.text(), '')
    assert.ok(Number(head.headers.get('content-length')) > 0)
    assert.equal((await fetch(`${origin}/base.css`, { method: 'POST' })).status, 405)
  })
})
