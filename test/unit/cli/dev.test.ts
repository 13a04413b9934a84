import assert from 'node:assert/strict'
import { EventEmitter, once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { devCommand } from '../../../src/cli/dev/dev.ts'
import { createDevProject, type DevProject, signInAs, startDev } from '../../kit/dev-server.ts'

async function run(...args: string[]) {
  const written = { out: '', err: '' }
  const code = await devCommand(args, {
    stdout: { write: (text) => (written.out += text) },
    stderr: { write: (text) => (written.err += text) },
    env: {},
  })
  return { code, ...written }
}

describe('cloakroom dev', () => {
  let project: DevProject
  before(async () => {
    project = await createDevProject()
  })
  after(() => project?.close())
  const fileOf = (name: string, text: string) => {
    const file = join(project.folder, name)
    writeFileSync(file, text)
    return file
  }

  for (const [args, told] of [
    [
      ['--app', 'localhost'],
      /--app must be an http or https URL without a path, e\.g\. http:\/\/localhost:5173 \(got "localhost"\)/,
    ],
    [['--app', 'http://localhost:1/x'], /without a path/],
    [['--api', '/api'], /--api must be PATH=URL, e\.g\. --api \/api\/orders=/],
    [['--api', '/api/=http://localhost:1'], /must begin with \/ and not end with it/],
    [
      ['--api', '/api=http://localhost:1,audience=x'],
      /--api \/api: "audience" is not known; use aud, scopes/,
    ],
    [['--api', '/api=http://localhost:1,aud='], /--api \/api: aud needs a value/],
    [['--api', '/a=http://localhost:1', '--api', '/a=http://localhost:2'], /--api \/a is given twice/],
    [['--as', 'okta'], /--as must be one of plain, entra, keycloak, auth0, strict \(got "okta"\)/],
    [['--port', '0'], /--port must be a port from 1 to 65535/],
    [['--port', '8080', '--panel-port', '8080'], /must differ/],
    [['--token-seconds', '1h'], /--token-seconds must be a number/],
    [['--prot', '1'], /Unknown option '--prot'/],
  ] as const)
    test(`refuses ${args.join(' ')} with the cure`, async () => {
      const { code, err } = await run(...args)
      assert.equal(code, 1)
      assert.match(err, told)
      assert.match(err, /usage: cloakroom dev/)
    })

  test('prints its usage for --help', async () => {
    const { code, out } = await run('--help')
    assert.deepEqual([code, out.startsWith('usage: cloakroom dev')], [0, true])
  })

  for (const [text, told] of [
    ['sub: ada', /must be a list of persons/],
    ['- { sub: ada }', /\[0\] needs a sub and a name, both texts.*\(got \{"sub":"ada"\}\)/],
    ['- { sub: a, name: A }\n- { sub: a, name: B }', /\[1\]\.sub "a" is there twice/],
    ['- [', /persons\.yaml:\d+:\d+/],
  ] as const)
    test(`refuses persons ${JSON.stringify(text)} with the cure`, async () => {
      const { code, err } = await run('--persons', fileOf('persons.yaml', text))
      assert.notEqual(code, 0)
      assert.match(err, told)
    })

  test('prints the configuration and ends', async () => {
    const { code, out } = await run(
      '--print-config',
      '--api',
      '/api/orders=http://localhost:5001,aud=api://orders',
    )
    assert.equal(code, 0)
    assert.match(out, /publicUrl: http:\/\/localhost:8080/)
    assert.match(out, /cookie: \{ name: cloakroom-8080 \}/)
    assert.match(out, /upstream: "http:\/\/localhost:5001", resource: orders/)
  })

  const CONFIG = `publicUrl: https://app.example.com
trustProxy: [10.0.0.0/8]
provider:
  issuer: https://id.example.com/realms/shop
  clientId: shop
  clientAuth: { method: client_secret_basic, secret: { file: /nowhere/secret } }
  scopes: [openid, profile, email]
session:
  store: { type: redis, url: "rediss://redis:6379" }
  keys: [ { file: /nowhere/key } ]
resources:
  orders: { scopes: [orders], audience: orders-api }
routes:
  - { path: /api/orders, upstream: "http://orders.svc:8080", resource: orders, require: { claims: { roles: [admin] } } }
  - { path: /, upstream: "http://spa.svc:80", auth: anonymous }
`

  test('runs an own configuration with persons of choice, its secrets not being there', async (t) => {
    const persons = fileOf(
      'people.yaml',
      '- { sub: eva, name: Eva, roles: [admin] }\n- { sub: bob, name: Bob, roles: [] }\n',
    )
    const dev = await startDev(project, [
      ...['--config', fileOf('cloakroom.yaml', CONFIG), '--persons', persons, '--app', project.app.origin],
      ...['--api', `/api/orders=${project.api.origin}`],
    ])
    t.after(() => dev.server.close())
    const [eva, bob] = [dev.browser(), dev.browser()]
    await signInAs(dev, eva, 'eva')
    await signInAs(dev, bob, 'bob')
    const answer = await eva.fetch('/api/orders')
    assert.deepEqual([answer.status, answer.json().aud], [200, ['orders-api', 'account']])
    assert.equal((await bob.fetch('/api/orders')).json().code, 'access_denied')
    await dev.switches.setRole('eva', 'admin', false)
    await eva.fetch('/api/orders')
    assert.equal((await eva.fetch('/api/orders')).json().code, 'access_denied')
  })

  test('tells a bad own configuration as check does, and a path that it does not have', async () => {
    const bad = await run('--config', fileOf('bad.yaml', CONFIG.replace('clientId', 'clientID')))
    assert.equal(bad.code, 78)
    assert.match(bad.err, /bad\.yaml:\d+:\d+ {2}provider\.clientID/)
    const args = ['--config', fileOf('good.yaml', CONFIG), '--api', '/api/none=http://localhost:1']
    const unknown = await run(...args)
    assert.match(
      unknown.err,
      /--api \/api\/none: .* has no route with path \/api\/none; its paths are \/api\/orders, \//,
    )
  })

  test('starts again by itself when its files change, keeps on when they are bad, and names what no switch reaches', async () => {
    const person = (sub: string) => `- { sub: ${sub}, name: ${sub} }\n`
    const config = fileOf('followed.yaml', CONFIG)
    const persons = fileOf('followed-people.yaml', person('eva'))
    const { promise: stopped, resolve: stop } = Promise.withResolvers<void>()
    const said = new EventEmitter()
    let text = ''
    const write = (more: string) => {
      text += more
      said.emit('more')
    }
    const io = { stdout: { write }, stderr: { write }, env: { XDG_STATE_HOME: project.folder } }
    const told = async (wanted: RegExp) => {
      while (!wanted.test(text)) await once(said, 'more', { signal: AbortSignal.timeout(20_000) })
      text = ''
    }
    const { origin } = project.app
    const args = ['--config', config, '--persons', persons, '--app', origin, '--fresh', ...project.ports]
    const ended = devCommand(args, io, stopped)
    await told(
      /\/api\/orders +http:\/\/orders\.svc:8080 .*\(\*\)\n +\/ +http:\/\/127[^*]+\n +\(\*\) not on this machine[\s\S]+as eva\./,
    )
    fileOf('followed-people.yaml', person('eva') + person('tim'))
    await told(/followed-people\.yaml has changed: starts again[\s\S]+Sign in as eva, tim\./)
    const panelUrl = `http://127.0.0.1:${project.ports[3]}`
    const state = async () =>
      (await (await fetch(`${panelUrl}/api/state`)).json()) as { persons: { sub: string }[] }
    assert.deepEqual(
      (await state()).persons.map(({ sub }) => sub),
      ['eva', 'tim'],
    )
    fileOf('followed.yaml', CONFIG.replace('clientId', 'clientID'))
    await told(/followed\.yaml:\d+:\d+ {2}provider\.clientID[\s\S]+is not taken; the one before runs on/)
    assert.equal((await state()).persons.length, 2)
    fileOf('followed.yaml', CONFIG.replace('/api/orders,', '/api/carts,'))
    await told(/starts again[\s\S]+\/api\/carts/)
    stop()
    assert.equal(await ended, 0)
    await assert.rejects(fetch(panelUrl))
  })

  test('says which port is taken, and how to choose another', async () => {
    const { port } = new URL(project.app.origin)
    const { code, err } = await run(
      '--panel-port',
      port,
      ...project.ports.filter((_, index) => index !== 2 && index !== 3),
    )
    assert.equal(code, 1)
    assert.match(err, new RegExp(`port ${port} is taken by another program\\. .*--panel-port`))
  })
})
