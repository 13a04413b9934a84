import assert from 'node:assert/strict'
import type { IncomingMessage } from 'node:http'
import { test } from 'node:test'
import { createClientAddress } from '../../../../src/http/server/request-guard.ts'

function address(trustProxy: string[], peer: string, forwardedFor?: string): string {
  const headers = forwardedFor === undefined ? {} : { 'x-forwarded-for': forwardedFor }
  return createClientAddress(trustProxy)({
    headers,
    socket: { remoteAddress: peer },
  } as unknown as IncomingMessage)
}

const LINES: readonly [string, string[], string, string | undefined, string][] = [
  ['nobody is trusted by default', [], '203.0.113.9', '1.2.3.4', '203.0.113.9'],
  ['an untrusted peer may say what it likes', ['10.0.0.0/8'], '203.0.113.9', '1.2.3.4', '203.0.113.9'],
  ['a trusted proxy is believed', ['10.0.0.0/8'], '10.1.1.1', '198.51.100.7', '198.51.100.7'],
  [
    'only the last untrusted hop counts',
    ['10.0.0.0/8'],
    '10.1.1.1',
    '10.0.0.1, 198.51.100.7',
    '198.51.100.7',
  ],
  [
    'several trusted hops are walked',
    ['10.0.0.0/8'],
    '10.1.1.1',
    '6.6.6.6, 198.51.100.7, 10.2.2.2',
    '198.51.100.7',
  ],
  ['words stop the walk', ['10.0.0.0/8'], '10.1.1.1', '6.6.6.6, unknown', '10.1.1.1'],
  ['no header leaves the proxy itself', ['10.0.0.0/8'], '10.1.1.1', undefined, '10.1.1.1'],
  ['a mapped IPv4 peer is IPv4', ['10.0.0.0/8'], '::ffff:10.1.1.1', '198.51.100.7', '198.51.100.7'],
  ['IPv6 blocks work', ['fd00::/8'], 'fd00::1', '2001:db8::7', '2001:db8::7'],
  ['a port is no part of an address', ['10.0.0.0/8'], '10.1.1.1', '198.51.100.7:49152', '198.51.100.7'],
  ['nor is one of IPv6', ['10.0.0.0/8'], '10.1.1.1', '[2001:db8::7]:49152', '2001:db8::7'],
  ['brackets go without a port too', ['10.0.0.0/8'], '10.1.1.1', '[2001:db8::7]', '2001:db8::7'],
  ['a port that is none stops the walk', ['10.0.0.0/8'], '10.1.1.1', '198.51.100.7:x', '10.1.1.1'],
  ['a single address works', ['127.0.0.1'], '127.0.0.1', '198.51.100.7', '198.51.100.7'],
]

for (const [name, trusted, peer, header, expected] of LINES) {
  test(name, () => assert.equal(address(trusted, peer, header), expected))
}
