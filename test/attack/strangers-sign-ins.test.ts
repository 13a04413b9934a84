import assert from 'node:assert/strict'
import type { ServerResponse } from 'node:http'
import { describe, type TestContext, test } from 'node:test'
import { callbackOf, instead, setUp } from '../kit/attack/sign-in.ts'
import type { ConfigData } from '../kit/config/cloakroom-config.ts'
import { type RecordedRequest, sendJson } from '../kit/local-server.ts'

/** Alice is signed in, and her access token runs out; strangers bring codes that they made up. */
async function withStrangers(t: TestContext, config: ConfigData = {}) {
  const setup = await setUp(t, { config })
  await setup.browser.signIn()
  const { provider, cloakroom } = setup
  const isMadeUp = ({ form }: RecordedRequest) =>
    form.some(([name, value]) => name === 'code' && value === 'made-up')
  return {
    ...setup,
    /** The token endpoint answers made-up codes like this, and everything else as always. */
    answerMadeUpCodes(answer: (res: ServerResponse) => void) {
      provider.control.intercept = (request, res) => {
        if (request.path !== '/token' || !isMadeUp(request)) return false
        answer(res)
        return true
      }
    },
    /** So many strangers, each in a browser of his own. */
    async strangers(number: number, code = 'made-up') {
      const calls = Array.from({ length: number }, async () => {
        const browser = cloakroom.browser()
        const callback = await callbackOf({ browser })
        callback.searchParams.set('code', code)
        return browser.fetch(callback.pathname + callback.search)
      })
      return Promise.all(calls)
    },
    async metric(line: string) {
      const text = await (await fetch(`${cloakroom.adminUrl}/metrics`)).text()
      return text.split('\n').find((one) => one.startsWith(line))
    },
  }
}

describe('strangers whose sign-ins fail at the provider do not keep users from renewing their tokens', () => {
  const answers: Record<string, (res: ServerResponse) => void> = {
    '429 with Retry-After: 300': (res) => res.writeHead(429, { 'retry-after': '300' }).end(),
    '500': (res) => sendJson(res, 500, {}),
    '503 with Retry-After: 300': (res) => res.writeHead(503, { 'retry-after': '300' }).end(),
    'a page': (res) => res.writeHead(200, { 'content-type': 'text/html' }).end('<p>'),
    'a reset': (res) => void res.socket?.resetAndDestroy(),
  }
  for (const [name, answer] of Object.entries(answers))
    test(`made-up codes answered with ${name}`, async (t) => {
      const { answerMadeUpCodes, strangers, advance, browser, metric, provider } = await withStrangers(t)
      answerMadeUpCodes(answer)
      for (let stranger = 0; stranger < 8; stranger += 1) {
        const [failed] = await strangers(1)
        assert.equal(failed?.status, 503)
      }
      assert.equal(await metric('cloakroom_provider_breaker_state'), 'cloakroom_provider_breaker_state 0')
      advance(290_000)
      const before = provider.tokenRequests().length
      assert.equal((await browser.fetch('/api/orders')).status, 200)
      assert.equal(provider.tokenRequests().length, before + 1)
    })

  test('made-up codes that are never answered take no place from a refresh, and sign-ins have a bound of their own', async (t) => {
    const setup = await withStrangers(t, { provider: { concurrency: 2, timeout: '900ms' } })
    const { answerMadeUpCodes, strangers, advance, browser, provider } = setup
    answerMadeUpCodes(() => undefined)
    const failing = strangers(4)
    while (provider.tokenRequests().length < 3) await new Promise((resolve) => setImmediate(resolve))
    advance(290_000)
    assert.equal((await browser.fetch('/api/orders')).status, 200)
    assert.deepEqual(new Set((await failing).map(({ status }) => status)), new Set([503]))
    // Two at a time went out, beside Alice's own two.
    assert.ok(provider.tokenRequests().length <= 6)
  })

  test('a provider that wants 300 s of peace from sign-ins is tried again by them within 30 s', async (t) => {
    const { answerMadeUpCodes, strangers, advance, cloakroom, metric } = await withStrangers(t)
    answerMadeUpCodes((res) => res.writeHead(429, { 'retry-after': '300' }).end())
    for (let stranger = 0; stranger < 5; stranger += 1) await strangers(1)
    const open = 'cloakroom_sign_in_breaker_state{call="code"}'
    assert.equal(await metric(open), `${open} 2`)
    advance(31_000)
    const user = cloakroom.browser()
    await user.signIn()
    assert.equal((await user.fetch('/bff/user')).status, 200)
    assert.equal(await metric(open), `${open} 0`)
  })

  test('pushed authorization requests that are refused with 429 stop neither refreshes nor sign-ins under way', async (t) => {
    const setup = await setUp(t, {
      provider: { control: { metadata: {} } },
      config: { provider: { par: 'off' } },
    })
    const { provider, advance } = setup
    const before = setup.cloakroom.browser()
    const underWay = await callbackOf({ browser: before })
    await setup.browser.signIn()
    provider.control.metadata = { pushed_authorization_request_endpoint: `${provider.origin}/par` }
    await setup.cloakroom.reload({ provider: { ...setup.settings.provider, par: 'required' } })
    provider.control.intercept = instead('/par', (res) => res.writeHead(429, { 'retry-after': '300' }).end())
    for (let stranger = 0; stranger < 12; stranger += 1) {
      const login = await setup.cloakroom.browser().open('/bff/login')
      assert.equal(login.status, 503)
      assert.match(String(login.headers['retry-after']), /^\d+$/)
    }
    // It is not asked any more after five.
    assert.equal(provider.requests.filter(({ path }) => path === '/par').length, 5)
    advance(290_000)
    assert.equal((await setup.browser.fetch('/api/orders')).status, 200)
    assert.equal((await before.fetch(underWay.pathname + underWay.search)).status, 200)
  })
})

describe('a code that holds what RFC 6749 A.11 does not allow is not sent to the provider', () => {
  for (const [name, code] of [
    ['NUL', '%00'],
    ['a line break', 'abc%0D%0Ax'],
    ['DEL', 'abc%7F'],
    ['an umlaut', 'abc%C3%BC'],
    ['bytes that are no UTF-8', 'abc%FF'],
    ['a tab in the middle', 'a%09b'],
  ] as const)
    test(name, async (t) => {
      const { browser, provider, cloakroom } = await setUp(t)
      const callback = await callbackOf({ browser })
      const search = callback.search.replace(/code=[^&]*/, `code=${code}`)
      const answer = await browser.fetch(callback.pathname + search)
      assert.deepEqual([answer.status, answer.json().code], [400, 'invalid_callback'])
      assert.equal(provider.tokenRequests().length, 0)
      assert.ok(cloakroom.logs.some((line) => JSON.parse(line).msg?.includes('no code may')))
    })

  test('every printable character is', async (t) => {
    const { browser, provider } = await setUp(t)
    const callback = await callbackOf({ browser })
    const all = Array.from({ length: 95 }, (_, index) => String.fromCharCode(32 + index)).join('')
    callback.searchParams.set('code', all)
    assert.equal((await browser.fetch(callback.pathname + callback.search)).status, 400)
    assert.deepEqual(
      provider.tokenRequests().map(({ form }) => form.find(([name]) => name === 'code')?.[1]),
      [all],
    )
  })
})
