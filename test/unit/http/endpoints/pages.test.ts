import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import express from 'express'
import request from 'supertest'
import {
  endSessionPage,
  failedSignInPage,
  landingPage,
  PAGE_STYLE,
  type Page,
  sendPage,
} from '../../../../src/http/endpoints/pages.ts'

const ROOT = fileURLToPath(new URL('../../../../', import.meta.url))
const failed = { title: 'Access denied', code: 'access_denied', requestId: 'r-1', retryUrl: '/bff/login' }

/** What a browser gets when the answer has this policy already. */
async function sent(page: Page, own = "default-src 'none'") {
  const app = express()
  app.use((_req, res) => {
    res.setHeader('content-security-policy', own)
    sendPage(res, page)
  })
  const { headers, text } = await request(app).get('/').expect('content-type', 'text/html; charset=utf-8')
  return { policy: headers['content-security-policy'] ?? '', body: text }
}

test('a page is allowed the one style it has, by hash, and nothing else', async () => {
  for (const page of [landingPage('/home'), failedSignInPage(failed)]) {
    const { policy, body } = await sent(page)
    const [, style = ''] = /<style>(.*)<\/style>/s.exec(body) ?? []
    assert.equal(style, PAGE_STYLE)
    const hash = createHash('sha256').update(style).digest('base64')
    assert.equal(policy, `default-src 'none';style-src 'sha256-${hash}'`)
    assert.doesNotMatch(body, /<script|style=|src=|@import|url\((?!\/)/)
  }
})

test('what came with the request is text on the page, never markup', () => {
  const evil = `"><script>alert('1')</script>&`
  const escaped = '&quot;&gt;&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&amp;'
  const { html: page } = failedSignInPage({
    ...{ title: evil, code: evil, requestId: evil },
    ...{ retryUrl: evil, retryLabel: evil },
  })
  assert.equal(page.split(escaped).length, 6)
  assert.ok(!page.includes('<script'))
  const { html: landing } = landingPage(evil)
  assert.ok(landing.includes(`content="0;url=${escaped}"`) && !landing.includes('<script'))
})

test('the page that signs out at the provider may run its one script and post to the provider, which may pass it on, and nothing else', async () => {
  const evil = `"><script>alert('1')</script>`
  const form = {
    action: 'https://id.example.com/logout?p=1',
    fields: [
      ['id_token_hint', 'eyJ.x.y'],
      ['state', evil],
    ],
  } as const
  const { policy, body } = await sent(
    endSessionPage(form),
    "default-src 'none';base-uri 'none';form-action 'none';frame-ancestors 'none'",
  )
  const scripts = [...body.matchAll(/<script>(.*?)<\/script>/gs)].map(([, script = '']) => script)
  assert.equal(scripts.length, 1)
  const hash = createHash('sha256')
    .update(scripts[0] ?? '')
    .digest('base64')
  const directives = policy.split(';')
  assert.ok(directives.includes(`script-src 'sha256-${hash}'`), policy)
  assert.deepEqual(
    directives.filter((directive) => directive.startsWith('form-action')),
    ["form-action https://id.example.com https: 'self'"],
  )
  for (const kept of ["default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"])
    assert.ok(directives.includes(kept), policy)
  assert.match(body, /<form method="post" action="https:\/\/id\.example\.com\/logout\?p=1">/)
  assert.match(body, /<input type="hidden" name="id_token_hint" value="eyJ\.x\.y">/)
  assert.match(body, /<button/, 'for browsers without scripts')
})

test('no window posts a message to another (RFC 9700 §4.17): a channel of the origin has no target to be mistaken for', () => {
  const places = ['src/demo/spa/*', 'src/http/endpoints/*.ts', 'src/client/**/*']
  const files = globSync(places, { cwd: ROOT, withFileTypes: true }).filter((entry) => entry.isFile())
  for (const name of ['cloakroom.js', 'pages.ts', 'client.ts'])
    assert.ok(files.some((file) => file.name === name))
  for (const { parentPath, name } of files) {
    const source = readFileSync(join(parentPath, name), 'latin1')
    for (const [line] of source.matchAll(/.*postMessage.*/g))
      assert.match(line, /new BroadcastChannel\(channel\)\.postMessage|channel\?\.postMessage/, name)
    assert.doesNotMatch(
      source,
      /\bopener\??\.\w|contentWindow|(?:window|self|globalThis)\.(?:addEventListener\('message'|onmessage)/,
      name,
    )
  }
})
