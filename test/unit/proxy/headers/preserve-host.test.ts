import assert from 'node:assert/strict'
import { createServer, get, type IncomingMessage } from 'node:http'
import { createServer as createHttp2Server, createSecureServer } from 'node:http2'
import { createServer as createTlsServer } from 'node:https'
import type { LookupFunction } from 'node:net'
import { type TestContext, test } from 'node:test'
import type { TLSSocket } from 'node:tls'
import { certificates } from '../../../kit/upstream/certificates.ts'
import { open, proxyTo, rawClient } from '../../../kit/upstream/sockets.ts'
import { handshake, tunnelTo } from '../../../kit/upstream/tunnel-kit.ts'

/** The certificate's name, wherever the test listens. */
const lookup = ((_name, options, callback) => {
  if (options.all) callback(null, [{ address: '127.0.0.1', family: 4 }])
  else callback(null, '127.0.0.1', 4)
}) as LookupFunction

type Seen = { host: string | undefined; hosts: number; sni: string | false | null | undefined }

function noting(seen: Seen[]) {
  return (req: IncomingMessage) => {
    const names = req.rawHeaders.filter((_, i) => i % 2 === 0).map((name) => name.toLowerCase())
    seen.push({
      host: String(req.headers[':authority'] ?? req.headers.host),
      hosts: names.filter((name) => name === 'host' || name === ':authority').length,
      sni: (req.socket as TLSSocket).servername,
    })
  }
}

/** An upstream of each kind, and what it is asked for by requests on a route that preserves the host, or does not. */
async function hostsSeen(
  t: TestContext,
  { tls, http2, preserveHost }: { tls: boolean; http2: boolean; preserveHost: boolean },
): Promise<{ seen: Seen[]; own: string }> {
  const seen: Seen[] = []
  const note = noting(seen)
  const answer = (req: unknown, res: { end(text: string): unknown }) => {
    note(req as IncomingMessage)
    res.end('ok')
  }
  const server = http2
    ? tls
      ? createSecureServer(certificates.server, answer)
      : createHttp2Server(answer)
    : tls
      ? createTlsServer(certificates.server, answer)
      : createServer(answer)
  const own = `orders.internal:${await open(t, server as never)}`
  const upstream = `${tls ? 'https' : 'http'}://${own}`
  const secure = tls ? { tls: { ca: certificates.ca } } : {}
  const { port } = await proxyTo(t, { upstream, http2, preserveHost, ...secure }, {}, { lookup })
  for (let n = 0; n < 2; n++) {
    const status = await new Promise((resolve, reject) =>
      get({ port, path: '/x', headers: { Host: 'evil.test', X_Host: 'evil.test' } }, (res) => {
        res.resume().on('end', () => resolve(res.statusCode))
      }).on('error', reject),
    )
    assert.equal(status, 200)
  }
  return { seen, own }
}

for (const tls of [false, true]) {
  for (const http2 of [false, true]) {
    const kind = `${http2 ? 'HTTP/2' : 'HTTP/1.1'}${tls ? ' with TLS' : ''}`
    test(`over ${kind} a route that preserves the host tells the upstream the public one, and no other does`, async (t) => {
      const sni = tls ? 'orders.internal' : undefined
      const kept = await hostsSeen(t, { tls, http2, preserveHost: true })
      const expected = { host: 'app.test', hosts: 1, sni }
      assert.deepEqual(kept.seen, [expected, expected])
      const { seen, own } = await hostsSeen(t, { tls, http2, preserveHost: false })
      assert.deepEqual(seen[0], { host: own, hosts: 1, sni })
    })
  }

  test(`an upgrade${tls ? ' with TLS' : ''} tells the upstream the public host on such a route only`, async (t) => {
    const seen: Seen[] = []
    const note = noting(seen)
    const server = tls ? createTlsServer(certificates.server) : createServer()
    server.on('upgrade', (req, socket) => {
      note(req)
      socket.end('HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n')
    })
    const own = `orders.internal:${await open(t, server)}`
    const secure = tls ? { tls: { ca: certificates.ca } } : {}
    for (const preserveHost of [true, false]) {
      const route = { preserveHost, ...secure }
      const { port } = await tunnelTo(t, `${tls ? 'https' : 'http'}://${own}`, { route, lookup })
      const { text } = await rawClient(t, port, handshake()).closed
      assert.match(text, /^HTTP\/1\.1 403 /)
    }
    const sni = tls ? 'orders.internal' : undefined
    assert.deepEqual(seen, [
      { host: 'app.test', hosts: 1, sni },
      { host: own, hosts: 1, sni },
    ])
  })
}

test('an upstream named by its address is verified for the name that is configured, whatever host it is told', async (t) => {
  const seen: Seen[] = []
  const note = noting(seen)
  const server = createTlsServer(certificates.server, (req, res) => {
    note(req)
    res.end('ok')
  })
  const upstream = `https://127.0.0.1:${await open(t, server)}`
  const tls = { ca: certificates.ca, servername: 'orders.internal' }
  const { port } = await proxyTo(t, { upstream, preserveHost: true, tls })
  await new Promise((resolve) => get({ port, path: '/x' }, (res) => res.resume().on('end', resolve)))
  assert.deepEqual(seen, [{ host: 'app.test', hosts: 1, sni: 'orders.internal' }])
})
