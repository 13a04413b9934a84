import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, readFile, rm, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { startCloakroom } from '../kit/cloakroom.ts'
import { startLocalServer } from '../kit/local-server.ts'
import { skipWithout, startNginx } from './foreign-servers.ts'
import { type Ask, ask, assertSame, digest } from './whole-answer.ts'

const SITE = 'https://app.example.test'
const skip = skipWithout('nginx')
const TEXT = Array.from({ length: 4000 }, (_, i) => `line ${i} of a text worth compressing\n`).join('')
const FIVE_MB = randomBytes(5 * 1024 * 1024)
const MODIFIED = new Date('2026-01-02T03:04:05Z')

/** A folder of files that nginx gives the same entity tags each time: time and length. */
async function makeFiles(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'cloakroom-files-'))
  t.after(() => rm(folder, { recursive: true, force: true }))
  await mkdir(join(folder, 'folder'))
  const files = { 'text.txt': TEXT, 'big.bin': FIVE_MB, 'empty.txt': '', 'short.txt': '0123456789' }
  for (const [name, content] of Object.entries(files)) {
    await writeFile(join(folder, name), content)
    await utimes(join(folder, name), MODIFIED, MODIFIED)
  }
  return folder
}

/** An nginx with files, and Cloakroom before it. */
async function setUp(t: TestContext, more = '') {
  const folder = await makeFiles(t)
  const digester = await startLocalServer(({ method, headers, body }, res) => {
    res.end(`${method} ${headers['content-length'] ?? 'chunked'} ${digest(body)}`)
  })
  t.after(() => digester.close())
  const nginx = await startNginx({
    // Without gzip_proxied, nginx compresses nothing for a request that has a Via.
    http: 'gzip on; gzip_proxied any; gzip_types text/plain; gzip_min_length 20; gzip_vary on; client_max_body_size 8m;',
    server: `
      root ${folder}; ${more}
      location /uploads/ { dav_methods PUT DELETE MKCOL COPY MOVE; create_full_put_path on; }
      location /limited { client_max_body_size 1k; proxy_pass ${digester.origin}; }
      location /streamed { proxy_request_buffering off; proxy_http_version 1.1; proxy_pass ${digester.origin}; }
      location = /nothing { return 204; }
      location = /words { default_type text/plain; return 418 "short and stout"; }
      location = /fields {
        add_header Set-Cookie "a=1; Path=/x"; add_header Set-Cookie b=2; add_header Link "</a>, </b>";
        add_header X-Odd "  caf\xc3\xa9  \\t!"; add_header Cache-Control "no-cache, max-age=0"; return 200 fields;
      }
      location = /password { auth_basic "the shop"; auth_basic_user_file ${folder}/nobody; }
      location = /away { return 302 https://elsewhere.example/x?y; }`,
  })
  t.after(() => nginx.stop())
  const upstreamOrigin = `http://127.0.0.1:${nginx.port}`
  const cloakroom = await startCloakroom({
    publicUrl: SITE,
    provider: { issuer: 'https://id.example.test', clientId: 'shop', clientAuth: { method: 'none' } },
    routes: [{ path: '/', upstream: upstreamOrigin, auth: 'anonymous' }],
  })
  t.after(() => cloakroom.close())
  const port = Number(new URL(cloakroom.listenUrl).port)
  const app = new URL(SITE).host
  return {
    folder,
    direct: (request: Ask) => ask(nginx.port, { ...request, host: new URL(upstreamOrigin).host }),
    through: (request: Ask) => ask(port, { ...request, host: app }),
    upstreamOrigin,
  }
}

const GZIP = { 'accept-encoding': 'gzip' }
const ETAG = `"${(MODIFIED.getTime() / 1000).toString(16)}-a"`
const SHORT = '/short.txt'

const LENGTH: Record<string, string> = { 'content-length': String(FIVE_MB.length) }
const CHUNKED: Record<string, string> = { 'transfer-encoding': 'chunked' }

/** Requests whose answers must come through as they are. */
const FEATURES: readonly [name: string, request: Ask, status: number][] = [
  ['a text', { path: '/text.txt' }, 200],
  ['a text in gzip', { path: '/text.txt', headers: GZIP }, 200],
  ['a HEAD', { path: '/text.txt', method: 'HEAD' }, 200],
  ['a HEAD in gzip', { path: '/text.txt', method: 'HEAD', headers: GZIP }, 200],
  ['an empty file', { path: '/empty.txt' }, 200],
  ['a missing file', { path: '/missing' }, 404],
  ['a folder that may not be listed', { path: '/' }, 403],
  ['a method that the file does not have', { path: SHORT, method: 'POST' }, 405],
  ['a method that nobody has', { path: SHORT, method: 'PROPFIND' }, 405],
  ['5 MB', { path: '/big.bin' }, 200],
  ['the first byte', { path: SHORT, headers: { range: 'bytes=0-0' } }, 206],
  ['from a byte on', { path: SHORT, headers: { range: 'bytes=5-' } }, 206],
  ['the last bytes', { path: SHORT, headers: { range: 'bytes=-3' } }, 206],
  ['a range past the end', { path: SHORT, headers: { range: 'bytes=5-99' } }, 206],
  ['a range beyond the end', { path: SHORT, headers: { range: 'bytes=99-' } }, 416],
  ['several ranges', { path: SHORT, headers: { range: 'bytes=0-1,4-5,-1' } }, 206],
  ['a megabyte from the middle', { path: '/big.bin', headers: { range: 'bytes=1000000-1999999' } }, 206],
  ['a HEAD of a range', { path: SHORT, method: 'HEAD', headers: { range: 'bytes=0-1' } }, 206],
  ['a range of another unit', { path: SHORT, headers: { range: 'lines=0-1' } }, 200],
  ['a range if the tag holds', { path: SHORT, headers: { range: 'bytes=0-1', 'if-range': ETAG } }, 206],
  ['a range if another tag holds', { path: SHORT, headers: { range: 'bytes=0-1', 'if-range': '"x"' } }, 200],
  ['the same tag', { path: SHORT, headers: { 'if-none-match': ETAG } }, 304],
  ['one of several tags', { path: SHORT, headers: { 'if-none-match': `"x", W/${ETAG}` } }, 304],
  ['any tag', { path: SHORT, headers: { 'if-none-match': '*' } }, 304],
  ['another tag', { path: SHORT, headers: { 'if-none-match': '"x"' } }, 200],
  ['the same tag in gzip', { path: '/text.txt', headers: { ...GZIP, 'if-none-match': '*' } }, 304],
  ['not modified since', { path: SHORT, headers: { 'if-modified-since': MODIFIED.toUTCString() } }, 304],
  ['a HEAD with the same tag', { path: SHORT, method: 'HEAD', headers: { 'if-none-match': ETAG } }, 304],
  ['if another tag matches', { path: SHORT, headers: { 'if-match': '"x"' } }, 412],
  [
    'if unmodified since long ago',
    { path: SHORT, headers: { 'if-unmodified-since': new Date(0).toUTCString() } },
    412,
  ],
  ['no content', { path: '/nothing' }, 204],
  ['a status of its own', { path: '/words' }, 418],
  ['fields twice and in odd bytes', { path: '/fields' }, 200],
  ['a redirect to elsewhere', { path: '/away' }, 302],
]

test('what nginx does with files comes through byte for byte', { skip }, async (t) => {
  const { direct, through } = await setUp(t)
  for (const [name, request, status] of FEATURES) {
    await t.test(`${name}: ${status}`, async () => {
      const own = await direct(request)
      assert.equal(own.status, status)
      assertSame(await through(request), own)
    })
  }
})

test('two answers of nginx are changed as documented: a redirect at its own origin and a password dialog', {
  skip,
}, async (t) => {
  const { direct, through, upstreamOrigin } = await setUp(t)
  const folder = { path: '/folder?x=1' }
  const [ownFolder, ourFolder] = [await direct(folder), await through(folder)]
  assert.equal(ownFolder.location, `${upstreamOrigin}/folder/?x=1`)
  assert.equal(ourFolder.location, `${SITE}/folder/?x=1`)
  assertSame(ourFolder, ownFolder, ['location'])
  const password = { path: '/password' }
  const [ownPassword, ourPassword] = [await direct(password), await through(password)]
  assertSame(ourPassword, ownPassword, ['www-authenticate', 'x-upstream-www-authenticate'])
  assert.deepEqual(
    ourPassword.fields.filter(([name]) => name.endsWith('www-authenticate')),
    [['x-upstream-www-authenticate', 'Basic realm="the shop"']],
  )
})

test('files are written, read, copied and deleted over WebDAV, with a length and in chunks', {
  skip,
}, async (t) => {
  const { through, folder } = await setUp(t)
  for (const headers of [LENGTH, CHUNKED]) {
    const path = `/uploads/${Object.keys(headers)[0]}`
    const put = await through({ path, method: 'PUT', headers, body: FIVE_MB })
    assert.equal(put.status, 201)
    assert.equal(digest(await readFile(join(folder, path))), digest(FIVE_MB))
    assert.equal(digest((await through({ path })).body), digest(FIVE_MB))
    const copied = await through({ path, method: 'COPY', headers: { destination: `${path}-2` } })
    assert.equal(copied.status, 204)
    assert.equal((await through({ path, method: 'DELETE' })).status, 204)
    assert.equal((await through({ path })).status, 404)
    assert.equal(digest((await through({ path: `${path}-2` })).body), digest(FIVE_MB))
  }
})

test('an early 413 reaches a client that waits for 100, one that does not, and one that sends chunks', {
  skip,
}, async (t) => {
  const { direct, through } = await setUp(t)
  for (const headers of [{ ...LENGTH, expect: '100-continue' }, LENGTH, CHUNKED]) {
    const request = { path: '/limited', method: 'POST', headers, body: FIVE_MB }
    const own = await direct(request)
    assert.equal(own.status, 413)
    for (let i = 0; i < 10; i += 1) assertSame(await through(request), own)
  }
  const small = {
    path: '/limited',
    method: 'POST',
    headers: { expect: '100-continue' },
    body: Buffer.from('hello'),
  }
  assertSame(await through(small), await direct(small))
})

test('an upload is streamed on without its whole length being known', { skip }, async (t) => {
  const { direct, through } = await setUp(t)
  const request = {
    path: '/streamed',
    method: 'PUT',
    headers: CHUNKED,
    body: FIVE_MB,
  }
  assertSame(await through(request), await direct(request))
})

test('no request is lost to connections that nginx ends after three requests, whatever its method', {
  skip,
}, async (t) => {
  const { direct, through } = await setUp(t, 'keepalive_requests 3;')
  const get = { path: SHORT }
  const post = {
    path: '/words',
    method: 'POST',
    headers: { 'content-length': '5' },
    body: Buffer.from('hello'),
  }
  const [ownGet, ownPost] = [await direct(get), await direct(post)]
  const visit = async () => {
    for (let i = 0; i < 20; i += 1) {
      assertSame(await through(get), ownGet)
      assertSame(await through(post), ownPost)
    }
  }
  await Promise.all(Array.from({ length: 8 }, visit))
})

test('no GET is lost to a connection that nginx ends because it idles', { skip }, async (t) => {
  const { direct, through } = await setUp(t, 'keepalive_timeout 20ms;')
  const own = await direct({ path: SHORT })
  for (let i = 0; i < 120; i += 1) {
    assertSame(await through({ path: SHORT }), own)
    // To come in the moment when nginx ends the connection: after 18 to 22 ms.
    await delay(18 + (i % 5))
  }
})
