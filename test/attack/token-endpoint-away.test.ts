import assert from 'node:assert/strict'
import { createServer } from 'node:https'
import { type AddressInfo, createServer as createTcpServer, type Server, type Socket } from 'node:net'
import { type TestContext, test } from 'node:test'
import { systemClock } from '../../src/async/clock.ts'
import { loadConfig } from '../../src/config/load.ts'
import { createProvider } from '../../src/oidc/provider.ts'
import { createLimiters } from '../../src/oidc/token-endpoint/limiter.ts'
import { ORDERS } from '../kit/attack/sign-in.ts'
import { captureLog } from '../kit/cloakroom.ts'
import { configWith } from '../kit/config/cloakroom-config.ts'
import { sendHtml, startLocalServer } from '../kit/local-server.ts'
import { freePort } from '../kit/ports.ts'
import { selfSigned } from '../kit/self-signed.ts'

type UrlOf = (t: TestContext) => Promise<string>

/** A token endpoint that answers like this. */
const answering =
  (handle: Parameters<typeof startLocalServer>[0]): UrlOf =>
  async (t) => {
    const server = await startLocalServer(handle)
    t.after(() => server.close())
    return `${server.origin}/token`
  }

/** One where the TLS handshake is met like this. */
const handshake =
  (meet: (socket: Socket) => void): UrlOf =>
  async (t) => {
    const open: Socket[] = []
    const server = createTcpServer((socket) => {
      open.push(socket.on('error', () => undefined).resume())
      meet(socket)
    })
    t.after(() => {
      for (const socket of open) socket.destroy()
    })
    return secureUrl(t, server)
  }

const showing =
  (hosts: string[]): UrlOf =>
  (t) =>
    secureUrl(
      t,
      createServer(selfSigned(hosts), () => assert.fail('it is not spoken to')),
    )

const page = answering((_, res) => sendHtml(res, 200, '<h1>blocked</h1>'))
const json = { 'content-type': 'application/json' }

const ENDPOINTS: [name: string, urlOf: UrlOf, isMaybeUsed: boolean][] = [
  ['has an unknown name', async () => 'https://token.invalid/token', false],
  ['refuses connections', async () => `http://127.0.0.1:${await freePort()}/token`, false],
  ['speaks no TLS', async (t) => (await page(t)).replace('http:', 'https:'), false],
  ['never answers the TLS handshake', handshake(() => undefined), false],
  ['resets the TLS handshake', handshake((socket) => void socket.resetAndDestroy()), false],
  ['breaks off the TLS handshake', handshake((socket) => void socket.end()), false],
  ['shows an untrusted certificate', showing(['127.0.0.1']), false],
  ['shows the certificate of another', showing(['other.test']), false],
  ['answers with a page and status 200', page, false],
  ['never answers', answering(() => undefined), true],
  ['resets the connection', answering((_, res) => void res.socket?.destroy()), true],
  [
    'answers with status 200 and half a JSON',
    answering((_, res) => void res.writeHead(200, json).end('{"access_token":"at","refresh_tok')),
    true,
  ],
  [
    'breaks off its answer',
    answering((_, res) => {
      res.writeHead(200, { ...json, 'content-length': '100' })
      res.write('{"access_token":"at"', () => res.destroy())
    }),
    true,
  ],
]

for (const [name, urlOf, isMaybeUsed] of ENDPOINTS)
  test(`G13: a token endpoint that ${name} is away for a while: the refresh token ${isMaybeUsed ? 'may be' : 'is not'} used up, and the log is not silent`, async (t) => {
    const token = await urlOf(t)
    const base = 'http://127.0.0.1:1'
    await assertAway(
      { issuer: base, endpoints: { authorization: `${base}/a`, token, jwks: `${base}/j` } },
      isMaybeUsed,
    )
  })

for (const [name, urlOf] of [
  ['never answers', answering(() => undefined)],
  ['answers with a page', page],
] as const)
  test(`a provider whose discovery ${name} has not even been shown the refresh token`, async (t) => {
    await assertAway({ issuer: await urlOf(t) }, false)
  })

async function assertAway(place: Record<string, unknown>, isMaybeUsed: boolean): Promise<void> {
  const { provider, lines } = providerAt(place)
  const outcome = await provider.refreshGrant({
    ...{ refreshToken: 'rt', resource: 'orders' },
    keep: async () => assert.fail('there is nothing to keep'),
  })
  assert.equal(outcome.kind, 'unavailable')
  assert.equal(outcome.kind === 'unavailable' && outcome.error.code, 'provider_unavailable')
  assert.equal(outcome.kind === 'unavailable' && outcome.isMaybeUsed, isMaybeUsed)
  assert.equal(lines.length, 1)
  assert.ok(!lines.join().includes('"rt"'))
}

async function secureUrl(t: TestContext, server: Server): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => server.close())
  return `https://127.0.0.1:${(server.address() as AddressInfo).port}/token`
}

/** The oidc room alone, with a provider that it has no other word of. */
function providerAt(provider: Record<string, unknown>) {
  const place = { publicUrl: 'http://127.0.0.1:1', listen: '127.0.0.1:0', adminListen: '127.0.0.1:0' }
  const text = JSON.stringify(
    configWith(
      {
        provider: {
          ...{ ...provider, clientId: 'shop', timeout: '500ms' },
          ...{ resourceDialect: 'resource-indicator', clientAuth: { method: 'none' } },
        },
        resources: { orders: { resource: ORDERS } },
        routes: [{ path: '/', upstream: 'http://127.0.0.1:1', resource: 'orders' }],
      },
      place,
    ),
  )
  const { config } = loadConfig({ text, file: 'cloakroom.yaml', env: {} })
  const { log, lines } = captureLog()
  const ignore = () => undefined
  const observe = {
    ...{ inFlight: ignore, queue: ignore, breaker: ignore, call: ignore },
    ...{ grant: ignore, configFault: ignore },
  }
  const limiters = createLimiters({ log, clock: { ...systemClock, monotonicNow: Date.now }, observe })
  return {
    provider: createProvider({ config, log, now: Date.now, monotonicNow: Date.now, limiters, observe }),
    lines,
  }
}
