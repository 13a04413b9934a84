import assert from 'node:assert/strict'
import { EventEmitter } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { test } from 'node:test'
import { BffError } from '../../../src/errors.ts'
import { inTime } from '../../../src/proxy/access-token.ts'
import { createForward } from '../../../src/proxy/forward.ts'
import { compileRequestHeaders } from '../../../src/proxy/headers/request.ts'
import { compileRoutes } from '../../../src/proxy/route-table.ts'
import { type BffSession, sessionHash } from '../../../src/session/session.ts'
import type { AccessToken } from '../../../src/tokens/record/sealing.ts'
import {
  pending,
  proxyWithToken,
  RESEND,
  refuse,
  request,
  settle,
  upstreamOf,
} from '../../kit/upstream/rejected-token-kit.ts'
import { accessCheckAt, routeWith } from '../../kit/upstream/routes.ts'
import { rawClient, site } from '../../kit/upstream/sockets.ts'
import { handshake, tunnelTo } from '../../kit/upstream/tunnel-kit.ts'

const SESSION = { hash: sessionHash('s'), claims: {} } as unknown as BffSession
const TOKEN = { value: 'at-1', expiresAt: 0, renewAt: 0 }
const RESPONSE_MS = 50
const timeout = { connectMs: 1_000, responseMs: RESPONSE_MS, idleMs: 60_000 }

const timers = () => process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length
const isTooLate = (error: unknown) =>
  error instanceof BffError && error.code === 'provider_unavailable' && error.retryAfterSeconds === 2

/** A token that comes when a test says so; `asked` resolves when a request waits for it. */
function pendingToken() {
  const asked = Promise.withResolvers<void>()
  const { promise, resolve, reject } = Promise.withResolvers<AccessToken>()
  function accessToken(): Promise<AccessToken> {
    asked.resolve()
    return promise
  }
  return { accessToken, asked: asked.promise, give: resolve, fail: reject }
}

/** One request through the hot path; `sent` are the tokens that went out. */
function forwarding(
  accessToken: () => Promise<AccessToken>,
  { client = new EventEmitter(), tokenInMemory }: { client?: EventEmitter; tokenInMemory?: AccessToken } = {},
) {
  const sent: (string | undefined)[] = []
  const routes = [routeWith({ path: '/', resource: 'orders', timeout })]
  const forward = createForward({
    match: compileRoutes(routes),
    requestHeaders: compileRequestHeaders(routes, site),
    requireSameOrigin: () => undefined,
    findSession: () => SESSION,
    tokenInMemory: () => tokenInMemory,
    runFor: (_, work) => work(),
    accessToken,
    accessRefusal: accessCheckAt(0),
    send: (_req, _res, outbound) => void sent.push(outbound.accessToken?.value),
    clientAddress: () => '203.0.113.7',
    factsOf: () => ({ id: 'r-1' }),
    isTopLevelNavigation: () => false,
    loginUrl: () => '/bff/login',
  })
  const req = { method: 'GET', url: '/', headers: {}, rawHeaders: [] } as unknown as IncomingMessage
  return { sent, client, answered: forward(req, client as unknown as ServerResponse, () => undefined) }
}

test('no request waits for a token beyond the response timeout of the route', async () => {
  const { accessToken, fail } = pendingToken()
  const { sent, answered } = forwarding(accessToken)
  await assert.rejects(async () => answered, isTooLate)
  // No request waits for it any more, and it must not end the process.
  fail(new BffError('session_required', 'gone'))
  await settle()
  assert.deepEqual(sent, [])
})

test('the timer ends with the wait, whatever ends it', async () => {
  const before = timers()
  const client = new EventEmitter()
  const limits = { timeoutMs: 60_000, client: client as unknown as ServerResponse }
  assert.equal(await inTime(Promise.resolve(TOKEN), limits), TOKEN)
  await assert.rejects(inTime(Promise.reject(new BffError('store_unavailable', 'away')), limits))
  const left = inTime(new Promise<AccessToken>(() => {}), limits)
  assert.equal(timers(), before + 1)
  client.emit('close')
  assert.equal(await left, undefined)
  await assert.rejects(inTime(new Promise<AccessToken>(() => {}), { ...limits, timeoutMs: 1 }), isTooLate)
  assert.deepEqual([timers(), client.listenerCount('close')], [before, 0])
})

test('a token that is known at once is not waited for', async () => {
  const client = { once: () => assert.fail('it listens') } as unknown as EventEmitter
  const before = timers()
  const { sent, answered } = forwarding(assert.fail, { client, tokenInMemory: TOKEN })
  assert.deepEqual([sent, timers()], [['at-1'], before], 'it is on its way before anything else happens')
  assert.equal(await answered, true)
})

test('a client that leaves ends the wait, and nothing is sent when the token comes', async () => {
  const before = timers()
  const { accessToken, asked, give } = pendingToken()
  const { sent, client, answered } = forwarding(accessToken)
  await asked
  client.emit('close')
  assert.equal(await answered, true)
  assert.deepEqual([timers(), client.listenerCount('close')], [before, 0])
  give(TOKEN)
  await settle()
  assert.deepEqual(sent, [])
})

test('a client that had left before is not waited for', async () => {
  const client = Object.assign(new EventEmitter(), { destroyed: true })
  const { accessToken } = pendingToken()
  assert.equal(await forwarding(accessToken, { client }).answered, true)
})

test('a WebSocket is refused when its token does not come in time', async (t) => {
  const { accessToken, give } = pendingToken()
  const { port, tunnel } = await tunnelTo(t, 'http://127.0.0.1:1', { accessToken, route: { timeout } })
  assert.match((await rawClient(t, port, handshake()).closed).text, /provider_unavailable$/)
  give(TOKEN)
  await settle()
  assert.equal(tunnel.count(), 0)
})

test('a client that leaves while its WebSocket waits for a token is not counted as refused', async (t) => {
  const { accessToken, asked, give } = pendingToken()
  const patient = { timeout: { ...timeout, responseMs: 60_000 } }
  const listening = await tunnelTo(t, 'http://127.0.0.1:1', { accessToken, route: patient })
  const before = timers()
  const client = rawClient(t, listening.port, handshake())
  await asked
  assert.equal(timers(), before + 1)
  client.socket.resetAndDestroy()
  while (timers() > before) await new Promise(setImmediate)
  give(TOKEN)
  await settle()
  assert.deepEqual([listening.statuses, listening.tunnel.count()], [[], 0])
})

test("a refused token's successor that does not come in time is provider_unavailable", async (t) => {
  const upstream = await upstreamOf(t, (_, res) => refuse(res))
  const { reaction, give } = pending()
  const proxy = await proxyWithToken(t, upstream, reaction, { timeout })
  const client = rawClient(t, proxy.port, request('GET /'))
  const text = await client.until((all) => all.endsWith('provider_unavailable'))
  assert.match(text, /\r\nretry-after: 2\r\n/)
  give(RESEND)
  await settle()
  assert.equal(upstream.seen.length, 1)
  client.socket.write(request('GET /next'))
  await client.until((all) => all.endsWith('refused'))
})

test('a client that leaves while the successor of a refused token is waited for leaves no timer', async (t) => {
  const upstream = await upstreamOf(t, (_, res) => refuse(res))
  const { reaction, asked } = pending()
  const patient = { ...timeout, responseMs: 600_000 }
  const proxy = await proxyWithToken(t, upstream, reaction, { timeout: patient })
  const settled = proxy.settled()
  const client = rawClient(t, proxy.port, request('GET /'))
  await asked
  await settle()
  const during = timers()
  client.socket.destroy()
  assert.equal(await settled, 'sent')
  while (timers() >= during) await new Promise(setImmediate)
})
