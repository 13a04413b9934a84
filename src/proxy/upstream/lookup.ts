import type { LookupAddress } from 'node:dns'
import { BlockList, isIP, isIPv6, type LookupFunction } from 'node:net'

/** Where cloud machines ask for their own credentials; a name that leads there is an attack or an accident. */
const LINK_LOCAL = new BlockList()
LINK_LOCAL.addSubnet('169.254.0.0', 16, 'ipv4')
LINK_LOCAL.addSubnet('fe80::', 10, 'ipv6')
LINK_LOCAL.addAddress('fd00:ec2::254', 'ipv6')

/**
 * A look-up that leaves out link-local addresses, and the cloud's metadata service. A route that names such an address
 * literally needs no look-up, and gets what it says. Fails with LINK_LOCAL_ADDRESS when nothing else is left.
 */
export function refusingLinkLocal(lookup: LookupFunction): LookupFunction {
  return function lookupUpstream(hostname, options, callback) {
    lookup(hostname, { ...options, all: true }, (error, found) => {
      if (error) {
        callback(error, '')
        return
      }
      const usable = (found as LookupAddress[]).filter(({ address }) => !isLinkLocal(address))
      const [first] = usable
      if (!first) callback(linkLocal(hostname), '')
      else if (options.all) callback(null, usable)
      else callback(null, first.address, first.family)
    })
  }
}

function isLinkLocal(address: string): boolean {
  // An IPv6 address may name its zone; IPv4-mapped ones are compared with the IPv4 rules too.
  const [bare = ''] = address.split('%')
  return LINK_LOCAL.check(bare, isIPv6(bare) ? 'ipv6' : 'ipv4')
}

function linkLocal(hostname: string): NodeJS.ErrnoException {
  const error = new Error(`${hostname} resolves to link-local addresses only`)
  return Object.assign(error, { code: 'LINK_LOCAL_ADDRESS' })
}

/** What a certificate of the upstream is verified for, and TLS says with SNI; empty for an address (RFC 6066 §3). */
export function serverNameOf(upstream: string): string {
  const host = new URL(upstream).hostname.replace(/^\[|\]$/g, '')
  return isIP(host) === 0 ? host : ''
}
