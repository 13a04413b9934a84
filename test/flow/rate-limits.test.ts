import assert from 'node:assert/strict'
import { once } from 'node:events'
import { Agent, type IncomingMessage, request } from 'node:http'
import { text } from 'node:stream/consumers'
import { after, describe, type TestContext } from 'node:test'
import { type RunningCloakroom, startCloakroom } from '../kit/cloakroom.ts'
import { type ConfigData, sessionKey } from '../kit/config/cloakroom-config.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { eventually } from '../kit/shops/deadline.ts'
import { steadyNow, steadyTest as test } from '../kit/steady.ts'
import { skipWithoutRedis, startRedis } from '../kit/store/redis.ts'
import { startUpstream } from '../kit/upstream/upstream.ts'

const LOGIN = '/bff/login?returnUrl=/'
const FORWARDED = 'x-forwarded-for'

/** Starts a provider, and a Cloakroom in front of an application, with these limits. */
async function setUp(t: TestContext, rateLimits: ConfigData, more: ConfigData = {}) {
  const provider = await startRotatingProvider()
  t.after(() => provider.close())
  const spa = await startUpstream()
  t.after(() => spa.close())
  const config = {
    provider: provider.settings,
    routes: [{ path: '/', upstream: spa.url, auth: 'anonymous' }],
    rateLimits,
    ...more,
  }
  const start = async () => {
    const cloakroom = await startCloakroom(config)
    t.after(() => cloakroom.close())
    return cloakroom
  }
  return { provider, start, cloakroom: await start() }
}

const agent = new Agent({ keepAlive: true })
after(() => agent.destroy())

/** A login from a browser without cookies. What `fetch` says of itself is no navigation. */
async function login({ listenUrl }: RunningCloakroom, headers: Record<string, string> = {}) {
  const req = request(listenUrl + LOGIN, { agent, headers }).end()
  const [answer] = (await once(req, 'response')) as [IncomingMessage]
  const fields = Object.entries(answer.headers).map(([name, value]): [string, string] => [
    name,
    String(value),
  ])
  return { status: answer.statusCode ?? 0, headers: new Headers(fields), text: await text(answer) }
}

function inBursts<T>(count: number, once: (index: number) => Promise<T>): Promise<T[]> {
  // As many at once as a client has connections.
  const one = async (lane: number) => {
    const answers: T[] = []
    for (let index = lane; index < count; index += 100) answers.push(await once(index))
    return answers
  }
  return Promise.all(Array.from({ length: 100 }, (_, lane) => one(lane))).then((lanes) => lanes.flat())
}

function countOf(answers: readonly { status: number }[], status: number): number {
  return answers.filter((answer) => answer.status === status).length
}

/** The location of the provider's answer to a login that has just begun; not delivered. */
async function authorizationResponse(location: unknown): Promise<string> {
  const answer = await fetch(String(location), { redirect: 'manual' })
  return String(answer.headers.get('location'))
}

describe('limits on our own endpoints', { concurrency: true }, () => {
  test('of 1000 logins of one client most are refused, and what they leave in Redis is little and ends', {
    skip: skipWithoutRedis(),
  }, async (t) => {
    const redis = await startRedis()
    t.after(() => redis.stop())
    const session = { store: { type: 'redis', url: redis.url }, keys: [sessionKey()] }
    const unlimited = await setUp(t, {}, { session, rateLimits: { login: 'off' } })
    assert.equal(countOf(await inBursts(300, () => login(unlimited.cloakroom)), 302), 300)
    assert.equal((await redis.cli('keys', 'cloakroom:login:*')).length, 300, 'without a limit, one each')
    await redis.cli('flushall')

    const { cloakroom } = await setUp(t, { login: '60/1m' }, { session })
    const answers = await inBursts(1_000, () => login(cloakroom))
    assert.deepEqual([countOf(answers, 302), countOf(answers, 429)], [60, 940])
    const keys = (await redis.cli('keys', '*')).toSorted()
    const ends = await Promise.all(keys.map(async (key) => Number((await redis.cli('pttl', key))[0])))
    const attempts = keys.filter((key) => key.startsWith('cloakroom:login:'))
    const counts = keys.filter((key) => /^cloakroom:limit:login:[\w-]{22}$/.test(key))
    assert.deepEqual([attempts.length, counts.length, keys.length], [60, 1, 61])
    assert.ok(ends.every((leftMs) => leftMs > 0 && leftMs <= 15 * 60_000))
    const longest = Math.round(Math.max(...ends) / 1000)
    console.log(`1000 logins: 60 begun, 940 refused, ${keys.length} keys, the last gone in ${longest} s`)
    const metrics = await (await fetch(`${cloakroom.adminUrl}/metrics`)).text()
    assert.match(metrics, /^cloakroom_rate_limited_total\{endpoint="login"\} 940$/m)
  })

  test('a refusal says when to come again, begins nothing and sets no cookie', async (t) => {
    const { cloakroom } = await setUp(t, { login: '1/1m' })
    const began = await login(cloakroom)
    assert.equal(began.status, 302)
    const refused = await login(cloakroom)
    assert.equal(refused.status, 429)
    assert.equal(refused.headers.get('content-type'), 'application/problem+json')
    assert.equal(refused.headers.get('cloakroom-error'), 'rate_limited')
    assert.equal(refused.headers.get('cache-control'), 'no-store')
    assert.equal(refused.headers.get('set-cookie'), null)
    const seconds = Number(refused.headers.get('retry-after'))
    assert.ok(Number.isInteger(seconds) && seconds >= 1 && seconds <= 60, `${seconds}`)
    assert.equal(JSON.parse(refused.text).code, 'rate_limited')
    const page = await login(cloakroom, { accept: 'text/html,*/*;q=0.8' })
    assert.equal(page.status, 429)
    assert.match(page.headers.get('content-type') ?? '', /^text\/html/)
    assert.match(page.text, /Too many requests.*Try again/s)
    assert.ok(Number(page.headers.get('retry-after')) >= 1)
    assert.ok(cloakroom.logs.some((line) => line.includes('"code":"rate_limited"')))
  })

  test('a callback that is refused keeps its attempt: the same URL works after Retry-After', async (t) => {
    const { cloakroom, provider } = await setUp(t, { callback: '1/2s' })
    const browser = cloakroom.browser()
    const [first, second] = [await browser.open(LOGIN), await browser.open('/bff/login?returnUrl=/there')]
    const responses = [
      await authorizationResponse(first.headers.location),
      await authorizationResponse(second.headers.location),
    ]
    assert.equal((await browser.navigate(responses[0]!)).status, 200)
    const session = browser.cookieHeader()
    const refused = await browser.navigate(responses[1]!)
    assert.equal(refused.status, 429)
    assert.match(refused.body, /Too many requests/)
    assert.equal(refused.headers['set-cookie'], undefined)
    assert.equal(browser.cookieHeader(), session)
    assert.equal(provider.tokenRequests().length, 1)
    const seconds = Number(refused.headers['retry-after'])
    assert.ok(seconds >= 1 && seconds <= 2, `${seconds}`)
    await new Promise((resolve) => setTimeout(resolve, seconds * 1_000))
    const landed = await browser.navigate(responses[1]!)
    assert.deepEqual([landed.status, landed.url.pathname], [200, '/there'])
    assert.equal(provider.tokenRequests().length, 2)
    assert.equal((await browser.fetch('/bff/user')).status, 200)
  })

  test('a sign-out that is refused leaves the session as it is', async (t) => {
    const { cloakroom } = await setUp(t, { logout: '2/1m' })
    const browser = cloakroom.browser()
    await browser.signIn()
    const logoutUrl = (await browser.fetch('/bff/user')).json()['bff:logout_url']
    // Both ways share a count, and whatever fails counts too.
    assert.equal((await browser.open('/bff/logout?sid=wrong')).status, 400)
    assert.equal(
      (await browser.fetch('/bff/logout', { headers: { 'x-csrf': '' }, method: 'POST' })).status,
      403,
    )
    for (const answer of [
      await browser.open(logoutUrl),
      await browser.fetch('/bff/logout', { method: 'POST' }),
    ]) {
      assert.deepEqual([answer.status, answer.json().code], [429, 'rate_limited'])
      assert.equal(answer.headers['set-cookie'], undefined)
    }
    assert.equal((await browser.fetch('/bff/user')).status, 200)
  })

  test('what has no limit is not counted', async (t) => {
    const { cloakroom } = await setUp(t, { login: '1/1m', callback: 'off', logout: 'off' })
    assert.equal((await login(cloakroom)).status, 302)
    const answers = await inBursts(200, () => fetch(`${cloakroom.listenUrl}/bff/callback`))
    assert.equal(countOf(answers, 400), 200)
  })

  test('without trustProxy an X-Forwarded-For header gets no client another count', async (t) => {
    const { cloakroom } = await setUp(t, { login: '5/1m' })
    const answers = await inBursts(100, (index) => login(cloakroom, { [FORWARDED]: `203.0.113.${index}` }))
    assert.deepEqual([countOf(answers, 302), countOf(answers, 429)], [5, 95])
  })

  test('behind a trusted proxy each client has a count, and one cannot write itself another', async (t) => {
    const { cloakroom } = await setUp(t, { login: '5/1m' }, { trustProxy: ['127.0.0.1'] })
    for (const client of ['203.0.113.1', '203.0.113.2', '2001:db8:0:1::1', '2001:db8:0:2::1']) {
      const answers = await inBursts(100, (index) =>
        login(cloakroom, { [FORWARDED]: `198.51.100.${index}, ${client}` }),
      )
      assert.deepEqual([countOf(answers, 302), countOf(answers, 429)], [5, 95], client)
    }
    // One network of IPv6, and one IPv4 address in two spellings.
    for (const client of ['2001:db8:0:1:ffff::9', '2001:DB8:0:2:1:2:3:4', '::ffff:203.0.113.1'])
      assert.equal((await login(cloakroom, { [FORWARDED]: client })).status, 429, client)
  })
})

describe('limits over replicas', { skip: skipWithoutRedis(), concurrency: true }, () => {
  test('200 logins at once to two replicas: exactly the 50 of the limit begin, 20 times over', async (t) => {
    const redis = await startRedis()
    t.after(() => redis.stop())
    const session = { store: { type: 'redis', url: redis.url }, keys: [sessionKey()] }
    const { cloakroom, start } = await setUp(t, { login: '50/1m' }, { session, trustProxy: ['127.0.0.1'] })
    const replicas = [cloakroom, await start()]
    for (let round = 0; round < 20; round += 1) {
      const headers = { [FORWARDED]: `203.0.113.${round}` }
      const answers = await Promise.all(
        Array.from({ length: 200 }, (_, index) => login(replicas[index % 2]!, headers)),
      )
      assert.deepEqual([countOf(answers, 302), countOf(answers, 429)], [50, 150], `round ${round}`)
    }
    assert.equal((await redis.cli('keys', 'cloakroom:limit:login:*')).length, 20)
    assert.deepEqual(await redis.cli('keys', '*203?0?113*'), [], 'no address is stored')
  })

  test('while Redis is away the limit stands at half, and sign-in works again when it is back', async (t) => {
    const redis = await startRedis()
    t.after(() => redis.stop())
    const session = { store: { type: 'redis', url: redis.url }, keys: [sessionKey()] }
    const { cloakroom } = await setUp(t, { login: '50/1m' }, { session, trustProxy: ['127.0.0.1'] })
    const burst = async (client: string) => {
      const startedAt = steadyNow()
      const answers = await inBursts(200, () => login(cloakroom, { [FORWARDED]: client }))
      return { answers, tookMs: steadyNow() - startedAt }
    }
    const before = await burst('203.0.113.1')
    await redis.kill()
    const { answers, tookMs } = await burst('203.0.113.2')
    assert.ok(tookMs < before.tookMs + 2_000, `${tookMs} ms, ${before.tookMs} ms with Redis`)
    assert.deepEqual([countOf(answers, 503), countOf(answers, 429)], [25, 175])
    assert.ok(
      answers.every(({ status, text }) => status === 429 || JSON.parse(text).code === 'store_unavailable'),
    )
    await redis.restart()
    // Asked for without a login, because those that fail count, too.
    await eventually('the store is back', async () => {
      const ready = await (await fetch(`${cloakroom.adminUrl}/readyz`)).json()
      return (ready as { dependencies: { store: string } }).dependencies.store === 'ok'
    })
    assert.equal((await login(cloakroom, { [FORWARDED]: '203.0.113.3' })).status, 302)
    const browser = cloakroom.browser()
    await browser.signIn()
    assert.equal((await browser.fetch('/bff/user')).status, 200)
  })

  test('a Redis that hangs keeps no request waiting longer than without a limit', async (t) => {
    const redis = await startRedis()
    t.after(() => redis.stop())
    const session = { store: { type: 'redis', url: redis.url }, keys: [sessionKey()] }
    const { cloakroom } = await setUp(t, { login: '2/1m' }, { session })
    redis.pause()
    const waits: number[] = []
    for (let request = 0; request < 3; request += 1) {
      const startedAt = steadyNow()
      assert.equal((await login(cloakroom)).status, request === 0 ? 503 : 429)
      waits.push(steadyNow() - startedAt)
    }
    redis.resume()
    assert.ok(waits[0]! < 1_000, `${waits[0]} ms`)
    assert.ok(Math.max(...waits.slice(1)) < 150, `${waits} ms: who is refused waits for nothing`)
  })
})
