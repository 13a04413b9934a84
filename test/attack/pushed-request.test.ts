import assert from 'node:assert/strict'
import type { ServerResponse } from 'node:http'
import { describe, type TestContext, test } from 'node:test'
import { instead, setUp } from '../kit/attack/sign-in.ts'
import { sendJson } from '../kit/local-server.ts'

describe('a pushed authorization request (RFC 9126)', () => {
  async function pushing(t: TestContext, answer: (res: ServerResponse, origin: string) => void) {
    const setup = await setUp(t, { provider: { control: { interactive: false } } })
    const { control, origin } = setup.provider
    control.metadata = { pushed_authorization_request_endpoint: `${origin}/par` }
    control.intercept = instead('/par', (res) => answer(res, origin))
    const cloakroom = await setup.start({
      provider: { ...setup.provider.settings, par: 'required', timeout: '500ms' },
    })
    return { ...setup, cloakroom, browser: cloakroom.browser() }
  }

  test('leaves only client_id and request_uri to the browser', async (t) => {
    const { browser, provider } = await pushing(t, (res) =>
      sendJson(res, 201, { request_uri: 'urn:ietf:params:oauth:request_uri:x', expires_in: 60 }),
    )
    const login = await browser.open('/bff/login?login_hint=ada')
    assert.equal(login.status, 302)
    const { searchParams } = new URL(String(login.headers.location))
    assert.deepEqual([...searchParams.keys()].sort(), ['client_id', 'request_uri'])
    const pushed = provider.requests.find(({ path }) => path === '/par')
    const names = pushed?.form.map(([name]) => name) ?? []
    for (const name of ['state', 'nonce', 'code_challenge', 'redirect_uri', 'client_secret', 'login_hint'])
      assert.ok(names.includes(name), name)
  })

  const refusals: Record<string, [(res: ServerResponse) => void, number, string]> = {
    'not understood': [(res) => sendJson(res, 400, { error: 'invalid_request' }), 502, 'provider_rejected'],
    'from a client it does not know': [
      (res) => sendJson(res, 401, { error: 'invalid_client' }),
      502,
      'provider_rejected',
    ],
    'too many of them': [(res) => sendJson(res, 429, { error: 'slow_down' }), 503, 'provider_unavailable'],
    'on a bad day': [(res) => sendJson(res, 503, { error: 'server_error' }), 503, 'provider_unavailable'],
    'never answered': [() => undefined, 503, 'provider_unavailable'],
    'cut off': [(res) => void res.socket?.resetAndDestroy(), 503, 'provider_unavailable'],
  }
  for (const [name, [answer, status, code]] of Object.entries(refusals)) {
    test(`${name} is told as ${code}, and leaves no cookie`, async (t) => {
      const { browser } = await pushing(t, answer)
      const login = await browser.open('/bff/login')
      assert.deepEqual([login.status, login.json().code], [status, code])
      assert.equal(login.headers['set-cookie'], undefined)
    })
  }
})
