import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type Server, type ServerResponse } from 'node:http'
import { type AddressInfo, isIPv6, type LookupFunction } from 'node:net'
import { type TestContext, test } from 'node:test'
import { refusingLinkLocal } from '../../../../src/proxy/upstream/lookup.ts'
import { proxyTo, rawClient } from '../../../kit/upstream/sockets.ts'

/** Resolves every name to what `addresses` holds at the moment. */
function lookupOf(addresses: string[]): LookupFunction {
  return (_, options, callback) => {
    assert.equal(options.all, true)
    callback(
      null,
      addresses.map((address) => ({ address, family: isIPv6(address) ? 6 : 4 })),
    )
  }
}

/** Servers on one port of several loopback addresses, each answering with its own. */
async function pods(t: TestContext, addresses: string[]) {
  const held: ServerResponse[] = []
  const servers: Server[] = []
  let port = 0
  for (const address of addresses) {
    const server = createServer((req, res) => {
      if (req.url === '/held') held.push(res)
      else res.end(address)
    })
    server.listen(port, address)
    await once(server, 'listening')
    port = (server.address() as AddressInfo).port
    servers.push(server)
    t.after(() => {
      server.closeAllConnections()
      server.close()
    })
  }
  return { port, held, servers }
}

async function ask(t: TestContext, port: number): Promise<string> {
  const request = 'GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n'
  const { text } = await rawClient(t, port, request).closed
  return text.slice(text.indexOf('\r\n\r\n') + 4)
}

test('a name that means another address is followed there, and requests in flight stay where they are', async (t) => {
  const { port, held } = await pods(t, ['127.0.0.1', '127.0.0.2'])
  const addresses = ['127.0.0.1']
  const deps = { lookup: lookupOf(addresses), connectionTtlMs: 100 }
  const proxy = await proxyTo(t, { upstream: `http://orders.test:${port}` }, {}, deps)
  assert.match(await ask(t, proxy.port), /127\.0\.0\.1/)
  const slow = rawClient(t, proxy.port, 'GET /held HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')
  while (held.length === 0) await new Promise(setImmediate)
  addresses[0] = '127.0.0.2'
  const since = performance.now()
  while (performance.now() < since + 200) await ask(t, proxy.port)
  assert.match(await ask(t, proxy.port), /127\.0\.0\.2/)
  held[0]!.end('still here')
  assert.match((await slow.closed).text, /still here/)
  assert.match(await ask(t, proxy.port), /127\.0\.0\.2/)
})

test('connections are kept for as long as they may be', async (t) => {
  const { port, servers } = await pods(t, ['127.0.0.1'])
  let connections = 0
  servers[0]!.on('connection', () => connections++)
  const proxy = await proxyTo(
    t,
    { upstream: `http://orders.test:${port}` },
    {},
    { lookup: lookupOf(['127.0.0.1']) },
  )
  for (let i = 0; i < 10; i++) await ask(t, proxy.port)
  assert.equal(connections, 1)
})

test('connections that grow old under load lose nothing', async (t) => {
  const { port, servers } = await pods(t, ['127.0.0.1'])
  let connections = 0
  servers[0]!.on('connection', () => connections++)
  const upstream = `http://127.0.0.1:${port}`
  const proxy = await proxyTo(t, { upstream, connections: 2 }, {}, { connectionTtlMs: 10 })
  const methods = ['GET', 'POST', 'GET', 'DELETE']
  async function client(): Promise<void> {
    for (let i = 0; i < 50; i++) {
      const request = `${methods[i % 4]} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`
      assert.match((await rawClient(t, proxy.port, request).closed).text, /^HTTP\/1\.1 200 /)
    }
  }
  await Promise.all(Array.from({ length: 8 }, client))
  assert.ok(connections > 4, `${connections} connections`)
})

test('a client that leaves before there is a connection leaves it to the next, and was never heard of', async (t) => {
  const { port, servers } = await pods(t, ['127.0.0.1'])
  const seen: string[] = []
  let connections = 0
  servers[0]!.on('connection', () => connections++)
  servers[0]!.on('request', (req) => seen.push(req.url!))
  const asked = Promise.withResolvers<() => void>()
  const lookup: LookupFunction = (...parts) => asked.resolve(() => lookupOf(['127.0.0.1'])(...parts))
  const proxy = await proxyTo(t, { upstream: `http://orders.test:${port}`, connections: 1 }, {}, { lookup })
  const settled = proxy.settled()
  const leaver = rawClient(t, proxy.port, 'POST /leaver HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab')
  const resolveName = await asked.promise
  leaver.socket.destroy()
  await settled
  const next = ask(t, proxy.port)
  resolveName()
  assert.match(await next, /127\.0\.0\.1/)
  assert.deepEqual(seen, ['/'])
  assert.equal(connections, 1)
})

test('an address that refuses is passed over for the next', async (t) => {
  const { port } = await pods(t, ['127.0.0.2'])
  const lookup = lookupOf(['127.0.0.3', '127.0.0.1', '127.0.0.2'])
  const proxy = await proxyTo(t, { upstream: `http://orders.test:${port}` }, {}, { lookup })
  assert.match(await ask(t, proxy.port), /127\.0\.0\.2/)
})

const METADATA = [
  '169.254.169.254',
  '169.254.0.1',
  'fe80::1',
  'fe80::1%eth0',
  'febf::1',
  'fd00:ec2::254',
  '::ffff:169.254.169.254',
  '::ffff:a9fe:a9fe',
]
for (const address of METADATA) {
  test(`a name that means ${address} leads nowhere`, async (t) => {
    const { promise, resolve } = Promise.withResolvers<NodeJS.ErrnoException | null>()
    refusingLinkLocal(lookupOf([address]))('orders.test', { all: true }, (error) => resolve(error))
    assert.equal((await promise)?.code, 'LINK_LOCAL_ADDRESS')
    const proxy = await proxyTo(t, { upstream: 'http://orders.test:80' }, {}, { lookup: lookupOf([address]) })
    assert.equal(await ask(t, proxy.port), 'upstream_unreachable')
  })
}

test('other addresses of the same name are used', async (t) => {
  const { port } = await pods(t, ['127.0.0.1'])
  const lookup = lookupOf([...METADATA, '127.0.0.1'])
  const proxy = await proxyTo(t, { upstream: `http://orders.test:${port}` }, {}, { lookup })
  assert.match(await ask(t, proxy.port), /127\.0\.0\.1/)
})

test('private and loopback addresses are where upstreams live', async () => {
  for (const address of [
    '10.0.0.1',
    '127.0.0.1',
    '169.253.0.1',
    '169.255.0.1',
    'fd00::1',
    'fec0::1',
    '::1',
  ]) {
    const { promise, resolve } = Promise.withResolvers<unknown[]>()
    refusingLinkLocal(lookupOf([address]))('orders.test', {}, (...outcome) => resolve(outcome))
    assert.deepEqual((await promise).slice(0, 2), [null, address])
  }
})
