import type { IncomingMessage } from 'node:http'
import { BlockList, isIP } from 'node:net'

/** The address of the browser: the peer's, or what trusted proxies say of theirs. */
export type ClientAddress = (req: IncomingMessage) => string

/**
 * Walks X-Forwarded-For from its end for as long as the speaker is a trusted proxy; the first address that is none is
 * the client's. What an untrusted peer writes there is never believed (RFC 7239 §8.1).
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

/** Whether the peer of a request's connection is one of the trusted proxies. */
export function createTrustedPeers(trustProxy: readonly string[]): (req: IncomingMessage) => boolean {
  const trusted = blockListOf(trustProxy)
  return (req) => trustProxy.length > 0 && isTrusted(trusted, plain(req.socket.remoteAddress ?? ''))
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
