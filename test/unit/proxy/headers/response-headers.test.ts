import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { RouteConfig } from '../../../../src/config/config.ts'
import { ownCookieNames } from '../../../../src/proxy/headers/dropped.ts'
import { compileResponseHeaders } from '../../../../src/proxy/headers/response.ts'
import { routeWith } from '../../../kit/upstream/routes.ts'

const site = {
  publicUrl: 'https://app.example.com',
  isOwnCookie: ownCookieNames('__Host-Http-cloakroom'),
}

function toClient(raw: string[], parts: Partial<RouteConfig> = {}, isAuthenticated = false) {
  const route = routeWith({ path: '/api', auth: 'anonymous', ...parts })
  return compileResponseHeaders([route], site)(route, raw, isAuthenticated)
}

/** All values of a field, whatever the spelling of its name. */
function valuesOf(fields: string[], name: string): string[] {
  return fields.filter((_, i) => i % 2 === 1 && fields[i - 1]!.toLowerCase() === name)
}

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
    ['Alt-Svc', 'h3="evil.example:443"; ma=86400'],
    ['alt_svc', 'clear'],
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

  const CACHING: [sent: string[], arrives: string][] = [
    [[], 'private'],
    [[''], 'private'],
    [[' , ,'], 'private'],
    [['', ''], 'private'],
    [['private'], 'private'],
    [['Private, max-age=60'], 'Private, max-age=60'],
    [['no-store, max-age=0'], 'no-store, max-age=0'],
    [['no-cache'], 'no-cache, private'],
    [['max-age=600'], 'max-age=600, private'],
    [['public, s-maxage=600'], 'private'],
    [['PUBLIC,max-age=60, S-MaxAge = 600,immutable'], 'max-age=60, immutable, private'],
    [['public', 's-maxage=600'], 'private'],
    [['private', 'public'], 'private'],
    [['no-store', 'public, s-maxage="600"'], 'no-store'],
    [['private="set-cookie, x", max-age=5'], 'max-age=5, private'],
    [['ext="a, public", max-age=5'], 'ext="a, public", max-age=5, private'],
    [['ext="a, public, max-age=5'], 'ext=, a, max-age=5, private'],
    [[`no-store, ${'x'.repeat(1_100)}`], 'no-store'],
    [['no-store-x, private-y'], 'no-store-x, private-y, private'],
  ]
  for (const [sent, arrives] of CACHING) {
    test(`for a session the Cache-Control ${JSON.stringify(sent).slice(0, 60)} becomes ${arrives}`, () => {
      const raw = sent.flatMap((value) => ['Cache-Control', value])
      assert.deepEqual(valuesOf(toClient(['X-A', '1', ...raw, 'X-B', '2'], {}, true), 'cache-control'), [
        arrives,
      ])
      assert.deepEqual(valuesOf(toClient(raw, {}, false), 'cache-control'), sent)
    })
  }

  test('a Cache-Control that Connection names is none, and one of another spelling too', () => {
    const raw = ['Connection', 'cache-control', 'X-A', '1', 'Cache-Control', 'public', 'X-B', '2']
    assert.deepEqual(toClient(raw, {}, true), ['X-A', '1', 'X-B', '2', 'cache-control', 'private'])
    for (const name of ['Cache_Control', 'Cache.Control'])
      assert.deepEqual(toClient([name, 'private'], {}, true), [name, 'private', 'cache-control', 'private'])
  })

  test('what some shared caches obey instead of Cache-Control does not cross for a session', () => {
    for (const name of ['X-Accel-Expires', 'Surrogate-Control', 'CDN-Cache-Control', 'Edge-Control']) {
      assert.deepEqual(toClient([name, '600'], {}, true), ['cache-control', 'private'])
      assert.deepEqual(toClient([name, '600'], {}, false), [name, '600'])
    }
  })

  const VARIES: [sent: string[], arrives: string[]][] = [
    [[], ['Cookie']],
    [[''], ['Cookie']],
    [['Accept'], ['Accept, Cookie']],
    [['Authorization'], ['Authorization, Cookie']],
    [
      ['Accept, authorization', 'Origin'],
      ['Accept, authorization', 'Origin, Cookie'],
    ],
    [['cookie'], ['cookie']],
    [
      ['Accept-Encoding ,COOKIE', 'Origin'],
      ['Accept-Encoding ,COOKIE', 'Origin'],
    ],
    [['Cookies'], ['Cookies, Cookie']],
    [['*'], ['*']],
    [['Accept, *'], ['Accept, *']],
  ]
  for (const [sent, arrives] of VARIES) {
    test(`where a session is looked for the Vary ${JSON.stringify(sent)} becomes ${JSON.stringify(arrives)}`, () => {
      const raw = sent.flatMap((value) => ['Vary', value])
      for (const auth of ['required', 'optional'] as const) {
        for (const isAuthenticated of [true, false])
          assert.deepEqual(valuesOf(toClient(raw, { auth }, isAuthenticated), 'vary'), arrives)
      }
      assert.deepEqual(valuesOf(toClient(raw, { auth: 'anonymous' }), 'vary'), sent)
    })
  }

  test('a Vary that Connection names is none, and ours stays', () => {
    const raw = ['Connection', 'vary, cookie', 'Vary', 'Accept']
    assert.deepEqual(valuesOf(toClient(raw, { auth: 'optional' }), 'vary'), ['Cookie'])
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
  const nested = { path: '/api', upstream: 'http://api.test', rewrite: '/api/v2' }
  const inner = { path: '/v1/orders', upstream: 'http://api.test', rewrite: '/v1' }
  const bare = { path: '/files', upstream: 'http://files.test', rewrite: '/' }
  const REWRITTEN: typeof LOCATIONS = [
    [orders, '/api/orders/v1/42', 'https://app.example.com/api/orders/42'],
    [orders, '/api/orders/v1', 'https://app.example.com/api/orders'],
    [orders, '/api/orders/42', '/api/orders/42'],
    [orders, '/other', '/other'],
    [orders, 'https://app.example.com/v1/42', 'https://app.example.com/api/orders/42'],
    [orders, 'HTTPS://APP.example.com:443/v1/42?x#f', 'https://app.example.com/api/orders/42?x#f'],
    [orders, 'http://app.example.com/v1/42', 'https://app.example.com/api/orders/42'],
    [orders, 'http://app.example.com:80/v1/42', 'https://app.example.com/api/orders/42'],
    [orders, '//app.example.com/v1/42', 'https://app.example.com/api/orders/42'],
    [orders, 'https://app.example.com/api/orders/v1/42', 'https://app.example.com/api/orders/42'],
    [orders, 'https://app.example.com/api/orders/42', 'https://app.example.com/api/orders/42'],
    [orders, 'https://app.example.com/elsewhere', 'https://app.example.com/elsewhere'],
    [orders, 'https://app.example.com', 'https://app.example.com'],
    [orders, 'https://app.example.com:8443/v1/42', 'https://app.example.com:8443/v1/42'],
    [orders, 'https://app.example.com@evil.example/v1/42', 'https://app.example.com@evil.example/v1/42'],
    [orders, 'https://app.example.com.evil.example/v1', 'https://app.example.com.evil.example/v1'],
    [orders, 'https://orders.test:8080/v1/42', 'https://app.example.com/api/orders/42'],
    [orders, 'http://orders.test:8080/api/orders/v1/42', 'https://app.example.com/api/orders/42'],
    [orders, 'http://orders.test:8080/api/orders/42', 'https://app.example.com/api/orders/42'],
    [orders, '/v1//evil.example', 'https://app.example.com/api/orders//evil.example'],
    [nested, '/api/v2/x', 'https://app.example.com/api/x'],
    [nested, '/api/api/v2/x', 'https://app.example.com/api/x'],
    [nested, '/api/x', '/api/x'],
    [inner, '/v1/orders/42', '/v1/orders/42'],
    [inner, '/v1/42', 'https://app.example.com/v1/orders/42'],
    [inner, '/v1/orders/v1/42', 'https://app.example.com/v1/orders/42'],
    [bare, '/42', 'https://app.example.com/files/42'],
    [bare, '/files/42', '/files/42'],
    [bare, '/', 'https://app.example.com/files/'],
    [bare, '/filesystem', 'https://app.example.com/files/filesystem'],
    [bare, 'http://files.test', 'https://app.example.com/files'],
    [bare, 'https://app.example.com/42', 'https://app.example.com/files/42'],
    [root, '/v1/x', 'https://app.example.com/x'],
    [root, '/x', '/x'],
    [kept, 'https://app.example.com/api/x', 'https://app.example.com/api/x'],
    [kept, 'https://api.test/api/x', 'https://api.test/api/x'],
    [{ path: '/shop', rewrite: '/caf%C3%A9' }, '/caf%c3%a9/x', 'https://app.example.com/shop/x'],
  ]
  test('a rewritten Location leads back under its route', () => {
    for (const [route, location, seen] of REWRITTEN)
      assert.deepEqual(
        toClient(['Location', location], route),
        ['Location', seen],
        `${route.path} ${location}`,
      )
  })

  const MAPPED: [name: string, value: string, seen: string][] = [
    ['Content-Location', '/v1/42', '/api/orders/42'],
    ['Content-Location', 'http://orders.test:8080/v1/42', 'https://app.example.com/api/orders/42'],
    ['Content-Location', 'https://app.example.com/v1/42', 'https://app.example.com/api/orders/42'],
    ['Content-Location', '/api/orders/42', '/api/orders/42'],
    ['Content-Location', '42', '42'],
    ['Content-Location', '/v1//evil.example', '/api/orders//evil.example'],
    ['Link', '</v1?page=2>; rel="next"', '</api/orders?page=2>; rel="next"'],
    [
      'Link',
      '</v1?page=2>; rel=next, <http://orders.test:8080/v1?page=9>;rel="last" , <https://cdn.test/v1/x.css>; rel=preload',
      '</api/orders?page=2>; rel=next, <https://app.example.com/api/orders?page=9>;rel="last" , <https://cdn.test/v1/x.css>; rel=preload',
    ],
    [
      'Link',
      '</v1/a,b;c>; title="</v1/x>, \\"</v1/y>"; rel="</v1/z>", </v1/d>; anchor="/v1/e"; title*=UTF-8\'\'%3C/v1%3E',
      '</api/orders/a,b;c>; title="</v1/x>, \\"</v1/y>"; rel="</v1/z>", </api/orders/d>; anchor="/api/orders/e"; title*=UTF-8\'\'%3C/v1%3E',
    ],
    [
      'Link',
      '<v1/x>; rel=next, </v10>, <//evil.example/v1>, <>',
      '<v1/x>; rel=next, </v10>, <//evil.example/v1>, <>',
    ],
    ['Link', '</v1', '</v1'],
    ['Refresh', '5; url=/v1/x', '5; url=/api/orders/x'],
    ['Refresh', '0;URL="/v1/x"', '0;URL="/api/orders/x"'],
    ['Refresh', "1.5 , url = '/v1/x' ; z", "1.5 , url = '/api/orders/x' ; z"],
    ['Refresh', '0; /v1/x', '0; /api/orders/x'],
    ['Refresh', '0; url=https://app.example.com/v1/x', '0; url=https://app.example.com/api/orders/x'],
    ['Refresh', '5', '5'],
    ['Refresh', '5; url=', '5; url='],
    ['Set-Cookie', 'a=1; Path=/v1', 'a=1; Path=/api/orders'],
    ['Set-Cookie', 'a=/v1; path = /v1/ ; Secure', 'a=/v1; path = /api/orders/ ; Secure'],
    [
      'Set-Cookie',
      'a=1; PATH=/v1/x; HttpOnly; Path=/v1/y',
      'a=1; PATH=/api/orders/x; HttpOnly; Path=/api/orders/y',
    ],
    ['Set-Cookie', 'a=1; Path=/api/orders/v1/x', 'a=1; Path=/api/orders/x'],
    ['Set-Cookie', 'a=1; Path=/api/orders/x', 'a=1; Path=/api/orders/x'],
    ['Set-Cookie', 'a=1; Path=/', 'a=1; Path=/'],
    ['Set-Cookie', 'a=1; Path=/v10', 'a=1; Path=/v10'],
    ['Set-Cookie', 'a=1; Path=v1', 'a=1; Path=v1'],
    ['Set-Cookie', 'a=1; Domain=/v1; Paths=/v1', 'a=1; Domain=/v1; Paths=/v1'],
    ['Set-Cookie', 'a=1', 'a=1'],
  ]
  for (const [name, value, seen] of MAPPED) {
    test(`on a rewritten route ${name}: ${value} is seen as ${seen}`, () => {
      assert.deepEqual(toClient([name, value], orders), [name, seen])
      // Elsewhere only the upstream's own origin is another.
      if (!value.includes('//orders.test')) assert.deepEqual(toClient([name, value], kept), [name, value])
    })
  }

  test('every route hides the origin of its upstream in the fields that hold URLs', () => {
    const own = 'http://api.test/api/x'
    const seen = 'https://app.example.com/api/x'
    const raw = (uri: string) => [
      'Content-Location',
      uri,
      'Link',
      `<${uri}>; rel=x`,
      'Refresh',
      `0; url=${uri}`,
    ]
    assert.deepEqual(toClient(raw(own), kept), raw(seen))
  })

  test('where the prefix is taken away a cookie of the whole upstream is one of the whole route', () => {
    const COOKIES = [
      ['a=1; Path=/', 'a=1; Path=/files'],
      ['a=1; Path=/x', 'a=1; Path=/files/x'],
      ['a=1; Path=/files/x', 'a=1; Path=/files/x'],
      ['__Host-a=1; Path=/; Secure', '__Host-a=1; Path=/; Secure'],
      ['__host-http-a=1; Secure; Path=/', '__host-http-a=1; Secure; Path=/'],
      ['__Secure-a=1; Path=/; Secure', '__Secure-a=1; Path=/files; Secure'],
    ]
    for (const [set = '', seen = ''] of COOKIES)
      assert.deepEqual(toClient(['Set-Cookie', set], bare), ['Set-Cookie', seen])
    assert.deepEqual(toClient(['Set-Cookie', 'a=1; Path=/v1'], root), ['Set-Cookie', 'a=1; Path=/'])
  })

  for (const [route, location, seen] of LOCATIONS) {
    test(`on ${route.path} the location ${location} is seen as ${seen}`, () => {
      assert.deepEqual(toClient(['Location', location], route), ['Location', seen])
    })
  }
})
