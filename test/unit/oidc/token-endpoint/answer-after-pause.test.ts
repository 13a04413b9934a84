import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { Worker } from 'node:worker_threads'
import { createProviderFetch } from '../../../../src/oidc/token-endpoint/provider-fetch.ts'

/** A token endpoint that answers after 50 ms, while the thread of the test may stand still. */
const TOKEN_ENDPOINT = `
  const { createServer } = require('node:http')
  const { parentPort } = require('node:worker_threads')
  const server = createServer((req, res) => {
    req.resume()
    const body = '{"access_token":"a","token_type":"Bearer"}'
    setTimeout(() => res.setHeader('content-type', 'application/json').end(body), 50)
  })
  server.listen(0, '127.0.0.1', () => parentPort.postMessage(server.address().port))
`

function standStill(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)
}

test('a token answer that came while the process stood still is read before its time is said to be over', async (t) => {
  const worker = new Worker(TOKEN_ENDPOINT, { eval: true })
  t.after(() => worker.terminate())
  const [port] = await once(worker, 'message')
  const provider = createProviderFetch({ now: Date.now })
  const ask = (signal?: AbortSignal) =>
    provider.fetch(`http://127.0.0.1:${port}/token`, { method: 'POST', body: 'x', signal })
  await ask()
  for (let round = 0; round < 5; round += 1) {
    const answer = ask(AbortSignal.timeout(200))
    // The request is on its way, and its answer comes while nobody looks.
    await new Promise((resolve) => setTimeout(resolve, 20))
    // Behind the look at the sockets: what comes next are the timers.
    await new Promise(setImmediate)
    standStill(300)
    assert.equal((await answer).status, 200)
  }
})

test('a token answer that does not come is given up when its time is over', async (t) => {
  const worker = new Worker(TOKEN_ENDPOINT.replace('.end(', '.write('), { eval: true })
  t.after(() => worker.terminate())
  const [port] = await once(worker, 'message')
  const { fetch } = createProviderFetch({ now: Date.now })
  const signal = AbortSignal.timeout(100)
  await assert.rejects(fetch(`http://127.0.0.1:${port}/token`, { method: 'POST', body: 'x', signal }), {
    name: 'TimeoutError',
  })
})

test('a token request whose time is over before it begins is not sent', async () => {
  const { fetch } = createProviderFetch({
    now: Date.now,
    fetch: async (_, { signal }) => {
      signal?.throwIfAborted()
      return new Response('{}')
    },
  })
  const signal = AbortSignal.abort(new DOMException('late', 'TimeoutError'))
  await assert.rejects(fetch('http://127.0.0.1:1/token', { method: 'POST', body: 'x', signal }), {
    name: 'TimeoutError',
  })
})
