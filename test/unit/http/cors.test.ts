import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import { type TestContext, test } from 'node:test'
import express from 'express'
import { createCors } from '../../../src/http/cors.ts'
import { listenOn } from '../../../src/http/server/public-server.ts'

const PARTNER = 'https://partner.test'

/** Asks a server whose every answer is `ok`, behind CORS for these origins. */
async function ask(t: TestContext, allowedOrigins: string[], headers: Record<string, string>) {
  const app = express()
  app.use(createCors(allowedOrigins))
  app.use((_req, res) => void res.end('ok'))
  const server = createServer(app)
  const port = await listenOn(server, { host: '127.0.0.1', port: 0 })
  t.after(() => {
    server.close()
    server.closeAllConnections()
  })
  const { headers: answered } = await fetch(`http://127.0.0.1:${port}/`, { headers })
  return { vary: answered.get('vary'), allowed: answered.get('access-control-allow-origin') }
}

test('where another origin is allowed, every answer says that it depends on the origin', async (t) => {
  for (const [headers, allowed] of [
    [{}, null],
    [{ origin: PARTNER }, PARTNER],
    [{ origin: 'https://evil.test' }, null],
    [{ origin: 'null' }, null],
  ] as const)
    assert.deepEqual(await ask(t, [PARTNER], headers), { vary: 'Origin', allowed })
})

test('where none is, no answer depends on it, and none says so', async (t) => {
  for (const headers of [{}, { origin: PARTNER }])
    assert.deepEqual(await ask(t, [], headers as Record<string, string>), { vary: null, allowed: null })
})
