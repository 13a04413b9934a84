/** `served`: ours; `foreign`: another site's; `invalid`: no host. */
export type HostVerdict = 'served' | 'foreign' | 'invalid'

export type HostRules = {
  /** Origin as browsers see it. */
  readonly publicUrl: string
  /** Further hosts that are served: `host` or `host:port`, lower case. */
  readonly hosts: readonly string[]
}

/** Judges values of `Host` and of the authority in an absolute-form target. */
export type HostCheck = {
  /** The host that requests should be for. */
  readonly expected: string
  /** Spellings of served hosts, for a quick look before `judge`. */
  readonly served: ReadonlySet<string>
  judge(host: string, peerAddress: string | undefined): HostVerdict
  /** Whether an absolute-form target with this scheme and authority agrees with `host` in its `Host`, and is ours. */
  isSameOrigin(scheme: string, authority: string, host: string): boolean
}

/** RFC 3986 §3.2 without user name, empty port, percent-encoding and punctuation that no real host has. */
const AUTHORITY = /^(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?$/
const LOOPBACK = /^(?:(?:[a-z0-9_-]+\.)*localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d{1,5})?$/

/**
 * Compiles the hosts that are served. A loopback name with any port is served when the public host is a loopback name, or
 * when the connection comes from this machine: that is an operator's port-forward, never a page that rebinds its name.
 */
export function createHostCheck({ publicUrl, hosts }: HostRules): HostCheck {
  const { host: publicHost, protocol } = new URL(publicUrl)
  const publicScheme = protocol.slice(0, -1)
  const publicForms = withDefaultPort(publicHost, publicScheme)
  const others = hosts.flatMap((host) => [
    ...withDefaultPort(withoutDefaultPort(host, 'http'), 'http'),
    ...withDefaultPort(withoutDefaultPort(host, 'https'), 'https'),
  ])
  const served = new Set([...publicForms, ...others])
  const isPublicLoopback = LOOPBACK.test(publicHost)

  return {
    expected: publicHost,
    served,
    judge(host, peerAddress) {
      if (served.has(host)) return 'served'
      if (!AUTHORITY.test(host)) return 'invalid'
      const lower = host.toLowerCase()
      if (served.has(lower)) return 'served'
      const mayBeLoopback = isPublicLoopback || isLoopbackAddress(peerAddress)
      return mayBeLoopback && LOOPBACK.test(lower) ? 'served' : 'foreign'
    },
    isSameOrigin(scheme, authority, host) {
      const asked = withoutDefaultPort(authority.toLowerCase(), scheme)
      if (asked !== withoutDefaultPort(host.toLowerCase(), scheme)) return false
      return scheme === publicScheme || !publicForms.includes(asked)
    },
  }
}

/** RFC 9110 §4.2.3: the default port of a scheme may be written or left out. */
function withDefaultPort(host: string, scheme: string): string[] {
  return /:\d+$/.test(host) ? [host] : [host, `${host}:${portOf(scheme)}`]
}

function withoutDefaultPort(host: string, scheme: string): string {
  const suffix = `:${portOf(scheme)}`
  return host.endsWith(suffix) ? host.slice(0, -suffix.length) : host
}

function portOf(scheme: string): number {
  return scheme === 'https' ? 443 : 80
}

function isLoopbackAddress(address = ''): boolean {
  return address === '::1' || /^(?:::ffff:)?127\./.test(address)
}
