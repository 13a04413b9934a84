import { BlockList, isIP } from 'node:net'
import { Agent, type Dispatcher, fetch as fetchThrough, install, ProxyAgent } from 'undici'
import type { OutgoingProxy, ProviderConfig } from '../../config/config.ts'
import { describeError } from '../../errors.ts'
import type { ProviderFetchDeps } from './provider-fetch.ts'

type Fetch = NonNullable<ProviderFetchDeps['fetch']>

/**
 * A `fetch` for calls to the provider through the configured proxies, and with the configured TLS identity; the second
 * door to undici. Undefined when there is nothing of the kind: the `fetch` of Node.js will do. Connections that idle close
 * by themselves, so there is nothing to be closed when another configuration takes over.
 */
export function createProviderConnections({
  tls,
  proxy,
}: Pick<ProviderConfig, 'tls' | 'proxy'>): Fetch | undefined {
  if (!tls && !proxy) return undefined
  // `ca` replaces the system's: of the provider, and not of a proxy that is spoken to in TLS itself.
  const connect = tls ? { ca: tls.ca, cert: tls.cert, key: tls.key?.reveal() } : {}
  const direct = new Agent({ connect, allowH2: false })
  const through = (url: string | undefined) =>
    url === undefined ? undefined : new ProxyAgent({ uri: url, requestTls: connect, allowH2: false })
  const proxies: Readonly<Record<string, Dispatcher | undefined>> = {
    'https:': through(proxy?.https?.reveal()),
    'http:': through(proxy?.http?.reveal()),
  }

  return async function fetchFromProvider(address, options) {
    const url = new URL(address)
    const throughProxy = proxy && !isExcepted(url, proxy) ? proxies[url.protocol] : undefined
    const dispatcher = throughProxy ?? direct
    try {
      const init = { ...options, dispatcher } as Parameters<typeof fetchThrough>[1]
      return (await fetchThrough(address, init)) as unknown as Response
    } catch (error) {
      throw throughProxy ? viaProxy(error) : error
    }
  }
}

/**
 * Makes the global `fetch`, `Headers` and `Response` those of the package undici. Those of Node.js load a second undici when
 * they are first used.
 */
export function installFetch(): void {
  install()
}

/** Says that a proxy stood between, and what it did; a TypeError, as `fetch` has for everything that is no answer. */
function viaProxy(error: unknown): unknown {
  if (!(error instanceof TypeError)) return error
  const { message, code } = describeError(firstCause(error))
  // The cause says it too, because that is what is told of a failed discovery.
  const cause = Object.assign(new Error(`through the proxy: ${message}`), code === undefined ? {} : { code })
  return new TypeError(`fetch failed ${cause.message}`, { cause })
}

function firstCause(error: Error): Error {
  let first = error
  for (let depth = 0; depth < 5 && first.cause instanceof Error; depth += 1) first = first.cause
  return first
}

/**
 * Whether an entry of NO_PROXY means this address: `*`, a host with its subdomains (a leading dot changes nothing), `*.` for
 * the subdomains alone, an address, or a network in CIDR notation; each but the last with a port, if it is for that only.
 */
export function isExcepted(
  { protocol, hostname, port }: URL,
  { except }: Pick<OutgoingProxy, 'except'>,
): boolean {
  const host = bare(hostname)
  const ownPort = port === '' ? (protocol === 'https:' ? '443' : '80') : port
  return except.some((entry) => {
    if (entry.includes('/')) return isInNetwork(host, entry)
    const [, bracketed, plain = entry, entryPort] = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d+))?$/.exec(entry) ?? []
    if (entryPort !== undefined && entryPort !== ownPort) return false
    const name = bare(bracketed ?? plain)
    if (name === '*') return true
    const domain = name.replace(/^\*?\./, '')
    return (host === domain && !name.startsWith('*.')) || host.endsWith(`.${domain}`)
  })
}

/** Without brackets, the dot of a fully qualified name, and case. */
function bare(host: string): string {
  return host
    .replace(/^\[(.*)\]$/, '$1')
    .replace(/(.)\.$/, '$1')
    .toLowerCase()
}

function isInNetwork(host: string, cidr: string): boolean {
  const [network = '', prefix = ''] = cidr.split('/')
  const family = isIP(bare(network))
  const bits = Number(prefix)
  if (family === 0 || isIP(host) !== family || !/^\d{1,3}$/.test(prefix) || bits > (family === 4 ? 32 : 128))
    return false
  const list = new BlockList()
  const type = family === 4 ? 'ipv4' : 'ipv6'
  list.addSubnet(bare(network), bits, type)
  return list.check(host, type)
}
