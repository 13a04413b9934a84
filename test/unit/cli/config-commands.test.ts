import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import type { Command } from '../../../src/cli/command.ts'
import { checkCommand } from '../../../src/cli/config/check.ts'
import { keygenCommand } from '../../../src/cli/keygen.ts'
import { schemaCommand } from '../../../src/cli/schema.ts'
import { serveCommand } from '../../../src/cli/serve.ts'
import { BASE, changed, ENV } from '../../kit/config/base-config.ts'

async function run(command: Command, args: string[], env: Record<string, string> = {}, stdin = '') {
  let out = ''
  let err = ''
  const stdout = { write: (text: string) => (out += text) }
  const stderr = { write: (text: string) => (err += text) }
  const code = await command(args, { stdout, stderr, env: { ...ENV, ...env }, readStdin: () => stdin })
  return { code, out, err }
}

describe('cloakroom check', () => {
  let folder: string
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'cloakroom-'))
  })
  after(() => rmSync(folder, { recursive: true }))

  function file(name: string, text: string): string {
    const path = join(folder, name)
    writeFileSync(path, text)
    return path
  }

  test('of a good file prints one line and exits with 0', async () => {
    const path = file('good.yaml', BASE)
    const ok = { code: 0, out: `${path}: ok (3 routes, 2 resources, 1 test)\n`, err: '' }
    assert.deepEqual(await run(checkCommand, ['--config', path]), ok)
    assert.deepEqual(await run(checkCommand, [], { CLOAKROOM_CONFIG: path }), ok)
  })

  test('prints warnings and still exits with 0', async () => {
    const path = file('warned.yaml', changed('{ env: CLIENT_SECRET }', 'hush-hush'))
    const { code, out } = await run(checkCommand, ['--config', path])
    assert.equal(code, 0)
    assert.match(
      out,
      /warned\.yaml:12:13 {2}provider\.clientAuth\.secret: warning: is a secret in the config file/,
    )
    assert.doesNotMatch(out, /hush-hush/)
  })

  const WITH_ROUTES: [name: string, routes: string[], warning: RegExp | undefined][] = [
    [
      'differ only in letter case',
      [
        '{ path: /Admin, upstream: "http://app", auth: anonymous }',
        '{ path: /admin, upstream: "http://app:80" }',
      ],
      /\d+:\d+ {2}routes\[3\]\.path: warning: differs from routes\[4\] \(\/admin\) only in a spelling .*refused/,
    ],
    [
      'differ only in letter case and ask for the same',
      ['{ path: /x/Caf%C3%89, upstream: "http://app" }', '{ path: /x/caf%C3%A9, upstream: "http://app" }'],
      /routes\[4\]\.path: warning: differs from routes\[3\] \(\/x\/Caf%C3%89\) only in a spelling .*remove one/,
    ],
    [
      'are rewritten to what another one guards',
      [
        '{ path: /site, upstream: "http://app", rewrite: /, auth: anonymous }',
        '{ path: /admin, upstream: "http://app" }',
      ],
      /routes\[3\]\.path: warning: lets GET \/site\/admin reach http:\/\/app\/admin, where routes\[4\] \(\/admin\) asks/,
    ],
    [
      'differ in letter case at other upstreams',
      [
        '{ path: /Admin, upstream: "http://app", auth: anonymous }',
        '{ path: /admin, upstream: "http://other" }',
      ],
      undefined,
    ],
    [
      'lie below each other',
      [
        '{ path: /app, upstream: "http://app", rewrite: /v1, auth: anonymous }',
        '{ path: /app/admin, upstream: "http://app", rewrite: /v1/admin }',
      ],
      undefined,
    ],
  ]
  test('warns of a header that browsers send and one route takes from all', async () => {
    const text = changed(
      'headers: { x-user-id: "{claims.sub}" }',
      'headers: { Origin: "http://x", x-origin: y }',
    )
    const { code, out } = await run(checkCommand, ['--config', file('headers.yaml', text)])
    assert.equal(code, 0, out)
    assert.match(
      out,
      /routes\[0\]\.headers\.Origin: warning: takes the browser's own origin away on every route/i,
    )
    assert.equal(out.match(/warning/g)?.length, 1)
  })

  for (const [name, routes, warning] of WITH_ROUTES) {
    test(`${warning ? 'warns' : 'does not warn'} of routes that ${name}`, async () => {
      const text = BASE.replace(/^tests:/m, `${routes.map((route) => `  - ${route}\n`).join('')}tests:`)
      const { code, out } = await run(checkCommand, ['--config', file('routes.yaml', text)])
      assert.equal(code, 0, out)
      assert.equal(out.match(/warning/g)?.length ?? 0, warning ? 1 : 0, out)
      if (warning) assert.match(out, warning)
    })
  }

  test('of a bad file prints every problem and exits with 78', async () => {
    const path = file('bad.yaml', BASE.replace('basePath:', 'basePat:').replace('http://spa', 'spa'))
    const { code, out } = await run(checkCommand, ['--config', path])
    assert.equal(code, 78)
    assert.match(out, /bad\.yaml:6:1 {2}basePat: is not a known key/)
    assert.match(out, /bad\.yaml:46:15 {2}routes\[2\]\.upstream: must be an http/)
    assert.match(out, /bad\.yaml: 2 problems\n$/)
  })

  test('of a missing file exits with 78', async () => {
    const { code, out } = await run(checkCommand, ['--config', join(folder, 'none.yaml')])
    assert.equal(code, 78)
    assert.match(out, /none\.yaml:1:1 {2}cannot read this config file \(there is no such file\)/)
  })

  test("runs the file's own tests and points at the expectation that is not met", async () => {
    const tests = `  - request: GET /api/orders/42?x=1
    expect: { route: billing, upstream: "http://orders:8080/api/orders/42?x=1", resource: null }
  - request: DELETE /api/orders/42
    expect: { route: orders }
  - request: GET /x
    expect: { code: method_not_allowed }
  - request: GET /bff/user
    expect: { route: spa }
  - request: GET /api/billing
    expect: { upstream: "https://billing:443/api/billing", resource: billing }
  - request: DELETE /api/orders/42
    expect: { code: method_not_allowed }
  - request: GET /a/../b
    expect: { code: path_rejected }
`
    const path = file(
      'tests.yaml',
      BASE.replace(/tests:\n[\s\S]*$/, () => `tests:\n${tests}`),
    )
    const { code, out } = await run(checkCommand, ['--config', path])
    assert.equal(code, 78)
    const found = out.split('\n').map((line) => line.replace(path, ''))
    assert.deepEqual(found.slice(-4, -2), [
      '55 |   - request: GET /bff/user',
      '   |              ^^^^^^^^^^^^^',
    ])
    const located = found.filter((line) => /^:\d/.test(line))
    assert.equal(located.length * 4, found.slice(0, -2).length)
    assert.deepEqual(located, [
      ':50:22  tests[0].expect.route: GET /api/orders/42?x=1 goes to route "orders"',
      ':50:41  tests[0].expect.upstream: GET /api/orders/42?x=1 becomes http://orders:8080/v1/42?x=1',
      ':50:81  tests[0].expect.resource: GET /api/orders/42?x=1 is sent with a token for "orders"',
      ':52:22  tests[1].expect.route: DELETE /api/orders/42 is refused with method_not_allowed',
      ':54:21  tests[2].expect.code: GET /x is not refused: it goes to route "spa" as http://spa/x',
      ':55:14  tests[3].request: /bff/user is below basePath /bff: Cloakroom answers it itself',
    ])
  })

  const ABSENT = { CLIENT_SECRET: '', SESSION_KEY: '' }

  test('reads standard input for -, with or without --config', async () => {
    for (const args of [['-'], ['--config', '-']]) {
      const { code, out } = await run(checkCommand, args, {}, BASE)
      assert.deepEqual([code, out], [0, '<stdin>: ok (3 routes, 2 resources, 1 test)\n'])
    }
    const { code, out } = await run(checkCommand, ['-'], {}, changed('basePath:', 'basePat:'))
    assert.equal(code, 78)
    assert.match(
      out,
      /^<stdin>:6:1 {2}basePat: .*\n {2}\|\n6 \| basePat: \/bff\n {2}\| \^{7}\n<stdin>: 1 problem\n$/,
    )
  })

  test('needs no secret with --no-secrets, and checks those that are there', async () => {
    assert.equal((await run(checkCommand, ['-'], ABSENT, BASE)).code, 78)
    const { code, out } = await run(checkCommand, ['-', '--no-secrets'], ABSENT, BASE)
    assert.deepEqual([code, out.split('; ')[1]], [0, 'secrets need not be there)\n'])
    const bad = await run(checkCommand, ['-', '--no-secrets'], { ...ABSENT, SESSION_KEY: 'short' }, BASE)
    assert.match(bad.out, /session\.keys\[0\]: must hold 256 bits/)
    const inline = changed('{ env: SESSION_KEY }', 'short')
    assert.match((await run(checkCommand, ['-', '--no-secrets'], ABSENT, inline)).out, /must hold 256 bits/)
  })

  const AUTHS = [
    'private_key_jwt\n    key: { file: /nowhere/key }',
    'certificate\n    key: { file: /nowhere/key }\n    certificate: { file: /nowhere/crt }',
    'client_secret_jwt\n    secret: { env: NOWHERE }',
    'workload_identity',
    'tls_client_auth\n  tls: { cert: { file: /nowhere/crt }, key: { file: /nowhere/key } }',
  ]
  for (const method of AUTHS) {
    test(`--no-secrets goes for ${method.split('\n')[0]}, two session keys and a CA of an upstream`, async () => {
      const text = BASE.replace('client_secret_post\n    secret: { env: CLIENT_SECRET }', () => method)
        .replace('- { env: SESSION_KEY }', '- { env: SESSION_KEY }\n    - { file: /nowhere/session-key }')
        .replace('https://billing\n', 'https://billing\n    tls: { ca: { file: /nowhere/ca.crt } }\n')
      assert.equal((await run(checkCommand, ['-'], ABSENT, text)).code, 78)
      const { code, out } = await run(checkCommand, ['-', '--no-secrets'], ABSENT, text)
      assert.equal(code, 0, out)
      assert.equal(out.split('\n').length, 2, out)
    })
  }

  test('reports to programs with --json', async () => {
    const wrong = BASE.replace('basePath:', 'basePat:').replace('http://spa', 'spa')
    const { code, out } = await run(checkCommand, ['--json', '-'], {}, wrong)
    assert.equal(code, 78)
    const report = JSON.parse(out) as { ok: boolean; problems: object[] }
    assert.equal(report.ok, false)
    assert.deepEqual(report.problems, [
      {
        ...{ severity: 'error', file: '<stdin>', line: 6, col: 1, path: 'basePat' },
        message: 'is not a known key (did you mean "basePath"?)',
        example: 'basePath',
      },
      {
        ...{ severity: 'error', file: '<stdin>', line: 46, col: 15, path: 'routes[2].upstream' },
        message: 'must be an http(s) URL without a path (got "spa"), e.g. http://orders:8080',
        example: 'http://orders:8080',
      },
    ])
    const warned = await run(
      checkCommand,
      ['--json', '-'],
      {},
      changed('{ env: CLIENT_SECRET }', 'hush-hush'),
    )
    assert.equal(warned.code, 0)
    assert.match(warned.out, /"ok": true,[\s\S]*"severity": "warning"/)
    assert.doesNotMatch(warned.out, /hush-hush/)
  })

  test('takes no other argument than -', async () => {
    for (const args of [['x.yaml'], ['-', '-'], ['-', '--config', 'x']]) {
      const { code, err } = await run(checkCommand, args)
      assert.equal(code, 1)
      assert.match(err, /^cloakroom check: unexpected argument/)
    }
  })

  test('with an unknown option says how it is used and exits with 1', async () => {
    const { code, out, err } = await run(checkCommand, ['--confg', 'x'])
    assert.deepEqual([code, out], [1, ''])
    assert.match(
      err,
      /^cloakroom check: Unknown option '--confg'\n\nusage: cloakroom check \[--config FILE\]/,
    )
  })
})

describe('cloakroom keygen', () => {
  test('prints a new 256-bit key each time, which a config accepts', async () => {
    const { code, out } = await run(keygenCommand, [])
    assert.equal(code, 0)
    assert.match(out, /^[\w-]{43}\n$/)
    assert.equal(Buffer.from(out, 'base64url').length, 32)
    assert.notEqual(out, (await run(keygenCommand, [])).out)
  })

  test('takes no arguments', async () => {
    assert.equal((await run(keygenCommand, ['--bits', '128'])).code, 1)
    assert.equal((await run(keygenCommand, ['128'])).code, 1)
  })
})

describe('cloakroom schema', () => {
  test('prints what is committed as config/cloakroom.schema.json; npm run schema writes it', async () => {
    const committed = readFileSync(new URL('../../../config/cloakroom.schema.json', import.meta.url), 'utf8')
    const { code, out } = await run(schemaCommand, [])
    assert.equal(code, 0)
    assert.equal(out, committed)
  })

  test('describes the file as operators write it, and every key of it', async () => {
    const schema = JSON.parse((await run(schemaCommand, [])).out)
    assert.equal(schema.properties.listen.default, '0.0.0.0:8080')
    assert.deepEqual(schema.required, ['publicUrl', 'provider', 'session', 'routes'])
    assert.equal(schema.additionalProperties, false)
    for (const [name, property] of Object.entries<{ description?: string }>(schema.properties)) {
      assert.ok(property.description, name)
    }
  })
})

describe('LOG_LEVEL', () => {
  test('that is none is told with its cure before anything begins', async () => {
    for (const [level, hint] of [
      ['verbose', ''],
      ['toString', ''],
      ['warning', ' (did you mean "warn"?)'],
      ['inof', ' (did you mean "info"?)'],
    ]) {
      const { code, err } = await run(serveCommand, ['--config', 'none.yaml'], { LOG_LEVEL: level! })
      assert.equal(code, 78)
      assert.equal(
        err,
        `environment variable LOG_LEVEL must be info, warn or error (got "${level}")${hint}\n`,
      )
    }
  })

  test('may be empty, in capitals, and with a line break at its end', async () => {
    for (const level of ['', ' ', 'WARN', 'error\n']) {
      const { err } = await run(serveCommand, ['--config', 'none.yaml'], { LOG_LEVEL: level })
      assert.match(err, /^none\.yaml:1:1 {2}cannot read this config file/)
    }
  })
})
