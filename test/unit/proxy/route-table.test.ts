import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { RouteConfig } from '../../../src/config/config.ts'
import { BffError } from '../../../src/errors.ts'
import { compileRoutes } from '../../../src/proxy/route-table.ts'
import { routeWith } from '../../kit/upstream/routes.ts'

const match = compileRoutes([
  routeWith({ path: '/' }),
  routeWith({ path: '/api' }),
  routeWith({ path: '/api/orders', rewrite: '/v1' }),
  routeWith({ path: '/api/admin' }),
  routeWith({ path: '/api/public' }),
  routeWith({ path: '/bare', rewrite: '/' }),
  routeWith({ id: 'read', path: '/split', methods: ['GET', 'HEAD'] }),
  routeWith({ id: 'write', path: '/split', methods: ['POST'] }),
  routeWith({ path: '/split/deep' }),
])

function codeOf(call: () => unknown): string {
  try {
    call()
  } catch (error) {
    assert.ok(error instanceof BffError, String(error))
    return error.code
  }
  return 'none'
}

const FORWARDED: [target: string, route: string, upstreamTarget: string][] = [
  ['/', '/', '/'],
  ['/?x=1', '/', '/?x=1'],
  ['/apix', '/', '/apix'],
  ['/api', '/api', '/api'],
  ['/api/', '/api', '/api/'],
  ['/api/x', '/api', '/api/x'],
  ['/API/Admin', '/', '/API/Admin'],
  ['/api/publicity', '/api', '/api/publicity'],
  ['/api/public?next=/api/admin', '/api/public', '/api/public?next=/api/admin'],
  ['/api/orders/42?x=1', '/api/orders', '/v1/42?x=1'],
  ['/api/orders', '/api/orders', '/v1'],
  ['/api/orders?x=1', '/api/orders', '/v1?x=1'],
  ['/api/orders/', '/api/orders', '/v1/'],
  ['/bare', '/bare', '/'],
  ['/bare/', '/bare', '/'],
  ['/bare?x', '/bare', '/?x'],
  ['/bare/a/b', '/bare', '/a/b'],
  ['/%61pi/%61dmin/x', '/api/admin', '/api/admin/x'],
  ['/api/%6Frders/%7euser', '/api/orders', '/v1/~user'],
  ['/api/caf%C3%a9%20x', '/api', '/api/caf%C3%a9%20x'],
  ['/api/%F0%9F%98%80', '/api', '/api/%F0%9F%98%80'],
  ['/api/admin%23/x', '/api', '/api/admin%23/x'],
  ['/api/100%25', '/api', '/api/100%25'],
  ['/api/100%25/41', '/api', '/api/100%25/41'],
  ['/.well-known/x', '/', '/.well-known/x'],
  ['/api/...', '/api', '/api/...'],
  ['/api/file%2Etxt', '/api', '/api/file.txt'],
  ["/api/a:b@c!$&'()*+,=~_-|[]^", '/api', "/api/a:b@c!$&'()*+,=~_-|[]^"],
  ['/api/@evil.example', '/api', '/api/@evil.example'],
  ['/api/orders/$1@evil.example', '/api/orders', '/v1/$1@evil.example'],
  ['/api?//a/../b;c=%2f%00%zz', '/api', '/api?//a/../b;c=%2f%00%zz'],
  ['/split/deep/x', '/split/deep', '/split/deep/x'],
]

for (const [target, route, upstreamTarget] of FORWARDED) {
  test(`${target} belongs to ${route} and is forwarded as ${upstreamTarget}`, () => {
    const matched = match('GET', target)
    assert.equal(matched?.route.path, route)
    assert.equal(matched?.target, upstreamTarget)
  })
}

const REJECTED = [
  '',
  '*',
  'api/x',
  'http://169.254.169.254/',
  'https://app.example.com/api',
  'evil.example:443',
  '//evil.example/x',
  '//api/admin/x',
  '/api//admin/x',
  '/api/x//',
  '/.',
  '/..',
  '/api/public/../admin/x',
  '/api/public/./x',
  '/api/public/..',
  '/api/public/%2e%2e/admin/x',
  '/api/public/%2E%2E/admin/x',
  '/api/public/.%2e/admin/x',
  '/api/public/%2e./admin/x',
  '/api/public/%2e',
  '/api/public/..%2fadmin/x',
  '/api/public/%2e%2e%2fadmin/x',
  '/api/public/..%5cadmin',
  '/api/public/..\\admin',
  '/\\evil.example',
  '/api%2fadmin',
  '/api%2Fadmin',
  '/api/public/%252e%252e/admin',
  '/api/public/%25252e%25252e/admin',
  '/api/public/%252fadmin',
  '/api/public/%255cadmin',
  '/api/public/%2500',
  '/api/public/%25%32%65%25%32%65/admin',
  '/api/admin;x/y',
  '/api/public/..;/admin',
  '/api/admin%3Bx/y',
  '/api/admin%3bx/y',
  '/api/public/..%3b/admin',
  '/api/public/%3B',
  '/api/public/..%253b/admin',
  '/api/public/x%253B',
  '/api/public/x%25253b',
  '/api/public/x%25%33%62y',
  '/api/public/..%3b%2fadmin',
  '/api/a#b',
  '/api?a#b',
  '/api/%00',
  '/api/%0d%0aX:1',
  '/api/%1f',
  '/api/%7F',
  '/api/%zz',
  '/api/%',
  '/api/%4',
  '/api/%%34%31',
  '/api/%2%65',
  '/api/%c0%ae',
  '/api/%c0%af',
  '/api/%e0%80%af',
  '/api/%ed%a0%80',
  '/api/%f4%90%80%80',
  '/api/%f5%80%80%80',
  '/api/%80',
  '/api/%c3',
  '/api/%c3a9',
  '/api/%c3%41',
  '/api/caf\u00e9',
  '/api/\u20ac',
  '/api/\0',
  '/api/\x7f',
  '/api/a b',
  '/api/a\tb',
  '/api\r\nX: 1',
  '/api?x=\r\nX: 1',
  '/api?x=caf\u00e9',
]

for (const target of REJECTED) {
  test(`${JSON.stringify(target)} is rejected`, () => {
    assert.equal(
      codeOf(() => match('GET', target)),
      'path_rejected',
    )
  })
}

test('without a root route an unknown path matches nothing', () => {
  const only = compileRoutes([routeWith({ path: '/api' })])
  assert.equal(only('GET', '/other'), undefined)
  assert.equal(only('GET', '/apix'), undefined)
  assert.equal(only('GET', '/'), undefined)
})

test('routes of one path are told apart by method', () => {
  assert.equal(match('GET', '/split/x')?.route.id, 'read')
  assert.equal(match('POST', '/split/x')?.route.id, 'write')
})

test('a method that no route of the path allows is refused and the allowed ones are named', () => {
  assert.throws(
    () => match('DELETE', '/split/x'),
    (error: BffError) => {
      assert.equal(error.code, 'method_not_allowed')
      assert.deepEqual(error.headers, { allow: 'GET, HEAD, POST', vary: 'Cookie' })
      return true
    },
  )
})

test('a refused method does not fall through to a shorter path', () => {
  assert.equal(
    codeOf(() => match('PUT', '/split')),
    'method_not_allowed',
  )
})

for (const method of ['CONNECT', 'TRACE']) {
  test(`${method} is refused everywhere, with an Allow header`, () => {
    assert.throws(
      () => match(method, '/api/x'),
      (error: BffError) => error.code === 'method_not_allowed' && !!error.headers?.allow,
    )
  })
}

test('a rewrite with a trailing slash makes no empty segment', () => {
  const rewritten = compileRoutes([routeWith({ path: '/', rewrite: '/v1/' })])
  assert.equal(rewritten('GET', '/a?b')?.target, '/v1/a?b')
  assert.equal(rewritten('GET', '/')?.target, '/v1/')
})

test('long targets and ten thousand segments are matched in little time', () => {
  const many = compileRoutes(
    Array.from({ length: 500 }, (_, n) => routeWith({ path: `/r${n}/${'x'.repeat(n % 40)}` })),
  )
  const targets = [
    `/${'a/'.repeat(8_000)}x`,
    `/${'a'.repeat(16_000)}`,
    `/${'%61'.repeat(5_000)}`,
    `/${'%25'.repeat(5_000)}`,
    `/${'.a/'.repeat(5_000)}x`,
    `/r499/${'x'.repeat(16_000)}`,
    `/x?${'a'.repeat(16_000)}`,
  ]
  // The best of some is what it really takes: the first compile it, others pay for somebody's garbage.
  const took: number[] = []
  for (let n = 0; n < 5; n += 1) {
    const started = process.cpuUsage()
    for (const target of targets) many('GET', target)
    const rejectedSlashes = codeOf(() => many('GET', '/'.repeat(1_000_000)))
    const { user, system } = process.cpuUsage(started)
    assert.equal(rejectedSlashes, 'path_rejected')
    took.push(user + system)
  }
  assert.ok(Math.min(...took) < 50_000, `${took} µs`)
})

const OWN: [basePath: string, target: string][] = [
  ['/bff', '/bff'],
  ['/bff', '/bff/'],
  ['/bff', '/bff?x'],
  ['/bff', '/bff/user'],
  ['/bff', '/%62ff/user'],
  ['/bff', '/%62%66%66'],
  ['/bff', '/bf%66/%75ser?x=1'],
  ['/auth/bff', '/auth/%62ff/user'],
  ['/auth/bff', '/%61uth/bff'],
  ['/a!b', '/a%21b/user'],
  ['/a%21b', '/a!b/user'],
  ['/caf%C3%A9', '/caf%c3%a9/user'],
  ['/a%20b', '/%61%20b/user'],
  ['/.own', '/%2Eown/user'],
]
for (const [basePath, target] of OWN) {
  test(`no route has what is at or below the base path ${basePath}: ${target}`, () => {
    const all = compileRoutes([routeWith({ path: '/' })], basePath)
    assert.equal(all('GET', target), undefined)
  })
}

test('what only begins like the base path, or has it further down or in a query, has its route', () => {
  const all = compileRoutes([routeWith({ path: '/' }), routeWith({ path: '/api' })], '/bff')
  for (const target of [
    '/bffx',
    '/bff-x/user',
    '/%62ffx',
    '/bf',
    '/api/bff/user',
    '/BFF/user',
    '/x?/bff/user',
    '/',
  ])
    assert.equal(all('GET', target)?.target.length, target.replace('%62', 'b').length, target)
})

const GUARDED: Parameters<typeof routeWith>[0][] = [
  { path: '/', auth: 'anonymous' },
  { path: '/admin' },
  { path: '/admin/open', auth: 'anonymous' },
  { path: '/maybe', auth: 'optional' },
  { path: '/maybe/Caf%C3%A9' },
  { path: '/read', auth: 'anonymous', methods: ['GET', 'HEAD'] },
  { path: '/form', id: 'form-read', auth: 'anonymous', methods: ['GET'] },
  { path: '/form', id: 'form-write', methods: ['POST'] },
  { path: '/elsewhere', upstream: 'http://elsewhere.test' },
  { path: '/same', upstream: 'http://UPSTREAM.test:8080/' },
  { path: '/app', auth: 'anonymous', rewrite: '/v1' },
  { path: '/app/secret', rewrite: '/v1/secret' },
]
const guarded = compileRoutes(GUARDED.map(routeWith))

/** What a less strict route would pass on, and some upstream would take for a stricter one's. */
const DISGUISED: [why: string, method: string, targets: string[]][] = [
  ['letter case', 'GET', ['/ADMIN', '/ADMIN/secret', '/Admin/', '/aDmIn?x', '/%41dmin/x', '/SAME/x']],
  ['letter case below a route of its own', 'GET', ['/app/SECRET/x', '/maybe/CAF%c3%89', '/MAYBE/caf%C3%A9']],
  ['encoded once more', 'GET', ['/%2561dmin/x', '/%252541dmin/x', '/admi%25%36%65/x', '/a%2564min']],
  [
    'blanks and dots that Windows drops',
    'GET',
    ['/admin./x', '/admin.', '/admin%20/x', '/%20admin', '/admin..%20/x'],
  ],
  ['names of NTFS streams', 'GET', ['/admin:$DATA/x', '/admin::$DATA', '/admin:$i30:$INDEX_ALLOCATION/x']],
  ['an encoded end of the path', 'GET', ['/admin%3Fx', '/admin%3f/x', '/admin%23x', '/ADMIN%2523']],
  [
    'letters of Unicode',
    'GET',
    [
      '/adm\u0131n/x',
      '/adm\u0130n/x',
      '/\uff41dmin/x',
      '/\uff21\uff24\uff2d\uff29\uff2e',
      '/\u017fame/x',
      '/ad\u00admin',
      '/x\uff0f..\uff0fadmin/x',
      '/x\uff0f\uff0e\uff0e\uff0fadmin/x',
    ].map((path) => encodeURI(path)),
  ],
  ['methods that the route refuses', 'DELETE', ['/READ', '/Read/x', '/read./x', '/FORM']],
  ['the route of another method', 'POST', ['/FORM', '/Form/x']],
]
for (const [why, method, targets] of DISGUISED) {
  test(`a stricter route is not reached through another by ${why}`, () => {
    for (const target of targets)
      assert.equal(
        codeOf(() => guarded(method, target)),
        'path_rejected',
        target,
      )
  })
}

const NOT_DISGUISED: [method: string, target: string, route: string][] = [
  ['GET', '/', '/'],
  ['GET', '/Index.html', '/'],
  ['GET', '/adminx/Y', '/'],
  ['GET', '/ADMINX', '/'],
  ['GET', '/admin.css', '/'],
  ['GET', '/x/ADMIN', '/'],
  ['GET', '/admin:batch', '/'],
  ['GET', '/ELSEWHERE/x', '/'],
  ['GET', '/ADMIN/OPEN/x', '/'],
  ['GET', '/admin/OPEN/x', '/admin'],
  ['GET', '/admin/X', '/admin'],
  ['GET', '/READ/x', '/'],
  ['GET', '/FORM', '/'],
  ['GET', '/maybe/Caf%C3%A9', '/maybe/Caf%C3%A9'],
  ['GET', '/maybe/caf', '/maybe'],
  ['GET', '/app/x.', '/app'],
  ['GET', '/app/secret/X', '/app/secret'],
  ['GET', '/same/X.', '/same'],
  ['GET', '/100%25', '/'],
  ['GET', '/...', '/'],
]
test('a spelling that reaches nothing stricter passes', () => {
  for (const [method, target, route] of NOT_DISGUISED) {
    assert.equal(guarded(method, target)?.route.path, route, target)
  }
})

test('optional is stricter than anonymous, and a route with conditions than one without', () => {
  assert.equal(
    codeOf(() => guarded('GET', '/MAYBE/x')),
    'path_rejected',
  )
  const requireGroup = (group: string): Partial<RouteConfig> => ({
    require: { claims: [{ name: 'groups', values: [group] }] },
  })
  const conditions = requireGroup('ops')
  const others = requireGroup('staff')
  const table = compileRoutes([
    routeWith({ path: '/' }),
    routeWith({ path: '/ops', ...conditions }),
    routeWith({ path: '/staff', ...others }),
    routeWith({ path: '/staff/lead', ...conditions }),
    routeWith({ path: '/ops/team', ...conditions }),
  ])
  for (const target of ['/OPS/x', '/STAFF', '/staff/LEAD', '/ops./x'])
    assert.equal(
      codeOf(() => table('GET', target)),
      'path_rejected',
      target,
    )
  for (const target of ['/ops/TEAM', '/ops/x', '/staff/x', '/Other'])
    assert.equal(
      codeOf(() => table('GET', target)),
      'none',
      target,
    )
})

test('of two routes that differ in letter case only, the less strict one serves nothing', () => {
  const table = compileRoutes([
    routeWith({ path: '/Admin', auth: 'anonymous' }),
    routeWith({ path: '/admin' }),
  ])
  assert.equal(
    codeOf(() => table('GET', '/Admin/x')),
    'path_rejected',
  )
  assert.equal(table('GET', '/admin/x')?.route.path, '/admin')
  const reversed = compileRoutes([
    routeWith({ path: '/admin', auth: 'anonymous' }),
    routeWith({ path: '/Admin' }),
  ])
  assert.equal(
    codeOf(() => reversed('GET', '/admin/x')),
    'path_rejected',
  )
  assert.equal(reversed('GET', '/Admin/x')?.route.path, '/Admin')
})

const slashes = compileRoutes(
  [
    routeWith({ path: '/', auth: 'anonymous', encodedSlashes: 'pass' }),
    routeWith({ path: '/npm', auth: 'optional', encodedSlashes: 'pass', rewrite: '/v1' }),
    routeWith({ path: '/npm/admin', encodedSlashes: 'pass' }),
    routeWith({ path: '/strict', auth: 'anonymous' }),
    routeWith({ path: '/other', upstream: 'http://other.test' }),
    routeWith({ path: '/form', id: 'read', auth: 'anonymous', methods: ['GET'], encodedSlashes: 'pass' }),
    routeWith({ path: '/form', id: 'write', auth: 'anonymous', methods: ['POST'] }),
  ],
  '/bff',
)

const SLASHES: [target: string, route: string, upstreamTarget: string][] = [
  ['/npm/@scope%2Fpkg', '/npm', '/v1/@scope%2Fpkg'],
  ['/npm/@scope%2fpkg/-/x.tgz?a=%2F', '/npm', '/v1/@scope%2fpkg/-/x.tgz?a=%2F'],
  ['/npm/a%2Fb%2Fc', '/npm', '/v1/a%2Fb%2Fc'],
  ['/npm/%61%2Fb', '/npm', '/v1/a%2Fb'],
  ['/npm/admin/a%2Fb', '/npm/admin', '/npm/admin/a%2Fb'],
  ['/projects/group%2Fproject', '/', '/projects/group%2Fproject'],
  ['/projects/end%2F', '/', '/projects/end%2F'],
  ['/npmx%2Fy', '/', '/npmx%2Fy'],
  ['/other%2Fx', '/', '/other%2Fx'],
  ['/form/a%2Fb', '/form', '/form/a%2Fb'],
]
for (const [target, route, upstreamTarget] of SLASHES) {
  test(`where encoded slashes pass, ${target} belongs to ${route} and is forwarded as ${upstreamTarget}`, () => {
    const matched = slashes('GET', target)
    assert.equal(matched?.route.path, route)
    assert.equal(matched?.target, upstreamTarget)
  })
}

const REJECTED_SLASHES = [
  '/strict/a%2Fb',
  '/npm%2Fx',
  '/NPM%2Fx',
  '/npm/admin%2Fx',
  '/npm%2Fadmin%2Fx',
  '/npm/ADMIN%2fx',
  '/npm/%2Fx',
  '/npm/x%2F/y',
  '/npm/x%2F%2Fy',
  '/npm/x/%2F',
  '/npm/..%2Fx',
  '/npm/x%2F..',
  '/npm/x%2F..%2Fy',
  '/npm/x%2F.%2Fy',
  '/npm/x%2F%2e%2E/y',
  '/npm/.%2Fx',
  '/npm/x%252Fy',
  '/npm/x%5Cy',
  '/npm/x%2F;y',
  '/npm/x%2F%3By',
  '/%2Fevil.example',
  '/bff%2Fuser',
  '/bff/x%2Fy',
  '/b%66f%2Fuser',
]
for (const target of REJECTED_SLASHES) {
  test(`where encoded slashes pass, ${target} is rejected`, () => {
    assert.equal(
      codeOf(() => slashes('GET', target)),
      'path_rejected',
    )
  })
}

test('of routes of one path, each says for its own methods whether encoded slashes pass', () => {
  assert.equal(
    codeOf(() => slashes('POST', '/form/a%2Fb')),
    'path_rejected',
  )
  assert.equal(
    codeOf(() => slashes('PUT', '/form/a%2Fb')),
    'path_rejected',
  )
})

test('a token of the client opens no route that takes none, or another, by a spelling of its path', () => {
  const bearer = (audience: string): Partial<RouteConfig> => ({
    bearer: { audience, scopes: [], isExchanged: false },
  })
  const table = compileRoutes([
    routeWith({ path: '/', ...bearer('cli') }),
    routeWith({ path: '/cookie' }),
    routeWith({ path: '/other', ...bearer('other') }),
    routeWith({ path: '/same', ...bearer('cli') }),
    routeWith({ path: '/maybe', auth: 'optional' }),
    routeWith({ path: '/public', auth: 'anonymous' }),
  ])
  for (const target of ['/COOKIE', '/Other/x', '/MAYBE', '/cookie%2e'])
    assert.equal(
      codeOf(() => table('GET', target)),
      'path_rejected',
      target,
    )
  for (const target of ['/cookie', '/Same', '/PUBLIC', '/x'])
    assert.equal(
      codeOf(() => table('GET', target)),
      'none',
      target,
    )
})
