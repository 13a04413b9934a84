import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { type AddressInfo, createServer as createTcpServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, type TestContext, test } from 'node:test'
import { doctorCommand } from '../../src/cli/doctor/doctor.ts'
import { type DemoBackends, startDemoBackends } from '../../src/demo/demo-backends.ts'
import { demoConfigText } from '../../src/demo/demo-config.ts'
import { commandsInUse } from '../../src/store/redis/diagnosis.ts'
import { startCloakroom } from '../kit/cloakroom.ts'
import { sendJson, startLocalServer } from '../kit/local-server.ts'
import { freePort } from '../kit/ports.ts'
import { assertNoSecrets } from '../kit/secrets.ts'
import { type SelfSignedOptions, selfSigned } from '../kit/self-signed.ts'
import { accessRule } from '../kit/store/access-rule.ts'
import { skipWithoutRedis, startRedis, type TestRedis } from '../kit/store/redis.ts'

type Told = { group: string; check: string; level: string; message: string; cure: string | null }

const KEY = 'RGWMpSOBwIWPF4pr1E5uyhSw8PnUhZPkpJ5jNlM4v3w'

let folder: string
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'cloakroom-doctor-'))
})
after(() => rmSync(folder, { recursive: true }))

let files = 0
function file(text: string): string {
  files += 1
  const path = join(folder, `file-${files}`)
  writeFileSync(path, text)
  return path
}

type Examined = {
  config: string
  secret?: string
  args?: string[]
  wholeMs?: number
  env?: Record<string, string>
}

async function examine({
  config,
  secret = 'nobody-knows-it',
  args = ['--json'],
  wholeMs,
  env = {},
}: Examined) {
  let out = ''
  let err = ''
  const io = {
    stdout: { write: (text: string) => (out += text) },
    stderr: { write: (text: string) => (err += text) },
    env: { CLOAKROOM_DEMO_CLIENT_SECRET: secret, CLOAKROOM_DEMO_SESSION_KEY: KEY, ...env },
  }
  const options = wholeMs === undefined ? {} : { wholeMs }
  const code = await doctorCommand(['--config', file(config), ...args], io, options)
  const findings: Told[] = args.includes('--json') && out !== '' ? JSON.parse(out).findings : []
  assertNoSecrets({ out, err }, [secret, KEY])
  return {
    ...{ code, out, err, findings },
    /** The lines of one check, as text. */
    of(group: string, check: string): string {
      const own = findings.filter((one) => one.group === group && one.check === check)
      return own.map(({ level, message, cure }) => `${level}: ${message} → ${cure}`).join('\n')
    },
    failed: () => findings.filter(({ level }) => level === 'fail').map(({ check }) => check),
  }
}

/** A config in which everything but the provider is away. */
function configFor(issuer: string, more = ''): string {
  return `
publicUrl: http://localhost:1
provider:
  issuer: ${issuer}
  clientId: shop
  clientAuth: { method: client_secret_post, secret: { env: CLOAKROOM_DEMO_CLIENT_SECRET } }
  timeout: 1s
${more}
session: { store: { type: memory }, keys: [ { env: CLOAKROOM_DEMO_SESSION_KEY } ] }
resources: { orders: { scopes: [orders.read] } }
routes: [ { path: /, upstream: "http://127.0.0.1:1", resource: orders, timeout: { connect: 1s } } ]
admin: { listen: "127.0.0.1:0" }
`
}

async function tlsServer(t: TestContext, options: SelfSignedOptions, names = ['localhost']) {
  const identity = selfSigned(names, options)
  const server = createTlsServer(
    identity,
    (_req: IncomingMessage, res: ServerResponse) => void res.writeHead(404).end(),
  )
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => server.close())
  return { port: (server.address() as AddressInfo).port, ca: identity.cert, key: identity.key }
}

/** Accepts connections and says nothing. */
async function blackHole(t: TestContext): Promise<number> {
  const open = new Set<Socket>()
  const server = createTcpServer((socket) => void open.add(socket.on('error', () => undefined)))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    for (const socket of open) socket.destroy()
    server.close()
  })
  return (server.address() as AddressInfo).port
}

describe('cloakroom doctor at an oidc-provider', () => {
  let backends: DemoBackends
  let config: string
  let refreshToken: string
  let close: () => Promise<void>
  const issued: string[] = []

  before(async () => {
    const publicUrl = `http://localhost:${await freePort()}`
    backends = await startDemoBackends({
      ...{ publicUrl, accessTokenTtlSeconds: 300 },
      onTokenRequest: ({ answer }) => {
        for (const name of ['refresh_token', 'access_token', 'id_token'])
          if (typeof answer[name] === 'string') issued.push(answer[name])
        if (typeof answer.refresh_token === 'string') refreshToken = answer.refresh_token
      },
    })
    const listen = new URL(publicUrl).host.replace('localhost', '127.0.0.1')
    config = demoConfigText({ publicUrl, listen, adminListen: '127.0.0.1:0', backends })
    const env = { CLOAKROOM_DEMO_CLIENT_SECRET: backends.clientSecret, CLOAKROOM_DEMO_SESSION_KEY: KEY }
    const cloakroom = await startCloakroom(config, { env })
    const landing = await cloakroom.browser().signIn({ user: 'ada', password: 'any' })
    assert.equal(landing.status, 200)
    close = async () => {
      await cloakroom.close()
      await backends.close()
    }
  })
  after(() => close())

  const here = (more: Partial<Examined> = {}) => examine({ config, secret: backends.clientSecret, ...more })

  test('finds nothing wrong where nothing is, and says so in a line for each check', async () => {
    const { code, findings, of } = await here()
    assert.deepEqual([code, findings.filter(({ level }) => level === 'fail')], [0, []])
    assert.match(of('provider', 'client authentication'), /^ok: client_secret_basic: .*invalid_grant/)
    assert.match(
      of('provider', 'authorization'),
      /^ok: the request was pushed .*\nok: the redirect URI .* is registered/,
    )
    assert.match(of('provider', 'sign-out'), /^ok: .*\/bff\/logged-out is not refused/)
    assert.match(of('provider', 'clock'), /^ok: .* the same/)
    assert.match(of('resources', 'refresh'), /not tried for orders, billing: .*--refresh-token-file/)
    assert.match(of('session store', 'memory'), /^warn/)
    const upstreams = findings.filter(({ group }) => group === 'upstreams')
    assert.ok(
      upstreams.length >= 3 && upstreams.every(({ message }) => message.includes('accepts connections')),
    )
    assert.match(of('running', 'publicUrl'), /^ok: .* is answered by Cloakroom/)
  })

  test('in words has ok, warn or FAIL before each line, and the cure below', async () => {
    const { code, out } = await here({ secret: 'a-wrong-client-secret', args: [] })
    assert.equal(code, 1)
    assert.match(out, /^ {2}ok {3}discovery +\S.*$/m)
    assert.match(
      out,
      /^ {2}FAIL client authentication +client_secret_basic: .*invalid_client\)\n +→ put the secret/m,
    )
    assert.match(out, /\n\d+ FAIL, \d+ warn, \d+ ok\n$/)
  })

  test('names the redirect URI, and the one of sign-out, that are not registered', async () => {
    const other = config.replace(/^publicUrl: .*/m, 'publicUrl: http://localhost:9')
    const { code, of } = await here({ config: other })
    assert.equal(code, 1)
    const uri = 'http://localhost:9/bff/callback'
    assert.match(
      of('provider', 'authorization'),
      new RegExp(`fail: .*${uri} is not registered .*as it is written here: ${uri}`),
    )
    assert.match(of('provider', 'sign-out'), /fail: .*localhost:9\/bff\/logged-out is not registered/)
    // Where the request is not pushed the page of the provider tells.
    const { of: unpushed } = await here({
      config: other.replace('scopes: [openid', 'par: off\n  scopes: [openid'),
    })
    assert.match(
      unpushed('provider', 'authorization'),
      /fail: .*localhost:9\/bff\/callback is not registered \(status 400\)/,
    )
  })

  test('names a resource that the provider does not know', async () => {
    const other = config.replaceAll('https://billing.example.com', 'https://unknown.example.com')
    const { failed, of } = await here({ config: other })
    assert.deepEqual(failed(), ['authorization'])
    assert.match(of('provider', 'authorization'), /fail: .*invalid_target → correct resources\.\*\.resource/)
  })

  test('with a refresh token says first that it is used up, renews each resource, and revokes what is left', async () => {
    const path = file(`${refreshToken}\n`)
    const given = refreshToken
    const args = ['--json', '--refresh-token-file', path]
    const first = await here({ args })
    assert.match(first.err, /the refresh token is used up now.*revoked at the end/)
    assert.deepEqual([first.code, first.failed()], [0, []])
    assert.match(first.of('resources', 'orders'), /^ok: dialect resource-indicator: a token for 300 s/)
    assert.match(first.of('resources', 'billing'), /^ok/)
    assert.match(first.of('resources', 'rotation'), /gave a new refresh token 2 times/)
    assert.match(first.of('resources', 'revocation'), /^ok/)
    assert.equal(readFileSync(path, 'utf8'), `${given}\n`)
    // The newest one is the last that the provider gave; the doctor has revoked it.
    const again = await here({ args: ['--json', '--refresh-token-file', file(refreshToken)] })
    assert.match(again.of('resources', 'orders'), /^fail: the refresh token is not good \(invalid_grant\)/)
    assertNoSecrets({ out: first.out + again.out, err: first.err + again.err }, [...issued, given])
  })

  test('refuses a refresh token file that is none, and tells nothing of what is in it', async () => {
    const { code, err, out } = await here({ args: ['--refresh-token-file', file('two-words-of a\nsecret')] })
    assert.deepEqual([code, out], [1, ''])
    assert.match(err, /must hold one refresh token and nothing else/)
    assert.doesNotMatch(err, /two-words/)
    const missing = await here({ args: ['--refresh-token-file', join(folder, 'missing')] })
    assert.match(missing.err, /cannot be read \(ENOENT\)/)
  })

  test('of a bad config prints the report of check, and exits with 78', async () => {
    const { code, err, out } = await here({ config: config.replace('clientId:', 'clientID:') })
    assert.deepEqual([code, out], [78, ''])
    assert.match(err, /provider\.clientID.*did you mean "clientId"/)
  })
})

describe('what the doctor says of a provider that cannot be discovered', { concurrency: true }, () => {
  async function discoveryOf(issuer: string, more = ''): Promise<string> {
    const { code, of } = await examine({ config: configFor(issuer, more) })
    assert.equal(code, 1)
    return of('provider', 'discovery')
  }
  async function answering(
    t: TestContext,
    answer: (res: ServerResponse, issuer: string) => void,
  ): Promise<string> {
    const server = await startLocalServer((_request, res) => answer(res, server.origin))
    t.after(() => server.close())
    return server.origin
  }

  test('names both issuers when they differ', async (t) => {
    const issuer = await answering(t, (res, own) => sendJson(res, 200, { issuer: `${own}/realms/other` }))
    const told = await discoveryOf(issuer)
    assert.ok(
      told.includes(`is of the issuer "${issuer}/realms/other", and provider.issuer is "${issuer}"`),
      told,
    )
  })

  const ANSWERS: [name: string, answer: (res: ServerResponse) => void, told: RegExp][] = [
    ['an error', (res) => void res.writeHead(404).end(), /openid-configuration was answered with status 404/],
    [
      'a page',
      (res) => void res.setHeader('content-type', 'text/html').end('<p>'),
      /answered with text\/html in place of JSON/,
    ],
    ['half of JSON', (res) => void res.setHeader('content-type', 'application/json').end('{'), /no JSON/],
  ]
  for (const [name, answer, told] of ANSWERS) {
    test(`says that it answered with ${name}`, async (t) => {
      assert.match(await discoveryOf(await answering(t, answer)), told)
    })
  }

  test('says that nothing listens, that a name is not known, and that no answer comes', async (t) => {
    assert.match(
      await discoveryOf(`http://127.0.0.1:${await freePort()}`),
      /ECONNREFUSED 127\.0\.0\.1:\d+ → nothing listens there/,
    )
    assert.match(await discoveryOf('https://doctor.invalid'), /(ENOTFOUND|EAI_AGAIN) doctor\.invalid → .*DNS/)
    assert.match(
      await discoveryOf(`http://127.0.0.1:${await blackHole(t)}`),
      /not answered in time \(provider\.timeout\) → no answer: look at firewalls/,
    )
  })

  test('says what is wrong with its certificate', async (t) => {
    const { port, ca } = await tlsServer(t, { days: -1 })
    const self = await tlsServer(t, { days: 90 })
    assert.match(await discoveryOf(`https://localhost:${self.port}`), /self-signed certificate → .*tls\.ca/)
    const trusted = (pem: string) => `  tls: { ca: ${JSON.stringify(pem)} }`
    assert.match(
      await discoveryOf(`https://localhost:${port}`, trusted(ca)),
      /certificate has expired → renew/,
    )
    const named = await tlsServer(t, { days: 90 }, ['elsewhere.example'])
    assert.match(
      await discoveryOf(`https://localhost:${named.port}`, trusted(named.ca)),
      /Host: localhost.*altnames/,
    )
  })
})

describe('what the doctor says of clocks, certificates and upstreams', { concurrency: true }, () => {
  test('a clock that is off by more than is tolerated', async (t) => {
    const date = () => new Date(Date.now() - 605_000).toUTCString()
    const server = await startLocalServer(
      (_request, res) => void res.setHeader('date', date()).writeHead(404).end(),
    )
    t.after(() => server.close())
    const { of } = await examine({ config: configFor(server.origin) })
    assert.match(
      of('provider', 'clock'),
      /^fail: this machine's clock is 60\d s ahead of the provider's, more than provider\.clockTolerance \(60 s\)/,
    )
  })

  test('an upstream whose certificate has ended, ends soon, or is not trusted, and one that is away', async (t) => {
    const [ended, soon, fine] = await Promise.all([-1, 5, 90].map((days) => tlsServer(t, { days })))
    const route = (path: string, { port, ca }: { port: number; ca: string }) =>
      `  - { path: ${path}, upstream: "https://localhost:${port}", auth: anonymous, tls: { ca: ${JSON.stringify(ca)} } }`
    const routes = [
      ...[route('/ended', ended!), route('/soon', soon!), route('/fine', fine!)],
      `  - { path: /untrusted, upstream: "https://localhost:${fine!.port}", auth: anonymous }`,
      '  - { path: /away, upstream: "http://127.0.0.1:1", auth: anonymous }',
      '  - { path: /unknown, upstream: "http://doctor.invalid", auth: anonymous }',
      `  - { path: /plain, upstream: "https://127.0.0.1:${new URL((await startPlain(t)).origin).port}", auth: anonymous }`,
    ]
    const config = configFor('http://127.0.0.1:1').replace(/^routes:.*/m, `routes:\n${routes.join('\n')}`)
    const { of } = await examine({ config: config.replace(/^resources:.*/m, '') })
    assert.match(of('upstreams', '/ended'), /^fail: .*certificate has expired → renew/)
    assert.match(
      of('upstreams', '/soon'),
      /ok: .* accepts .*\nwarn: the certificate of https:\/\/localhost:\d+ ends in [45] days/,
    )
    assert.match(of('upstreams', '/fine'), /\nok: .* is good for (89|90) days/)
    assert.match(of('upstreams', '/untrusted'), /^fail: .*self-signed.* → .*routes\[\]\.tls\.ca/)
    assert.match(of('upstreams', '/away'), /^fail: .*ECONNREFUSED.* → nothing listens/)
    assert.match(of('upstreams', '/unknown'), /^fail: .*(ENOTFOUND|EAI_AGAIN)/)
    assert.match(of('upstreams', '/plain'), /^fail: .*→ (no TLS is spoken there|TLS failed)/)
    assert.match(of('settings', 'certificates'), /fail: the certificate of routes\[\d\]\.tls\.ca has ended/)
  })

  async function startPlain(t: TestContext) {
    const server = await startLocalServer((_request, res) => void res.end())
    t.after(() => server.close())
    return server
  }

  type Answer = { status?: number; body: object; own?: { status?: number; body: object } }
  const TOKEN_ANSWERS: [name: string, answer: Answer, told: RegExp][] = [
    [
      'invalid_client',
      { status: 401, body: { error: 'invalid_client' } },
      /^fail: .*does not accept the client "shop"/,
    ],
    // Keycloak, of a wrong secret.
    [
      '401 and another word',
      { status: 401, body: { error: 'unauthorized_client' } },
      /^fail: .*does not accept/,
    ],
    [
      'unauthorized_client',
      { body: { error: 'unauthorized_client' } },
      /^fail: .*may not use refresh tokens/,
    ],
    ['invalid_scope', { body: { error: 'invalid_scope' } }, /^warn: .*could not be told \(invalid_scope\)/],
    ['an error of its own', { status: 500, body: {} }, /^fail: the token endpoint answered with status 500/],
    [
      'a malformed request, as Entra ID, and then a wrong secret',
      {
        body: { error: 'invalid_request', error_codes: [9002313] },
        own: { status: 401, body: { error: 'invalid_client', error_codes: [7000215] } },
      },
      /^fail: .*does not accept the client "shop" \(invalid_client \(7000215\)\)/,
    ],
    [
      'a malformed request, as Entra ID, and then a token',
      {
        body: { error: 'invalid_grant', error_codes: [9002313] },
        own: { status: 200, body: { access_token: 'the-own-token-of-the-client', token_type: 'Bearer' } },
      },
      /^ok: .*it got a token for itself, which is dropped/,
    ],
  ]
  for (const [name, answer, told] of TOKEN_ANSWERS) {
    test(`a client at a token endpoint that says ${name}`, async (t) => {
      const server = await startLocalServer((request, res) => {
        const at = server.origin
        if (request.method === 'GET') {
          const endpoints = {
            authorization_endpoint: `${at}/a`,
            token_endpoint: `${at}/t`,
            jwks_uri: `${at}/k`,
          }
          return sendJson(res, 200, { issuer: at, ...endpoints })
        }
        const isOwn = request.body.includes('client_credentials')
        const { status = 400, body } = (isOwn && answer.own) || answer
        return sendJson(res, status, body)
      })
      t.after(() => server.close())
      const { of, out } = await examine({ config: configFor(server.origin) })
      assert.match(of('provider', 'client authentication'), told)
      assertNoSecrets({ out }, ['the-own-token-of-the-client'])
    })
  }

  test('where everything hangs it comes to an end all the same', async (t) => {
    const port = await blackHole(t)
    const config = configFor(`https://127.0.0.1:${port}`)
      .replace('timeout: 1s', 'timeout: 60s')
      .replace('http://127.0.0.1:1"', `https://127.0.0.1:${port}"`)
      .replace('connect: 1s', 'connect: 60s')
      .replace('store: { type: memory }', `store: { type: redis, url: "rediss://127.0.0.1:${port}" }`)
    const { code, findings } = await examine({ config, wholeMs: 300 })
    const late = findings.filter(({ message }) => message.startsWith('not finished'))
    assert.equal(code, 1)
    assert.ok(late.some(({ group }) => group === 'provider'))
    assert.ok(late.some(({ group }) => group === 'upstreams'))
  })
})

describe('what the doctor says of Redis', { skip: skipWithoutRedis() }, () => {
  const PASSWORD = 'the-password-of-redis'
  let redis: TestRedis
  before(async () => {
    redis = await startRedis({ password: PASSWORD, args: ['--maxmemory', '100mb'] })
  })
  after(() => redis.stop())

  async function redisOf(store: string): Promise<(check: string) => string> {
    const config = configFor('http://127.0.0.1:1').replace(
      'store: { type: memory }',
      `store: { type: redis, ${store}, password: { env: REDIS_PASSWORD } }`,
    )
    const { of, out } = await examine({ config, env: { REDIS_PASSWORD: PASSWORD } })
    assertNoSecrets({ out }, [PASSWORD])
    return (check) => of('session store', check)
  }
  const url = () => `url: "${redis.url}"`

  test('what it is, how it evicts and what it keeps; and nothing of the check is left in it', async () => {
    const of = await redisOf(url())
    assert.match(of('connection'), /^ok: redis \d+\.\d+\.\d+, master at 127\.0\.0\.1:\d+/)
    assert.match(of('access'), /^ok: every command/)
    assert.match(of('latency'), /^(ok|warn): [\d.]+ ms for a round trip/)
    assert.match(of('eviction'), /^ok: noeviction; \d+ % of maxmemory/)
    assert.match(of('persistence'), /^warn: no persistence/)
    await redis.cli('CONFIG', 'SET', 'maxmemory-policy', 'allkeys-lru')
    await redis.cli('CONFIG', 'SET', 'appendonly', 'yes')
    const changed = await redisOf(url())
    assert.match(changed('eviction'), /^fail: allkeys-lru: .* → set maxmemory-policy to noeviction/)
    assert.match(changed('persistence'), /^ok: append-only file/)
    await redis.cli('CONFIG', 'SET', 'maxmemory-policy', 'volatile-ttl')
    assert.match((await redisOf(url()))('eviction'), /^warn: volatile-ttl/)
    await redis.cli('CONFIG', 'SET', 'maxmemory-policy', 'noeviction')
    await redis.cli('CONFIG', 'SET', 'appendonly', 'no')
    const left = await redis.cli('KEYS', '*doctor*')
    assert.deepEqual(
      left.filter((line) => line.includes('doctor')),
      [],
    )
  })

  test('every command that a user lacks, all at once, with the line that allows them', async () => {
    await redis.cli(
      'ACL',
      'SETUSER',
      'app',
      'on',
      `>${PASSWORD}`,
      '~*',
      '&*',
      '+@all',
      '-hset',
      '-zadd',
      '-info',
      '-config',
    )
    const of = await redisOf(`${url()}, username: app`)
    assert.match(of('access'), /^fail: not allowed: hset, zadd \(NOPERM.* → ACL SETUSER app \+hset \+zadd$/)
    assert.match(of('connection'), /^warn: .*INFO is not allowed/)
    await redis.cli('ACL', 'SETUSER', 'app', '+@all', 'resetkeys', '~other:*')
    const keys = await redisOf(`${url()}, username: app`)
    assert.match(
      keys('access'),
      /^fail: the user app may not use keys that begin with cloakroom: .* → ACL SETUSER app ~cloakroom:\*$/,
    )
    await redis.cli('ACL', 'SETUSER', 'app', '~*', 'resetchannels')
    const channels = await redisOf(`${url()}, username: app`)
    assert.match(
      channels('access'),
      /^fail: the user app may not publish .* → ACL SETUSER app &cloakroom:invalidate$/,
    )
    await redis.cli('ACL', 'DELUSER', 'app')
  })

  test('nothing of a user with the access rule of the documents, and every command of the store is tried', async () => {
    await redis.cli(...accessRule(PASSWORD))
    const of = await redisOf(`${url()}, username: cloakroom`)
    assert.match(of('access'), /^ok: every command/)
    const folder = new URL('../../src/store/redis/', import.meta.url)
    const files = readdirSync(folder).filter((name) => name.endsWith('.ts'))
    const sources = files.map((name) => readFileSync(new URL(name, folder), 'utf8'))
    const sent = sources.flatMap((text) => [...text.matchAll(/redis\.call\('\w+', '([A-Z]+)'/g)])
    const tried = [...commandsInUse(), 'PING', 'INFO', 'CONFIG']
    assert.deepEqual(
      sent.map(([, command]) => command!).filter((command) => !tried.includes(command)),
      [],
    )
  })

  test('a wrong password, a replica, and one that is not there', async () => {
    const wrong = await redisOf(`${url()}, username: nobody`)
    assert.match(wrong('connection'), /^fail: .*WRONGPASS/)
    const away = await redisOf('url: "redis://127.0.0.1:1"')
    assert.match(away('connection'), /^fail: .*ECONNREFUSED.* → nothing listens/)
    await redis.cli('REPLICAOF', '127.0.0.1', '1')
    const replica = await redisOf(url())
    assert.match(replica('connection'), /^fail: .*slave.* is no primary/)
    await redis.cli('REPLICAOF', 'NO', 'ONE')
  })

  test('over TLS, the end of its certificate; and that it is not spoken there', async () => {
    const { cert, key } = selfSigned(['localhost'], { days: 5 })
    const port = await freePort()
    for (const [name, value] of [
      ['tls-cert-file', file(cert)],
      ['tls-key-file', file(key)],
      ['tls-ca-cert-file', file(cert)],
      ['tls-auth-clients', 'no'],
      ['tls-port', String(port)],
    ] as const)
      await redis.cli('CONFIG', 'SET', name, value)
    const of = await redisOf(`url: "rediss://localhost:${port}", tls: { ca: ${JSON.stringify(cert)} }`)
    assert.match(of('transport'), /^warn: the certificate of Redis at localhost ends in [45] days/)
    assert.match(of('connection'), /^ok: redis/)
    const untrusted = await redisOf(`url: "rediss://localhost:${port}"`)
    assert.match(untrusted('transport'), /^fail: TLS: self-signed.* → .*session\.store\.tls\.ca/)
  })
})
