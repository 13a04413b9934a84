import { isIP } from 'node:net'
import type { ListenAddress } from '../config.ts'
import type { Field } from '../report/report.ts'
import { isThisMachine } from '../rules/addresses.ts'
import type { Draft } from '../schema/schema.ts'

/** Whether the two listeners can both be opened, and no route leads back to one of them. */
export function checkListeners(draft: Draft, root: Field): void {
  const { listen, admin, routes } = draft
  const own = admin?.listen
  if (isAddress(listen) && isAddress(own) && listen.port !== 0 && listen.port === own.port) {
    if (listen.host === own.host || overlap(listen.host, own.host)) {
      const why = 'probes and metrics are not for browsers'
      const field = root.at('admin', 'listen')
      if (field.written() !== undefined || root.at('listen').written() === undefined) {
        field.problem(
          `must not be the public listener's port ${own.port}: ${why}; choose another one, e.g. 0.0.0.0:9090`,
        )
      } else {
        root.at('listen').problem(`must not be the admin listener's port ${own.port} (admin.listen): ${why}`)
      }
    }
  }
  routes?.forEach((route, index) => {
    if (route?.upstream === undefined) return
    checkUpstream(route.upstream, draft, root.at('routes', index, 'upstream'))
  })
}

/** A request that comes back is refused at its second visit (`Via`), so such a route can only ever answer 502. */
function checkUpstream(upstream: string, { publicUrl, listen, admin, hosts }: Draft, field: Field): void {
  const { hostname, port, protocol } = new URL(upstream)
  const to = { host: hostname, port: Number(port) || (protocol === 'https:' ? 443 : 80) }
  const isAt = (address: Partial<ListenAddress> | undefined): address is ListenAddress =>
    isAddress(address) && address.port === to.port && reaches(to.host, address.host)
  const cure = 'write where the application listens'
  if (isAt(admin?.listen)) {
    const why = 'probes and metrics are not for browsers'
    field.problem(
      `leads to Cloakroom's own admin listener (admin.listen: ${shown(admin.listen)}): ${why}; ${cure}`,
    )
  } else if (isAt(listen)) {
    field.warn(
      `leads to Cloakroom's own public listener (listen: ${shown(listen)}): the request comes back and is refused; ${cure}`,
    )
  } else if (publicUrl !== undefined && new URL(publicUrl).host === new URL(upstream).host) {
    field.warn(
      'is publicUrl: unless that name leads elsewhere from here, the request comes back to Cloakroom and is refused; write where the application listens',
    )
  } else if (hosts?.some((host) => host !== undefined && isSameHost(host, to))) {
    field.warn(
      'is in `hosts`, the names that Cloakroom itself is called by: the request comes back and is refused; write where the application listens',
    )
  }
}

/** True when a connection to `host` arrives at a socket that is bound to `bound`, as far as the names can tell. */
function reaches(host: string, bound: string): boolean {
  const [to, own] = [plain(host), plain(bound)]
  if (to === own) return true
  // Every address of this machine; and the unspecified address, as a destination, is this machine.
  if (isUnspecified(own)) return isThisMachine(to)
  if (!isThisMachine(own)) return false
  return isUnspecified(to) || (isThisMachine(to) && (isIP(bare(to)) === 0 || isIP(bare(own)) === 0))
}

function overlap(a: string, b: string): boolean {
  return isUnspecified(plain(a)) || isUnspecified(plain(b)) || reaches(a, b) || reaches(b, a)
}

function isUnspecified(host: string): boolean {
  return host === '0.0.0.0' || host === '[::]'
}

/** A host as a URL writes it: lower case, IPv6 in brackets and compressed, an IPv4 address in IPv6 as that address. */
function plain(host: string): string {
  const url = `http://${isIP(host) === 6 ? `[${host}]` : host}`
  const name = URL.canParse(url) ? new URL(url).hostname.replace(/(?<=.)\.$/, '') : host.toLowerCase()
  const [, high, low] = /^\[::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})\]$/.exec(name) ?? []
  if (high === undefined || low === undefined) return name
  const [a, b] = [Number.parseInt(high, 16), Number.parseInt(low, 16)]
  return [a >> 8, a & 255, b >> 8, b & 255].join('.')
}

function bare(host: string): string {
  return host.replace(/^\[|\]$/g, '')
}

function isSameHost(host: string, to: ListenAddress): boolean {
  const url = new URL(`http://${host}`)
  return url.hostname === to.host && (Number(url.port) || 80) === to.port
}

function isAddress(address: Partial<ListenAddress> | undefined): address is ListenAddress {
  return address?.host !== undefined && address.port !== undefined
}

function shown({ host, port }: ListenAddress): string {
  return `${isIP(host) === 6 ? `[${host}]` : host}:${port}`
}
