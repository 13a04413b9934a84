import assert from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import type { FetchAnswer } from '../kit/browsers/browser.ts'
import { field, sendJson } from '../kit/local-server.ts'
import { assertLogTells } from '../kit/problem-in-log.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { BILLING, movableClock, ORDERS, startShop, verdict } from '../kit/shops/shop.ts'

const LIFE_SECONDS = 300

/** What the token endpoint says of billing. */
type Said = { readonly status?: number; readonly body?: object; readonly headers?: Record<string, string> }
/** Status, headers and body as a script sees them; what differs each time is masked. */
type Seen = { readonly status: number; readonly headers: object; readonly body: object }

const CLAIMS = '{"access_token":{"polids":{"essential":true,"Values":["c1"]}}}'
const LOGIN = '/bff/login'
const HANDLE = '/bff/login?challenge=<handle>'

describe('what a script sees of each reaction to a refused refresh, and what is left of the session', () => {
  for (const [name, said, expected] of reactions())
    test(`${name}: the rest of the session stays`, async (t) => {
      const at = await scene(t)
      const cookie = at.browser.cookieHeader()
      at.says(said)
      assert.deepEqual(await at.ask('/api/billing'), expected)
      // What is remembered looks the same, but costs the provider nothing.
      const calls = at.refreshCalls()
      const again = await at.ask('/api/billing')
      assert.deepEqual({ ...again, headers: {} }, { ...expected, headers: {} })
      assert.equal(at.refreshCalls(), calls)
      assert.equal((await at.browser.fetch('/bff/user')).status, 200)
      assert.deepEqual(verdict(await at.browser.fetch('/api/orders')), [200, ORDERS])
      assert.equal(at.browser.cookieHeader(), cookie)
      at.says(undefined)
      at.advance(301)
      // A provider that rotates may have used up the refresh token before it refused the resource: it must not be offered again.
      const isBurnt = name === 'route_configuration'
      const later = isBurnt ? [401, 'reauthentication_required'] : [200, BILLING]
      assert.deepEqual(verdict(await at.browser.fetch('/api/billing')), later, 'the tokens are kept')
      assert.equal(at.provider.counters.reuseDetected, 0)
    })

  test('dead_grant: the whole session ends, its tokens with it', async (t) => {
    const at = await scene(t)
    at.says({ body: { error: 'invalid_grant', suberror: 'bad_token', error_codes: [700082] } })
    const ended = problem(401, 'session_required', 'Sign in first', {
      detail: 'the authorization server ended the grant',
      login_url: LOGIN,
      reason: 'grant_ended',
    })
    assert.deepEqual(await at.ask('/api/billing'), ended)
    const calls = at.refreshCalls()
    for (const path of ['/bff/user', '/api/orders', '/api/billing'])
      assert.deepEqual(verdict(await at.browser.fetch(path)), [401, 'session_required'], path)
    at.says(undefined)
    at.advance(LIFE_SECONDS)
    assert.deepEqual(verdict(await at.browser.fetch('/api/billing')), [401, 'session_required'])
    assert.equal(at.refreshCalls(), calls, 'a dead token is not offered again')
    await at.browser.signIn()
    assert.deepEqual(verdict(await at.browser.fetch('/api/billing')), [200, BILLING])
  })

  for (const [name, said] of [
    ['retry_later', { status: 503, body: { error: 'temporarily_unavailable' } }],
    ['configuration', { status: 401, body: { error: 'invalid_client' } }],
    ['step_up', { body: { error: 'interaction_required', claims: CLAIMS } }],
  ] as const)
    test(`${name} while the token still lives: the script notices nothing`, async (t) => {
      const at = await scene(t)
      assert.deepEqual(verdict(await at.browser.fetch('/api/billing')), [200, BILLING])
      at.says(said)
      at.advance(LIFE_SECONDS * 0.6)
      for (let call = 0; call < 3; call += 1)
        assert.deepEqual(verdict(await at.browser.fetch('/api/billing')), [200, BILLING])
      assert.ok(at.refreshCalls() <= 2, 'one for the first token, one that failed')
    })

  test('an answer that was lost, where refresh tokens are good once: sign in again, and only for what has expired', async (t) => {
    const at = await scene(t, { reusesRefreshTokens: false })
    at.provider.control.fault = { kind: 'drop-after', leg: 'refresh', times: 1 }
    assert.deepEqual(
      await at.ask('/api/billing'),
      problem(503, 'provider_unavailable', 'The identity provider is not available', {
        detail: 'the authorization server does not answer',
        retryAfter: '2',
      }),
    )
    const calls = at.refreshCalls()
    at.advance(3)
    assert.deepEqual(
      await at.ask('/api/billing'),
      problem(401, 'reauthentication_required', 'Sign in again', {
        detail: 'the refresh token may have been used already',
        login_url: LOGIN,
        reason: 'refresh_token_uncertain',
      }),
    )
    assert.equal(at.refreshCalls(), calls, 'it is not offered again')
    assert.equal((await at.browser.fetch('/bff/user')).status, 200)
    assert.deepEqual(verdict(await at.browser.fetch('/api/orders')), [200, ORDERS])
    await at.browser.signIn()
    assert.deepEqual(verdict(await at.browser.fetch('/api/billing')), [200, BILLING])
  })
})

function reactions(): readonly (readonly [string, Said, Seen])[] {
  const asked = 'the authorization server wants the user to sign in again'
  const rejected = 'the authorization server rejected the request'
  const silent = 'the authorization server does not answer'
  const signIn = (reason: string) =>
    problem(401, 'reauthentication_required', 'Sign in again', { detail: asked, login_url: HANDLE, reason })
  const ours = (reason: string) =>
    problem(502, 'provider_rejected', 'The identity provider rejected our request', {
      detail: rejected,
      reason,
    })
  const away = (retryAfter: string) =>
    problem(503, 'provider_unavailable', 'The identity provider is not available', {
      detail: silent,
      retryAfter,
    })
  return [
    [
      'step_up with claims',
      { body: { error: 'invalid_grant', suberror: 'basic_action', claims: CLAIMS } },
      signIn('interaction_required'),
    ],
    [
      'step_up without claims',
      { body: { error: 'invalid_grant', suberror: 'basic_action', error_codes: [50076] } },
      signIn('interaction_required'),
    ],
    [
      'consent',
      { body: { error: 'invalid_grant', suberror: 'consent_required' } },
      signIn('consent_required'),
    ],
    [
      'user_must_act',
      { body: { error: 'invalid_grant', suberror: 'device_authentication_failed' } },
      problem(403, 'access_denied', 'Access denied', {
        detail: 'the authorization server refuses this user',
        reason: 'invalid_grant',
      }),
    ],
    ['configuration', { status: 401, body: { error: 'invalid_client' } }, ours('invalid_client')],
    [
      'configuration (unauthorized_client)',
      { body: { error: 'unauthorized_client' } },
      ours('unauthorized_client'),
    ],
    ['route_configuration', { body: { error: 'invalid_target' } }, ours('invalid_target')],
    ['retry_later', { status: 503, body: { error: 'temporarily_unavailable' } }, away('2')],
    ['retry_later that says when', { status: 429, body: {}, headers: { 'retry-after': '7' } }, away('7')],
    ['loop', { body: { error: 'invalid_grant', error_codes: [50196] } }, away('300')],
  ]
}

/** An expected answer: what is not given must not be there. */
function problem(
  status: number,
  code: string,
  title: string,
  { retryAfter, ...members }: { retryAfter?: string; [member: string]: unknown },
): Seen {
  return {
    status,
    headers: { 'cloakroom-error': code, 'retry-after': retryAfter, 'cache-control': 'no-store' },
    body: { type: `urn:problem:cloakroom:${code}`, title, status, code, request_id: '<id>', ...members },
  }
}

function seen(answer: FetchAnswer): Seen {
  const { 'cloakroom-error': code, 'retry-after': retryAfter, 'cache-control': caching } = answer.headers
  assert.equal(answer.headers['set-cookie'], undefined)
  const text = answer.body
    .replace(/("request_id":")[\w-]{8,}"/, '$1<id>"')
    .replace(/(\?challenge=)[\w-]{43}"/, '$1<handle>"')
  return {
    status: answer.status,
    headers: { 'cloakroom-error': code, 'retry-after': retryAfter, 'cache-control': caching },
    body: JSON.parse(text),
  }
}

/** Signed in, with a token for orders from the code; billing has none yet. */
async function scene(t: TestContext, settings: object = {}) {
  const provider = await startRotatingProvider()
  t.after(() => provider.close())
  const clock = movableClock()
  const shop = await startShop(t, {
    provider: { ...provider.settings, ...settings },
    jwks: provider.endpoints.jwks,
    now: clock.now,
  })
  const browser = shop.browser()
  await browser.signIn()
  return {
    ...{ provider, browser },
    /** What a script sees of a refusal. The log says the same of it in the same names. */
    async ask(path: string): Promise<Seen> {
      const answer = await browser.fetch(path)
      await assertLogTells(answer.body, shop.cloakroom.logs)
      return seen(answer)
    },
    advance: (seconds: number) => clock.advance(seconds * 1000),
    /** Refresh requests so far, answered by the provider or in its place. */
    refreshCalls: () =>
      provider.tokenRequests().filter(({ form }) => field(form, 'grant_type') === 'refresh_token').length,
    /** Answers requests for billing so; undefined leaves them to the provider again. */
    says(said: Said | undefined) {
      provider.control.intercept = ({ form }, res) => {
        if (!said || field(form, 'resource') !== BILLING) return false
        sendJson(res, said.status ?? 400, said.body ?? {}, said.headers)
        return true
      }
    },
  }
}
