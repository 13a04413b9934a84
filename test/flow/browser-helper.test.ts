import assert from 'node:assert/strict'
import { test } from 'node:test'
import { brotliCompressSync, gzipSync } from 'node:zlib'
import { setUp } from '../kit/attack/sign-in.ts'
import { addressBarOf, scriptOf } from '../kit/browsers/script.ts'

/** Bytes of the helper, minified and compressed, as a browser loads it. */
const LIMIT = 3_000

test('the browser helper is a module that a browser keeps and asks for again', async (t) => {
  const { cloakroom, browser } = await setUp(t)
  const ask = scriptOf(cloakroom)
  const answer = await ask('GET', '/bff/client.js').expect(200)
  assert.equal(answer.headers['content-type'], 'text/javascript; charset=utf-8')
  assert.equal(answer.headers['cache-control'], 'no-cache')
  assert.equal(answer.headers['cross-origin-resource-policy'], 'same-origin')
  assert.equal(answer.headers['access-control-allow-origin'], undefined)
  assert.equal(answer.headers['set-cookie'], undefined)
  const text = answer.text ?? answer.body.toString()
  const size = gzipSync(text, { level: 9 }).length
  t.diagnostic(`${text.length} bytes, gzip ${size}, brotli ${brotliCompressSync(text).length}`)
  assert.ok(size <= LIMIT, `${size} bytes`)
  assert.doesNotMatch(text, /^\s*(?:\/\/|\/?\*|import\b)/m)
  const module = await import(`data:text/javascript,${encodeURIComponent(text)}`)
  assert.deepEqual(Object.keys(module).toSorted(), ['CloakroomError', 'createCloakroom'])

  const { etag } = answer.headers as { etag: string }
  for (const known of [etag, `W/${etag}`]) {
    const again = await ask('GET', '/bff/client.js', { 'if-none-match': known }).expect(304)
    assert.equal(again.headers.etag, etag)
  }
  await ask('HEAD', '/bff/client.js').expect(200)
  assert.equal(browser.cookies.length, 0)
})

test("a popup's sign-in ends on the page that tells the tabs, and only that page of ours can be returned to", async (t) => {
  const { cloakroom, browser, provider } = await setUp(t)
  const done = await browser.signIn({ returnUrl: '/bff/done?id=0.5' })
  assert.equal(done.url.pathname + done.url.search, '/bff/done?id=0.5')
  assert.match(done.body, /data-channel="cloakroom:\/bff" data-done="0\.5"/)
  assert.doesNotMatch(done.body, /data-(?:code|reason)/)
  assert.match(String(done.headers['content-security-policy']), /script-src 'sha256-[\w+/=]+'$/)
  assert.equal(done.headers['cache-control'], 'no-store')

  const look = addressBarOf(cloakroom)
  for (const returnUrl of ['/bff/done', '/bff/done?id=a.b-c_9'])
    await look('GET', `/bff/login?returnUrl=${encodeURIComponent(returnUrl)}`).expect(302)
  for (const returnUrl of [
    '/bff/done/',
    '/bff/done?id=<',
    '/bff/done?id=',
    '/bff/done?x=1',
    '/bff/done?id=1&x',
    '/bff/done#a',
    '/bff/donee',
    '/bff/%64one',
    '/bff/user',
  ])
    await look('GET', `/bff/login?returnUrl=${encodeURIComponent(returnUrl)}`).expect(400)

  const html = { accept: 'text/html' }
  const asked = await look('GET', '/bff/done?id=%22%3E%3Cb%3E&login_error=login_required', html).expect(200)
  assert.match(
    asked.text,
    /data-done="&quot;&gt;&lt;b&gt;" data-code="session_required" data-reason="login_required"/,
  )
  const forged = await look('GET', '/bff/done?id=1&id=2&login_error=%22onload', html).expect(200)
  assert.match(forged.text, /data-done=""/)
  assert.doesNotMatch(forged.text, /data-reason/)

  provider.control.authorizationError = { error: 'login_required' }
  const silent = await browser.navigate(
    `${cloakroom.publicUrl}/bff/login?prompt=none&returnUrl=/bff/done?id=7`,
  )
  assert.match(silent.body, /data-done="7" data-code="session_required" data-reason="login_required"/)
  provider.control.authorizationError = { error: 'access_denied' }
  const refused = await browser.navigate(`${cloakroom.publicUrl}/bff/login?returnUrl=/bff/done?id=8`)
  assert.ok(refused.status >= 400)
  assert.match(
    refused.body,
    /data-done="8" data-code="\w+" data-request-id="[\w-]+" data-reason="access_denied"/,
  )
})

test('a popup is told of every failure, also of one before its sign-in began', async (t) => {
  const { cloakroom, start, provider } = await setUp(t)
  const page = { accept: 'text/html' }
  const opened = (target: { publicUrl: string }, query: string) =>
    addressBarOf(target as typeof cloakroom)('GET', `/bff/login?returnUrl=/bff/done?id=5${query}`, page)
  const told = (code: string) => new RegExp(`data-done="5" data-code="${code}" data-request-id="[\\w-]+"`)

  const spent = await opened(cloakroom, '&challenge=spent').expect(400)
  assert.match(spent.text, told('bad_request'))
  assert.match(spent.text, /data-reason="step_up_expired"/)
  assert.equal(spent.headers['cross-origin-opener-policy'], 'same-origin')

  const limited = await start({ rateLimits: { login: '1/1m' } })
  await opened(limited, '').expect(302)
  const refused = await opened(limited, '').expect(429)
  assert.match(refused.text, told('rate_limited'))

  await provider.close()
  const lonely = await start()
  const away = await opened(lonely, '').expect(503)
  assert.match(away.text, told('provider_unavailable'))
})
