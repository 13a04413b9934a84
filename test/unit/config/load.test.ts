import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { ConfigError, loadConfigFile } from '../../../src/config/load.ts'
import {
  BASE,
  changed,
  ENV,
  load,
  problemsOf,
  SESSION_KEY,
  SESSION_KEY_BYTES,
} from '../../kit/config/base-config.ts'

describe('a config file becomes a Config', () => {
  test('with units, keys and paths in the form the program uses', () => {
    const { config } = load(changed('path: /api/orders\n', 'path: /api/orders/\n'))
    assert.deepEqual(config.listen, { host: '127.0.0.1', port: 8080 })
    assert.equal(config.provider.timeoutMs, 5_000)
    assert.equal(config.session.idleTimeoutMs, 1_800_000)
    assert.equal(config.session.absoluteTimeoutMs, 36_000_000)
    assert.deepEqual(Buffer.compare(config.session.keys[0]!, SESSION_KEY_BYTES), 0)
    assert.deepEqual(config.session.cookie, {
      name: '__Host-Http-cloakroom',
      sameSite: 'strict',
      secure: true,
    })
    const [orders, , spa] = config.routes
    assert.equal(orders?.path, '/api/orders')
    assert.equal(orders?.maxBody, 10_485_760)
    assert.deepEqual(orders?.timeout, { connectMs: 2_000, responseMs: 30_000, idleMs: 300_000 })
    assert.deepEqual(orders?.headers, [{ name: 'x-user-id', value: '{claims.sub}' }])
    assert.equal(spa?.auth, 'anonymous')
    assert.equal(config.resources.orders?.name, 'orders')
    assert.deepEqual(config.tests, [{ method: 'GET', target: '/api/orders/42', expect: { route: 'orders' } }])
  })

  test('with the documented defaults for everything that is not written', () => {
    const { config } = load(`
publicUrl: https://app.example.com
provider: { issuer: https://id.example.com, clientId: spa, clientAuth: { method: client_secret_basic, secret: { env: CLIENT_SECRET } } }
session: { store: { type: redis, url: redis://redis }, keys: [{ env: SESSION_KEY }] }
routes: [{ path: /, upstream: http://spa:80 }]
`)
    assert.deepEqual(config.listen, { host: '0.0.0.0', port: 8080 })
    assert.deepEqual(config.admin, {
      listen: { host: '0.0.0.0', port: 9090 },
      hosts: [],
      strictReadiness: false,
    })
    assert.deepEqual([config.trustProxy, config.allowedOrigins, config.tests], [[], [], []])
    assert.deepEqual([config.basePath, config.resources], ['/bff', {}])
    const { resourceDialect, scopes, par, authorizationParams, allowedTenants, timeoutMs } = config.provider
    assert.deepEqual([resourceDialect, par, timeoutMs], ['scope', 'auto', 5_000])
    assert.deepEqual(scopes, ['openid', 'profile', 'email', 'offline_access'])
    assert.deepEqual([authorizationParams, allowedTenants], [{}, []])
    assert.deepEqual(config.session.store, {
      ...{ type: 'redis', url: 'redis://redis', keyPrefix: 'cloakroom', durability: 'none' },
    })
    assert.deepEqual(
      [config.session.idleTimeoutMs, config.session.absoluteTimeoutMs],
      [1_800_000, 36_000_000],
    )
    assert.deepEqual(config.routes, [
      {
        id: '/',
        path: '/',
        upstream: 'http://spa',
        auth: 'required',
        csrf: 'header',
        timeout: { connectMs: 2_000, responseMs: 30_000, idleMs: 300_000 },
        websocket: false,
        http2: false,
        breaker: { failures: 20, pauseMs: 1_000 },
        headers: [],
        encodedSlashes: 'reject',
        preserveHost: false,
      },
    ])
  })

  test('on a loopback http publicUrl with a cookie without prefix and without Secure', () => {
    for (const host of ['localhost:8080', '127.0.0.1', 'app.localhost', '[::1]:8080']) {
      const text = changed('https://app.example.com', `http://${host}`)
      const { config } = load(text.replace('name: __Host-Http-cloakroom, ', ''))
      assert.equal(config.publicUrl, `http://${host}`)
      assert.deepEqual(config.session.cookie, { name: 'cloakroom', sameSite: 'strict', secure: false })
    }
  })

  test('that is frozen to its last member', () => {
    const isFrozen = (value: unknown): boolean =>
      typeof value !== 'object' ||
      value === null ||
      Buffer.isBuffer(value) ||
      (Object.isFrozen(value) && Object.values(value).every(isFrozen))
    assert.ok(isFrozen(load(BASE).config))
  })

  test('with the same path twice when the methods differ', () => {
    const text = changed('path: /api/billing', 'path: /api/orders\n    methods: [put]')
    assert.deepEqual(load(text).config.routes[1]?.methods, ['PUT'])
  })

  test('with resource null kept in a test, where it means that no token is sent', () => {
    const { config } = load(changed('expect: { route: orders }', 'expect: { resource: null }'))
    assert.deepEqual(config.tests[0]?.expect, { resource: null })
  })

  test('with user name and password moved out of the Redis URL', () => {
    const env = { ...ENV, REDIS_URL: 'rediss://me:p%40ss@redis:6380/2' }
    // biome-ignore lint/suspicious/noTemplateCurlyInString: it is what the operator writes
    const { config, warnings } = load(changed('rediss://redis:6379', '${REDIS_URL}'), { env })
    assert.deepEqual(warnings, [])
    const { store } = config.session
    assert.ok(store.type === 'redis' && 'url' in store)
    assert.equal(store.url, 'rediss://redis:6380/2')
    assert.equal(store.username, 'me')
    assert.equal(store.password?.reveal(), 'p@ss')
  })

  test('with a client credentials resource on Entra ID named by its only possible scope', () => {
    const entra = changed('https://id.example.com', 'https://login.microsoftonline.com/T/v2.0')
    const text = entra.replace(
      '{ scopes: [api://billing/.default] }',
      '{ resource: api://b, grant: client_credentials }',
    )
    assert.deepEqual(load(text).config.resources.billing?.scopes, ['api://b/.default'])
  })
})

describe('the report', () => {
  test('names file, line and column of the value, of an unknown key, and of the parent of a missing field', () => {
    const text = BASE.replace('clientId: spa', 'clientId: 5')
      .replace('keyPrefix', 'keyPrefx')
      .replace('  - path: /api/billing\n    id: billing', '  - id: billing')
    assert.deepEqual(
      problemsOf(text).map(({ file, line, column, path }) => `${file}:${line}:${column} ${path}`),
      [
        'config.yaml:9:13 provider.clientId',
        'config.yaml:21:5 session.store.keyPrefx',
        'config.yaml:40:5 routes[1].path',
      ],
    )
  })

  test('has NODE_TLS_REJECT_UNAUTHORIZED=0, under which no certificate is verified', () => {
    const env = { ...ENV, NODE_TLS_REJECT_UNAUTHORIZED: '0' }
    assert.match(problemsOf(BASE, { env })[0]?.message ?? '', /NODE_TLS_REJECT_UNAUTHORIZED must not be 0/)
    load(BASE, { env: { ...ENV, NODE_TLS_REJECT_UNAUTHORIZED: '1' } })
  })

  test('holds every problem in the order of the file, whatever found it', () => {
    const text = BASE.replace('trustProxy:', 'trustProxi:')
      .replace('{ env: CLIENT_SECRET }', '{ env: NOPE }')
      .replace('absoluteTimeout: 10h', 'absoluteTimeout: 1m')
      .replace('resource: billing', 'resource: biling')
      .replace('http://spa', 'spa')
    const problems = problemsOf(text)
    assert.deepEqual(
      problems.map(({ line, path }) => [line, path]),
      [
        [5, 'trustProxi'],
        [12, 'provider.clientAuth.secret'],
        [25, 'session.absoluteTimeout'],
        [43, 'routes[1].resource'],
        [46, 'routes[2].upstream'],
      ],
    )
    assert.throws(() => load(text), {
      name: 'ConfigError',
      message: problems
        .map(({ file, line, column, path, message }, index) => {
          const shown = [
            ...['trustProxi: [10.0.0.0/8]', '    secret: { env: NOPE }', '  absoluteTimeout: 1m'],
            ...['    resource: biling', '    upstream: spa'],
          ][index]!
          const margin = ' '.repeat(String(line).length)
          const caret =
            ' '.repeat(column - 1) + '^'.repeat(/^(?:\{|[\w]+)/.exec(shown.slice(column - 1))![0].length)
          const place = `${file}:${line}:${column}  ${path}: ${message}`
          return `${place}\n${margin} |\n${line} | ${shown}\n${margin} | ${caret}`
        })
        .join('\n'),
    })
  })

  test('does not ask for a field that is there under a misspelt name', () => {
    const text = BASE.replace('publicUrl:', 'public_url:').replace('  issuer:', '  isuer:')
    const found = problemsOf(text).map(({ path, message }) => `${path}: ${message}`)
    assert.equal(found.length, 2, found.join('\n'))
    assert.match(found.join('\n'), /^public_url: .*"publicUrl"\?\)\nprovider\.isuer: .*"issuer"\?\)$/)
    // The right name is there too: then it is the other one that is wrong.
    const both = changed('basePath: /bff', 'basePath: nowhere\nbasePat: /bff')
    assert.deepEqual(
      problemsOf(both).map(({ path }) => path),
      ['basePath', 'basePat'],
    )
  })

  test('says that a key is given twice, and where the first one is', () => {
    const [problem, ...more] = problemsOf(`${BASE}basePath: /b\n`)
    assert.deepEqual(more, [])
    assert.deepEqual([problem?.line, problem?.column, problem?.path], [51, 1, 'basePath'])
    assert.equal(problem?.message, 'is given twice: the first is in line 6')
  })

  test('explains broken YAML without quoting it', () => {
    const [tab] = problemsOf('provider:\n\tissuer: x\n')
    assert.deepEqual([tab?.line, tab?.message], [2, 'not valid YAML: a tab cannot indent YAML: use blanks'])
    for (const text of [
      'secret: hush: x',
      'secret: "hush" hush',
      'secret: !hush x',
      'secret: @hush',
      'secret: [hush',
    ]) {
      for (const { message } of problemsOf(text)) {
        assert.match(message, /^not valid YAML: /)
        assert.doesNotMatch(message, /hush|undefined/)
      }
    }
  })

  test('refuses what is no block of keys, aliases without an anchor, and aliases in a loop', () => {
    assert.match(problemsOf('')[0]!.message, /the file is empty/)
    assert.match(problemsOf('hello')[0]!.message, /is one text and has no keys/)
    assert.match(problemsOf('basePath: *nope')[0]!.message, /no YAML anchor/)
    assert.match(problemsOf('admin: &a { listen: *a }')[0]!.message, /aliases in a loop/)
    assert.match(problemsOf('__proto__: { a: 1 }')[0]!.message, /not a plain name in line 1/)
  })

  test('reads "off" and "on" as text, as YAML 1.2 does, and shares blocks through anchors', () => {
    const text = BASE.replace('timeout: { connect: 2s', 'timeout: &slow { connect: 2s').replace(
      'resource: billing',
      'timeout: *slow\n    resource: billing',
    )
    assert.deepEqual(load(text).config.routes[1]?.timeout, load(text).config.routes[0]?.timeout)
    assert.equal(load(changed('basePath: /bff', 'basePath: /off')).config.basePath, '/off')
  })

  test('of a file that cannot be read says so and how to begin', () => {
    const folder = mkdtempSync(join(tmpdir(), 'cloakroom-'))
    try {
      assert.throws(
        () => loadConfigFile(join(folder, 'none.yaml'), {}),
        (error: unknown) =>
          error instanceof ConfigError && /no such file.*cloakroom\.example\.yaml/.test(error.message),
      )
      writeFileSync(join(folder, 'key'), `${SESSION_KEY}\n`)
      writeFileSync(join(folder, 'config.yaml'), changed('{ env: SESSION_KEY }', '{ file: key }'))
      const { config } = loadConfigFile(join(folder, 'config.yaml'), ENV)
      assert.equal(config.session.keys[0]?.length, 32)
    } finally {
      rmSync(folder, { recursive: true })
    }
  })
})

describe('a file that holds more, or something else, than one YAML document', () => {
  test('is refused where the second document begins, which would not be read', () => {
    for (const more of ['---\nroutes: []\n', '...\nroutes: []\n', `---\n${BASE}`, '---\n', '--- # more\n']) {
      const [problem, ...others] = problemsOf(`${BASE}${more}`)
      assert.deepEqual(others, [], more)
      assert.match(problem!.message, /^not valid YAML: a second YAML document begins here/)
      assert.ok(problem!.line > BASE.split('\n').length - 1, `${more} line ${problem!.line}`)
    }
    assert.match(problemsOf(`---\n---\n${BASE}`)[0]!.message, /a second YAML document/)
  })

  test('is accepted with a marker at the beginning or the end of its only document', () => {
    for (const text of [`---\n${BASE}`, `${BASE}...\n`, `# mine\n---\n${BASE}...\n# end\n`]) load(text)
  })

  test('is read with a byte order mark or Windows line ends, and refused in UTF-16', () => {
    load(`\ufeff${BASE}`)
    load(BASE.replaceAll('\n', '\r\n'))
    const utf16 = Buffer.from(`\ufeff${BASE}`, 'utf16le').toString('utf8')
    const [problem, ...more] = problemsOf(utf16)
    assert.deepEqual([more, problem?.line, problem?.column], [[], 1, 1])
    assert.match(problem!.message, /must be UTF-8 text, .*save it as UTF-8/)
    assert.equal(
      problemsOf(BASE.replace('/v1', '/v\ufffd'))[0]!.line,
      BASE.split('/v1')[0]!.split('\n').length,
    )
  })
})

describe('warnings', () => {
  const warned = (text: string) => load(text).warnings.map(({ path }) => path)

  test('name a secret in the file, a public client, a trusted everyone and an unused resource', () => {
    assert.deepEqual(warned(changed('{ env: SESSION_KEY }', SESSION_KEY)), ['session.keys[0]'])
    assert.deepEqual(warned(changed('{ env: CLIENT_SECRET }', 'hush')), ['provider.clientAuth.secret'])
    const none = changed('method: client_secret_post\n    secret: { env: CLIENT_SECRET }', 'method: none')
    assert.deepEqual(warned(none), ['provider.clientAuth'])
    assert.deepEqual(warned(changed('10.0.0.0/8', '0.0.0.0/0')), ['trustProxy[0]'])
    assert.deepEqual(warned(changed('    resource: billing\n', '')), ['resources.billing'])
  })

  test('name a password in the Redis URL, a missing offline_access and a store that is lost at restart', () => {
    assert.deepEqual(warned(changed('rediss://redis', 'rediss://:hush@redis')), ['session.store.url'])
    assert.deepEqual(warned(changed(', offline_access', '')), ['provider.scopes'])
    const memory = changed(
      'type: redis\n    url: rediss://redis:6379\n    keyPrefix: cloakroom',
      'type: memory',
    )
    assert.deepEqual(warned(memory), ['session.store'])
  })

  test('name a Redis on another machine that is spoken to without TLS', () => {
    const store = (url: string) => warned(changed('rediss://redis:6379', url))
    for (const url of [
      'redis://redis:6379',
      'redis://10.0.0.7',
      'redis://cache.example.com:6379/2',
      'redis://[2001:db8::1]',
    ]) {
      assert.deepEqual(store(url), ['session.store.url'], url)
    }
    for (const url of [
      'rediss://redis:6379',
      'redis://localhost',
      'redis://LOCALHOST.:6379',
      'redis://127.0.0.1:6379',
      'redis://127.1',
      'redis://127.8.9.10',
      'redis://[::1]:6379',
      'redis://[::ffff:127.0.0.1]:6379',
      'redis://0.0.0.0',
      'redis://cache.localhost',
    ]) {
      assert.deepEqual(store(url), [], url)
    }
    assert.deepEqual(store('redis://127.0.0.1.evil.example'), ['session.store.url'])
  })

  test('of offline_access are those of the provider: some need none, and some refuse a sign-in that asks for it', () => {
    const at = (issuer: string, params = 'domain_hint: contoso.com') =>
      changed('https://id.example.com', issuer).replace('domain_hint: contoso.com', params)
    const without = (text: string) => text.replace(', offline_access', '')
    for (const issuer of ['https://id.example.com/realms/shop', 'https://auth.pingone.eu/x/as']) {
      assert.deepEqual(warned(at(issuer)), [], issuer)
      assert.deepEqual(warned(without(at(issuer))), [], issuer)
    }
    const cognito = at('https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_AbC')
    assert.deepEqual(warned(cognito), ['provider.scopes'])
    assert.deepEqual(warned(without(cognito)), [])
    const google = at('https://accounts.google.com', 'access_type: offline')
    assert.deepEqual(warned(google), ['provider.scopes'])
    assert.deepEqual(warned(without(google)), [])
    const v1 = without(at('https://adfs.example.com/adfs'))
      .replace('resourceDialect: scope', 'resourceDialect: resource')
      .replaceAll(/scopes: \[(api:[^/]*\/\/\w+)\/\.default\]/g, 'resource: "$1"')
    assert.deepEqual(warned(v1), [])
    const [missing] = load(without(at('https://accounts.google.com'))).warnings
    assert.match(
      `${missing?.path} ${missing?.message}`,
      /^provider\.authorizationParams .*access_type: offline/,
    )
  })

  test('name routes whose classes of sign-in exclude each other', () => {
    const guarded = (one: string, other: string) =>
      changed('headers: { x-user-id: "{claims.sub}" }', `require: { acr: ${one} }`).replace(
        'resource: billing',
        `resource: billing\n    require: { acr: ${other} }`,
      )
    assert.deepEqual(warned(guarded('[mfa]', '[hwk]')), ['routes[1].require.acr'])
    assert.deepEqual(warned(guarded('[mfa, hwk]', '[hwk]')), [])
  })

  test('name scopes without an API, and tenants of everyone, on Entra ID only', () => {
    const text = changed('api://billing/.default', 'read')
    assert.deepEqual(warned(text), [])
    const entra = text.replace('https://id.example.com', 'https://login.microsoftonline.com/common/v2.0')
    assert.deepEqual(warned(entra), ['provider.issuer', 'resources.billing.scopes[0]'])
  })
})
