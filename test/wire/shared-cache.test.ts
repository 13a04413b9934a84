import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { jwtClaims } from '../../src/demo/scripted/signing.ts'
import { setUp as setUpSignIn } from '../kit/attack/sign-in.ts'
import { startLocalServer } from '../kit/local-server.ts'
import { skipWithout, startNginx } from './foreign-servers.ts'
import { ask } from './whole-answer.ts'

const APP = 'https://app.example.test'
const FAR = new Date(Date.now() + 3_600_000).toUTCString()

/** What an API may say of an answer that is one user's own, each of which lets some shared cache keep it. */
const CARELESS: Record<string, Record<string, string>> = {
  'nothing at all': {},
  'that anybody may keep it': { 'cache-control': 'public, s-maxage=600' },
  'how long it is fresh': { 'cache-control': 'max-age=600' },
  'that one field of it is private': { 'cache-control': 'private="x-any", max-age=600' },
  'an empty Cache-Control, and when it expires': { 'cache-control': '', expires: FAR },
  'when it expires, and no more': { expires: FAR },
  'when it expires, then that anybody may keep it': { expires: FAR, 'cache-control': 'public' },
  'how long nginx may keep it': { 'x-accel-expires': '600' },
  'how long nginx may keep it, after all': { 'x-accel-expires': '600', 'cache-control': 'no-store' },
}

/** A cache that knows nothing of cookies, before Cloakroom, and two users who are signed in. */
async function setUp(t: TestContext) {
  let said: Record<string, string> = {}
  const api = await startLocalServer(({ headers }, res) => {
    const token = headers.authorization?.replace('Bearer ', '')
    res.writeHead(200, said).end(token === undefined ? 'nobody' : String(jwtClaims(token)?.sub))
  })
  t.after(() => api.close())
  const routes = [
    { path: '/api', upstream: api.origin, resource: 'orders' },
    { path: '/', upstream: api.origin, auth: 'anonymous' },
  ]
  const { cloakroom, provider } = await setUpSignIn(t, { config: { publicUrl: APP, routes } })
  const folder = await mkdtemp(join(tmpdir(), 'cloakroom-cache-'))
  t.after(() => rm(folder, { recursive: true, force: true }))
  const nginx = await startNginx({
    http: `proxy_cache_path ${folder} keys_zone=shared:1m;`,
    server: `location / {
      proxy_pass ${cloakroom.listenUrl}; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host app.example.test;
      proxy_cache shared; proxy_cache_key $request_uri; proxy_cache_valid any 10m; add_header X-Cache $upstream_cache_status;
    }`,
  })
  t.after(() => nginx.stop())
  const cookies: Record<string, string> = {}
  for (const user of ['alice', 'bob']) {
    provider.control.user = user
    const browser = cloakroom.browser()
    await browser.signIn({ returnUrl: '/' })
    cookies[user] = browser.cookieHeader()
  }
  return {
    says(headers: Record<string, string>) {
      said = headers
    },
    async see(path: string, user?: string) {
      const headers: Record<string, string> = { 'x-csrf': '1' }
      if (user !== undefined) headers.cookie = cookies[user]!
      const answer = await ask(nginx.port, { path, headers })
      const cache = new Map(answer.fields).get('x-cache')
      return { status: answer.status, whose: answer.body.toString('latin1', 0, 20), cache }
    },
  }
}

test('behind a shared cache that knows no cookies, every user sees their own, whatever the API says', {
  skip: skipWithout('nginx'),
}, async (t) => {
  const { says, see } = await setUp(t)
  for (const [n, [name, headers]] of Object.entries(CARELESS).entries()) {
    await t.test(`the API says ${name}`, async () => {
      const path = `/api/${n}`
      says(headers)
      for (const user of ['alice', 'bob', 'alice'])
        assert.deepEqual(await see(path, user), { status: 200, whose: user, cache: 'MISS' })
      assert.equal((await see(path)).status, 401)
    })
  }
})

test('what is nobody’s own is kept, as the upstream says', { skip: skipWithout('nginx') }, async (t) => {
  const { says, see } = await setUp(t)
  says({ 'cache-control': 'public, s-maxage=600' })
  assert.equal((await see('/logo')).cache, 'MISS')
  assert.equal((await see('/logo', 'bob')).cache, 'HIT')
  says({ 'x-accel-expires': '600' })
  assert.equal((await see('/other')).cache, 'MISS')
  assert.equal((await see('/other')).cache, 'HIT')
})
