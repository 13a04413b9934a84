import assert from 'node:assert/strict'
import { createHash, X509Certificate } from 'node:crypto'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { after, before, describe, test } from 'node:test'
import type { Browser } from '../kit/browsers/browser.ts'
import { type RunningCloakroom, startCloakroom } from '../kit/cloakroom.ts'
import { sessionKey } from '../kit/config/cloakroom-config.ts'
import { freePort } from '../kit/ports.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { type SelfSigned, selfSigned } from '../kit/self-signed.ts'
import { eventually } from '../kit/shops/deadline.ts'
import { skipWithoutRedis, startRedis } from '../kit/store/redis.ts'
import { startUpstream } from '../kit/upstream/upstream.ts'

describe('what the metrics tell of requests, upstreams and sign-ins', () => {
  let cloakroom: RunningCloakroom
  let browser: Browser
  let endStream: () => void = () => undefined
  let identity: SelfSigned
  const closers: (() => unknown)[] = []

  before(async () => {
    const provider = await startRotatingProvider()
    const api = await startUpstream({
      handle({ path }, res) {
        if (path === '/events') {
          res.writeHead(200, { 'content-type': 'text/event-stream' }).flushHeaders()
          endStream = () => res.end()
        } else if (path === '/busy') res.writeHead(503).end()
        else if (path === '/cut') res.destroy()
        else return false
        return true
      },
    })
    const expired = createTlsServer(selfSigned(['localhost'], { days: -1 }), (_req, res) => res.end())
    await new Promise<void>((resolve) => expired.listen(0, '127.0.0.1', resolve))
    const { port } = expired.address() as AddressInfo
    const open = { auth: 'anonymous' }
    identity = selfSigned(['client.test'], { days: 9 })
    cloakroom = await startCloakroom({
      provider: { ...provider.settings },
      resources: { orders: { resource: 'https://orders.test' } },
      routes: [
        { path: '/api', upstream: api.url, rewrite: '/', resource: 'orders' },
        { ...open, path: '/public', upstream: api.url, rewrite: '/' },
        { ...open, path: '/down', upstream: `http://127.0.0.1:${await freePort()}` },
        { ...open, path: '/nameless', upstream: 'http://nowhere.invalid:80' },
        { ...open, path: '/expired', upstream: `https://localhost:${port}` },
        {
          ...{ ...open, path: '/one', upstream: api.url, rewrite: '/', connections: 1 },
          timeout: { connect: '50ms', response: '50ms' },
        },
        {
          ...{ ...open, path: '/broken', upstream: `http://127.0.0.1:${await freePort()}` },
          breaker: { failures: 1, pause: '30s' },
        },
        { ...open, path: '/mutual', upstream: `https://localhost:${port}`, tls: identity },
        { ...open, path: '/slow', upstream: api.url, timeout: { response: '50ms' } },
      ],
    })
    browser = cloakroom.browser()
    closers.push(
      () => cloakroom.close(),
      () => api.close(),
      () => provider.close(),
      () => expired.close(),
    )
    await browser.signIn({ returnUrl: '/public' })
    Object.assign(api.answer, { delayMs: 5_000, times: 1 })
    await browser.fetch('/slow/x')
    api.answer.delayMs = 0
  })
  after(async () => {
    for (const close of closers) await close()
  })

  const metrics = async () => (await fetch(`${cloakroom.adminUrl}/metrics`)).text()
  const statusOf = async (path: string) => (await browser.fetch(path)).status
  async function has(line: string): Promise<void> {
    const text = await metrics()
    const [name] = line.split('{')
    assert.ok(
      text.includes(`${line}\n`),
      `${line}\n${text.match(new RegExp(`^${name}.*[1-9]$`, 'gm'))?.join('\n')}`,
    )
  }

  test("our own refusal and an upstream's answer of the same status are two series", async () => {
    await browser.fetch('/public/busy')
    await has(
      'cloakroom_request_duration_seconds_count{route="/public",method="GET",status="503",code="none"} 1',
    )
    await browser.fetch('/down/x')
    await has(
      'cloakroom_request_duration_seconds_count{route="/down",method="GET",status="502",code="upstream_unreachable"} 1',
    )
    assert.match(await metrics(), /^cloakroom_refusals_total\{code="upstream_unreachable"\} [1-9]/m)
  })

  test('a stream counts in its time to first byte at once, and is in flight until it ends', async () => {
    const answer = await fetch(`${cloakroom.listenUrl}/public/events`, {
      headers: { accept: 'text/event-stream' },
    })
    await has('cloakroom_requests_in_flight 1')
    await has('cloakroom_streams_in_flight{kind="event_stream"} 1')
    const counted =
      /^cloakroom_request_time_to_first_byte_seconds_count\{route="\/public",method="GET",code="none"\} (\d+)$/m
    const duration =
      /^cloakroom_request_duration_seconds_count\{route="\/public",method="GET",status="200",code="none"\} (\d+)$/m
    const [heads, ended] = [counted, duration].map((one) => (text: string) => Number(one.exec(text)?.[1]))
    const [before, during] = [ended!(await metrics()), heads!(await metrics())]
    assert.ok(during > before)
    endStream()
    await answer.text()
    await has('cloakroom_requests_in_flight 0')
    await has('cloakroom_streams_in_flight{kind="event_stream"} 0')
    assert.equal(ended!(await metrics()), before + 1)
    assert.equal(heads!(await metrics()), during)
  })

  test('an upstream that gives no answer is counted by the reason', async () => {
    for (const path of ['/nameless/x', '/expired/x', '/public/cut']) await browser.fetch(path)
    const text = await metrics()
    for (const [route, reason] of [
      ['/down', 'connect'],
      ['/nameless', 'dns'],
      ['/expired', 'tls'],
      ['/public', 'reset'],
      ['/slow', 'timeout'],
    ] as const) {
      const failed = new RegExp(
        `^cloakroom_upstream_errors_total\\{route="${route}",upstream="[^"]+",reason="(\\w+)"\\} [1-9]`,
        'gm',
      )
      assert.deepEqual(
        [...text.matchAll(failed)].map(([, found]) => found),
        [reason],
        route,
      )
    }
  })

  test('an upstream that is not asked is counted, too: no connection fell free, or the circuit is open', async () => {
    const held = await fetch(`${cloakroom.listenUrl}/one/events`, {
      headers: { accept: 'text/event-stream' },
    })
    assert.equal((await browser.fetch('/one/x')).status, 504)
    endStream()
    await held.text()
    assert.deepEqual([await statusOf('/broken/x'), await statusOf('/broken/x')], [502, 502])
    const text = await metrics()
    for (const [route, reason] of [
      ['/one', 'no_connection'],
      ['/broken', 'connect'],
      ['/broken', 'circuit_open'],
    ])
      assert.match(
        text,
        new RegExp(
          `^cloakroom_upstream_errors_total\\{route="${route}",upstream="[^"]+",reason="${reason}"\\} 1$`,
          'm',
        ),
      )
  })

  test('the end of a TLS client certificate is told by who is shown it', async () => {
    const end = new X509Certificate(identity.cert).validToDate.getTime() / 1000
    const told = /^cloakroom_tls_certificate_expiry_seconds\{peer="(https:[^"]+)"\} (\d+)$/m.exec(
      await metrics(),
    )
    assert.match(told?.[1] ?? '', /^https:\/\/localhost:\d+$/)
    assert.equal(Number(told?.[2]), end)
  })

  test('sign-ins, refusals for the CSRF header and foreign origins are counted', async () => {
    await has('cloakroom_sign_ins_total{outcome="begun"} 1')
    await has('cloakroom_sign_ins_total{outcome="succeeded"} 1')
    await browser.fetch('/api/x', { headers: { 'x-csrf': '' } })
    await browser.fetch('/api/x', { headers: { origin: 'https://evil.test' } })
    await has('cloakroom_csrf_refusals_total{route="/api",code="csrf_required"} 1')
    await has('cloakroom_csrf_refusals_total{route="/api",code="origin_forbidden"} 1')
    await browser.fetch('/bff/callback?state=x&code=y')
    await has('cloakroom_sign_ins_total{outcome="failed"} 1')
  })

  test('a reload tells its time, its outcome, and by a hash what runs', async () => {
    const hash = async () => /^cloakroom_config_info\{hash="([0-9a-f]{12})"\} 1$/m.exec(await metrics())?.[1]
    const first = await hash()
    await assert.rejects(cloakroom.reload({ basePath: 'no path' }))
    await has('cloakroom_config_last_reload_success 0')
    assert.equal(await hash(), first)
    await cloakroom.reload({ basePath: '/other' })
    await has('cloakroom_config_last_reload_success 1')
    assert.match(await metrics(), /^cloakroom_config_last_reload_duration_seconds 0\.\d+$/m)
    const second = await hash()
    assert.ok(first !== undefined && second !== undefined && first !== second)
    await cloakroom.reload({})
    assert.equal(await hash(), first)
    await has('cloakroom_config_restart_required 0')
    // No other digest of the file, which has a session key in it.
    const text = JSON.stringify(cloakroom.config)
    assert.equal(first, createHash('sha256').update(text).digest('hex').slice(0, 12))
    assert.doesNotMatch(text, /"keys":\["(?!\[redacted\])/)
  })
})

test('what Redis refuses is counted by kind, and a text whose key is gone by what it was', {
  skip: skipWithoutRedis(),
}, async (t) => {
  const provider = await startRotatingProvider()
  t.after(() => provider.close())
  const api = await startUpstream()
  t.after(() => api.close())
  const redis = await startRedis({ args: ['--maxmemory-policy', 'noeviction'] })
  t.after(() => redis.stop())
  const session = { store: { type: 'redis', url: redis.url }, keys: [sessionKey()] }
  const cloakroom = await startCloakroom({
    ...{ provider: { ...provider.settings }, session },
    routes: [{ path: '/', upstream: api.url, auth: 'anonymous' }],
  })
  t.after(() => cloakroom.close())
  async function counted(series: string): Promise<number> {
    const text = await (await fetch(`${cloakroom.adminUrl}/metrics`)).text()
    return Number(
      text
        .split('\n')
        .find((line) => line.startsWith(series))
        ?.split(' ')[1],
    )
  }
  const errors = (kind: string) => counted(`cloakroom_store_errors_total{kind="${kind}"}`)
  const keyGone = () => counted('cloakroom_decrypt_failures_total{kind="session",reason="key_gone"}')
  const browser = cloakroom.browser()
  await browser.signIn()
  assert.deepEqual([await errors('out_of_memory'), await errors('permission'), await keyGone()], [0, 0, 0])

  await redis.cli('CONFIG', 'SET', 'maxmemory', '1')
  assert.equal((await cloakroom.browser().open('/bff/login')).status, 503)
  assert.ok((await errors('out_of_memory')) >= 1)
  await redis.cli('CONFIG', 'SET', 'maxmemory', '0')
  await redis.cli('ACL', 'SETUSER', 'default', '-@write')
  assert.equal((await cloakroom.browser().open('/bff/login')).status, 503)
  assert.ok((await errors('permission')) >= 1)
  await redis.cli('ACL', 'SETUSER', 'default', '+@all')
  // Redis answered all the time.
  assert.equal(await counted('cloakroom_store_up'), 1)
  assert.equal(await errors('connection'), 0)

  assert.equal((await browser.fetch('/bff/user')).status, 200)
  await cloakroom.reload({ session: { ...session, keys: [sessionKey()] } })
  assert.equal((await browser.fetch('/bff/user')).status, 401)
  // The store is asked when the answer has gone out.
  await eventually('the failure is counted', async () => (await keyGone()) >= 1)
})
