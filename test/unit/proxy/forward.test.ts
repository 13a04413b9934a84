import assert from 'node:assert/strict'
import { EventEmitter } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { test } from 'node:test'
import type { RouteConfig } from '../../../src/config/config.ts'
import { BffError } from '../../../src/errors.ts'
import { createForward, type ForwardDeps, type ForwardedFacts } from '../../../src/proxy/forward.ts'
import { compileRequestHeaders } from '../../../src/proxy/headers/request.ts'
import { compileRoutes } from '../../../src/proxy/route-table.ts'
import type { OutboundRequest } from '../../../src/proxy/upstream/exchange.ts'
import { type BffSession, sessionHash } from '../../../src/session/session.ts'
import { accessCheckAt, routeWith } from '../../kit/upstream/routes.ts'
import { site } from '../../kit/upstream/sockets.ts'

const SESSION = { hash: sessionHash('s'), claims: { sub: 'u1' } } as unknown as BffSession

function headersOf({ headers }: OutboundRequest): Record<string, string> {
  return Object.fromEntries(headers.flatMap((name, i) => (i % 2 ? [] : [[name, headers[i + 1]!]])))
}

/** Runs one request through the hot path; `steps` is what was asked, in order. */
async function run({
  route,
  request,
  ...deps
}: Partial<ForwardDeps> & { route: Partial<RouteConfig>; request?: Partial<IncomingMessage> }) {
  const steps: string[] = []
  const sent: OutboundRequest[] = []
  const facts: ForwardedFacts = { id: 'r-1' }
  const answered: { status?: number; headers?: Record<string, string> } = {}
  const res = Object.assign(new EventEmitter(), {
    appendHeader: () => {},
    writeHead: (status: number, headers: Record<string, string>) =>
      Object.assign(answered, { status, headers }),
    end: () => {},
  }) as unknown as ServerResponse
  const routes = [routeWith({ path: '/api', resource: 'orders', id: 'orders', ...route })]
  const forward = createForward({
    match: compileRoutes(routes),
    requestHeaders: compileRequestHeaders(routes, site),
    requireSameOrigin: () => steps.push('origin'),
    findSession: () => {
      steps.push('session')
      return SESSION
    },
    tokenInMemory: () => undefined,
    runFor: (_, work) => work(),
    accessToken: (_, resource) => {
      steps.push(`token ${resource}`)
      return { value: 'at-1', expiresAt: 0, renewAt: 0 }
    },
    accessRefusal: accessCheckAt(0),
    send(_, __, outbound) {
      steps.push('send')
      sent.push(outbound)
    },
    clientAddress: () => '203.0.113.7',
    factsOf: () => facts,
    isTopLevelNavigation: ({ headers }) => headers['sec-fetch-mode'] === 'navigate',
    loginUrl: ({ url }) => `/bff/login?returnUrl=${encodeURIComponent(url!)}`,
    ...deps,
  })
  const req = {
    method: 'GET',
    url: '/api/x?y=1',
    headers: {},
    rawHeaders: [],
    ...request,
  } as unknown as IncomingMessage
  const told: unknown[] = []
  const outcome = await (async () => {
    const isFound = await forward(req, res, (error) => told.push(error))
    if (told.length > 0) throw told[0]
    return isFound
  })().catch((error) => (error instanceof BffError ? error.code : error))
  return { outcome, steps, sent, facts, answered, told }
}

test('a request passes every step in order and goes out with the token', async () => {
  const { outcome, steps, sent, facts } = await run({ route: { rewrite: '/v1' } })
  assert.equal(outcome, true)
  assert.deepEqual(steps, ['origin', 'session', 'token orders', 'send'])
  assert.equal(sent[0]!.target, '/v1/x?y=1')
  assert.equal(sent[0]!.session, SESSION)
  assert.equal(headersOf(sent[0]!).authorization, 'Bearer at-1')
  assert.deepEqual(facts, {
    id: 'r-1',
    route: 'orders',
    resource: 'orders',
    session: SESSION.hash.slice(0, 12),
    variesByCookie: true,
  })
})

test('a query with an access token is refused where a token is sent, and is the upstream’s business elsewhere', async () => {
  for (const url of ['/api/x?access_token=t', '/api/x?a=1&ACCESS_TOKEN=t', '/api/x?%61ccess%5Ftoken']) {
    const { outcome, steps } = await run({ route: {}, request: { url } })
    assert.deepEqual([outcome, steps], ['bad_request', []], url)
  }
  for (const url of [
    '/api/x?my_access_token=t',
    '/api/x?q=access_token',
    '/api/x?q=%20',
    '/api/access_token',
  ])
    assert.equal((await run({ route: {}, request: { url } })).outcome, true, url)
  const anonymous = { auth: 'anonymous', resource: undefined } as const
  assert.equal((await run({ route: anonymous, request: { url: '/api/x?access_token=t' } })).outcome, true)
})

test('answers that come later are waited for', async () => {
  const { sent } = await run({
    route: {},
    findSession: async () => SESSION,
    accessToken: async () => ({ value: 'at-2', expiresAt: 0, renewAt: 0 }),
  })
  assert.equal(headersOf(sent[0]!).authorization, 'Bearer at-2')
})

test('an optional route whose session ends while its token is renewed goes out without either', async () => {
  const found = [SESSION, undefined]
  const { sent } = await run({
    route: { auth: 'optional', headers: [{ name: 'x-user', value: '{claims.sub}' }] },
    findSession: () => found.shift(),
    accessToken: async () => ({ value: 'at-2', expiresAt: 0, renewAt: 0 }),
  })
  assert.deepEqual([sent[0]!.session, sent[0]!.accessToken], [undefined, undefined])
  assert.deepEqual([headersOf(sent[0]!).authorization, headersOf(sent[0]!)['x-user']], [undefined, undefined])
})

test('a path without a route is not answered here', async () => {
  const { outcome, steps } = await run({ route: {}, request: { url: '/other' } })
  assert.equal(outcome, false)
  assert.deepEqual(steps, [])
})

test('without a session a required route is refused and nothing is sent', async () => {
  const { outcome, steps } = await run({ route: {}, findSession: () => undefined })
  assert.equal(outcome, 'session_required')
  assert.deepEqual(steps, ['origin'])
})

test('an optional route goes out without a token when no user is signed in', async () => {
  const { sent } = await run({ route: { auth: 'optional' }, findSession: () => undefined })
  assert.equal(headersOf(sent[0]!).authorization, undefined)
  assert.equal(sent[0]!.session, undefined)
})

test('an anonymous route never looks at the session', async () => {
  const { steps } = await run({ route: { auth: 'anonymous' } })
  assert.deepEqual(steps, ['origin', 'send'])
})

test('a route without a resource sends no token', async () => {
  const { steps, sent } = await run({ route: { resource: undefined } })
  assert.deepEqual(steps, ['origin', 'session', 'send'])
  assert.equal(headersOf(sent[0]!).authorization, undefined)
})

function refuse(): never {
  throw new BffError('rate_limited', 'no')
}
for (const step of ['requireSameOrigin', 'findSession', 'accessToken', 'send'] as const) {
  test(`a refusal by ${step} leaves as it is`, async () => {
    assert.equal((await run({ route: {}, [step]: refuse })).outcome, 'rate_limited')
    if (step === 'requireSameOrigin' || step === 'send') return
    assert.equal((await run({ route: {}, [step]: async () => refuse() })).outcome, 'rate_limited')
  })
}

const TOKEN = { value: 'at-1', expiresAt: 0, renewAt: 0 }
const WITH_CLAIMS = { ...SESSION, claims: { sub: 'u1', groups: ['ops'] } } as unknown as BffSession

test('what is in memory and what is waited for come to the same, whoever asks for whatever', async () => {
  const routes: Partial<RouteConfig>[] = (['required', 'optional', 'anonymous'] as const).flatMap((auth) => [
    { auth, ...(auth === 'anonymous' ? { resource: undefined } : {}) },
    { auth, resource: undefined },
    { auth, csrf: 'fetch-metadata', headers: [{ name: 'x-user', value: '{claims.sub}' }] },
  ])
  routes.push({ require: { claims: [{ name: 'groups', values: ['ops'] }] } })
  const requests = [{}, { url: '/other' }, { headers: { 'sec-fetch-mode': 'navigate' } }]
  for (const route of routes) {
    for (const request of requests) {
      for (const session of [undefined, SESSION, WITH_CLAIMS]) {
        for (const refuses of [false, true]) {
          const token = () => (refuses ? refuse() : TOKEN)
          const deps = { route, request: request as Partial<IncomingMessage> }
          const atOnce = await run({ ...deps, findSession: () => session, accessToken: token })
          const later = await run({
            ...deps,
            findSession: async () => session,
            accessToken: async () => token(),
          })
          assert.deepEqual(later, atOnce, JSON.stringify({ route, request, session, refuses }))
        }
      }
    }
  }
})

test('what fails once a request is on its way is told to who asked, and only that', async () => {
  const failure = new BffError('upstream_timeout', 'late')
  const { outcome, told } = await run({ route: {}, send: (_, __, ___, over) => over(failure) })
  assert.deepEqual([outcome, told], ['upstream_timeout', [failure]])
})

test('a person who opens a page without a session is sent to sign in and back', async () => {
  const { outcome, answered } = await run({
    route: { csrf: 'fetch-metadata' },
    request: { headers: { 'sec-fetch-mode': 'navigate' } },
    findSession: () => undefined,
  })
  assert.equal(outcome, true)
  assert.equal(answered.status, 302)
  assert.equal(answered.headers!.location, '/bff/login?returnUrl=%2Fapi%2Fx%3Fy%3D1')
  assert.equal(answered.headers!['cache-control'], 'no-store')
})

test('a script on such a route, and a person on any other, is refused instead', async () => {
  const signedOut = { findSession: () => undefined }
  const navigation = { headers: { 'sec-fetch-mode': 'navigate' } }
  assert.equal((await run({ route: { csrf: 'fetch-metadata' }, ...signedOut })).outcome, 'session_required')
  assert.equal((await run({ route: {}, request: navigation, ...signedOut })).outcome, 'session_required')
})

test('who is asked about a refused token goes along with the token it is about', async () => {
  const onRejectedToken = async () => ({ kind: 'relay' }) as const
  const { sent } = await run({ route: {}, onRejectedToken })
  assert.deepEqual(sent[0]!.accessToken, { value: 'at-1', expiresAt: 0, renewAt: 0 })
  assert.equal(sent[0]!.onRejectedToken, onRejectedToken)
})

for (const [what, deps] of [
  ['an anonymous route', { route: { auth: 'anonymous' } }],
  ['a route without a resource', { route: { resource: undefined } }],
  ['an optional route without a session', { route: { auth: 'optional' }, findSession: () => undefined }],
] as const) {
  test(`${what} has no token to ask about`, async () => {
    const { sent } = await run({ ...deps, onRejectedToken: () => assert.fail('asked') })
    assert.equal(sent[0]!.accessToken, undefined)
  })
}
