import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { createBrowser } from '../../kit/browsers/browser.ts'
import { freePort } from '../../kit/ports.ts'
import { eventually } from '../../kit/shops/deadline.ts'
import { skipWithout, startApache, startNginx } from '../../wire/foreign-servers.ts'
import { startServer } from '../process/child.ts'
import { pinFamily } from '../process/cores.ts'
import { PATHS } from './api.ts'
import type { World } from './cloakroom.ts'
import type { Contender, Fields, Scope } from './contender.ts'

/** What bare proxies and a pass-through send in place of a session's token, and the head fields of Cloakroom's requests. */
export type Signed = { readonly bearer: string; readonly fields: Fields }

/** A proxy of others. Those that know sessions sign in by a real code flow, and write their access log as they come. */
export type Peer = {
  readonly name: string
  /** Why it is not here and how to get it; undefined when it is. */
  missing(): string | undefined
  start(t: Scope, world: World, signed: Signed): Promise<Contender>
}

/** A peer that did not take part, and why. */
export type Absent = { readonly name: string; readonly reason: string }

/** Starts every peer that is on this machine. One that is not, or does not start or sign in, is absent with the reason. */
export async function startPeers(
  t: Scope,
  world: World,
  signed: Signed,
): Promise<{ peers: Contender[]; absent: Absent[] }> {
  const peers: Contender[] = []
  const absent: Absent[] = []
  for (const { name, missing, start } of PEERS) {
    let reason = missing()
    try {
      if (!reason) peers.push(await start(t, world, signed))
    } catch (error) {
      reason = error instanceof Error ? error.message : String(error)
    }
    if (reason) absent.push({ name, reason })
  }
  return { peers, absent }
}

const isOpen = true

const nginx: Peer = {
  name: 'nginx, pass-through',
  missing: () => skipWithout('nginx') || undefined,
  async start(t, { api, cores }, { bearer, fields }) {
    const server = await startNginx({
      http: `
        keepalive_requests 1000000000; client_body_buffer_size 64k;
        upstream api { server ${new URL(api).host}; keepalive 64; keepalive_requests 1000000000; }`,
      server: `location / {
        proxy_pass http://api; proxy_http_version 1.1; proxy_set_header Connection "";
        proxy_set_header Authorization "Bearer ${bearer}"; proxy_set_header Cookie "";
      }`,
    })
    t.after(() => server.stop())
    pinFamily(server.pid, cores.measured)
    return { name: `${server.version}, pass-through`, pid: server.pid, port: server.port, fields, isOpen }
  },
}

const MIDDLEWARE = 'http-proxy-middleware'

/** What Cloakroom opens WebSockets with. */
export const isMiddleware = ({ name }: Pick<Contender, 'name'>) => name.startsWith(MIDDLEWARE)

const middleware: Peer = {
  name: MIDDLEWARE,
  missing: () => undefined,
  async start(t, { api, chat, cores }, { bearer, fields }) {
    const server = await startServer('contenders/middleware-proxy.ts', {
      ...{ UPSTREAM: api, BEARER: bearer, CHAT: chat },
    })
    t.after(server.stop)
    pinFamily(server.pid, cores.measured)
    const manifest = new URL('../../../node_modules/http-proxy-middleware/package.json', import.meta.url)
    const { version } = JSON.parse(readFileSync(manifest, 'utf8')) as { version: string }
    return {
      name: `${MIDDLEWARE} ${version} alone`,
      pid: server.pid,
      port: server.port,
      fields,
      isOpen,
    }
  },
}

/** A build of one's own, such as of a newer version than Debian's. */
const APACHE_MODULE = process.env.MOD_AUTH_OPENIDC ?? '/usr/lib/apache2/modules/mod_auth_openidc.so'

const modAuthOpenidc = (cache: 'shared memory' | 'Redis'): Peer => ({
  name: `mod_auth_openidc, ${cache}`,
  missing: () =>
    skipWithout('apache2') || !existsSync(APACHE_MODULE)
      ? 'apt-get install -y apache2 libapache2-mod-auth-openidc'
      : undefined,
  async start(t, { api, cores, provider, redis }) {
    const server = await startApache({
      modules: ['authn_core', 'authz_core', 'authz_user', 'headers', 'proxy', 'proxy_http'],
      threads: 128,
      logFormat: '%h %l %u %t \\"%r\\" %>s %O \\"%{Referer}i\\" \\"%{User-Agent}i\\"',
      site: `
        LoadModule auth_openidc_module ${APACHE_MODULE}
        MaxKeepAliveRequests 0
        KeepAliveTimeout 3600
        OIDCProviderMetadataURL ${provider.issuer}/.well-known/openid-configuration
        OIDCClientID ${provider.clientId}
        OIDCClientSecret ${provider.clientSecret}
        OIDCProviderTokenEndpointAuth client_secret_post
        OIDCPKCEMethod S256
        OIDCScope "openid profile offline_access"
        OIDCRedirectURI /callback
        OIDCCryptoPassphrase a-passphrase-of-the-benchmark
        OIDCPassClaimsAs environment
        ${cache === 'Redis' ? `OIDCCacheType redis\nOIDCRedisCacheServer 127.0.0.1:${redis.port}` : 'OIDCCacheType shm'}
        OIDCUnAuthAction 401 "%{HTTP:Sec-Fetch-Mode} == 'cors'"
        ProxyPass / ${api}/ keepalive=On
        <Location />
          AuthType openid-connect
          Require valid-user
          RequestHeader set Authorization "Bearer %{OIDC_access_token}e"
        </Location>`,
    })
    t.after(() => server.stop())
    pinFamily(server.pid, cores.measured)
    const fields = await signIn(`http://127.0.0.1:${server.port}`)
    // As the module tells it to Apache.
    const [module = 'mod_auth_openidc'] =
      /mod_auth_openidc-[\d.]+/.exec(readFileSync(APACHE_MODULE, 'latin1')) ?? []
    return { name: `${module.replace('-', ' ')}, ${cache}`, pid: server.pid, port: server.port, fields }
  },
})

const oauth2Proxy: Peer = {
  name: 'oauth2-proxy, Redis',
  missing: () =>
    goProgram('oauth2-proxy') ? undefined : 'go install github.com/oauth2-proxy/oauth2-proxy/v7@latest',
  async start(t, world) {
    const { provider, redis, api } = world
    const port = await freePort()
    const origin = `http://127.0.0.1:${port}`
    return startGoProgram(t, world, {
      ...{ program: 'oauth2-proxy', port, page: `/oauth2/start?rd=${PATHS.small}` },
      args: [
        ...[`--http-address=127.0.0.1:${port}`, `--upstream=${api}`, '--provider=oidc'],
        ...[`--oidc-issuer-url=${provider.issuer}`, `--redirect-url=${origin}/oauth2/callback`],
        ...[`--client-id=${provider.clientId}`, `--client-secret=${provider.clientSecret}`],
        ...[
          '--code-challenge-method=S256',
          '--insecure-oidc-skip-nonce=false',
          '--scope=openid profile offline_access',
        ],
        ...['--email-domain=*', '--oidc-email-claim=sub', '--cookie-secure=false'],
        ...['--cookie-secret=a-cookie-secret-of-32-characters', '--skip-provider-button'],
        ...['--session-store-type=redis', `--redis-connection-url=${redis.url}`],
        // The bearer is the ID token here: the access token goes in a header of its own (--pass-access-token).
        ...['--pass-authorization-header', '--api-route=^/api'],
      ],
    })
  },
}

const wonderwall: Peer = {
  name: 'Wonderwall, Redis',
  missing: () =>
    goProgram('wonderwall') ? undefined : 'go install github.com/nais/wonderwall/cmd/wonderwall@latest',
  async start(t, world) {
    const { provider, redis, api } = world
    const port = await freePort()
    return startGoProgram(t, world, {
      ...{ program: 'wonderwall', port },
      args: [
        ...[`--bind-address=127.0.0.1:${port}`, `--ingress=http://127.0.0.1:${port}`],
        ...[`--upstream-host=${new URL(api).host}`, '--auto-login'],
        ...[`--openid.client-id=${provider.clientId}`, `--openid.client-secret=${provider.clientSecret}`],
        ...[`--openid.well-known-url=${provider.issuer}/.well-known/openid-configuration`],
        ...[`--redis.uri=${redis.url}`, `--encryption-key=${Buffer.alloc(32, 7).toString('base64')}`],
        ...[
          '--openid.scopes=offline_access',
          '--metrics-bind-address=127.0.0.1:0',
          '--probe-bind-address=127.0.0.1:0',
        ],
      ],
    })
  },
}

/** In the order of the table. */
export const PEERS: readonly Peer[] = [
  ...[nginx, middleware, modAuthOpenidc('shared memory'), modAuthOpenidc('Redis'), wonderwall, oauth2Proxy],
]

/** Signs in with a browser's requests: to a page, to the provider, back to the page. */
async function signIn(origin: string, page: string = PATHS.small): Promise<Fields> {
  const browser = createBrowser({ origin, loopbackIsSecure: true })
  const landing = await browser.navigate(origin + page)
  const { status } = await browser.fetch(PATHS.small)
  browser.close()
  if (status !== 200)
    throw new Error(`the signed-in request got ${status}; the sign-in ended with ${landing.status}`)
  return { host: new URL(origin).host, cookie: browser.cookieHeader(PATHS.small) }
}

/** Where `go install` puts programs, unless they are on PATH. */
function goProgram(program: string): string | undefined {
  const folders = [...(process.env.PATH ?? '').split(':'), process.env.GOBIN ?? join(homedir(), 'go/bin')]
  return folders.map((folder) => join(folder, program)).find((file) => existsSync(file))
}

/** Starts a Go program on the measured core, so that its scheduler counts one, and signs in; its log goes to a file. */
async function startGoProgram(
  t: Scope,
  { cores }: World,
  { program, port, args, page }: { program: string; port: number; args: readonly string[]; page?: string },
): Promise<Contender> {
  const file = goProgram(program)!
  const folder = mkdtempSync(join(tmpdir(), `cloakroom-${program}-`))
  const log = join(folder, 'log')
  const command = ['-c', 'exec "$@" > "$0" 2>&1', log, 'taskset', '-c', String(cores.measured), file, ...args]
  const child = spawn('sh', command, { stdio: 'ignore', cwd: folder })
  const killWithUs = () => child.kill('SIGKILL')
  process.once('exit', killWithUs)
  t.after(async () => {
    process.off('exit', killWithUs)
    await ended(child)
    rmSync(folder, { recursive: true, force: true })
  })
  await eventually(`${program} listens`, () => child.exitCode !== null || accepts(port))
  if (child.exitCode !== null) throw new Error(`${program} ended: ${readFileSync(log, 'utf8').slice(-500)}`)
  const fields = await signIn(`http://127.0.0.1:${port}`, page)
  const { stdout } = spawnSync('go', ['version', '-m', file], { encoding: 'utf8' })
  const version = /^\s+mod\s+\S+\s+v?(\S+)/m.exec(stdout ?? '')?.[1] ?? ''
  return { name: `${program} ${version}, Redis`, pid: child.pid!, port, fields }
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
    socket.once('connect', () => socket.destroy())
  })
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const gone = new Promise((resolve) => child.once('exit', resolve))
  child.kill()
  const late = AbortSignal.timeout(5_000)
  late.addEventListener('abort', () => child.kill('SIGKILL'))
  await Promise.race([gone, delay(10_000)])
}
