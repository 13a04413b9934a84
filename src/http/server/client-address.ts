import type { IncomingMessage } from 'node:http'
import { BlockList, isIP, isIPv6 } from 'node:net'

/** Returns the address of the browser: the peer's, or the one that trusted proxies report. */
export type ClientAddress = (req: IncomingMessage) => string

/**
 * Walks X-Forwarded-For from its end, for as long as the last address is a trusted proxy's. The first one that is not is
 * the client's. An untrusted peer's field is ignored (RFC 7239 §8.1).
 *
 * @param trustProxy addresses and CIDR blocks.
 */
export function createClientAddress(trustProxy: readonly string[]): ClientAddress {
  const trusted = blockListOf(trustProxy)
  return function clientAddress(req) {
    let address = plain(req.socket.remoteAddress ?? '')
    if (trustProxy.length === 0) return address
    const said = [req.headers['x-forwarded-for'] ?? []].flat().join(',').split(',')
    while (said.length > 0 && isTrusted(trusted, address)) {
      const next = plain(withoutPort(said.pop()?.trim() ?? ''))
      if (isIP(next) === 0) break
      address = next
    }
    return address
  }
}

/** Returns whether the peer of a connection is one of the trusted proxies. */
export type TrustedPeers = (req: Pick<IncomingMessage, 'socket'>) => boolean

/** @param trustProxy addresses and CIDR blocks. */
export function createTrustedPeers(trustProxy: readonly string[]): TrustedPeers {
  const trusted = blockListOf(trustProxy)
  return ({ socket }) => trustProxy.length > 0 && isTrusted(trusted, plain(socket.remoteAddress ?? ''))
}

function blockListOf(blocks: readonly string[]): BlockList {
  const list = new BlockList()
  for (const block of blocks) {
    const [address = '', bits] = block.split('/')
    const family = isIP(address) === 6 ? 'ipv6' : 'ipv4'
    if (bits === undefined) list.addAddress(address, family)
    else list.addSubnet(address, Number(bits), family)
  }
  return list
}

function isTrusted(list: BlockList, address: string): boolean {
  const family = isIP(address)
  return family !== 0 && list.check(address, family === 6 ? 'ipv6' : 'ipv4')
}

/** Some proxies, Azure Application Gateway among them, write `1.2.3.4:5678` or `[2001:db8::1]:5678`. */
function withoutPort(node: string): string {
  const [, v6, v4] = /^(?:\[([0-9A-Fa-f:.]+)\](?::\d+)?|(\d+(?:\.\d+){3}):\d+)$/.exec(node) ?? []
  return v6 ?? v4 ?? node
}

/** An IPv4 peer of a dual-stack socket shows as `::ffff:a.b.c.d`. */
function plain(address: string): string {
  return address.startsWith('::ffff:') && address.includes('.') ? address.slice(7) : address
}

/**
 * Returns what counts as one client: an IPv4 address, or the /64 of an IPv6 address, because a subscriber gets a whole /64
 * (RFC 6177 §2). Any other text is a client by itself.
 */
export function clientNetwork(address: string): string {
  // The zone names an interface of this machine, not the client.
  const [withoutZone = ''] = address.split('%', 1)
  if (!isIPv6(withoutZone)) return address
  const groups = ipv6Groups(withoutZone)
  const [a = 0, b = 0] = groups.slice(6)
  const isMapped = groups.slice(0, 5).every((group) => group === 0) && groups[5] === 0xffff
  if (isMapped) return [a >> 8, a & 255, b >> 8, b & 255].join('.')
  const prefix = groups.slice(0, 4).map((group) => group.toString(16))
  return `${prefix.join(':')}::/64`
}

/** The eight groups of an IPv6 address in any spelling. */
function ipv6Groups(address: string): number[] {
  // The host of a URL is in hexadecimal, with at most one `::` (WHATWG URL, IPv6 serializer).
  const [before = '', after = ''] = new URL(`http://[${address}]`).hostname.slice(1, -1).split('::')
  const [head, tail] = [groupsIn(before), groupsIn(after)]
  return [...head, ...Array<number>(8 - head.length - tail.length).fill(0), ...tail]
}

function groupsIn(text: string): number[] {
  return text === '' ? [] : text.split(':').map((group) => Number.parseInt(group, 16))
}
