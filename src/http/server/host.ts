/** What a value of `Host` is to us. */
export type HostVerdict = 'served' | 'foreign' | 'invalid'

export type HostRules = {
  /** Origin as browsers see it. */
  readonly publicUrl: string
  /** Served beside the public one: `host` or `host:port`, lower case. */
  readonly hosts: readonly string[]
}

/** Judges values of `Host` and of the authority in an absolute-form target. */
export type HostCheck = {
  /** The host that requests should be for. */
  readonly expected: string
  judge(host: string, peerAddress: string | undefined): HostVerdict
  /** Whether a target with this scheme and authority may be taken for one of ours that says `host` in its `Host`. */
  isSameOrigin(scheme: string, authority: string, host: string): boolean
}

/** RFC 3986 §3.2 without user name, empty port, percent-encoding and the punctuation that no real host has. */
const AUTHORITY = /^(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?$/
const LOOPBACK = /^(?:(?:[a-z0-9_-]+\.)*localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d{1,5})?$/

/**
 * Compiles the hosts that are ours. A loopback name with any port is one when the public host is one, or when the
 * connection comes from this machine: an operator behind a port-forward, never a page that rebinds its own name.
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

/** RFC 9110 §4.2.3: a scheme's own port may be written or left out. */
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
