import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { RouteConfig } from '../../../src/config/config.ts'
import { ownCookieNames } from '../../../src/proxy/cookies.ts'
import {
  compileHeaderRules,
  type OurRequestFields,
  requestHeaders,
  responseHeaders,
} from '../../../src/proxy/headers.ts'
import { routeWith } from './routes.ts'

const site = {
  publicUrl: 'https://app.example.com',
  isOwnCookie: ownCookieNames('__Host-Http-cloakroom'),
}

function rulesFor(parts: Partial<RouteConfig> = {}) {
  return compileHeaderRules(routeWith({ path: '/api', ...parts }), site)
}

const OURS: OurRequestFields = { clientAddress: '203.0.113.7', requestId: 'r-1' }

function toUpstream(raw: string[], ours: Partial<OurRequestFields> = {}, parts: Partial<RouteConfig> = {}) {
  return requestHeaders(rulesFor(parts), raw, { ...OURS, ...ours })
}

function toClient(raw: string[], parts: Partial<RouteConfig> = {}, isAuthenticated = false) {
  return responseHeaders(
    rulesFor(parts),
    raw.map((text) => Buffer.from(text, 'latin1')),
    isAuthenticated,
  )
}

/** All values of a field, whatever the spelling of its name. */
function valuesOf(fields: string[], name: string): string[] {
  return fields.filter((_, i) => i % 2 === 1 && fields[i - 1]!.toLowerCase() === name)
}

describe('to the upstream', () => {
  test('ordinary fields cross unchanged, repeated ones in their order', () => {
    const raw = [
      'Accept',
      'a/b',
      'X-Thing',
      '1',
      'x-thing',
      '2',
      'X-Latin',
      'caf\u00e9',
      'traceparent',
      '00-ab-cd-01',
    ]
    assert.deepEqual(toUpstream(raw).slice(0, raw.length), raw)
  })

  const DROPPED = [
    ['Host', 'evil.example'],
    ['Connection', 'keep-alive'],
    ['Keep-Alive', 'timeout=5'],
    ['Proxy-Connection', 'keep-alive'],
    ['Proxy-Authorization', 'Basic x'],
    ['TE', 'trailers'],
    ['Trailer', 'x'],
    ['Transfer-Encoding', 'chunked'],
    ['Transfer_Encoding', 'chunked'],
    ['Content-Length', '5'],
    ['Content_Length', '5'],
    ['Upgrade', 'h2c'],
    ['HTTP2-Settings', 'x'],
    ['Expect', '100-continue'],
    ['Authorization', 'Bearer evil'],
    ['AUTHORIZATION', 'Bearer evil'],
    ['X-CSRF', '1'],
    ['Forwarded', 'for=6.6.6.6'],
    ['X-Forwarded-For', '6.6.6.6'],
    ['X_Forwarded_For', '6.6.6.6'],
    ['x-forwarded_proto', 'http'],
    ['X-Forwarded-User', 'root'],
    ['X_Forwarded_User', 'root'],
    ['X-Forwarded-Prefix', '/x'],
    ['X-Real-IP', '6.6.6.6'],
    ['X-Original-URL', '/admin'],
    ['X-Rewrite-URL', '/admin'],
    ['X-HTTP-Method-Override', 'DELETE'],
    ['X-HTTP-Method', 'DELETE'],
    ['X-Method-Override', 'DELETE'],
    ['X-MS-CLIENT-PRINCIPAL', 'x'],
    ['x-amzn-oidc-data', 'x'],
    ['Client-Cert', 'x'],
    ['Client-Cert-Chain', 'x'],
    ['X-Request-Id', 'spoofed'],
  ]
  for (const [name = '', value = ''] of DROPPED) {
    test(`the client's ${name} does not cross`, () => {
      assert.deepEqual(toUpstream([name, value, 'Accept', '*/*']), toUpstream(['Accept', '*/*']))
    })
  }

  test('our own fields are added after', () => {
    assert.deepEqual(toUpstream([], { accessToken: 'at-1' }), [
      'authorization',
      'Bearer at-1',
      'x-forwarded-for',
      '203.0.113.7',
      'x-forwarded-proto',
      'https',
      'x-forwarded-host',
      'app.example.com',
      'forwarded',
      'for=203.0.113.7;host="app.example.com";proto=https',
      'via',
      '1.1 cloakroom',
      'x-request-id',
      'r-1',
    ])
  })

  test('an IPv6 client is bracketed and quoted in Forwarded', () => {
    const [forwarded] = valuesOf(toUpstream([], { clientAddress: '2001:db8::1' }), 'forwarded')
    assert.equal(forwarded, 'for="[2001:db8::1]";host="app.example.com";proto=https')
  })

  test('without a token there is no Authorization at all', () => {
    assert.deepEqual(
      valuesOf(toUpstream(['Authorization', 'Bearer evil', 'authorization', 'Basic x']), 'authorization'),
      [],
    )
  })

  test('what Connection names is removed from the client and never from us', () => {
    const raw = [
      'X-Secret',
      '1',
      'Connection',
      'close, Authorization, X-Forwarded-For, via',
      'X-Kept',
      '2',
      'connection',
      'X_SECRET , x-request-id',
    ]
    const fields = toUpstream(raw, { accessToken: 'at-1' })
    assert.deepEqual(valuesOf(fields, 'x-secret'), [])
    assert.deepEqual(valuesOf(fields, 'x-kept'), ['2'])
    assert.deepEqual(valuesOf(fields, 'authorization'), ['Bearer at-1'])
    assert.deepEqual(valuesOf(fields, 'x-forwarded-for'), ['203.0.113.7'])
    assert.deepEqual(valuesOf(fields, 'x-request-id'), ['r-1'])
    assert.deepEqual(valuesOf(fields, 'via'), ['1.1 cloakroom'])
  })

  const COOKIES: [sent: string, crosses: string | undefined][] = [
    ['__Host-Http-cloakroom=x', undefined],
    ['a=1; __Host-Http-cloakroom=x', 'a=1'],
    ['__Host-Http-cloakroom=x; b=2', 'b=2'],
    ['a=1;__Host-Http-cloakroom=x;  b="2 "', 'a=1;  b="2 "'],
    ['a=1; __Host-Http-cloakroom=x; __Host-Http-cloakroom-login-abc=y; b=2; c', 'a=1; b=2; c'],
    ['a=1; __HOST-http-Cloakroom=x', 'a=1'],
    ['a=1; b=2', 'a=1; b=2'],
    [';;=;a', ';;=;a'],
    ['a=__Host-Http-cloakroom; b=1', 'a=__Host-Http-cloakroom; b=1'],
    ['__Host-Http-cloakroom', undefined],
    ['__Host-Http-cloakroomX=1', '__Host-Http-cloakroomX=1'],
    ['__Host-Http-cloakroom =1; a=1', 'a=1'],
    ['', undefined],
  ]
  for (const [sent, crosses] of COOKIES) {
    test(`of the cookies ${JSON.stringify(sent)} there crosses ${JSON.stringify(crosses)}`, () => {
      assert.deepEqual(
        valuesOf(toUpstream(['Cookie', sent]), 'cookie'),
        crosses === undefined ? [] : [crosses],
      )
    })
  }

  const headers = [
    { name: 'X-User-Id', value: '{claims.sub}' },
    { name: 'x-names', value: 'n={claims.name}; r={claims.roles}' },
    { name: 'x-fixed', value: 'yes' },
  ]

  test('a route header is filled from claims and the client cannot send it in any spelling', () => {
    const raw = ['x-user-id', 'a', 'X_User-Id', 'b', 'X_USER_ID', 'c', 'X-Fixed', 'no']
    const claims = { sub: 'u1', name: 'Ada', roles: ['r1', 'r2'] }
    const fields = toUpstream(raw, { claims }, { headers })
    assert.deepEqual(fields.slice(-6), ['X-User-Id', 'u1', 'x-names', 'n=Ada; r=r1,r2', 'x-fixed', 'yes'])
    assert.equal(fields.filter((field) => /user.id/i.test(field)).length, 1)
  })

  test('a header whose claim is absent, or not text, is left out', () => {
    assert.deepEqual(valuesOf(toUpstream([], {}, { headers }), 'x-user-id'), [])
    assert.deepEqual(
      valuesOf(toUpstream([], { claims: { sub: 'u', name: { a: 1 }, roles: [] } }, { headers }), 'x-names'),
      [],
    )
    assert.deepEqual(valuesOf(toUpstream([], {}, { headers }), 'x-fixed'), ['yes'])
  })

  const CLAIMS: [claim: unknown, sent: string][] = [
    ['a\r\nX-Admin: 1', 'a%0D%0AX-Admin: 1'],
    ['caf\u00e9 \u{1f600}', 'caf%C3%A9 %F0%9F%98%80'],
    ['50%', '50%25'],
    ['\ud800', '%EF%BF%BD'],
    ['nul\0', 'nul%00'],
    [['a,admin', 'b'], 'a%2Cadmin,b'],
    [7, '7'],
    [true, 'true'],
  ]
  for (const [claim, sent] of CLAIMS) {
    test(`the claim ${JSON.stringify(claim)} is sent as ${sent}`, () => {
      const fields = toUpstream(
        [],
        { claims: { sub: 'u', it: claim } },
        { headers: [{ name: 'x-it', value: '{claims.it}' }] },
      )
      assert.deepEqual(valuesOf(fields, 'x-it'), [sent])
    })
  }

  test('a claim too long for a header is left out', () => {
    const claims = { sub: 'x'.repeat(64 * 1024) }
    assert.deepEqual(valuesOf(toUpstream([], { claims }, { headers }), 'x-user-id'), [])
  })
})

describe('to the browser', () => {
  test('ordinary fields cross unchanged and in order, latin-1 bytes too', () => {
    const raw = [
      'Date',
      'x',
      'ETag',
      '"a"',
      'Vary',
      'Accept',
      'Vary',
      'Origin',
      'X-Name',
      'caf\u00e9',
      'Content-Encoding',
      'gzip',
    ]
    assert.deepEqual(toClient(raw), raw)
  })

  const DROPPED = [
    ['Connection', 'close'],
    ['Keep-Alive', 'timeout=5'],
    ['Transfer-Encoding', 'chunked'],
    ['Upgrade', 'h2'],
    ['Trailer', 'x'],
    ['Proxy-Authenticate', 'Basic'],
    ['Access-Control-Allow-Origin', 'https://evil.example'],
    ['access-control-allow-credentials', 'true'],
    ['Clear-Site-Data', '"*"'],
    ['Strict-Transport-Security', 'max-age=0'],
    ['Cloakroom-Error', 'session_required'],
    ['Set-Cookie', '__Host-Http-cloakroom=x; Path=/'],
    ['Set-Cookie', '__host-http-CLOAKROOM=x'],
    ['set-cookie', ' __Host-Http-cloakroom =x'],
    ['Set-Cookie', '=__Host-Http-cloakroom=x'],
    ['Set-Cookie', '__Host-Http-cloakroom-login-1=x'],
  ]
  for (const [name = '', value = ''] of DROPPED) {
    test(`the upstream's ${name}: ${value} does not cross`, () => {
      assert.deepEqual(toClient([name, value, 'X-Kept', '1']), ['X-Kept', '1'])
    })
  }

  test("the upstream's other cookies cross one by one", () => {
    const raw = ['Set-Cookie', 'a=1; Path=/', 'Set-Cookie', '__Host-Http-cloakroom=x', 'Set-Cookie', 'b=2']
    assert.deepEqual(valuesOf(toClient(raw), 'set-cookie'), ['a=1; Path=/', 'b=2'])
  })

  test('what Connection names is removed', () => {
    assert.deepEqual(toClient(['X-Hop', '1', 'Connection', 'x-hop, close', 'X-Kept', '2']), ['X-Kept', '2'])
  })

  test('an answer for a session is private unless the upstream says how to cache it', () => {
    assert.deepEqual(toClient([], {}, true), ['cache-control', 'private'])
    assert.deepEqual(toClient(['Cache-Control', 'no-cache'], {}, true), ['Cache-Control', 'no-cache'])
    assert.deepEqual(toClient([], {}, false), [])
  })

  const CHALLENGES: [value: string, name: string][] = [
    ['Bearer error="invalid_token"', 'WWW-Authenticate'],
    ['Basic realm="x"', 'x-upstream-www-authenticate'],
    ['Negotiate', 'x-upstream-www-authenticate'],
    ['NTLM', 'x-upstream-www-authenticate'],
    ['Bearer realm="x", digest realm="y"', 'x-upstream-www-authenticate'],
    ['Bearer realm="basic"', 'WWW-Authenticate'],
  ]
  for (const [value, name] of CHALLENGES) {
    test(`the challenge ${value} crosses as ${name}`, () => {
      assert.deepEqual(toClient(['WWW-Authenticate', value]), [name, value])
    })
  }

  const orders = { path: '/api/orders', upstream: 'http://orders.test:8080', rewrite: '/v1' }
  const kept = { path: '/api', upstream: 'http://api.test' }
  const root = { path: '/', upstream: 'https://spa.test', rewrite: '/v1' }
  const LOCATIONS: [route: Partial<RouteConfig>, location: string, seen: string][] = [
    [orders, 'http://orders.test:8080/v1/42?x=1#f', 'https://app.example.com/api/orders/42?x=1#f'],
    [orders, 'HTTP://Orders.Test:8080/v1', 'https://app.example.com/api/orders'],
    [orders, '//orders.test:8080/v1/42', 'https://app.example.com/api/orders/42'],
    [orders, '/v1/42', 'https://app.example.com/api/orders/42'],
    [orders, '/v1?x', 'https://app.example.com/api/orders?x'],
    [orders, '/v10/42', '/v10/42'],
    [orders, 'http://orders.test:8080/other', 'https://app.example.com/other'],
    [orders, 'http://orders.test:8080', 'https://app.example.com/'],
    [orders, 'http://orders.test:8080?x', 'https://app.example.com/?x'],
    [orders, '42', '42'],
    [orders, 'http://orders.test:8080.evil.example/', 'http://orders.test:8080.evil.example/'],
    [orders, 'http://orders.test:8080@evil.example/', 'http://orders.test:8080@evil.example/'],
    [orders, 'https://elsewhere.example/v1', 'https://elsewhere.example/v1'],
    [orders, '//evil.example/v1', '//evil.example/v1'],
    [kept, '/api/x', '/api/x'],
    [kept, 'http://api.test/api/x', 'https://app.example.com/api/x'],
    [kept, 'http://api.test:80/api/x', 'https://app.example.com/api/x'],
    [root, '/v1//evil.example', 'https://app.example.com//evil.example'],
    [root, '/v1/\\evil.example', 'https://app.example.com/\\evil.example'],
    [root, 'https://spa.test:443/v1', 'https://app.example.com/'],
  ]
  for (const [route, location, seen] of LOCATIONS) {
    test(`on ${route.path} the location ${location} is seen as ${seen}`, () => {
      assert.deepEqual(toClient(['Location', location], route), ['Location', seen])
    })
  }
})
