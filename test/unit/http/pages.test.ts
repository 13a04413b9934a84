import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import type { Response } from 'express'
import { failedSignInPage, landingPage, PAGE_STYLE, sendPage } from '../../../src/http/pages.ts'

const failed = { title: 'Access denied', code: 'access_denied', requestId: 'r-1', retryUrl: '/bff/login' }

/** What would have been sent. */
function sent(html: string) {
  const headers: Record<string, string> = { 'content-security-policy': "default-src 'none'" }
  const res = {
    getHeader: (name: string) => headers[name],
    setHeader: (name: string, value: string) => {
      headers[name] = value
    },
    type: () => res,
    send: (body: string) => {
      headers.body = body
    },
  }
  sendPage(res as unknown as Response, html)
  return { policy: headers['content-security-policy'], body: headers.body ?? '' }
}

test('a page is allowed the one style it has, by hash, and nothing else', () => {
  for (const html of [landingPage('/home'), failedSignInPage(failed)]) {
    const { policy, body } = sent(html)
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
  const page = failedSignInPage({ title: evil, code: evil, requestId: evil, retryUrl: evil })
  assert.equal(page.split(escaped).length, 5)
  assert.ok(!page.includes('<script'))
  const landing = landingPage(evil)
  assert.ok(landing.includes(`content="0;url=${escaped}"`) && !landing.includes('<script'))
})
