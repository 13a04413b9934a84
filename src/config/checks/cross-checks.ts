import type { Field } from '../report/report.ts'
import { isThisMachine } from '../rules/addresses.ts'
import { complaint } from '../rules/rule.ts'
import { hasBlanksAround, isQuoted, isTextKey } from '../rules/secret-rules.ts'
import type { Draft } from '../schema/schema.ts'
import { Secret } from '../secrets/secret.ts'
import type { SecretReader } from '../secrets/secret-source.ts'
import { checkEntra } from './entra-checks.ts'
import { checkListeners } from './listener-checks.ts'
import { checkProvider, checkResources } from './provider-checks.ts'
import { checkRoutes, checkRouteTests } from './route-checks.ts'
import { checkTls } from './tls-check.ts'

/** Checks that span fields. Skips a field that is missing or wrong, because it was reported already. */
export function crossCheck(draft: Draft, secrets: SecretReader, root: Field): void {
  checkListeners(draft, root)
  checkTrustProxy(draft, root.at('trustProxy'))
  checkProvider(draft, root.at('provider'))
  checkEntra(draft, root)
  checkSessionTimes(draft, root.at('session'))
  checkCookie(draft, root.at('session', 'cookie', 'name'))
  checkStore(draft, root.at('session', 'store'))
  checkResources(draft, root.at('resources'))
  checkRoutes(draft, root.at('routes'))
  checkRouteTests(draft, root)
  checkSessionKeys(draft, root.at('session', 'keys'))
  warnAboutSecrets(draft, secrets, root)
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
  if (store?.type === 'redis') checkRedis(store, field)
}

type RedisDraft = Extract<NonNullable<NonNullable<Draft['session']>['store']>, { type?: 'redis' | undefined }>

const UNENCRYPTED =
  'is without TLS to another machine: anyone on the network path can read the password, and end or hold back sessions'

function checkRedis(store: RedisDraft, field: Field): void {
  const { url, password, username, sentinelTls } = store
  checkServers(field)
  const isGiven = (name: string) => (field.at(name).written() ?? undefined) !== undefined
  const nodes = isGiven('cluster') ? store.cluster : store.sentinels
  const key = isGiven('cluster') ? 'cluster' : 'sentinels'
  const usesTls = isGiven('url') ? url?.protocol === 'rediss:' : isGiven('tls')
  if (url && !usesTls && !isThisMachine(url.hostname)) {
    field.at('url').warn(`${UNENCRYPTED}; write rediss://`)
  } else if (nodes?.some((node) => node?.host && !isThisMachine(inUrl(node.host))) && !usesTls) {
    field.at(key).warn(`${UNENCRYPTED}; add "tls: {}", or what it needs`)
  } else if (usesTls && sentinelTls === false) {
    field.at('sentinelTls').warn('lets anyone on the network path say where the primary is')
  }
  checkTls(field.at('tls'), usesTls)
  if (url?.password && password !== undefined) {
    field.at('password').problem('is given twice: the url holds a password too; remove it there')
  } else if (url?.username && username !== undefined) {
    field.at('username').problem('is given twice: the url holds a user name too; remove it there')
  } else if (url?.password && !isFromEnvironment(field.at('url'))) {
    field.at('url').warn('holds a password; move it to "password: { env: NAME }" or "{ file: PATH }"')
  }
}

/** The three ways to say where Redis is, of which a file has one, and what belongs to sentinels alone. */
function checkServers(field: Field): void {
  const isGiven = (name: string) => (field.at(name).written() ?? undefined) !== undefined
  const [first, ...more] = ['url', 'cluster', 'sentinels'].filter(isGiven)
  if (first === undefined) {
    field
      .at('url')
      .problem(
        'is required: where Redis is, e.g. rediss://redis:6379; or "cluster: [HOST:PORT]", or "sentinels: [HOST:PORT]" with "masterName"',
      )
  }
  for (const name of more)
    field.at(name).problem(`is a second place where Redis is, beside "${first}"; remove one of the two`)
  if (isGiven('sentinels')) {
    if (!isGiven('masterName'))
      field
        .at('masterName')
        .problem(
          'is required: what the sentinels call the primary, NAME in their "sentinel monitor NAME …", e.g. mymaster',
        )
    return
  }
  for (const name of ['masterName', 'sentinelUsername', 'sentinelPassword', 'sentinelTls'].filter(isGiven))
    field.at(name).problem('has no effect without "sentinels"')
}

const inUrl = (host: string) => (host.includes(':') ? `[${host}]` : host)

function warnAboutSecrets(value: unknown, secrets: SecretReader, field: Field): void {
  if (value instanceof Secret) {
    if (secrets.isInline(value) && !isFromEnvironment(field)) {
      field.warn('is a secret in the config file itself; write { env: NAME } or { file: PATH }')
    }
    const text = value.reveal()
    if (isQuoted(text)) {
      field.warn(
        'is in quotation marks, which are sent as a part of it (docker --env-file keeps them); if they are none, store it without',
      )
    }
    if (hasBlanksAround(text) && !text.includes('-----BEGIN ')) {
      field.warn(
        'begins or ends with a blank, which is sent as a part of it; if it is none, store it without',
      )
    }
  } else if (typeof value === 'object' && value !== null) {
    for (const [name, child] of Object.entries(value)) {
      warnAboutSecrets(child, secrets, field.at(Array.isArray(value) ? Number(name) : name))
    }
  }
}

/** A key that is listed twice cannot be rotated out: removing one of the two changes nothing. */
function checkSessionKeys({ session, provider }: Draft, field: Field): void {
  const seen = new Map<string, number>()
  session?.keys?.forEach((key, index) => {
    if (!(key instanceof Secret) || key.isAbsent) return
    const written = key.reveal()
    // Compared by its bytes: base64 and base64url, padded or not, are spellings of one key.
    const bytes = Buffer.from(written, 'base64').toString('hex')
    const first = seen.get(bytes)
    if (first !== undefined) {
      field.at(index).problem(`is the same key as ${sessionKeyName(first)}; remove one of the two`)
      return
    }
    seen.set(bytes, index)
    warnAboutSessionKey(written, { provider, session }, field.at(index))
  })
}

function sessionKeyName(index: number): string {
  return `session.keys[${index}]`
}

function warnAboutSessionKey(key: string, { provider, session }: Draft, field: Field): void {
  if (isTextKey(key)) {
    field.warn(
      'is 32 characters of text, so it is less random than 256 bits; make one with: cloakroom keygen',
    )
  }
  const auth = provider?.clientAuth
  const others = {
    'provider.clientAuth.secret': auth && 'secret' in auth ? auth.secret : undefined,
    'session.store.password': session?.store?.type === 'redis' ? session.store.password : undefined,
    'session.store.sentinelPassword':
      session?.store?.type === 'redis' ? session.store.sentinelPassword : undefined,
  }
  for (const [name, other] of Object.entries(others)) {
    if (!(other instanceof Secret) || other.reveal() !== key) continue
    field.warn(`is ${name} too; make a key for sessions alone with: cloakroom keygen`)
  }
}

function isFromEnvironment(field: Field): boolean {
  return /\$\{\w+\}/.test(String(field.written()))
}
