import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import type { RouteStatus } from '../../src/admin/console/route-states.ts'
import type { StatusDocument } from '../../src/admin/console/status.ts'
import { createExplain, type ExplainedRoute, explanationJson } from '../../src/app/explanation.ts'
import { type RunningCloakroom, startCloakroom } from '../kit/cloakroom.ts'
import type { ConfigData } from '../kit/config/cloakroom-config.ts'
import { talkRaw } from '../kit/raw-http.ts'
import { eventually } from '../kit/shops/deadline.ts'
import { startUpstream, type Upstream } from '../kit/upstream/upstream.ts'

const DEAD = 'http://127.0.0.1:1'
const API_KEY = 'an-api-key-of-the-upstream'
const PASSWORD = 'the-password-of-redis'

describe('the console of an operator', () => {
  let upstream: Upstream
  let cloakroom: RunningCloakroom

  before(async () => {
    upstream = await startUpstream()
    cloakroom = await startCloakroom({
      provider: { issuer: DEAD, clientId: 'app', clientAuth: { method: 'none' } },
      resources: { orders: { scopes: ['orders.read'] } },
      routes: [
        {
          ...{ path: '/api/orders', id: 'orders', upstream: upstream.url, resource: 'orders' },
          headers: { 'x-api-key': API_KEY, 'x-user': '{claims.sub}' },
          require: { claims: { groups: ['the-board'] } },
        },
        {
          path: '/api/dead',
          id: 'dead',
          upstream: DEAD,
          auth: 'anonymous',
          breaker: { failures: 2, pause: '1m' },
        },
        { path: '/', id: 'spa', upstream: upstream.url, auth: 'anonymous' },
      ],
    })
  })
  after(async () => {
    await cloakroom?.close()
    await upstream?.close()
  })

  const ask = (path: string, init: RequestInit = {}) => fetch(cloakroom.adminUrl + path, init)
  const status = async (query = '') =>
    (await (await ask(`/api/status${query}`)).json()) as Readonly<StatusDocument>
  const explain = async (query: string) =>
    (await (await ask(`/api/explain?${query}`)).json()) as Record<string, unknown> & { route: ExplainedRoute }
  const visit = (path: string) =>
    fetch(cloakroom.listenUrl + path, { headers: { 'x-csrf': '1' } }).then((answer) => answer.text())

  test('is one page with files of its own, under a policy that lets nothing else in', async () => {
    const page = await ask('/')
    const html = await page.text()
    const policy = page.headers.get('content-security-policy') ?? ''
    assert.match(policy, /^default-src 'none'; script-src 'self'; style-src 'self'/)
    assert.doesNotMatch(policy, /unsafe|https?:|\*/)
    assert.match(policy, /form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'/)
    assert.equal(page.headers.get('cache-control'), 'no-store')
    const files = Array.from(html.matchAll(/(?:src|href)="(console\/[^"]+)"/g), ([, file]) => file!)
    assert.ok(files.includes('console/console.js') && files.includes('console/console.css'))
    const texts = await Promise.all(
      [...files, 'console/charts.js', 'console/sections.js', 'console/explain.js'].map(async (file) => {
        const answer = await ask(`/${file}`)
        assert.equal(answer.status, 200, file)
        return answer.text()
      }),
    )
    for (const text of [html, ...texts]) {
      assert.doesNotMatch(
        text,
        /(?:src|href|from|import|fetch|url)\W{1,3}(?:https?:)?\/\//,
        'no asset from elsewhere',
      )
      assert.doesNotMatch(
        text,
        /innerHTML|outerHTML =|insertAdjacentHTML|document\.write|\beval\b|style="|onclick/,
      )
    }
  })

  test('answers to names of its own only, reads only, and names nothing outside its folder', async () => {
    const port = Number(new URL(cloakroom.adminUrl).port)
    for (const path of ['/', '/console/console.js', '/api/status', '/api/explain?url=/']) {
      const { text } = await talkRaw(port, `GET ${path} HTTP/1.1\r\nHost: evil.example\r\n\r\n`)
      assert.match(text, /^HTTP\/1\.1 421 [\s\S]*misdirected_request/, path)
      for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH']) {
        const refused = await ask(path, { method })
        assert.deepEqual(
          [refused.status, refused.headers.get('allow')],
          [405, 'GET, HEAD'],
          `${method} ${path}`,
        )
      }
      const head = await ask(path, { method: 'HEAD' })
      assert.deepEqual([head.status, await head.text()], [200, ''])
      assert.equal(head.headers.get('access-control-allow-origin'), null)
    }
    for (const path of [
      '/console/',
      '/console/console.ts',
      '/console/..%2f..%2fmetrics.ts',
      '/constructor',
      '/__proto__',
    ])
      assert.equal((await ask(path)).status, 404, path)
  })

  test('shows a failing upstream, the refusals with their causes, and since when', async () => {
    for (let at = 0; at < 4; at += 1) await visit('/api/dead/x?token=in-a-query')
    await visit('/api/orders/1')
    await visit('/fine')
    const { routes, refusals, problems, warnings, traffic } = await eventually(
      'the log has them all',
      async () => {
        const found = await status('?limit=10')
        return found.refusals.total === 5 && found.routes.items[2]?.requests === 1 && found
      },
    )
    const [dead, orders, spa] = routes.items as [RouteStatus, RouteStatus, RouteStatus]
    assert.deepEqual([dead.id, dead.state, dead.circuit, dead.errors], ['dead', 'down', 'open', 4])
    assert.ok(dead.probeInSeconds! > 50)
    assert.deepEqual([orders.id, orders.state, orders.refused], ['orders', 'up', 1])
    assert.deepEqual([spa.id, spa.requests, spa.errors], ['spa', 1, 0])
    assert.equal(traffic.samples.at.length, traffic.samples.errors.length)
    assert.ok(
      problems.some(
        ({ subject, message, since }) =>
          subject === `upstream ${DEAD}` && /circuit is open/.test(message) && Date.parse(since) > 0,
      ),
    )
    const causes = refusals.causes.map(({ code, count, route, reason }) => [code, route, reason, count])
    assert.ok(
      causes.some((cause) => cause.join() === 'session_required,orders,absent,1'),
      JSON.stringify(causes),
    )
    const unreachable = refusals.causes.find(({ code }) => code === 'upstream_unreachable')
    assert.deepEqual([unreachable?.count, unreachable?.status, unreachable?.route], [4, 502, 'dead'])
    assert.match(refusals.last[0]!.request_id!, /^[\w-]{8,}$/)
    assert.ok(
      cloakroom.logs.some((line) => line.includes(refusals.last[0]!.request_id!)),
      'the log has the rest',
    )
    assert.match(JSON.stringify(warnings), /the upstream does not answer: its circuit is open/)
    assert.doesNotMatch(JSON.stringify([refusals, warnings]), /in-a-query|api\/dead|clientIp|"path"/)
  })

  test('tells why the provider cannot be discovered', async () => {
    const { provider, problems } = await status()
    assert.equal(provider.state, 'unavailable')
    assert.equal(provider.discoveryAgeSeconds, null)
    assert.ok(provider.discoveryError!.message.length > 0)
    assert.match(JSON.stringify(problems), /it cannot be discovered/)
  })

  test('explains a request as the command does, but for values of claims and headers', async () => {
    const { config } = cloakroom
    const answer = await explain('method=get&url=/api/orders/42%3Fx=1')
    assert.deepEqual([answer.kind, answer.route.id], ['route', 'orders'])
    assert.equal(answer.route.upstream, `${upstream.url}/api/orders/42?x=1`)
    assert.equal(answer.route.tokenRequests[0]?.parameters.scope, 'orders.read offline_access openid')
    const headers = Object.fromEntries(answer.route.headers)
    assert.deepEqual(
      [headers['x-api-key'], headers['x-user']],
      ['[value of the configuration]', '{claims.sub}'],
    )
    assert.doesNotMatch(JSON.stringify([answer, await status()]), new RegExp(`${API_KEY}|the-board`))
    const same = explanationJson(createExplain(config)('GET', '/x?y=1'))
    assert.deepEqual(await explain('url=/x%3Fy=1'), JSON.parse(JSON.stringify(same)))

    const refused = await explain('url=/a/../b')
    assert.deepEqual([refused.kind, refused.code, refused.status], ['refused', 'path_rejected', 400])
    const endpoint = await explain('url=/bff/user')
    assert.deepEqual([endpoint.kind, endpoint.endpoint], ['endpoint', '/bff/user'])
  })

  test('a query that is not understood is a problem that names the parameter', async () => {
    for (const [path, said] of [
      ['/api/status?limit=0', /limit must be a whole number from 1 to 200/],
      ['/api/status?limit=9e9', /limit must be/],
      ['/api/status?offset=-1', /offset must be/],
      ['/api/status?sort=up', /sort must be one of state, config, rate, errors, p99/],
      ['/api/status?state=__proto__', /state must be one of/],
      ['/api/explain', /url must be a path/],
      ['/api/explain?url=javascript:alert(1)', /url must be a path/],
      ['/api/explain?method=G%20T&url=/', /method must be an HTTP method/],
    ] as const) {
      const answer = await ask(path)
      const problem = (await answer.json()) as { code: string; detail: string }
      assert.deepEqual([answer.status, problem.code], [400, 'bad_request'], path)
      assert.match(problem.detail, said)
    }
    for (const url of [
      '/%00',
      '/%',
      `/${'x'.repeat(4_000)}`,
      'http://evil.example/',
      '/ü',
      '/a b',
      '//x',
      '/?',
    ])
      assert.equal((await ask(`/api/explain?url=${encodeURIComponent(url)}`)).status, 200, url)
  })

  test('shows a refused reload with its problems, and a good one with what it needs', async () => {
    const before = await status()
    await assert.rejects(cloakroom.reload({ routes: [{ path: 'x', upstream: upstream.url }] }))
    const refused = await status()
    assert.equal(refused.config.lastReload?.outcome, 'refused')
    assert.equal(refused.config.lastReload?.problems[0]?.path, 'routes[0].path')
    assert.equal(refused.config.hash, before.config.hash, 'what runs is what ran')
    assert.match(JSON.stringify(refused.problems), /the one before runs on/)

    const limits = { connections: 77 }
    const routes = Array.from({ length: 1_000 }, (_, at) => ({
      path: `/r/${at}`,
      id: `r${at}`,
      upstream: at === 999 ? DEAD : upstream.url,
      auth: 'anonymous',
    }))
    await cloakroom.reload({ routes, limits })
    await visit('/r/999/x')
    const applied = await eventually('the failure is counted', async () => {
      const found = await status('?limit=25')
      return found.routes.states.failing === 1 && found
    })
    assert.deepEqual(
      [applied.config.lastReload?.outcome, applied.config.restartRequired],
      ['applied', ['limits']],
    )
    assert.notEqual(applied.config.hash, before.config.hash)
    const { items, total, matching } = applied.routes
    assert.deepEqual([items.length, total, matching], [25, 1_000, 1_000])
    assert.deepEqual(
      [items[0]?.id, items[0]?.state, items[1]?.id],
      ['r999', 'failing', 'r0'],
      'trouble first',
    )
    const found = await status('?q=R/77&limit=3&offset=2&sort=config')
    assert.deepEqual(
      found.routes.items.map(({ id }) => id),
      ['r771', 'r772', 'r773'],
    )
    assert.deepEqual([found.routes.matching, (await status('?state=trouble')).routes.items.length], [11, 1])
    assert.equal((await status()).routes.items.length, 1_000)
    assert.equal((await explain('url=/r/5/x')).route.id, 'r5', 'the new routes')
  })
})

test('the console works before the store ever did, says why, and shows no password', async (t) => {
  const cloakroom = await startCloakroom({
    provider: {
      issuer: DEAD,
      clientId: 'app',
      clientAuth: { method: 'client_secret_post', secret: 'a-client-secret' },
    },
    session: { store: { type: 'redis', url: 'redis://127.0.0.1:1', username: 'ada', password: PASSWORD } },
    routes: [{ path: '/', upstream: DEAD, auth: 'anonymous' }],
  } satisfies ConfigData)
  t.after(() => cloakroom.close())
  assert.equal((await fetch(cloakroom.adminUrl)).status, 200)
  await eventually('the provider was asked', async () => {
    const text = await (await fetch(`${cloakroom.adminUrl}/api/status`)).text()
    const { ready, store, problems, provider } = JSON.parse(text) as StatusDocument
    assert.deepEqual([ready, store.state], [false, 'unavailable'])
    assert.match(text, /"mode":"single","address":"127\.0\.0\.1:1","tls":false/)
    assert.match(store.reason ?? '', /ECONNREFUSED/)
    assert.match(problems[0]!.message, /not ready and gets no users/)
    assert.doesNotMatch(text, new RegExp(`${PASSWORD}|a-client-secret`))
    return provider.state === 'unavailable'
  })
})
