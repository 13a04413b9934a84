import assert from 'node:assert/strict'
import type { IncomingMessage } from 'node:http'
import { test } from 'node:test'
import { startCloakroom } from '../kit/cloakroom.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { startUpstream } from '../kit/upstream/upstream.ts'

const APP = 'https://app.example.test'

/** How servers of resumable uploads make the URL of a new one. */
const STYLES: Record<string, (req: IncomingMessage, path: string) => string> = {
  'from its own path': (_req, path) => path,
  'from Host': ({ headers }, path) => `http://${headers.host}${path}`,
  'from Host and X-Forwarded-Proto': ({ headers }, path) =>
    `${headers['x-forwarded-proto']}://${headers.host}${path}`,
  'from X-Forwarded-Host': ({ headers }, path) =>
    `${headers['x-forwarded-proto']}://${headers['x-forwarded-host']}${path}`,
  'from X-Forwarded-Prefix too': ({ headers }, path) =>
    `https://${headers['x-forwarded-host']}${headers['x-forwarded-prefix']}${path}`,
}

test('a resumable upload (tus) goes on at the upstream that created it, however that makes its URL', async (t) => {
  const provider = await startRotatingProvider()
  t.after(() => provider.close())
  let style = STYLES['from its own path']!
  const files = await startUpstream({
    handle: (request, res, req) => {
      if (request.method !== 'POST') return false
      res.writeHead(201, { location: style(req, '/v1/files/24e533e'), 'tus-resumable': '1.0.0' }).end()
      return true
    },
  })
  t.after(() => files.close())
  const spa = await startUpstream()
  t.after(() => spa.close())
  const cloakroom = await startCloakroom({
    publicUrl: APP,
    provider: provider.settings,
    resources: {},
    routes: [
      { path: '/api/uploads', upstream: files.url, rewrite: '/v1/files', auth: 'anonymous' },
      { path: '/', upstream: spa.url, auth: 'anonymous' },
    ],
  })
  t.after(() => cloakroom.close())
  const browser = cloakroom.browser()
  for (const [name, make] of Object.entries(STYLES)) {
    style = make
    const created = await browser.fetch('/api/uploads', { method: 'POST', headers: { 'upload-length': '5' } })
    assert.equal(created.status, 201, name)
    const { pathname, origin } = new URL(String(created.headers.location), `${APP}/api/uploads`)
    assert.equal(origin, APP, name)
    const sent = await browser.fetch(pathname, {
      method: 'PATCH',
      headers: { 'upload-offset': '0' },
      body: 'hello',
    })
    assert.equal(sent.status, 200, name)
    const { method, path, body } = files.requests.at(-1)!
    assert.deepEqual([method, path, body.toString()], ['PATCH', '/v1/files/24e533e', 'hello'], name)
  }
  assert.equal(spa.requests.length, 0)
})
