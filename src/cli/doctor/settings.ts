import { isIP } from 'node:net'
import type { Config, TlsConfig } from '../../config/config.ts'
import type { LoadedConfig } from '../../config/load.ts'
import { isExcepted } from '../../oidc/token-endpoint/provider-connections.ts'
import type { CommandIo } from '../command.ts'
import { mostOpenFiles, openFilesWarning } from '../process.ts'
import { readTraceSettings } from '../trace-settings.ts'
import { certificateEnd, earliestEnd, peerCertificateEnd } from './certificates.ts'
import { causeOf, type Findings, type Found, fail, type Group, ok, warn } from './finding.ts'

type Checked = {
  readonly loaded: LoadedConfig
  readonly io: Pick<CommandIo, 'env'>
  readonly now: () => number
}

/** What the config file and this machine decide. */
export async function checkSettings(group: Group, { loaded, io, now }: Checked): Promise<void> {
  const { config, warnings } = loaded
  await group.check('config file', () =>
    warnings.length === 0
      ? ok('valid, its own tests pass')
      : warnings.map(({ path, line, message }) => warn(`${path} (line ${line}) ${message}`)),
  )
  await group.check('cookie', () => cookie(config))
  await group.check('client addresses', () => clientAddresses(config))
  await group.check('session keys', () => sessionKeys(config))
  await group.check('certificates', () => ownCertificates(config, now))
  await group.check('open files', () => openFiles(config))
  await group.check('proxies', () => proxies(config))
  await group.check('OpenTelemetry', () => openTelemetry(io.env))
}

/** What answers at the addresses of the configuration now: nothing, if Cloakroom does not run yet. */
export async function checkRunning(
  group: Group,
  { config, now }: { readonly config: Config; readonly now: () => number },
): Promise<void> {
  await Promise.all([
    group.check('this machine', () => runningHere(config), { ms: 4_000 }),
    group.check('publicUrl', () => runningInPublic(config, now), { ms: 8_000 }),
  ])
}

function cookie({ publicUrl, session }: Config): Found {
  const { name, sameSite, secure } = session.cookie
  const said = `${name}, ${secure ? 'Secure, ' : ''}HttpOnly, SameSite=${sameSite} for ${publicUrl}`
  if (!secure)
    return warn(`${said}: for development on this machine`, 'use an https publicUrl for anybody else')
  if (!/^__host-/i.test(name)) {
    return warn(
      `${said}: another host of the domain can set it`,
      'use a name with the prefix __Host-Http- or __Host-',
    )
  }
  return ok(said)
}

/** The public listener speaks plain http: behind an https publicUrl another server ends TLS, and speaks for its clients. */
function clientAddresses({ publicUrl, trustProxy }: Config): Found {
  if (trustProxy.length === 0) {
    return publicUrl.startsWith('https:')
      ? warn(
          'publicUrl is https, so a proxy is in front, and trustProxy names none: all clients have its address, and share its limits',
          'name the addresses of the proxy: trustProxy: [10.0.0.0/8]',
        )
      : ok('no proxy in front: the address of a client is that of its connection')
  }
  const all = trustProxy.filter((range) => /\/0$/.test(range))
  if (all.length > 0) {
    return warn(
      `trustProxy has ${all.join(', ')}: every client that reaches the listener can forge its address`,
      'name the addresses of the proxy alone',
    )
  }
  return ok(`X-Forwarded-* of ${trustProxy.join(', ')} are believed`)
}

/** That they are random was checked with the file. */
function sessionKeys({ session: { keys } }: Config): Found {
  if (keys.length === 1) {
    return ok('one, 256 bits; a second one is needed only while keys are rotated')
  }
  return keys.length > 3
    ? warn(
        `${keys.length} open sessions`,
        'remove those that were replaced longer ago than session.absoluteTimeout',
      )
    : ok(`${keys.length}, 256 bits each; the first seals`)
}

function ownCertificates({ provider, session, routes }: Config, now: () => number): Findings {
  const all: [name: string, tls: TlsConfig | undefined][] = [
    ['provider.tls', provider.tls],
    ['session.store.tls', session.store.type === 'redis' ? session.store.tls : undefined],
    ...routes.map(({ tls }, index): [string, TlsConfig | undefined] => [`routes[${index}].tls`, tls]),
  ]
  const found = all.flatMap(([name, tls]) =>
    (['cert', 'ca'] as const).flatMap((member) => {
      const pem = tls?.[member]
      const notAfter = pem === undefined ? undefined : earliestEnd(pem)
      return notAfter === undefined ? [] : [certificateEnd(`${name}.${member}`, { notAfter, now: now() })]
    }),
  )
  return found.length === 0 ? undefined : found
}

function openFiles({ limits: { connections } }: Config): Found {
  const most = mostOpenFiles()
  const warning = openFilesWarning(connections, most)
  if (warning !== undefined) return warn(`limits.connections ${warning}`)
  return ok(`limits.connections is ${connections}, ulimit -n ${most ?? 'not known'}`)
}

function proxies({ provider }: Config): Findings {
  const { proxy, issuer } = provider
  if (!proxy) return undefined
  const url = new URL(issuer)
  const through = url.protocol === 'https:' ? proxy.https : proxy.http
  if (isExcepted(url, proxy)) return ok('NO_PROXY has the provider: it is asked directly')
  if (!through) return ok(`no proxy for ${url.protocol.slice(0, -1)}: the provider is asked directly`)
  return ok(`the provider is asked through ${new URL(through.reveal()).origin}; upstreams and Redis are not`)
}

async function openTelemetry(env: CommandIo['env']): Promise<Findings> {
  const settings = readTraceSettings(env)
  if (settings.kind === 'none') return undefined
  if (settings.kind === 'switched-off') return ok('switched off by OTEL_SDK_DISABLED or OTEL_TRACES_EXPORTER')
  if (settings.kind === 'wrong') return fail(`no traces: ${settings.message}`, settings.cure)
  const { origin } = settings.endpoint
  try {
    await fetch(origin, { method: 'HEAD', redirect: 'manual', signal: AbortSignal.timeout(3_000) })
    return ok(`the collector at ${origin} answers`)
  } catch (error) {
    const { message, cure } = causeOf(error)
    return warn(`traces are lost: ${origin}: ${message}`, cure)
  }
}

/** Asks the admin listener of a Cloakroom that runs here. */
async function runningHere({ admin }: Config): Promise<Findings> {
  const { host, port } = admin.listen
  if (port === 0) return undefined
  const own = host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host
  const url = `http://${isIP(own) === 6 ? `[${own}]` : own}:${port}/readyz`
  let body: { ready?: unknown; draining?: unknown; reasons?: Record<string, unknown> }
  try {
    const answer = await fetch(url, { signal: AbortSignal.timeout(3_000) })
    body = (await answer.json()) as typeof body
  } catch (error) {
    const { message } = causeOf(error)
    return ok(`no Cloakroom answers at admin.listen (${host}:${port}): ${message}`)
  }
  if (body.ready === true) return ok(`the Cloakroom at admin.listen (${host}:${port}) is ready`)
  const why = body.draining === true ? 'it is draining' : Object.values(body.reasons ?? {}).join('; ')
  return fail(`the Cloakroom at admin.listen (${host}:${port}) is not ready: ${why || 'it does not say why'}`)
}

/** Asks who is signed in, as a script of the page would. The certificate is that of the server in front. */
async function runningInPublic({ publicUrl, basePath }: Config, now: () => number): Promise<Findings> {
  const url = `${publicUrl}${basePath}/user`
  const { protocol, hostname, port } = new URL(publicUrl)
  try {
    const signal = AbortSignal.timeout(6_000)
    const headers = { 'x-csrf': '1', accept: 'application/json' }
    const answer = await fetch(url, { headers, redirect: 'manual', signal })
    const code = answer.headers.get('cloakroom-error')
    await answer.body?.cancel()
    const reached =
      code === 'session_required'
        ? ok(`${url} is answered by Cloakroom`)
        : warn(
            `${url} was answered with status ${answer.status}${code === null ? ', not by Cloakroom' : ` ${code}`}`,
            code === 'misdirected_request'
              ? 'the proxy in front must pass the Host on, or name it in hosts'
              : 'look where the server in front sends this path',
          )
    if (protocol !== 'https:') return reached
    const notAfter = await peerCertificateEnd({ host: hostname, port: Number(port || 443), signal })
    return [reached, certificateEnd(publicUrl, { notAfter, now: now() })]
  } catch (error) {
    const { message, cure } = causeOf(error)
    return warn(
      `${url} cannot be asked from here: ${message}`,
      `${cure ?? 'look at it from a browser'}; from inside a cluster that may be as it should`,
    )
  }
}
