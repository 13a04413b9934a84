import assert from 'node:assert/strict'
import { test } from 'node:test'
import { sendJson, sendText, startLocalServer } from '../../kit/local-server.ts'
import { startRecordingProxy, tokensOf } from '../../kit/recording-proxy.ts'

test('a recording proxy hands on every request under its own Host, and keeps those for tokens', async (t) => {
  const provider = await startLocalServer((request, res) =>
    request.path === '/token'
      ? sendJson(res, 200, {
          access_token: 'access-token-1',
          refresh_token: 'refresh-token-2',
          expires_in: 300,
        })
      : sendText(res, 200, `${request.method} ${request.path} ${request.headers.host}`),
  )
  t.after(() => provider.close())
  const proxy = await startRecordingProxy({ changeAnswer: (answer) => ({ ...answer, expires_in: 10 }) })
  t.after(() => proxy.close())
  proxy.forwardTo(provider.port)

  const page = await fetch(`${proxy.origin}/page`)
  assert.equal(await page.text(), `GET /page ${new URL(proxy.origin).host}`)
  const form = { grant_type: 'refresh_token', refresh_token: 'refresh-token-1' }
  const answer = await fetch(`${proxy.origin}/token`, { method: 'POST', body: new URLSearchParams(form) })
  assert.equal(((await answer.json()) as { expires_in: number }).expires_in, 10)
  const [exchange, ...others] = proxy.tokenExchanges
  assert.deepEqual(others, [])
  assert.deepEqual([exchange?.grantType, exchange?.status], ['refresh_token', 200])
  assert.deepEqual(tokensOf(proxy.tokenExchanges), ['access-token-1', 'refresh-token-2', 'refresh-token-1'])
})
