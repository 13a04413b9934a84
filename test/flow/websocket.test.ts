import assert from 'node:assert/strict'
import { once } from 'node:events'
import { get, type IncomingMessage } from 'node:http'
import { describe, type TestContext } from 'node:test'
import type { WebSocket } from 'ws'
import { jwtClaims } from '../../src/demo/scripted/signing.ts'
import type { Browser } from '../kit/browsers/browser.ts'
import { startCloakroom } from '../kit/cloakroom.ts'
import type { ConfigData } from '../kit/config/cloakroom-config.ts'
import { startTwoReplicas } from '../kit/replica.ts'
import { eventually, untilAfter } from '../kit/shops/deadline.ts'
import { APP, ORDERS } from '../kit/shops/shop.ts'
import { chatConfig, closeOf, echoOf, openChat, signedInAt } from '../kit/shops/websocket-shop.ts'
import { steadyNow, steadyTest as test } from '../kit/steady.ts'
import { skipWithoutRedis, startRedis, type TestRedis } from '../kit/store/redis.ts'

const WITHIN_MS = 5_000
const POLICY = { code: 1008, reason: 'session ended' }

/** One Cloakroom in this process, a chat behind it and a browser signed in. */
async function startOne(t: TestContext, overrides: ConfigData = {}) {
  const { config, chat, provider } = await chatConfig(t, overrides)
  const cloakroom = await startCloakroom(config)
  t.after(() => cloakroom.close())
  const browser = await signedInAt(t, cloakroom.listenUrl)
  return { cloakroom, chat, provider, browser, open: () => openChat(t, browser, cloakroom.listenUrl) }
}

async function assertClosed(socket: WebSocket, { code, reason } = POLICY): Promise<void> {
  const closed = await closeOf(socket)
  assert.deepEqual([closed.code, closed.reason], [code, reason])
  assert.ok(closed.afterMs < WITHIN_MS, `closed after ${closed.afterMs.toFixed(0)} ms`)
}

describe('a WebSocket and its session', { concurrency: true }, () => {
  test('the upstream gets the token and not the cookie, and sign-out closes both ends', async (t) => {
    const { browser, chat, open } = await startOne(t)
    const socket = await open()
    assert.equal(await echoOf(socket, 'hello'), 'hello')
    const { authorization, cookie } = chat.handshakes[0]!.headers
    assert.equal(jwtClaims(authorization!.slice('Bearer '.length))?.aud, ORDERS)
    assert.equal(cookie, undefined)
    const closed = Promise.all([assertClosed(socket), closeOf(chat.sockets[0]!)])
    assert.equal((await browser.fetch('/bff/logout', { method: 'POST' })).status, 200)
    const [, far] = await closed
    assert.equal(far.code, 1001)
  })

  test('a session that another one replaces takes its WebSocket along', async (t) => {
    const { browser, open } = await startOne(t)
    const socket = await open()
    const closed = assertClosed(socket)
    await browser.signIn()
    await closed
    assert.equal(await echoOf(await open(), 'again'), 'again')
  })

  test('a grant that the provider ended takes the WebSocket along', async (t) => {
    const { browser, provider, open } = await startOne(t)
    const socket = await open()
    provider.control.intercept = (request, res) => {
      if (!request.body.includes('grant_type=refresh_token')) return false
      res.writeHead(400, { 'content-type': 'application/json' }).end('{"error":"invalid_grant"}')
      return true
    }
    const closed = assertClosed(socket)
    assert.equal((await browser.fetch('/api/billing')).status, 401)
    await closed
  })

  test('the idle timeout of the session ends it: what passes through a WebSocket is no use of the session', async (t) => {
    const { open } = await startOne(t, { session: { idleTimeout: '3s' } })
    const socket = await open()
    const chatter = setInterval(() => socket.send('x'), 200)
    t.after(() => clearInterval(chatter))
    await assertClosed(socket)
  })

  test('the absolute timeout of the session ends it, however much the session is used', async (t) => {
    const { browser, open } = await startOne(t, { session: { idleTimeout: '2s', absoluteTimeout: '4s' } })
    const socket = await open()
    let use: Promise<unknown> | undefined
    const uses = setInterval(() => {
      use = browser.fetch('/bff/user')
    }, 500)
    t.after(() => clearInterval(uses))
    const { code, afterMs } = await closeOf(socket)
    clearInterval(uses)
    await use
    assert.equal(code, 1008)
    assert.ok(afterMs > 2_500 && afterMs < 4_500, `closed after ${afterMs.toFixed(0)} ms`)
  })

  test('the access token was for the handshake: its end does not end the WebSocket', async (t) => {
    const { chat, provider, browser, open, cloakroom } = await startOne(t)
    provider.control.accessTokenSeconds = 1
    await browser.fetch('/api/orders')
    const socket = await open()
    const claims = jwtClaims(chat.handshakes[0]!.headers.authorization!.slice('Bearer '.length))
    await untilAfter(Math.min(Number(claims?.exp) * 1_000, Date.now() + 2_000))
    assert.equal(await echoOf(socket, 'still here'), 'still here')
    assert.equal((await fetch(`${cloakroom.adminUrl}/livez`)).status, 200)
  })

  test('one WebSocket more than a session may have is refused with 429', async (t) => {
    const { open } = await startOne(t, { limits: { webSocketsPerSession: 2 } })
    const [first] = await Promise.all([open(), open()])
    await assert.rejects(open(), /429/)
    first.close()
    await once(first, 'close')
    await eventually('one more may open', () =>
      open().then(
        () => true,
        () => false,
      ),
    )
  })

  test('a token that the client brings is refused, and is in no log line', async (t) => {
    const { browser, chat, cloakroom } = await startOne(t)
    const secret = 'token-of-the-client'
    for (const request of [{ protocols: ['bearer', secret] }, { path: `/chat?access_token=${secret}` }])
      await assert.rejects(openChat(t, browser, cloakroom.listenUrl, request), /400/)
    assert.equal(chat.handshakes.length, 0)
    assert.doesNotMatch(cloakroom.logs.join('\n'), new RegExp(secret))
  })

  test('at shutdown the WebSocket is told 1001, and the process does not wait for it', async (t) => {
    const { cloakroom, open } = await startOne(t)
    const socket = await open()
    const closed = assertClosed(socket, { code: 1001, reason: 'shutting down' })
    const startedAt = steadyNow()
    await Promise.all([closed, cloakroom.close()])
    assert.ok(steadyNow() - startedAt < WITHIN_MS)
  })
})

describe('a WebSocket on another replica', { skip: skipWithoutRedis(), concurrency: true }, () => {
  test('is closed by a sign-out here', async (t) => {
    const { a, b, browser } = await startTwo(t)
    const socket = await openChat(t, browser, b.listenUrl)
    assert.equal(await echoOf(socket, 'hello'), 'hello')
    const closed = assertClosed(socket)
    await browser.fetch('/bff/logout', { method: 'POST', via: a.listenUrl })
    await closed
  })

  test('is closed by a sign-out whose message was lost, and so is an event stream', async (t) => {
    const { a, b, browser, redis } = await startTwo(t)
    const socket = await openChat(t, browser, b.listenUrl)
    const events = await openEvents(t, browser, b.listenUrl)
    // Every subscriber is cut off, and none may subscribe again.
    await redis.cli('ACL', 'SETUSER', 'default', '-subscribe')
    await redis.cli('CLIENT', 'KILL', 'TYPE', 'pubsub')
    const closed = Promise.all([assertClosed(socket), once(events, 'close')])
    const startedAt = steadyNow()
    const logout = await browser.fetch('/bff/logout', { method: 'POST', via: a.listenUrl })
    assert.equal(logout.status, 200)
    await closed
    assert.ok(steadyNow() - startedAt < WITHIN_MS)
  })

  test('outlives an outage of Redis if its session did, and is closed after it otherwise', async (t) => {
    const { a, b, browser, redis } = await startTwo(t)
    const other = await signedInAt(t, a.listenUrl)
    const [kept, lost] = [await openChat(t, other, b.listenUrl), await openChat(t, browser, b.listenUrl)]
    const hashes = await redis.cli('KEYS', 'cloakroom:*:session')
    assert.equal(hashes.length, 2)
    redis.pause()
    await eventually('the outage shows', async () => (await readiness(b.adminUrl)) === 'unavailable')
    redis.resume()
    assert.equal(await echoOf(kept, 'still here'), 'still here')
    const closed = assertClosed(lost)
    await redis.cli('CLIENT', 'KILL', 'TYPE', 'pubsub')
    await browser.fetch('/bff/logout', { method: 'POST', via: a.listenUrl })
    await closed
    assert.equal(await echoOf(kept, 'still here'), 'still here')
  })
})

async function startTwo(t: TestContext) {
  const redis: TestRedis = await startRedis()
  t.after(() => redis.stop())
  const { config } = await chatConfig(t, { session: { store: { type: 'redis', url: redis.url } } })
  const [a, b] = await startTwoReplicas(t, config)
  return { redis, a, b, browser: await signedInAt(t, a.listenUrl) }
}

async function openEvents(t: TestContext, browser: Browser, listenUrl: string): Promise<IncomingMessage> {
  const headers = { host: new URL(APP).host, cookie: browser.cookieHeader(), 'x-csrf': '1' }
  const req = get(`${listenUrl}/chat/events`, { headers, agent: false })
  t.after(() => req.destroy())
  const [response] = (await once(req, 'response')) as [IncomingMessage]
  assert.equal(response.statusCode, 200)
  response.on('error', () => {})
  response.resume()
  return response
}

async function readiness(adminUrl: string): Promise<string> {
  const answer = await fetch(`${adminUrl}/readyz`)
  return ((await answer.json()) as { dependencies: { store: string } }).dependencies.store
}
