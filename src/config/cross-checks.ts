import type { FieldPath } from './problem.ts'
import { checkProvider, checkResources } from './provider-checks.ts'
import type { Report } from './report.ts'
import { checkRoutes, checkRouteTests } from './route-checks.ts'
import { complaint } from './rule.ts'
import type { Draft } from './schema.ts'
import type { SecretReader } from './secret-source.ts'
import { checkTls } from './tls-check.ts'

/** Checks what no field can know by itself. A field that is missing or wrong is passed over: it was reported already. */
export function crossCheck(draft: Draft, secrets: SecretReader, report: Report): void {
  checkListeners(draft, report)
  checkTrustProxy(draft, report)
  checkProvider(draft, report)
  checkSession(draft, report)
  checkCookie(draft, report)
  checkStore(draft, report)
  checkResources(draft, report)
  checkRoutes(draft, report)
  checkRouteTests(draft, report)
  warnAboutInlineSecrets(draft, [], secrets, report)
}

function checkListeners({ listen, admin }: Draft, report: Report): void {
  const own = admin?.listen
  if (!listen?.port || listen.port !== own?.port) return
  const isWildcard = (host: string | undefined) => host === '0.0.0.0' || host === '::'
  if (listen.host === own.host || isWildcard(listen.host) || isWildcard(own.host)) {
    report.problem(
      ['admin', 'listen'],
      `must not be the public listener's port ${own.port}: metrics and console are not for browsers`,
    )
  }
}

function checkTrustProxy({ trustProxy }: Draft, report: Report): void {
  trustProxy?.forEach((range, index) => {
    if (range?.endsWith('/0')) {
      report.warn(
        ['trustProxy', index],
        'believes everyone: any client can then choose its own address; name your proxies',
      )
    }
  })
}

function checkSession({ session }: Draft, report: Report): void {
  const { idleTimeout, absoluteTimeout } = session ?? {}
  if (idleTimeout === undefined || absoluteTimeout === undefined || absoluteTimeout >= idleTimeout) return
  const isWritten = report.written(['session', 'absoluteTimeout']) !== undefined
  const field = isWritten ? 'absoluteTimeout' : 'idleTimeout'
  const must = isWritten
    ? 'must be at least idleTimeout'
    : 'must be at most absoluteTimeout, 10h unless given'
  report.problem(['session', field], complaint(must))
}

// RFC 6265bis §4.1.3: browsers match the prefixes without regard to case.
const COOKIE_PREFIX = /^__(?:host-http|host|http|secure)-/i

function checkCookie({ publicUrl, session }: Draft, report: Report): void {
  const name = session?.cookie?.name
  if (publicUrl === undefined || name === undefined) return
  const path = ['session', 'cookie', 'name']
  if (publicUrl.startsWith('https:')) {
    if (/^__Host-/.test(name)) return
    const must = 'must start with __Host-Http- or __Host-, so that no other host of the domain can set it'
    report.problem(path, complaint(must, `__Host-Http-${name.replace(COOKIE_PREFIX, '')}`))
  } else if (COOKIE_PREFIX.test(name)) {
    const must = 'must have no __ prefix while publicUrl is http: browsers refuse such a cookie without TLS'
    report.problem(path, complaint(must, name.replace(COOKIE_PREFIX, '')))
  }
}

function checkStore({ publicUrl, session }: Draft, report: Report): void {
  const store = session?.store
  if (store?.type === 'memory' && publicUrl?.startsWith('https:')) {
    report.warn(
      ['session', 'store'],
      'keeps sessions in this one process: a restart signs everyone out, and a second replica knows nothing of them',
    )
  }
  if (store?.type !== 'redis') return
  const { url, username, password, tls } = store
  checkTls(tls, url?.protocol === 'rediss:', ['session', 'store', 'tls'], report)
  if (url?.password && password !== undefined) {
    report.problem(
      ['session', 'store', 'password'],
      'is given twice: the url holds a password too; remove it there',
    )
  } else if (url?.username && username !== undefined) {
    report.problem(
      ['session', 'store', 'username'],
      'is given twice: the url holds a user name too; remove it there',
    )
  } else if (url?.password && !isFromEnvironment(['session', 'store', 'url'], report)) {
    report.warn(
      ['session', 'store', 'url'],
      'holds a password; move it to "password: { env: NAME }" or "{ file: PATH }"',
    )
  }
}

function warnAboutInlineSecrets(
  value: unknown,
  path: FieldPath,
  secrets: SecretReader,
  report: Report,
): void {
  if (secrets.isInline(value)) {
    if (isFromEnvironment(path, report)) return
    report.warn(path, 'is a secret in the config file itself; write { env: NAME } or { file: PATH }')
  } else if (typeof value === 'object' && value !== null) {
    for (const [name, child] of Object.entries(value)) {
      warnAboutInlineSecrets(child, [...path, Array.isArray(value) ? Number(name) : name], secrets, report)
    }
  }
}

function isFromEnvironment(path: FieldPath, report: Report): boolean {
  return /\$\{\w+\}/.test(String(report.written(path)))
}
