import assert from 'node:assert/strict'
import { Agent, request } from 'node:http'
import { type TestContext, test } from 'node:test'
import { startCloakroom } from '../kit/cloakroom.ts'
import { startLocalServer } from '../kit/local-server.ts'
import { skipWithout, startNginx } from './foreign-servers.ts'

const SITE = 'https://app.example.test'
const POSTS = 3_000
const AT_ONCE = 64

/** An nginx that speaks HTTP/2 and sends its connections away after few requests, Cloakroom before it, a ledger behind. */
async function setUp(t: TestContext) {
  const ledger = new Map<string, number>()
  const shop = await startLocalServer(({ body }, res) => {
    ledger.set(body, (ledger.get(body) ?? 0) + 1)
    res.end('noted')
  })
  t.after(() => shop.close())
  const nginx = await startNginx({
    listen: 'http2',
    http: `client_max_body_size 8m; upstream shop { server 127.0.0.1:${shop.port}; keepalive 64; }`,
    server: `
      keepalive_requests 20;
      location / { proxy_pass http://shop; proxy_http_version 1.1; proxy_set_header Connection ""; }`,
  })
  t.after(() => nginx.stop())
  const cloakroom = await startCloakroom({
    publicUrl: SITE,
    provider: { issuer: 'https://id.example.test', clientId: 'shop', clientAuth: { method: 'none' } },
    resources: {},
    routes: [{ path: '/', upstream: `http://127.0.0.1:${nginx.port}`, http2: true, auth: 'anonymous' }],
  })
  t.after(() => cloakroom.close())
  return { ledger, cloakroom }
}

test(`of ${POSTS} POSTs to an nginx that goes away again and again, each is answered and arrives once`, {
  skip: skipWithout('nginx'),
}, async (t) => {
  const { ledger, cloakroom } = await setUp(t)
  const agent = new Agent({ keepAlive: true, maxSockets: AT_ONCE })
  t.after(() => agent.destroy())
  const statuses = new Map<number, number>()
  function post(n: number): Promise<void> {
    // Some fit into one frame with their head, some into several, some need more than one window.
    const body = `${n} `.padEnd(n % 50 === 0 ? 60_000 : n % 5 === 0 ? 5_000 : 20, '.')
    const headers = n % 7 === 0 ? { 'transfer-encoding': 'chunked' } : { 'content-length': body.length }
    return new Promise((resolve, reject) => {
      const req = request(
        cloakroom.listenUrl,
        { method: 'POST', agent, headers: { ...headers, host: 'app.example.test' } },
        (res) => {
          statuses.set(res.statusCode!, (statuses.get(res.statusCode!) ?? 0) + 1)
          res.resume().once('end', resolve)
        },
      )
      req.once('error', reject).end(body)
    })
  }
  await Promise.all(Array.from({ length: POSTS }, (_, n) => post(n)))
  assert.deepEqual([...statuses], [[200, POSTS]])
  assert.equal(ledger.size, POSTS)
  assert.deepEqual(
    [...ledger].filter(([, times]) => times !== 1),
    [],
  )
})
