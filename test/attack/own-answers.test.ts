import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { describe, test } from 'node:test'
import type { Response } from 'supertest'
import { setUp } from '../kit/attack/sign-in.ts'
import { type Ask, addressBarOf, type Method, scriptOf } from '../kit/browsers/script.ts'

/** Sends bytes and gives everything that comes back until the server ends, or `quietMs` after the last byte. */
function exchangeRaw(url: string, text: string, quietMs = 300): Promise<string> {
  const { hostname, port } = new URL(url)
  return new Promise((resolve, reject) => {
    const socket = connect({ host: hostname, port: Number(port) }, () => socket.write(text))
    let received = ''
    socket.setTimeout(quietMs, () => socket.destroy())
    socket.on('data', (chunk) => {
      received += chunk
    })
    // Bytes left unread turn a close into a reset; what came before it counts.
    socket.on('error', (error) => (received === '' ? reject(error) : resolve(received)))
    socket.on('close', () => resolve(received))
  })
}

/** Asks and expects a problem of ours. */
async function expectProblem(
  ask: Ask,
  [method, path, headers]: Parameters<Ask>,
  [status, code]: [number, string],
) {
  const answer = await ask(method, path, headers)
    .expect(status)
    .expect('content-type', 'application/problem+json')
    .expect('cloakroom-error', code)
  expectProtected(answer)
  const { body: problem } = answer
  if (method !== 'HEAD') {
    const label = `${method} ${path}`
    assert.equal(problem.code, code, label)
    assert.equal(problem.type, `urn:problem:cloakroom:${code}`, label)
    assert.equal(problem.status, status, label)
  }
  return answer
}

function expectProtected({
  headers,
  request,
}: Response & { request?: { method: string; url: string } }): void {
  const label = `${request?.method} ${request?.url}`
  assert.equal(headers['cache-control'], 'no-store', label)
  assert.match(String(headers['content-security-policy']), /frame-ancestors 'none'/, label)
  assert.equal(headers['x-content-type-options'], 'nosniff', label)
  assert.equal(headers['referrer-policy'], 'no-referrer', label)
  assert.equal(headers['x-powered-by'], undefined, label)
}

test('every method that an own endpoint does not have is 405 with Allow', async (t) => {
  const ask = scriptOf((await setUp(t)).cloakroom)
  const methods: Method[] = ['PUT', 'PATCH', 'DELETE', 'OPTIONS', 'HEAD', 'POST', 'PROPFIND']
  const allowed: Record<string, string> = {
    '/bff/login': 'GET, HEAD',
    '/bff/user': 'GET, HEAD',
    '/bff/logout': 'GET, POST',
    '/bff/done': 'GET, HEAD',
    '/bff/client.js': 'GET, HEAD',
  }
  for (const [path, allow] of Object.entries(allowed)) {
    for (const method of methods) {
      if (allow.includes(method)) continue
      const answer = await expectProblem(ask, [method, path], [405, 'method_not_allowed'])
      assert.equal(answer.headers.allow, allow, `${method} ${path}`)
    }
  }
})

test('HEAD looks at the sign-in and begins none: no cookie, nothing stored, no step-up used up', async (t) => {
  const look = addressBarOf((await setUp(t)).cloakroom)
  const looked = await look('HEAD', '/bff/login?returnUrl=/x').expect(302)
  assert.deepEqual([looked.headers['set-cookie'], looked.headers.location], [undefined, undefined])
  expectProtected(looked)
  await look('HEAD', '/bff/login?returnUrl=//x').expect(400)
  await look('HEAD', '/bff/login?challenge=spent').expect(400)
})

test('what is no endpoint below the base path never reaches an upstream', async (t) => {
  const { cloakroom, api } = await setUp(t)
  const ask = scriptOf(cloakroom)
  for (const path of [
    '/bff',
    '/bff/',
    '/bff/nothing',
    '/bff/user/',
    '/bff/USER',
    '/bff/login/../user',
    '/bff/%75ser',
  ]) {
    const answer = await ask('GET', path)
    assert.ok([400, 401, 404].includes(answer.status), `${path}: ${answer.status}`)
  }
  assert.equal(api.requests.length, 0)
})

test("a route's refusals are own answers too", async (t) => {
  const { browser, cloakroom } = await setUp(t)
  const stranger = scriptOf(cloakroom)
  await expectProblem(stranger, ['GET', '/api/orders'], [401, 'session_required'])
  await expectProblem(stranger, ['GET', '/api/orders', { 'x-csrf': '' }], [403, 'csrf_required'])
  const evil = { origin: 'https://evil.test' }
  await expectProblem(stranger, ['GET', '/api/orders', evil], [403, 'origin_forbidden'])
  await expectProblem(stranger, ['GET', '/api/..%2forders'], [400, 'path_rejected'])
  await expectProblem(stranger, ['GET', '/bff/nothing'], [404, 'route_not_found'])
  expectProtected(await addressBarOf(cloakroom)('GET', '/bff/login').expect(302))
  await browser.signIn()
  const ask = scriptOf(cloakroom, browser)
  expectProtected(await ask('GET', '/bff/user'))
  expectProtected(await ask('POST', '/bff/logout'))
  assert.ok(cloakroom.logs.length > 0)
})

test('a refusal of a request without a body does not cost its connection', async (t) => {
  const { cloakroom } = await setUp(t)
  const { host } = new URL(cloakroom.publicUrl)
  for (const path of ['/bff/nothing', '/api/orders', '/bff/user']) {
    const request = `GET ${path} HTTP/1.1\r\nHost: ${host}\r\n\r\n`
    const answers = await exchangeRaw(cloakroom.listenUrl, request + request)
    assert.equal(answers.match(/HTTP\/1\.1 \d/g)?.length, 2, path)
  }
})

test('a body that an own endpoint did not read is never taken for the next request', async (t) => {
  const { browser, cloakroom } = await setUp(t)
  await browser.signIn()
  const { host } = new URL(cloakroom.publicUrl)
  const smuggled = `GET /bff/user HTTP/1.1\r\nHost: ${host}\r\nX-Csrf: 1\r\nCookie: ${browser.cookieHeader()}\r\n\r\n`
  const head = (method: string, path: string, more: string) =>
    `${method} ${path} HTTP/1.1\r\nHost: ${host}\r\nX-Csrf: 1\r\nContent-Length: ${smuggled.length}\r\n${more}\r\n`
  for (const [method, path] of [
    ['POST', '/bff/logout'],
    ['GET', '/bff/user'],
    ['PUT', '/bff/user'],
    ['GET', '/bff/nothing'],
  ] as const) {
    // The client sends no body, because it was never asked to go on: what follows is a request, or nothing.
    const expected = await exchangeRaw(
      cloakroom.listenUrl,
      head(method, path, 'Expect: 100-continue\r\n') + smuggled,
    )
    assert.doesNotMatch(expected, /"sub"/, `${method} ${path} with Expect`)
    const plain = await exchangeRaw(cloakroom.listenUrl, head(method, path, '') + smuggled)
    assert.doesNotMatch(plain, /"sub"/, `${method} ${path}`)
    // A client that waits for 100 and gets a final answer must not be left with a connection that eats its next request.
    const asked = await exchangeRaw(cloakroom.listenUrl, head(method, path, 'Expect: 100-continue\r\n'))
    assert.match(asked, /^connection: close\r$/im, `${method} ${path} keeps a connection out of step`)
  }
})

describe('what is no HTTP is refused with a problem, and the process lives on', () => {
  const broken: Record<string, [text: string, status: number]> = {
    'a header without a colon': ['GET / HTTP/1.1\r\nHost: a\r\nbroken\r\n\r\n', 400],
    'two lengths': ['POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n', 400],
    'length and chunks': [
      'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
      400,
    ],
    'headers beyond all bounds': [`GET / HTTP/1.1\r\nHost: a\r\nX: ${'a'.repeat(70_000)}\r\n\r\n`, 431],
    'a query of 64 KB': [`GET /bff/callback?state=${'a'.repeat(65_000)} HTTP/1.1\r\nHost: a\r\n\r\n`, 431],
  }
  for (const [name, [text, status]] of Object.entries(broken)) {
    test(name, async (t) => {
      const { cloakroom } = await setUp(t)
      const answer = await exchangeRaw(cloakroom.listenUrl, text)
      assert.match(answer, new RegExp(`^HTTP/1.1 ${status} `))
      assert.match(answer, /^connection: close\r$/im)
      assert.match(answer, /^content-type: application\/problem\+json\r$/im)
      assert.match(answer, /^cache-control: no-store\r$/im)
      assert.match(answer, /"status":/)
      await scriptOf(cloakroom)('GET', '/bff/user').expect(401)
    })
  }
})
