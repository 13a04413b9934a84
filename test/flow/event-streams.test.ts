import assert from 'node:assert/strict'
import type { ServerResponse } from 'node:http'
import { describe, type TestContext } from 'node:test'
import type { Browser } from '../kit/browsers/browser.ts'
import { startCloakroom } from '../kit/cloakroom.ts'
import type { ConfigData } from '../kit/config/cloakroom-config.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { startTwoReplicas } from '../kit/replica.ts'
import { eventually, untilAfter } from '../kit/shops/deadline.ts'
import { ask, type HeldUpstream, type OpenAnswer, startHeldUpstream } from '../kit/shops/open-streams.ts'
import { APP, type Scope } from '../kit/shops/shop.ts'
import { signedInAt } from '../kit/shops/websocket-shop.ts'
import { steadyNow, steadyTest as test } from '../kit/steady.ts'
import { skipWithoutRedis, startRedis } from '../kit/store/redis.ts'
import { startRedisAddress } from '../kit/store/redis-address.ts'

const WITHIN_MS = 5_000
const EVENTS = { 'content-type': 'text/event-stream' }

async function liveConfig(t: Scope, session: ConfigData = {}) {
  const provider = await startRotatingProvider()
  t.after(() => provider.close())
  const upstream = await startHeldUpstream(t)
  const route = { upstream: upstream.url, timeout: { response: '1m' } }
  const routes = [
    { ...route, path: '/live' },
    { ...route, path: '/public', auth: 'anonymous', websocket: true },
  ]
  return { upstream, config: { publicUrl: APP, provider: provider.settings, session, resources: {}, routes } }
}

/** One Cloakroom in this process, and a browser signed in. */
async function startOne(t: TestContext, session: ConfigData = {}) {
  const { upstream, config } = await liveConfig(t, session)
  const cloakroom = await startCloakroom(config)
  t.after(() => cloakroom.close())
  const browser = await signedInAt(t, cloakroom.listenUrl)
  const open = (path: string, method?: string) =>
    ask(t, browser, cloakroom.listenUrl, { path, ...(method && { method }) })
  return { cloakroom, upstream, browser, open }
}

async function signOut(browser: Browser, via?: string): Promise<number> {
  const logout = await browser.fetch('/bff/logout', { method: 'POST', ...(via && { via }) })
  assert.equal(logout.status, 200)
  return steadyNow()
}

/** Begins an answer and goes on with it until its connection is gone. */
function stream(t: Scope, res: ServerResponse, headers: Record<string, string>): void {
  res.writeHead(200, headers).write('data: hello\n\n')
  const more = setInterval(() => res.write(': still here\n\n'), 100)
  res.on('close', () => clearInterval(more))
  t.after(() => clearInterval(more))
}

async function openStream(t: Scope, upstream: HeldUpstream, answer: OpenAnswer, path: string): Promise<void> {
  stream(t, await upstream.asked(path), EVENTS)
  assert.equal((await answer.head).statusCode, 200)
  await eventually('the first event', () => answer.text().includes('data: hello'))
}

async function endOf(answer: OpenAnswer): Promise<{ isWhole: boolean; at: number }> {
  await eventually('the end of the answer', () => answer.isOver(), { withinMs: 2 * WITHIN_MS })
  return answer.over
}

async function assertEndsWithin(answer: OpenAnswer, since: number): Promise<void> {
  const { at } = await endOf(answer)
  assert.ok(at - since < WITHIN_MS, `ended after ${(at - since).toFixed(0)} ms`)
}

describe('an event stream and its session', { concurrency: true }, () => {
  test('sign-out ends it, whatever the letter case of its type', async (t) => {
    const { upstream, browser, open } = await startOne(t)
    const answer = open('/live/case')
    stream(t, await upstream.asked('/live/case'), { 'content-type': 'Text/Event-Stream; charset=utf-8' })
    await answer.head
    const since = await signOut(browser)
    await assertEndsWithin(answer, since)
    assert.equal((await answer.over).isWhole, true)
  })

  test('a sign-out before its head is there ends it as soon as it begins', async (t) => {
    const { upstream, browser, open } = await startOne(t)
    const answer = open('/live/late')
    const res = await upstream.asked('/live/late')
    await signOut(browser)
    const since = steadyNow()
    stream(t, res, EVENTS)
    assert.equal((await answer.head).statusCode, 200)
    await assertEndsWithin(answer, since)
  })

  test('the idle timeout of the session ends it: an open stream is no use of the session', async (t) => {
    const { upstream, browser, open } = await startOne(t, { idleTimeout: '2s' })
    const answer = open('/live/idle')
    const since = steadyNow()
    await openStream(t, upstream, answer, '/live/idle')
    await assertEndsWithin(answer, since)
    assert.equal((await browser.fetch('/bff/user')).status, 401)
  })

  test('the absolute timeout of the session ends it, however much the session is used', async (t) => {
    const { upstream, browser, open } = await startOne(t, { idleTimeout: '2s', absoluteTimeout: '4s' })
    const since = steadyNow()
    const answer = open('/live/absolute')
    await openStream(t, upstream, answer, '/live/absolute')
    for (let use = 1; use <= 3; use += 1) {
      await untilAfter(Date.now() + 900)
      assert.equal((await browser.fetch('/bff/user')).status, 200)
      assert.equal(answer.isOver(), false)
    }
    const { at } = await endOf(answer)
    assert.ok(at - since < 4_000 + WITHIN_MS)
  })

  test('one that announced its length is cut, so that nothing else is read as the rest of it', async (t) => {
    const { upstream, browser, open } = await startOne(t)
    const answer = open('/live/length')
    stream(t, await upstream.asked('/live/length'), { ...EVENTS, 'content-length': '100000' })
    await answer.head
    await signOut(browser)
    assert.equal((await endOf(answer)).isWhole, false)
  })
})

describe('other answers and their session', { concurrency: true }, () => {
  for (const type of ['application/x-ndjson', 'multipart/x-mixed-replace; boundary=x', 'application/json']) {
    test(`an endless ${type} is cut by a sign-out`, async (t) => {
      const { upstream, browser, open } = await startOne(t)
      const answer = open('/live/endless')
      const since = steadyNow()
      stream(t, await upstream.asked('/live/endless'), { 'content-type': type })
      await answer.head
      await signOut(browser)
      await assertEndsWithin(answer, since)
      assert.equal((await answer.over).isWhole, false)
    })
  }

  test('a long poll is refused after a sign-out, and its upstream is not kept waiting', async (t) => {
    const { upstream, browser, open } = await startOne(t)
    const since = steadyNow()
    const answer = open('/live/poll')
    const res = await upstream.asked('/live/poll')
    await signOut(browser)
    const head = await answer.head
    assert.equal(head.statusCode, 401)
    assert.equal(head.headers['cloakroom-error'], 'session_required')
    assert.equal(head.headers['set-cookie'], undefined)
    await assertEndsWithin(answer, since)
    await eventually('the end at the upstream', () => res.destroyed)
  })

  test('a long poll that outlives several looks is answered, and ends no session', async (t) => {
    const { upstream, browser, open } = await startOne(t)
    const answer = open('/live/patient')
    const res = await upstream.asked('/live/patient')
    await untilAfter(Date.now() + 6_000)
    res.end('news')
    const head = await answer.head
    assert.deepEqual([head.statusCode, head.headers['set-cookie']], [200, undefined])
    assert.equal((await answer.over).isWhole, true)
    assert.equal(answer.text(), 'news')
    assert.equal((await browser.fetch('/bff/user')).status, 200)
  })

  test('what has an end of its own is not cut: a download of known length, the answer to a POST', async (t) => {
    const { upstream, browser, open } = await startOne(t)
    const [download, order] = [open('/live/file'), open('/live/order', 'POST')]
    const file = await upstream.asked('/live/file')
    file.writeHead(200, { 'content-length': '8' }).write('half')
    const made = await upstream.asked('/live/order')
    await download.head
    await signOut(browser)
    await untilAfter(Date.now() + WITHIN_MS)
    file.end('half')
    made.end('done')
    assert.equal((await endOf(download)).isWhole, true)
    assert.equal((await endOf(order)).isWhole, true)
    assert.equal(order.text(), 'done')
  })
})

describe('an event stream at a stop', { concurrency: true }, () => {
  test('is ended at once, whole for the client and over for the upstream, signed in or not', async (t) => {
    const { cloakroom, upstream, open } = await startOne(t)
    const paths = ['/live/events', '/public/events', '/public/posted']
    const streams = paths.map((path) => ({
      path,
      answer: open(path, path.endsWith('posted') ? 'POST' : 'GET'),
    }))
    for (const { path, answer } of streams) await openStream(t, upstream, answer, path)
    const since = steadyNow()
    const closed = cloakroom.close()
    for (const { path, answer } of streams) {
      await assertEndsWithin(answer, since)
      assert.equal((await answer.over).isWhole, true, path)
      assert.equal((await upstream.asked(path)).destroyed, true)
    }
    await closed
    assert.ok(steadyNow() - since < WITHIN_MS)
  })

  test('that begins only then is passed on as far as its head', async (t) => {
    const { cloakroom, upstream, open } = await startOne(t)
    const answer = open('/public/late')
    const res = await upstream.asked('/public/late')
    const since = steadyNow()
    const closed = cloakroom.close()
    stream(t, res, EVENTS)
    assert.equal((await answer.head).statusCode, 200)
    await assertEndsWithin(answer, since)
    await closed
    assert.ok(steadyNow() - since < WITHIN_MS)
  })

  test('that waits for its first event is cut without an answer, and its upstream is told', async (t) => {
    const { cloakroom, upstream, browser } = await startOne(t)
    const answer = ask(t, browser, cloakroom.listenUrl, {
      path: '/live/silent',
      headers: { accept: 'text/event-stream' },
    })
    const res = await upstream.asked('/live/silent')
    const since = steadyNow()
    await cloakroom.close()
    assert.ok(steadyNow() - since < WITHIN_MS)
    await assert.rejects(answer.head, /socket hang up|ECONNRESET/)
    await eventually('the end at the upstream', () => res.destroyed)
  })

  test('does not take along a download of unknown length, nor a poll, which get their whole answers', async (t) => {
    const { cloakroom, upstream, open } = await startOne(t)
    const [download, poll] = [open('/live/file'), open('/public/poll')]
    const file = await upstream.asked('/live/file')
    file.writeHead(200, { 'content-type': 'application/octet-stream' }).write('first,')
    const polled = await upstream.asked('/public/poll')
    await eventually('the first bytes', () => download.text() !== '')
    const closed = cloakroom.close()
    await untilAfter(Date.now() + 500)
    file.end('last')
    polled.end('news')
    await closed
    assert.deepEqual([(await download.over).isWhole, download.text()], [true, 'first,last'])
    assert.deepEqual([(await poll.over).isWhole, poll.text()], [true, 'news'])
  })

  test('is ended, too, when it is what an upgrade was answered with', async (t) => {
    const { cloakroom, upstream, browser } = await startOne(t)
    const answer = ask(t, browser, cloakroom.listenUrl, {
      path: '/public/upgrade',
      headers: {
        ...{ connection: 'Upgrade', upgrade: 'websocket', origin: APP, 'sec-websocket-version': '13' },
        'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
      },
    })
    await openStream(t, upstream, answer, '/public/upgrade')
    const since = steadyNow()
    await cloakroom.close()
    assert.ok(steadyNow() - since < WITHIN_MS)
    await endOf(answer)
  })
})

describe('an event stream on another replica', { skip: skipWithoutRedis(), concurrency: true }, () => {
  test('is ended by a sign-out here that came before its head', async (t) => {
    const { a, b, browser, upstream } = await startTwo(t)
    const answer = ask(t, browser, b.listenUrl, { path: '/live/late' })
    const res = await upstream.asked('/live/late')
    await signOut(browser, a.listenUrl)
    // As late as no message is still on its way.
    await untilAfter(Date.now() + 700)
    const since = steadyNow()
    stream(t, res, EVENTS)
    assert.equal((await answer.head).statusCode, 200)
    await assertEndsWithin(answer, since)
  })

  test('is ended by a sign-out here after a failover that left the old primary running', async (t) => {
    const [old, next] = await Promise.all([startRedis(), startRedis()])
    for (const redis of [old, next]) t.after(() => redis.stop())
    await old.cli('CONFIG', 'SET', 'repl-diskless-sync-delay', '0')
    await next.cli('REPLICAOF', '127.0.0.1', String(old.port))
    const address = await startRedisAddress(old.port)
    t.after(() => address.close())
    const { upstream, config } = await liveConfig(t, { store: { type: 'redis', url: address.url } })
    const [a, b] = await startTwoReplicas(t, config)
    const browser = await signedInAt(t, a.listenUrl)
    const answer = ask(t, browser, b.listenUrl, { path: '/live/failover' })
    await openStream(t, upstream, answer, '/live/failover')
    const sessions = () => next.cli('KEYS', 'cloakroom:*:tokens')
    await eventually('the session is at both', async () => (await sessions()).length === 1)

    await next.cli('REPLICAOF', 'NO', 'ONE')
    address.leadTo(next.port)
    await old.cli('REPLICAOF', '127.0.0.1', '1')
    // No request comes; each replica finds out by itself.
    const heard = async () => (await next.cli('PUBSUB', 'NUMSUB', 'cloakroom:invalidate'))[1]
    await eventually('both listen at the new primary', async () => (await heard()) === '2')
    const since = await signOut(browser, a.listenUrl)
    await assertEndsWithin(answer, since)
  })

  test('ends at the idle timeout of its session, and leaves no record behind', async (t) => {
    const { b, browser, upstream, redis } = await startTwo(t, { idleTimeout: '3s' })
    const since = steadyNow()
    const answer = ask(t, browser, b.listenUrl, { path: '/live/idle' })
    const poll = ask(t, browser, b.listenUrl, { path: '/live/poll' })
    await openStream(t, upstream, answer, '/live/idle')
    await assertEndsWithin(answer, since)
    const refused = await poll.head
    assert.deepEqual([refused.statusCode, refused.headers['set-cookie']], [401, undefined])
    assert.deepEqual(await redis.cli('KEYS', 'cloakroom:*:session'), [])
  })
})

async function startTwo(t: TestContext, session: ConfigData = {}) {
  const redis = await startRedis()
  t.after(() => redis.stop())
  const { upstream, config } = await liveConfig(t, { ...session, store: { type: 'redis', url: redis.url } })
  const [a, b] = await startTwoReplicas(t, config)
  return { redis, upstream, a, b, browser: await signedInAt(t, a.listenUrl) }
}
