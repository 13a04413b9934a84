import { isIP } from 'node:net'
import type { ListenAddress } from '../config.ts'
import type { Rule } from './rule.ts'

/** The origin browsers see, normalised as URL.origin. */
export const PUBLIC_URL: Rule<string> = {
  must: 'must be an https origin: scheme, host and port, no path (http only for a loopback host)',
  example: 'https://app.example.com',
  parse: secureOrigin,
  because: insecure,
}

/** An origin that scripts may call from. */
export const ALLOWED_ORIGIN: Rule<string> = {
  must: 'must be one exact https origin: scheme, host and port, no path, no wildcard (http only for a loopback host)',
  example: 'https://admin.example.com',
  parse: (text) => (text.includes('*') ? undefined : secureOrigin(text)),
  because: insecure,
}

/** The issuer, byte for byte (OpenID Connect Discovery §3: https, no query, no fragment). */
export const ISSUER: Rule<string> = {
  must: 'must be the https URL of the provider without query or fragment (http only for a loopback host)',
  example: 'https://login.microsoftonline.com/TENANT/v2.0',
  parse: (text) => {
    const url = plainUrl(text)
    return url && isHttp(url) && !/[?#]/.test(text) && issuerIn(text) === undefined ? text : undefined
  },
  because: (text) => {
    const issuer = issuerIn(text)
    if (issuer === undefined) return undefined
    return `must be the issuer, not the address of its discovery document; write ${issuer}`
  },
}

/** The issuer of a discovery document, by its address (OpenID Connect Discovery §4, RFC 8414 §3.1); undefined for any other. */
function issuerIn(text: string): string | undefined {
  const [, origin, tenant = ''] =
    /^(https?:\/\/.+?)\/\.well-known\/(?:openid-configuration|oauth-authorization-server|ssf-configuration)(\/[^/?#][^?#]*?)?\/?(?:[?#].*)?$/i.exec(
      text,
    ) ?? []
  return origin === undefined ? undefined : origin + tenant
}

/** One of the provider's endpoints (RFC 6749 §3.1, §3.2: no fragment). */
export const ENDPOINT: Rule<string> = {
  must: 'must be an absolute https URL without a fragment (http only for a loopback host)',
  example: 'https://id.example.com/oauth2/token',
  parse: (text) => {
    const url = plainUrl(text)
    return url && isHttp(url) && !text.includes('#') ? text : undefined
  },
}

/**
 * Why a provider URL must not be what it is; undefined when it may. Plain http is for this machine and for the hosts that
 * the operator names.
 */
export function insecureProviderUrl(text: string, insecureHosts: readonly string[]): string | undefined {
  const url = new URL(text)
  if (isSecure(url) || isNamedHost(url, insecureHosts)) return undefined
  return `${insecure(text)}; for a host inside a cluster that encrypts by itself write provider.insecureHosts: [${url.host}]`
}

/** Whether `hosts` has the host of this URL, with its port or for every port. */
export function isNamedHost({ hostname, port }: URL, hosts: readonly string[]): boolean {
  return hosts.includes(hostname) || hosts.includes(`${hostname}:${port || '80'}`)
}

/** An upstream's origin. */
export const UPSTREAM: Rule<string> = {
  must: 'must be an http(s) URL without a path',
  example: 'http://orders:8080',
  parse: bareOrigin,
  because: (text) => {
    if (text.includes('@')) return 'must not contain a user name or password'
    const url = plainUrl(text)
    if (!url || !isHttp(url) || url.pathname === '/') return undefined
    return `must be an http(s) URL without a path (a path prefix goes into "rewrite: ${url.pathname}")`
  },
}

/** Where Redis is. User name and password are told apart from the URL, so that it can be shown. */
export const REDIS_URL: Rule<URL> = {
  must: 'must be redis://HOST[:PORT][/DB] or, with TLS, rediss://…',
  example: 'rediss://redis:6379',
  parse: (text) => {
    const url = URL.canParse(text) && !/[\s\\?#]/.test(text) ? new URL(text) : undefined
    if (!url || !/^rediss?:$/.test(url.protocol) || url.hostname === '') return undefined
    return /^(\/\d{0,5})?$/.test(url.pathname) && isDecodable(url.username + url.password) ? url : undefined
  },
}

/** A node of a Redis Cluster, or a sentinel. Its port is always written: the usual ones of the two differ. */
export const REDIS_NODE: Rule<ListenAddress> = {
  must: 'must be HOST:PORT',
  example: 'redis-1:6379',
  parse: (text) => hostAndPort(text, /^[A-Za-z0-9._-]+$/),
  because: (text) => {
    const [, rest] = /^\w+:\/\/(?:[^@]*@)?([^/]*)/.exec(text) ?? []
    if (rest !== undefined)
      return 'must be HOST:PORT alone: TLS, user name and password have keys of their own'
    if (isIP(text) === 6) return `must have the address in brackets and its port, as in [${text}]:6379`
    if (/^[A-Za-z0-9._-]+$/.test(text))
      return 'must be HOST:PORT: its port is missing (6379 is usual, 26379 for a sentinel)'
    return undefined
  },
}

/** A socket to listen on. */
export const LISTEN: Rule<ListenAddress> = {
  must: 'must be HOST:PORT',
  example: '0.0.0.0:8080 or [::]:8080',
  parse: (text) => hostAndPort(text, /^[A-Za-z0-9.-]+$/),
  because(text) {
    const [, port] = /^[^:]*:(\d+)$/.exec(text) ?? []
    if (port !== undefined && Number(port) > 65_535) return 'must be HOST:PORT with a port from 0 to 65535'
    if (/^\d+$/.test(text) || text.startsWith(':')) return 'must be HOST:PORT, with the host before the port'
    return isIP(text) === 6 || /^[0-9a-f:]+:\d+$/i.test(text)
      ? 'must have an IPv6 address in brackets'
      : undefined
  },
}

/** Reads `host:port`, where `plain` says what a host without brackets may be; an IPv6 address has them. */
function hostAndPort(text: string, plain: RegExp): ListenAddress | undefined {
  const [, bracketed, name, digits] = /^(?:\[([0-9A-Fa-f:.]+)\]|([^[\]:]+)):(\d{1,5})$/.exec(text) ?? []
  const host = bracketed ?? name
  const port = Number(digits)
  if (host === undefined || port > 65_535) return undefined
  return (bracketed === undefined ? plain.test(host) : isIP(host) === 6) ? { host, port } : undefined
}

/** A value of `Host`: a name or address, and its port unless it is the scheme's own. */
export const HOST: Rule<string> = {
  must: 'must be a host name or address, with its port if it has one, no wildcard',
  example: 'app.shop.svc:8080',
  parse: (text) => {
    const isHost = /^(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?$/.test(text)
    return isHost && URL.canParse(`http://${text}`) ? text.toLowerCase() : undefined
  },
}

/** An address or CIDR range of proxies. */
export const PROXY_RANGE: Rule<string> = {
  must: 'must be an IP address or a CIDR range',
  example: '10.0.0.0/8',
  parse: (text) => {
    const [address = '', bits, ...more] = text.split('/')
    const family = isIP(address)
    if (family === 0 || more.length > 0) return undefined
    const fits = bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= (family === 4 ? 32 : 128))
    return fits ? text : undefined
  },
  because(text) {
    const family = isIP(text.split('/', 1)[0]!)
    if (family === 0) return undefined
    return `must be a CIDR range with a prefix length from 0 to ${family === 4 ? 32 : 128}`
  },
}

/** True for hosts that never leave this machine: localhost, *.localhost (RFC 6761 §6.3), 127.0.0.0/8 and ::1. */
export function isLoopback(hostname: string): boolean {
  return /^(?:(?:.+\.)?localhost|127(?:\.\d{1,3}){3}|\[::1\])$/.test(hostname)
}

/** True for a host that names this machine in whatever spelling: a loopback name or address, or the unspecified address. */
export function isThisMachine(host: string): boolean {
  // A URL of a web scheme has its address normalised, which one of another scheme (redis:) has not.
  const plain = `http://${host.toLowerCase().replace(/\.$/, '')}`
  const name = URL.canParse(plain) ? new URL(plain).hostname : host
  return (
    isLoopback(name) || /^(?:0\.0\.0\.0|\[::\]|\[::ffff:(?:7f[0-9a-f]{2}:[0-9a-f]{1,4}|0:0)\])$/.test(name)
  )
}

function secureOrigin(text: string): string | undefined {
  const origin = bareOrigin(text)
  return origin !== undefined && isSecure(new URL(origin)) ? origin : undefined
}

function bareOrigin(text: string): string | undefined {
  const url = plainUrl(text)
  return url && isHttp(url) && url.pathname === '/' && !/[?#]/.test(text) ? url.origin : undefined
}

/** URL() trims blanks, drops line breaks and turns backslashes round; a config file must say what it means. */
function plainUrl(text: string): URL | undefined {
  if (!/^[^\s\\@]+$/.test(text) || !/^[A-Za-z][A-Za-z0-9+.-]*:\/\/[^/]/.test(text)) return undefined
  return URL.canParse(text) ? new URL(text) : undefined
}

function isDecodable(text: string): boolean {
  try {
    return decodeURIComponent(text) !== undefined
  } catch {
    return false
  }
}

function isHttp(url: URL): boolean {
  return url.protocol === 'http:' || url.protocol === 'https:'
}

function isSecure(url: URL): boolean {
  return url.protocol === 'https:' || (url.protocol === 'http:' && isLoopback(url.hostname))
}

function insecure(text: string): string | undefined {
  const url = plainUrl(text)
  if (url?.protocol !== 'http:' || isLoopback(url.hostname)) return undefined
  return 'must be https: plain http is for loopback hosts (localhost, 127.0.0.0/8, [::1]) only'
}
