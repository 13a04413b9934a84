import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  createProviderFetch,
  NO_ACCESS_TOKEN,
  readTokenAnswer,
  type TokenAnswer,
} from '../../../../src/oidc/token-endpoint/provider-fetch.ts'

const NOW = 1_800_000_000_000

async function seen(body: unknown, init: ResponseInit = {}) {
  const text = typeof body === 'string' ? body : JSON.stringify(body)
  const provider = createProviderFetch({ now: () => NOW, fetch: async () => new Response(text, init) })
  const answers: TokenAnswer[] = []
  const response = await provider.withHooks({ answer: (answer) => void answers.push(answer) }, () =>
    provider.fetch('https://op/token', { method: 'POST' }),
  )
  return { answer: answers[0], response }
}

const LIFETIMES: readonly [string, Record<string, unknown>, number][] = [
  ['a number', { expires_in: 3599 }, 3599],
  ['a string, as Azure AD v1 sends it', { expires_in: '3600' }, 3600],
  ['expires_on when expires_in is missing', { expires_on: String(NOW / 1000 + 120) }, 120],
  ['the default when nothing says it', {}, 300],
  ['the default for an empty string', { expires_in: '' }, 300],
  ['the default for null', { expires_in: null }, 300],
  ['the default for zero', { expires_in: 0 }, 300],
  ['the default for a negative one', { expires_in: -1 }, 300],
  ['the default for words', { expires_in: 'soon' }, 300],
  ['a cap for the absurd', { expires_in: 1e300 }, 30 * 24 * 3600],
]

/** A JWT with these times, in seconds from now. */
function jwt(times: { iat?: number; exp?: number }): string {
  const at = (seconds: number | undefined) => seconds !== undefined && NOW / 1000 + seconds
  const claims = JSON.stringify({ iat: at(times.iat) || undefined, exp: at(times.exp) || undefined })
  const part = (text: string) => Buffer.from(text).toString('base64url')
  return `${part('{"alg":"RS256"}')}.${part(claims)}.c2ln`
}

const OWN_LIFETIMES: readonly [string, { iat?: number; exp?: number }, Record<string, unknown>, number][] = [
  ['when nothing else says it', { iat: 0, exp: 900 }, {}, 900],
  ['when expires_in says more', { iat: -300, exp: 60 }, { expires_in: 3600 }, 60],
  ['not when expires_in says less', { iat: 0, exp: 900 }, { expires_in: 120 }, 120],
  ['when expires_on says more', { iat: 0, exp: 60 }, { expires_on: NOW / 1000 + 600 }, 60],
  [
    'as its whole life, when our clock runs an hour ahead',
    { iat: -3600, exp: -3300 },
    { expires_in: 600 },
    300,
  ],
  ['not when it is no time', {}, { expires_in: 120 }, 120],
  ['not when it ended by our clock, and its beginning is not told', { exp: -60 }, { expires_in: 600 }, 600],
]

for (const [when, times, members, expected] of OWN_LIFETIMES) {
  test(`the exp of a JWT bounds its life ${when}`, async () => {
    const { answer } = await seen({ access_token: jwt(times), ...members })
    assert.equal(answer?.body?.expires_in, expected)
  })
}

test('every token_type is Bearer but those of tokens that must be proved', async () => {
  for (const [sent, read] of [
    ...[['bearer'], ['BEARER'], ['Token'], ['N_A'], ['access_token'], [''], [7], [null], [{}]].map(
      ([type]) => [type, 'Bearer'],
    ),
    ...['DPoP', 'dpop', 'MAC', 'mac'].map((type) => [type, type]),
  ]) {
    const { answer } = await seen({ access_token: 'a', token_type: sent })
    assert.equal(answer?.body?.token_type, read, String(sent))
  }
})

test('a refusal with status 200 is a refusal, and tokens with another 2xx are tokens', async () => {
  const refusal = await seen({ error: 'invalid_grant' })
  assert.deepEqual([refusal.answer?.status, refusal.response.status], [400, 400])
  const tokens = await seen({ access_token: 'a' }, { status: 201 })
  assert.deepEqual([tokens.answer?.status, tokens.response.status], [200, 200])
  assert.equal((await seen({ error: 'invalid_grant' }, { status: 403 })).answer?.status, 403)
  assert.equal((await seen({})).answer?.status, 200)
})

test('an empty scope is not an absent one', async () => {
  assert.equal((await seen({ access_token: 'a', scope: '' })).answer?.body?.scope, '')
  assert.equal((await seen({ access_token: 'a', scope: null })).answer?.body?.scope, undefined)
})

for (const [name, members, expected] of LIFETIMES) {
  test(`a lifetime is read from ${name}`, async () => {
    const { answer } = await seen({ access_token: 'a', token_type: 'Bearer', ...members })
    assert.equal(answer?.body?.expires_in, expected)
  })
}

test('members that providers leave empty are as if absent, and a missing token_type is Bearer', async () => {
  const { answer, response } = await seen({
    access_token: 'a',
    refresh_token: null,
    id_token: '',
    scope: ['a', 'b'],
  })
  assert.deepEqual(answer?.body, { access_token: 'a', scope: 'a b', token_type: 'Bearer', expires_in: 300 })
  assert.deepEqual(await response.json(), answer?.body)
})

test('an error answer is passed on as it is, with its Retry-After', async () => {
  const body = { error: 'invalid_grant', suberror: 'bad_token', error_codes: [700082] }
  const { answer, response } = await seen(body, { status: 429, headers: { 'retry-after': '9' } })
  assert.deepEqual(answer, { status: 429, body, retryAfterSeconds: 9, isHtml: false })
  assert.equal(response.status, 429)
  assert.deepEqual(await response.json(), body)
})

test('a page instead of JSON has no body that could be believed', async () => {
  for (const [type, isHtml] of [
    ['text/html; charset=utf-8', true],
    ['Application/XHTML+XML', true],
    ['application/json', false],
    ['text/plain', false],
    ['text/htmlx', false],
  ] as const) {
    const headers = { 'content-type': type }
    const { answer } = await seen('<h1>Your account is blocked</h1>', { status: 200, headers })
    assert.deepEqual([answer?.body, answer?.isHtml], [undefined, isHtml], type)
  }
})

test('the observer is awaited before the answer is handed on', async () => {
  const order: string[] = []
  const provider = createProviderFetch({
    now: () => NOW,
    fetch: async () => Response.json({ access_token: 'a' }),
  })
  await provider.withHooks(
    {
      async answer() {
        await new Promise((resolve) => setImmediate(resolve))
        order.push('stored')
      },
    },
    async () => {
      await provider.fetch('https://op/token', { method: 'POST' })
      order.push('checked')
    },
  )
  assert.deepEqual(order, ['stored', 'checked'])
})

test('an answer without an access token has none, unless its request asks only who the user is', async () => {
  const id_token = 'header.payload.signature'
  assert.deepEqual((await seen({ id_token })).answer?.body, { id_token })
  const read = (body: object) =>
    readTokenAnswer(
      { status: 200, headers: new Headers(), text: JSON.stringify(body) },
      { now: NOW, mayLackAccessToken: true },
    ).body
  for (const access_token of [undefined, null, ''])
    assert.equal(read({ id_token, access_token })?.access_token, NO_ACCESS_TOKEN)
  assert.equal(read({ id_token, access_token: 'at' })?.access_token, 'at')
  assert.equal(read({ refresh_token: 'rt' })?.access_token, undefined, 'nor does it tell who the user is')
  assert.equal(read({ error: 'invalid_grant' })?.access_token, undefined)
})

test('only requests that post to the token endpoint are read as such', async () => {
  const answers: TokenAnswer[] = []
  const body = { keys: [], access_token: 'a', expires_in: '7' }
  const headers = { 'x-kept': '1', 'content-length': '9', 'content-encoding': 'br', 'transfer-encoding': 'x' }
  const provider = createProviderFetch({
    now: () => NOW,
    fetch: async () => Response.json(body, { headers }),
  })
  const answer = (one: TokenAnswer) => void answers.push(one)
  for (const method of ['GET', undefined]) {
    const response = await provider.withHooks({ answer }, () =>
      provider.fetch('https://op/keys', { ...(method && { method }) }),
    )
    assert.deepEqual(await response.json(), body)
    // The body was read whole and decoded: what told of its form is true of it no more.
    assert.deepEqual(
      ['content-length', 'content-encoding', 'transfer-encoding'].map((name) => response.headers.get(name)),
      [null, null, null],
    )
    assert.equal(response.headers.get('x-kept'), '1')
  }
  assert.equal((await provider.fetch('https://op/token', { method: 'POST' })).status, 200)
  assert.deepEqual(answers, [])
})

test('an answer without a body stays without', async () => {
  for (const status of [204, 205, 304]) {
    const fetch = async () => new Response(null, { status })
    const response = await createProviderFetch({ now: () => NOW, fetch }).fetch('https://op/x', {})
    assert.deepEqual([response.status, response.body], [status, null])
  }
})

test('a type that only mentions HTML is no page', async () => {
  const headers = { 'content-type': 'application/problem+json; about="text/html"' }
  assert.equal((await seen({}, { headers })).answer?.isHtml, false)
})

test('JSON that is no object tells nothing', async () => {
  for (const text of ['7', 'null', '"access_token"', '[]', '[{"access_token":"a"}]', 'true', ''])
    assert.equal((await seen(text)).answer?.body, undefined, text)
})

test('an answer of more than 1 MiB is given up, and its body with it', async () => {
  const chunk = new Uint8Array(256 * 1024)
  const answerOf = (chunks: number) => {
    const state = { sent: 0, isCancelled: false }
    const body = new ReadableStream({
      pull(controller) {
        if (state.sent === chunks) return controller.close()
        state.sent += 1
        controller.enqueue(chunk)
      },
      cancel() {
        state.isCancelled = true
      },
    })
    const { fetch } = createProviderFetch({ now: () => NOW, fetch: async () => new Response(body) })
    return { state, read: fetch('https://op/keys', {}) }
  }
  const whole = await answerOf(4).read
  assert.equal((await whole.arrayBuffer()).byteLength, 1024 * 1024)
  const { state, read } = answerOf(100)
  await assert.rejects(read, TypeError)
  assert.equal(state.isCancelled, true)
  assert.ok(state.sent < 10)
})
