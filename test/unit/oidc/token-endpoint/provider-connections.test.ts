import assert from 'node:assert/strict'
import { createServer as createPlainServer } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { type TestContext, test } from 'node:test'
import type { ProviderConfig } from '../../../../src/config/config.ts'
import { Secret } from '../../../../src/config/secrets/secret.ts'
import { createProviderConnections } from '../../../../src/oidc/token-endpoint/provider-connections.ts'
import { createSendWatch } from '../../../../src/oidc/token-endpoint/provider-fetch.ts'
import { startForwardProxy } from '../../../kit/forward-proxy.ts'
import { selfSigned } from '../../../kit/self-signed.ts'

type Settings = Pick<ProviderConfig, 'tls' | 'proxy'>

/** A provider in plain http, one in https under the name id.test, and a proxy that knows both. */
async function scene(t: TestContext) {
  const identity = selfSigned(['id.test', 'localhost'])
  const answer = (_: unknown, res: { end(text: string): void }) => res.end('answered')
  const servers = [createPlainServer(answer), createServer(identity, answer)]
  for (const server of servers) {
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    t.after(() => server.close())
  }
  const [plainPort, securePort] = servers.map((server) => (server.address() as AddressInfo).port)
  const proxy = await startForwardProxy({ 'id.test': securePort!, 'plain.test': plainPort! })
  t.after(() => proxy.close())
  const get = async (settings: Settings, url: string) => {
    const fetchFromProvider = createProviderConnections(settings)
    assert.ok(fetchFromProvider)
    return (await fetchFromProvider(url, { method: 'GET' })).text()
  }
  return { identity, plainPort, securePort, proxy, url: new Secret(proxy.url), get }
}

test('without proxies and a TLS identity the fetch of Node.js will do', () => {
  assert.equal(createProviderConnections({}), undefined)
  assert.ok(createProviderConnections({ tls: {} }))
  assert.ok(createProviderConnections({ proxy: { except: [] } }))
})

test('each scheme has its own proxy, and what has none is asked directly', async (t) => {
  const { identity, plainPort, securePort, proxy, url, get } = await scene(t)
  const tls = { ca: identity.cert }
  assert.equal(await get({ proxy: { http: url, except: [] } }, 'http://plain.test/x'), 'answered')
  assert.deepEqual(
    proxy.asked.map((asked) => /plain\.test/.test(asked)),
    [true],
  )
  assert.equal(
    await get({ tls, proxy: { http: url, except: [] } }, `https://localhost:${securePort}/`),
    'answered',
  )
  assert.equal(proxy.asked.length, 1, 'the proxy for http URLs is none for https')
  assert.equal(await get({ tls, proxy: { https: url, except: [] } }, 'https://id.test/'), 'answered')
  assert.deepEqual(proxy.asked.slice(1), ['CONNECT id.test:443'])
  assert.equal(await get({ proxy: { https: url, except: [] } }, `http://127.0.0.1:${plainPort}/`), 'answered')
  assert.equal(proxy.asked.length, 2)
})

test('an exception of NO_PROXY is asked directly', async (t) => {
  const { plainPort, proxy, url, get } = await scene(t)
  const except = ['127.0.0.1']
  assert.equal(await get({ proxy: { http: url, except } }, `http://127.0.0.1:${plainPort}/`), 'answered')
  assert.deepEqual(proxy.asked, [])
})

test('the configured CA is trusted, directly and through a proxy, and no other', async (t) => {
  const { identity, securePort, url, get } = await scene(t)
  const direct = `https://localhost:${securePort}/`
  assert.equal(await get({ tls: { ca: identity.cert } }, direct), 'answered')
  const stranger = { ca: selfSigned(['localhost', 'id.test']).cert }
  await assert.rejects(get({ tls: stranger }, direct), TypeError)
  await assert.rejects(
    get({ tls: stranger, proxy: { https: url, except: [] } }, 'https://id.test/'),
    TypeError,
  )
})

test('a failure says that a proxy stood between and what it did; a direct one is as fetch has it', async (t) => {
  const { proxy, url, get } = await scene(t)
  proxy.refuseWith(407)
  await assert.rejects(get({ proxy: { https: url, except: [] } }, 'https://id.test/'), (error) => {
    assert.ok(error instanceof TypeError)
    assert.match(error.message, /^fetch failed through the proxy: .*407/)
    assert.ok(error.cause instanceof Error)
    return true
  })
  await assert.rejects(get({ proxy: { except: [] } }, 'http://127.0.0.1:1/'), (error) => {
    assert.ok(error instanceof TypeError)
    return error.message === 'fetch failed'
  })
})

test('giving up on a request is told by its own reason, proxy or not', async (t) => {
  const { url } = await scene(t)
  const reason = new Error('too late')
  const fetchFromProvider = createProviderConnections({ proxy: { http: url, except: [] } })
  const signal = AbortSignal.abort(reason)
  await assert.rejects(fetchFromProvider!('http://plain.test/', { signal }), (error) => error === reason)
})

test('a request whose proxy refuses the tunnel was not sent, and one that went through it was', async (t) => {
  const { identity, proxy, url } = await scene(t)
  const settings = { tls: { ca: identity.cert }, proxy: { https: url, except: [] } }
  const watch = createSendWatch()
  /** With connections of its own, and so with a tunnel of its own. */
  const wasSent = async () => {
    const fetchFromProvider = createProviderConnections(settings)!
    const sent: true[] = []
    const request = () => fetchFromProvider('https://id.test/token', { method: 'POST', body: 'x' })
    const work = watch(request, () => void sent.push(true))
    await work.then(
      (answer) => answer.text(),
      () => undefined,
    )
    return sent.length > 0
  }
  assert.equal(await wasSent(), true)
  proxy.refuseWith(503)
  assert.equal(await wasSent(), false)
})
