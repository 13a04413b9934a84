import assert from 'node:assert/strict'
import type { ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { before, describe } from 'node:test'
import { audienceOf, startFleet, suiteScope } from '../../kit/attack/fleet.ts'
import type { Browser } from '../../kit/browsers/browser.ts'
import { field, sendHtml, sendJson } from '../../kit/local-server.ts'
import { selfSigned } from '../../kit/self-signed.ts'
import { eventually, untilAfter } from '../../kit/shops/deadline.ts'
import { verdict } from '../../kit/shops/shop.ts'
import { steadyTest as test } from '../../kit/steady.ts'
import { skipWithoutRedis } from '../../kit/store/redis.ts'

const TIMEOUT_MS = 500
const CONCURRENCY = 2
const FAULTS_TO_OPEN = 5
const PEOPLE = 6
/** Each renewed from the half of it, used until a tenth is left. */
const LIVES_SECONDS = [10, 15, 20, 30]
const UNAVAILABLE = [503, 'provider_unavailable']

/** What goes wrong with a refresh: what is answered, or where the token endpoint is said to be. */
type Fault = {
  readonly name: string
  readonly answer?: (res: ServerResponse) => unknown
  readonly token?: () => string
  /** Longest Retry-After in seconds; what the circuit breaker asks for, unless given. */
  readonly retryAfter?: number
  /** A page says nothing of the provider: one blocked user must not close the way for all. */
  readonly keepsCircuitClosed?: boolean
  /** The refresh token may have been spent: it is not offered again. */
  readonly isLost?: boolean
}

describe('three processes and a token endpoint that', { skip: skipWithoutRedis() }, () => {
  const scope = suiteScope()
  let scene: Awaited<ReturnType<typeof startFleet>>
  let untrusted = ''
  let asked = 0
  let reloads = 0
  let isBroken = false
  before(async () => {
    const provider = { timeout: `${TIMEOUT_MS}ms`, concurrency: CONCURRENCY, reusesRefreshTokens: false }
    scene = await startFleet(scope, { replicas: 3, resources: ['orders', 'billing'], provider })
    const server = createServer(selfSigned(['127.0.0.1']), () => assert.fail('it is not spoken to'))
    server.on('connection', () => {
      asked += 1
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    scope.after(() => server.close())
    untrusted = `https://127.0.0.1:${(server.address() as AddressInfo).port}/token`
  })

  const faults: readonly Fault[] = [
    {
      name: 'says 429 and when',
      answer: (res) => sendJson(res, 429, { error: 'slow_down' }, { 'retry-after': '20' }),
      retryAfter: 20,
    },
    { name: 'says 500', answer: (res) => sendJson(res, 500, { error: 'server_error' }) },
    { name: 'says 503', answer: (res) => sendHtml(res, 503, '<h1>Service unavailable</h1>') },
    { name: 'has an unknown name', token: () => 'https://token.invalid/token' },
    { name: 'shows an untrusted certificate', token: () => untrusted },
    { name: 'never answers', answer: () => undefined, isLost: true },
    {
      ...{ name: 'answers with half an answer and status 200', isLost: true, keepsCircuitClosed: true },
      answer: (res) => res.writeHead(200, { 'content-type': 'application/json' }).end('{"access_token":"'),
    },
    {
      ...{ name: 'answers with a page and status 200', keepsCircuitClosed: true },
      answer: (res) => sendHtml(res, 200, '<h1>blocked</h1>'),
    },
  ]

  /** Puts the fault in place for these people, or all; every process starts with a closed circuit and no memory of refusals. */
  async function breakIt(fault: Fault | undefined, people?: ReadonlyMap<string, Fault>): Promise<void> {
    const { provider, config } = scene
    asked = 0
    provider.control.intercept = ({ form }, res) => {
      const of = people?.get(provider.ownerOf(field(form, 'refresh_token')) ?? '') ?? fault
      if (!scene.isRefresh(form) || !of?.answer) return false
      asked += 1
      of.answer(res)
      return true
    }
    const token = fault?.token?.()
    const endpoints = token === undefined ? {} : { endpoints: { token } }
    // A gate is kept as long as its settings stay the same.
    reloads += 1
    const timeout = `${TIMEOUT_MS + reloads}ms`
    isBroken = true
    await scene.reload({ provider: { ...config.provider, ...endpoints, timeout } })
    isBroken = fault !== undefined
  }
  async function crowd(name: string, count: number): Promise<Browser[]> {
    const browsers = []
    for (let index = 0; index < count; index += 1)
      browsers.push(await scene.person(`${name}-${index}`, index % 3))
    return browsers
  }

  /** False when it took longer than the tokens were sure to live: what came after that says nothing. */
  async function areUsedAsLongAsTheyLive(lifeSeconds: number): Promise<boolean> {
    const { control } = scene.provider
    if (isBroken) await breakIt(undefined)
    control.accessTokenSeconds = lifeSeconds
    const people = new Map(faults.map((fault, index) => [`living-${index}`, fault]))
    // A JWT ends at a whole second, so the first token may live for a second less than it says.
    const liveUntil = Date.now() + (lifeSeconds - 1) * 900
    const browsers = await crowd('living', faults.length)
    const signedInBy = Date.now()
    control.accessTokenSeconds = 300
    const places = [faults[0]!, ...faults.filter(({ token }) => token !== undefined)]
    await breakIt(places[0], people)
    await untilAfter(signedInBy + lifeSeconds * 500)
    for (const place of places) {
      if (place !== places[0]) await breakIt(place, people)
      const answers = await Promise.all(browsers.map((browser) => scene.everywhere(browser, '/api/orders')))
      if (Date.now() >= liveUntil) return false
      for (const answer of answers.flat())
        assert.deepEqual(verdict(answer), [200, audienceOf('orders')], place.name)
    }
    return true
  }

  test('G13: fails in whatever way: tokens that should be renewed are used as long as they live', async () => {
    // A busy machine needs longer for it than the shortest life.
    for (const lifeSeconds of LIVES_SECONDS) if (await areUsedAsLongAsTheyLive(lifeSeconds)) return
    assert.fail('it took longer than the longest life')
  })

  for (const fault of faults)
    test(`G13: ${fault.name}: 503 with Retry-After from each of them, few requests, and all is well after it`, async () => {
      const { provider, counted, fleet } = scene
      if (isBroken) await breakIt(undefined)
      const browsers = await crowd('waiting', PEOPLE)
      await breakIt(fault)
      const reuses = provider.counters.reuseDetected
      const answers = await Promise.all(browsers.map((browser) => scene.everywhere(browser, '/api/billing')))
      for (const answer of answers.flat()) {
        if (fault.isLost && answer.status === 401) {
          assert.equal(answer.json().reason, 'refresh_token_uncertain')
          continue
        }
        assert.deepEqual(verdict(answer), UNAVAILABLE)
        const seconds = Number(answer.headers['retry-after'])
        assert.ok(seconds >= 1 && seconds <= (fault.retryAfter ?? 30), `Retry-After: ${seconds}`)
      }
      const most = fault.keepsCircuitClosed ? PEOPLE * 3 : fleet.length * (FAULTS_TO_OPEN + CONCURRENCY)
      assert.ok(asked <= most, `${asked} requests`)
      const before = asked
      const open = await counted('cloakroom_provider_breaker_state')
      await Promise.all(browsers.map((browser) => scene.everywhere(browser, '/api/billing')))
      assert.ok(asked - before <= open, `${asked - before} more requests than an open circuit lets through`)
      for (const answer of (
        await Promise.all(browsers.map((one) => scene.everywhere(one, '/bff/user')))
      ).flat())
        assert.equal(answer.status, 200, 'the session stays')
      for (const answer of await scene.everywhere(browsers[0]!, '/api/orders'))
        assert.deepEqual(verdict(answer), [200, audienceOf('orders')])

      await breakIt(undefined)
      for (const answer of (
        await Promise.all(browsers.map((one) => scene.everywhere(one, '/api/billing')))
      ).flat())
        if (fault.isLost) assert.deepEqual(verdict(answer), [401, 'reauthentication_required'])
        else assert.deepEqual(verdict(answer), [200, audienceOf('billing')])
      assert.equal(provider.counters.reuseDetected, reuses)
    })

  test('G13: says 503 to all: the circuit opens in each process, once, and closes when all is well', async () => {
    const { provider, logged, fleet } = scene
    if (isBroken) await breakIt(undefined)
    const browsers = await crowd('opening', PEOPLE * 2)
    const texts = ['fails again and again', 'answers again'] as const
    const before = texts.map(logged)
    const told = () =>
      texts.map((text, which) => logged(text).map((lines, at) => lines - before[which]![at]!))
    await breakIt(faults.find(({ name }) => name === 'says 503'))
    await Promise.all(browsers.map((browser) => scene.everywhere(browser, '/api/billing')))
    await eventually('the line is written', () => told()[0]!.every((lines) => lines > 0))
    provider.control.intercept = undefined
    for (const [index, browser] of browsers.slice(-fleet.length).entries())
      await eventually('it is tried again', async () => {
        const [status] = verdict(await browser.fetch('/api/billing', { via: fleet[index]!.listenUrl }))
        return status === 200
      })
    await eventually('all have seen it', async () => {
      for (const browser of browsers) await scene.everywhere(browser, '/api/billing')
      return told()[1]!.every((lines) => lines > 0)
    })
    assert.deepEqual(told(), [
      [1, 1, 1],
      [1, 1, 1],
    ])
    assert.equal(await scene.counted('cloakroom_provider_breaker_state'), 0)
  })
})
