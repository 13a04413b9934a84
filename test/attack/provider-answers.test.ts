import assert from 'node:assert/strict'
import type { ServerResponse } from 'node:http'
import { describe, test } from 'node:test'
import { callbackOf, instead, setUp } from '../kit/attack/sign-in.ts'
import { sendJson, startLocalServer } from '../kit/local-server.ts'
import type { RotatingControl } from '../kit/provider/rotating-provider.ts'
import { steadyNow } from '../kit/steady.ts'

const TOKEN = '/token'
const DISCOVERY = '/.well-known/openid-configuration'

/** Goes on writing for as long as the client reads; tells how much it was. */
function endless(res: ServerResponse, start: string): { bytes(): number } {
  let bytes = 0
  const chunk = ' '.repeat(64 * 1024)
  res.writeHead(200, { 'content-type': 'application/json' })
  res.write(start)
  const more = () => {
    while (!res.destroyed && bytes < 200 * 1024 * 1024) {
      bytes += chunk.length
      if (!res.write(chunk)) return void res.once('drain', more)
    }
  }
  more()
  return { bytes: () => bytes }
}

describe('a token endpoint that', () => {
  const answers: Record<string, [answer: (res: ServerResponse) => void, statuses: number[]]> = {
    'redirects is not followed': [
      (res) => res.writeHead(307, { location: 'http://127.0.0.1:9/elsewhere' }).end(),
      [502, 503],
    ],
    'answers HTML with 200': [
      (res) => res.writeHead(200, { 'content-type': 'text/html' }).end('<p>'),
      [502, 503],
    ],
    'answers a list': [(res) => sendJson(res, 200, ['access_token']), [502, 503]],
    'answers 204': [(res) => res.writeHead(204).end(), [502, 503]],
    'answers without a token': [(res) => sendJson(res, 200, { token_type: 'Bearer' }), [400, 502]],
    'answers an access token that is no text': [
      (res) => sendJson(res, 200, { access_token: { value: 'x' }, token_type: 'Bearer' }),
      [400, 502],
    ],
    'answers another token type': [
      (res) => sendJson(res, 200, { access_token: 'x', token_type: 'mac', id_token: 'x' }),
      [400, 502],
    ],
    'says 500 with a token': [
      (res) => sendJson(res, 500, { access_token: 'x', token_type: 'Bearer' }),
      [503],
    ],
    'knows no client': [(res) => sendJson(res, 401, { error: 'invalid_client' }), [502]],
    'wants less': [(res) => res.writeHead(429, { 'retry-after': '7' }).end(), [503]],
  }
  for (const [name, [answer, statuses]] of Object.entries(answers)) {
    test(name, async (t) => {
      const setup = await setUp(t)
      await setup.browser.signIn()
      const callback = await callbackOf(setup)
      setup.provider.control.intercept = instead(TOKEN, answer)
      const failed = await setup.browser.fetch(callback.pathname + callback.search)
      assert.ok(statuses.includes(failed.status), `${failed.status}: ${failed.body}`)
      assert.equal(failed.headers['content-type'], 'application/problem+json')
      if (failed.status === 503) assert.match(failed.headers['retry-after'] ?? '', /^\d+$/)
      setup.provider.control.intercept = undefined
      assert.equal((await setup.browser.fetch('/bff/user')).status, 200)
      assert.equal(setup.provider.requests.filter(({ path }) => path === '/elsewhere').length, 0)
    })
  }
})

describe('an endless answer is cut off soon', () => {
  const starts: Record<string, string> = {
    [TOKEN]: '{"access_token":"',
    [DISCOVERY]: '{"issuer":"',
    '/jwks': '{"keys":[',
  }
  for (const [path, start] of Object.entries(starts)) {
    test(path, async (t) => {
      let sent: { bytes(): number } | undefined
      const intercept: RotatingControl['intercept'] = (request, res) => {
        if (request.path !== path) return false
        sent = endless(res, start)
        return true
      }
      const control = path === DISCOVERY ? { intercept } : {}
      const setup = await setUp(t, { provider: { control } })
      if (path === DISCOVERY) {
        assert.equal((await setup.browser.open('/bff/login')).status, 503)
      } else {
        const callback = await callbackOf(setup)
        setup.provider.control.intercept = intercept
        const failed = await setup.browser.fetch(callback.pathname + callback.search)
        assert.ok([502, 503].includes(failed.status), String(failed.status))
      }
      assert.ok(sent && sent.bytes() < 16 * 1024 * 1024, `${sent?.bytes()} bytes were read`)
    })
  }
})

describe('a provider that', () => {
  test('has no keys just now is unavailable: nothing is wrong with the sign-in', async (t) => {
    for (const answer of [
      (res: ServerResponse) => sendJson(res, 503, {}),
      (res: ServerResponse) => void res.end('<p>'),
      (res: ServerResponse) => void res.socket?.resetAndDestroy(),
    ]) {
      const setup = await setUp(t)
      setup.provider.control.intercept = instead('/jwks', answer)
      const callback = await callbackOf(setup)
      const failed = await setup.browser.fetch(callback.pathname + callback.search)
      assert.deepEqual([failed.status, failed.json().code], [503, 'provider_unavailable'])
    }
  })

  test('stops in the middle of its token answer costs no more than its timeout', async (t) => {
    const setup = await setUp(t, { config: { provider: { timeout: '500ms' } } })
    await setup.browser.signIn()
    const callback = await callbackOf(setup)
    setup.provider.control.intercept = instead(TOKEN, (res) => {
      res.writeHead(200, { 'content-type': 'application/json', 'content-length': '1000' })
      res.write('{"access_token":"')
    })
    const startedAt = steadyNow()
    assert.equal((await setup.browser.fetch(callback.pathname + callback.search)).status, 503)
    assert.ok(steadyNow() - startedAt < 2_000)
  })

  test('never answers does not hold up a sign-out', async (t) => {
    const setup = await setUp(t)
    await setup.browser.signIn()
    setup.provider.control.intercept = async ({ path }) => path !== '/authorize'
    const startedAt = steadyNow()
    const logout = await setup.browser.fetch('/bff/logout', { method: 'POST' })
    assert.equal(logout.status, 200)
    assert.ok(steadyNow() - startedAt < 3_000)
    assert.equal((await setup.browser.fetch('/bff/user')).status, 401)
  })

  test('is another issuer than configured is not used', async (t) => {
    const setup = await setUp(t, { provider: { control: { metadata: { issuer: 'https://evil.test' } } } })
    const login = await setup.browser.open('/bff/login')
    assert.deepEqual([login.status, login.json().code], [502, 'provider_rejected'])
    assert.equal(login.headers['set-cookie'], undefined)
  })

  test('redirects its discovery elsewhere is not followed', async (t) => {
    const elsewhere = await startLocalServer((_, res) => res.end('{}'))
    t.after(() => elsewhere.close())
    const setup = await setUp(t, {
      provider: {
        control: {
          intercept: instead(DISCOVERY, (res) => res.writeHead(302, { location: elsewhere.origin }).end()),
        },
      },
    })
    assert.ok([502, 503].includes((await setup.browser.open('/bff/login')).status))
    assert.equal(elsewhere.requests.length, 0)
  })

  test('sets cookies gets none of them back', async (t) => {
    const setup = await setUp(t)
    setup.provider.control.intercept = (_, res) => {
      res.setHeader('set-cookie', 'fpc=1; Path=/')
      return false
    }
    await setup.browser.signIn()
    await setup.browser.signIn()
    for (const { headers } of setup.provider.tokenRequests()) assert.equal(headers.cookie, undefined)
  })
})

describe('an authorization response (RFC 9207, RFC 6749 §4.1.2)', () => {
  const changes: Record<string, (query: URLSearchParams) => void> = {
    'without iss, though the provider announced it': (query) => query.delete('iss'),
    'with iss twice': (query) => query.append('iss', 'https://evil.test'),
    'with an empty iss': (query) => query.set('iss', ''),
    'with code twice': (query) => query.append('code', 'x'),
    'with an empty code': (query) => query.set('code', ''),
    'without code': (query) => query.delete('code'),
    'with a token in it': (query) => query.set('id_token', 'x'),
    'with a response JWT in it': (query) => query.set('response', 'x'),
    'with an error beside the code': (query) => query.set('error', 'server_error'),
  }
  for (const [name, change] of Object.entries(changes)) {
    test(`${name} is refused before the token endpoint is asked`, async (t) => {
      const setup = await setUp(t)
      const callback = await callbackOf(setup)
      change(callback.searchParams)
      const answer = await setup.browser.fetch(callback.pathname + callback.search)
      assert.deepEqual([answer.status, answer.json().code], [400, 'invalid_callback'])
      assert.equal(setup.provider.tokenRequests().length, 0)
      // It was good once: what is left of it starts nothing.
      assert.equal((await setup.browser.fetch(callback.pathname + callback.search)).status, 400)
    })
  }

  test('that is an error is refused when its issuer is another', async (t) => {
    const setup = await setUp(t)
    const callback = await callbackOf(setup)
    const { searchParams } = callback
    searchParams.delete('code')
    searchParams.set('error', 'access_denied')
    searchParams.set('iss', 'https://evil.test')
    const answer = await setup.browser.fetch(callback.pathname + callback.search)
    assert.deepEqual([answer.status, answer.json().code], [400, 'invalid_callback'])
  })
})
