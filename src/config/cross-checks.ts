import { checkProvider, checkResources } from './provider-checks.ts'
import type { Field } from './report.ts'
import { checkRoutes, checkRouteTests } from './route-checks.ts'
import { complaint } from './rule.ts'
import type { Draft } from './schema.ts'
import type { SecretReader } from './secret-source.ts'
import { checkTls } from './tls-check.ts'

/** Checks what no field can know by itself. A field that is missing or wrong is passed over: it was reported already. */
export function crossCheck(draft: Draft, secrets: SecretReader, root: Field): void {
  checkListeners(draft, root.at('admin', 'listen'))
  checkTrustProxy(draft, root.at('trustProxy'))
  checkProvider(draft, root.at('provider'))
  checkSessionTimes(draft, root.at('session'))
  checkCookie(draft, root.at('session', 'cookie', 'name'))
  checkStore(draft, root.at('session', 'store'))
  checkResources(draft, root.at('resources'))
  checkRoutes(draft, root.at('routes'))
  checkRouteTests(draft, root)
  warnAboutInlineSecrets(draft, secrets, root)
}

function checkListeners({ listen, admin }: Draft, field: Field): void {
  const own = admin?.listen
  if (!listen?.port || listen.port !== own?.port) return
  const isWildcard = (host: string | undefined) => host === '0.0.0.0' || host === '::'
  if (listen.host === own.host || isWildcard(listen.host) || isWildcard(own.host)) {
    field.problem(
      `must not be the public listener's port ${own.port}: probes and metrics are not for browsers`,
    )
  }
}

function checkTrustProxy({ trustProxy }: Draft, field: Field): void {
  trustProxy?.forEach((range, index) => {
    if (!range?.endsWith('/0')) return
    field.at(index).warn('believes everyone: any client can then choose its own address; name your proxies')
  })
}

function checkSessionTimes({ session }: Draft, field: Field): void {
  const { idleTimeout, absoluteTimeout } = session ?? {}
  if (idleTimeout === undefined || absoluteTimeout === undefined || absoluteTimeout >= idleTimeout) return
  const absolute = field.at('absoluteTimeout')
  if (absolute.written() !== undefined) absolute.problem(complaint('must be at least idleTimeout'))
  else field.at('idleTimeout').problem(complaint('must be at most absoluteTimeout, 10h unless given'))
}

// RFC 6265bis §4.1.3: browsers match the prefixes without regard to case.
const COOKIE_PREFIX = /^__(?:host-http|host|http|secure)-/i

function checkCookie({ publicUrl, session }: Draft, field: Field): void {
  const name = session?.cookie?.name
  if (publicUrl === undefined || name === undefined) return
  const bare = name.replace(COOKIE_PREFIX, '')
  if (publicUrl.startsWith('http:') && bare !== name) {
    const must = 'must have no __ prefix while publicUrl is http: browsers refuse such a cookie without TLS'
    field.problem(complaint(must, bare))
  } else if (publicUrl.startsWith('https:') && !name.startsWith('__Host-')) {
    const must = 'must start with __Host-Http- or __Host-, so that no other host of the domain can set it'
    field.problem(complaint(must, `__Host-Http-${bare}`))
  }
}

function checkStore({ publicUrl, session }: Draft, field: Field): void {
  const store = session?.store
  if (store?.type === 'memory' && publicUrl?.startsWith('https:')) {
    field.warn(
      'keeps sessions in this one process: a restart signs everyone out, and a second replica knows nothing of them',
    )
  }
  if (store?.type !== 'redis') return
  const { url, username, password } = store
  checkTls(field.at('tls'), url?.protocol === 'rediss:')
  if (url?.password && password !== undefined) {
    field.at('password').problem('is given twice: the url holds a password too; remove it there')
  } else if (url?.username && username !== undefined) {
    field.at('username').problem('is given twice: the url holds a user name too; remove it there')
  } else if (url?.password && !isFromEnvironment(field.at('url'))) {
    field.at('url').warn('holds a password; move it to "password: { env: NAME }" or "{ file: PATH }"')
  }
}

function warnAboutInlineSecrets(value: unknown, secrets: SecretReader, field: Field): void {
  if (secrets.isInline(value)) {
    if (isFromEnvironment(field)) return
    field.warn('is a secret in the config file itself; write { env: NAME } or { file: PATH }')
  } else if (typeof value === 'object' && value !== null) {
    for (const [name, child] of Object.entries(value)) {
      warnAboutInlineSecrets(child, secrets, field.at(Array.isArray(value) ? Number(name) : name))
    }
  }
}

function isFromEnvironment(field: Field): boolean {
  return /\$\{\w+\}/.test(String(field.written()))
}
