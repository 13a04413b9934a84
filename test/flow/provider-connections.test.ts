import assert from 'node:assert/strict'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { describe, type TestContext, test } from 'node:test'
import type { TLSSocket } from 'node:tls'
import { callbackOf, setUp } from '../kit/attack/sign-in.ts'
import { type RunningCloakroom, startCloakroom } from '../kit/cloakroom.ts'
import type { ConfigData } from '../kit/config/cloakroom-config.ts'
import { startForwardProxy } from '../kit/forward-proxy.ts'
import { type SelfSigned, selfSigned } from '../kit/self-signed.ts'

const NO_ROUTES = {
  resources: {},
  routes: [{ path: '/', upstream: 'http://127.0.0.1:1', auth: 'anonymous' }],
}

/** A provider with nothing but a discovery document, at https://id.test, whose clients are asked for a certificate. */
async function secureProvider(t: TestContext, document: ConfigData = {}) {
  const identity = selfSigned(['id.test'])
  const seen: { path: string | undefined; clientCertificate: boolean }[] = []
  const server = createServer({ ...identity, requestCert: true, rejectUnauthorized: false }, (req, res) => {
    const { raw } = (req.socket as TLSSocket).getPeerCertificate()
    seen.push({ path: req.url, clientCertificate: raw !== undefined })
    const endpoints = { authorization_endpoint: 'authorize', token_endpoint: 'token', jwks_uri: 'jwks' }
    const urls = Object.entries(endpoints).map(([name, path]) => [name, `https://id.test/${path}`])
    const metadata = { issuer: 'https://id.test', ...Object.fromEntries(urls), ...document }
    res.setHeader('content-type', 'application/json')
    res.end(JSON.stringify(metadata))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => server.close())
  const { port } = server.address() as AddressInfo
  const proxy = await startForwardProxy({ 'id.test': port })
  t.after(() => proxy.close())
  const start = async (provider: ConfigData = {}, env: Record<string, string> = {}) => {
    const cloakroom = await startCloakroom(
      {
        ...NO_ROUTES,
        provider: {
          ...{ issuer: 'https://id.test', clientId: 'shop', timeout: '2s' },
          ...{ clientAuth: { method: 'none' }, tls: { ca: identity.cert }, ...provider },
        },
      },
      { env: { HTTPS_PROXY: proxy.url, ...env } },
    )
    t.after(() => cloakroom.close())
    return cloakroom
  }
  return { identity, seen, proxy, start }
}

const login = (cloakroom: RunningCloakroom) => cloakroom.browser().open('/bff/login')
const warnings = ({ logs }: RunningCloakroom) =>
  logs.map((line) => JSON.parse(line)).filter(({ level }) => level === 'warn')

describe('every call to the provider goes through the proxy of the environment', () => {
  for (const [name, env] of [
    ['HTTP_PROXY', (url: string) => ({ HTTP_PROXY: url })],
    [
      'http_proxy, which comes before HTTP_PROXY',
      (url: string) => ({ HTTP_PROXY: 'http://127.0.0.1:1', http_proxy: url }),
    ],
    ['a proxy without a scheme', (url: string) => ({ HTTP_PROXY: url.replace('http://', '') })],
  ] as const)
    test(`for http URLs: ${name}`, async (t) => {
      const { provider, settings, advance, browser: _, ...setup } = await setUp(t)
      const proxy = await startForwardProxy()
      t.after(() => proxy.close())
      provider.control.metadata = { pushed_authorization_request_endpoint: `${provider.origin}/par` }
      provider.control.intercept = ({ path }, res) => {
        if (path !== '/par') return false
        res
          .writeHead(201, { 'content-type': 'application/json' })
          .end('{"request_uri":"urn:x","expires_in":60}')
        return true
      }
      const pushing = await startCloakroom(settings, { env: env(proxy.url) })
      t.after(() => pushing.close())
      assert.equal((await login(pushing)).status, 302)
      const { host } = new URL(provider.origin)
      const isThrough = (path: string) =>
        proxy.asked.some(
          (asked) => asked === `CONNECT ${host}` || asked.endsWith(`${provider.origin}${path}`),
        )
      assert.ok(isThrough('/.well-known/openid-configuration'))
      assert.ok(isThrough('/par'))

      const cloakroom = await startCloakroom(
        { ...settings, provider: { ...settings.provider, par: 'off' } },
        { env: env(proxy.url), now: () => Date.now() },
      )
      t.after(() => cloakroom.close())
      const before = provider.requests.length
      const browser = cloakroom.browser()
      await browser.signIn()
      assert.equal((await browser.fetch('/api/orders')).status, 200)
      assert.equal((await browser.fetch('/bff/logout', { method: 'POST' })).status, 200)
      const ours = new Set(provider.requests.slice(before).map(({ path }) => path))
      for (const path of ['/token', '/jwks', '/revoke']) {
        assert.ok(ours.has(path), path)
        assert.ok(isThrough(path), path)
      }
      // The API is none of the provider's.
      assert.ok(!proxy.asked.some((asked) => asked.includes(new URL(setup.api.url).host)))
    })

  test('for https URLs: HTTPS_PROXY, with a tunnel; HTTP_PROXY is not for them', async (t) => {
    const { proxy, start, seen } = await secureProvider(t)
    assert.equal((await login(await start())).status, 302)
    assert.deepEqual(proxy.asked, ['CONNECT id.test:443'])
    assert.equal(seen[0]?.path, '/.well-known/openid-configuration')
    const other = await start({}, { HTTPS_PROXY: '', HTTP_PROXY: proxy.url })
    assert.equal((await login(other)).status, 503)
    assert.equal(proxy.asked.length, 1)
  })

  test('user and password of the proxy are sent to it alone, and are in no log', async (t) => {
    const { proxy, start } = await secureProvider(t)
    const url = proxy.url.replace('http://', 'http://us%40er:pass%3Aword@')
    const cloakroom = await start({}, { HTTPS_PROXY: url })
    assert.equal((await login(cloakroom)).status, 302)
    assert.deepEqual(proxy.credentials, [`Basic ${Buffer.from('us@er:pass:word').toString('base64')}`])
    proxy.refuseWith(407)
    const refused = await start({}, { HTTPS_PROXY: url })
    assert.equal((await login(refused)).status, 503)
    const logs = [...cloakroom.logs, ...refused.logs].join()
    for (const secret of ['us%40er', 'us@er', 'pass%3Aword', 'pass:word']) assert.ok(!logs.includes(secret))
    assert.ok(cloakroom.logs.some((line) => line.includes(`"url":"${proxy.url}"`)))
    assert.ok(refused.logs.some((line) => /through the proxy.*407/.test(line)))
    assert.ok(!JSON.stringify(cloakroom.config).includes('pass'))
  })

  for (const [exception, isDirect] of [
    ['127.0.0.1', true],
    ['*', true],
    ['other.test, 127.0.0.1', true],
    ['127.0.0.0/8', true],
    ['10.0.0.0/8', false],
    ['127.0.0.1:1', false],
    ['other.test', false],
  ] as const)
    test(`NO_PROXY=${exception}: ${isDirect ? 'not through it' : 'through it'}`, async (t) => {
      const { settings } = await setUp(t)
      const proxy = await startForwardProxy()
      t.after(() => proxy.close())
      for (const name of ['NO_PROXY', 'no_proxy']) {
        const env = { HTTP_PROXY: proxy.url, [name]: exception }
        const cloakroom = await startCloakroom(settings, { env })
        t.after(() => cloakroom.close())
        assert.equal((await login(cloakroom)).status, 302)
        assert.equal(proxy.asked.length === 0, isDirect)
      }
    })

  test('a refresh whose proxy does not answer has not spent the refresh token', async (t) => {
    const { settings, provider } = await setUp(t)
    const proxy = await startForwardProxy()
    t.after(() => proxy.close())
    let aheadMs = 0
    const cloakroom = await startCloakroom(settings, {
      env: { HTTP_PROXY: proxy.url },
      now: () => Date.now() + aheadMs,
    })
    t.after(() => cloakroom.close())
    const browser = cloakroom.browser()
    await browser.signIn()
    assert.equal((await browser.fetch('/api/orders')).status, 200)
    aheadMs = 301_000
    await proxy.close()
    const refused = await browser.fetch('/api/orders')
    assert.deepEqual([refused.status, refused.json().code], [503, 'provider_unavailable'])
    assert.equal(provider.counters.reuseDetected, 0)
  })

  for (const value of ['socks5://127.0.0.1:1', 'http://:3128', 'http://a b', 'http://user:%E0%A4%A@proxy:1'])
    test(`${value} is no proxy: an error that names the variable, and not its value`, async (t) => {
      const { settings } = await setUp(t)
      await assert.rejects(
        startCloakroom(settings, { env: { https_proxy: value } }),
        (error: Error) =>
          /environment variable https_proxy must be the http\(s\) URL of a proxy/.test(error.message) &&
          !error.message.includes(value),
      )
    })
})

describe('provider.tls', () => {
  test('ca is trusted for calls to the provider, and without it the provider’s certificate is refused', async (t) => {
    const { start } = await secureProvider(t)
    assert.equal((await login(await start())).status, 302)
    assert.equal((await login(await start({ tls: undefined }))).status, 503)
    assert.equal((await login(await start({ tls: { ca: selfSigned(['id.test']).cert } }))).status, 503)
  })

  test('cert and key are shown to the provider', async (t) => {
    const { start, seen, identity } = await secureProvider(t)
    const { cert, key } = selfSigned(['client.test'])
    await login(await start())
    await login(await start({ tls: { ca: identity.cert, cert, key } }))
    assert.deepEqual(
      seen.map(({ clientCertificate }) => clientCertificate),
      [false, true],
    )
  })

  test('a cert without its key is an error', async (t) => {
    const { start, identity } = await secureProvider(t)
    const { cert } = selfSigned(['client.test'])
    await assert.rejects(start({ tls: { ca: identity.cert, cert } }), /provider\.tls\.key: is required/)
  })

  test('changes with a reload', async (t) => {
    const { start, identity } = await secureProvider(t)
    const other: SelfSigned = selfSigned(['id.test'])
    const cloakroom = await start({ tls: { ca: other.cert } })
    assert.equal((await login(cloakroom)).status, 503)
    const provider = { issuer: 'https://id.test', clientId: 'shop', clientAuth: { method: 'none' } }
    await cloakroom.reload({ provider: { ...provider, tls: { ca: identity.cert } } })
    assert.equal((await login(cloakroom)).status, 302)
  })
})

describe('plain http', () => {
  const names = {
    token_endpoint: 'http://id.internal:8080/token',
    jwks_uri: 'http://127.0.0.1:8080/jwks',
    pushed_authorization_request_endpoint: 'http://id.internal/par',
    revocation_endpoint: 'http://id.internal/revoke',
    end_session_endpoint: 'http://id.internal/end',
    userinfo_endpoint: 'http://id.internal/userinfo',
    authorization_endpoint: 'http://id.internal/authorize',
  }
  for (const [name, url] of Object.entries(names))
    test(`${name} of a provider in https is refused, with the cure, unless its host is named`, async (t) => {
      const { start } = await secureProvider(t, { [name]: url })
      const refused = await start()
      assert.deepEqual([(await login(refused)).status, warnings(refused).length > 0], [502, true])
      const { host, hostname } = new URL(url)
      const cure = `provider.insecureHosts: [${host}]`
      assert.ok(
        warnings(refused).some(({ err }) => err?.message.includes(cure) && err.message.includes(name)),
      )
      for (const insecureHosts of [[host], [hostname]]) {
        const allowed = await start({ insecureHosts, par: 'off' })
        assert.equal((await login(allowed)).status, 302)
        assert.ok(
          warnings(allowed).some(
            ({ msg, url: told }) => /plain http/.test(msg) && told === `http://${insecureHosts[0]}`,
          ),
        )
      }
      const elsewhere = await start({ insecureHosts: ['other.internal', 'id.internal:1', '127.0.0.1:1'] })
      assert.equal((await login(elsewhere)).status, 502)
    })

  test('what is no URL, or of another scheme, is refused', async (t) => {
    for (const url of ['', '/token', 'ftp://id.test/token', 'javascript:0', 7]) {
      const { start } = await secureProvider(t, { token_endpoint: url })
      assert.equal((await login(await start({ insecureHosts: ['id.test'] }))).status, 502, String(url))
    }
  })

  test('of a provider on this machine is for this machine', async (t) => {
    const { provider, settings, ...setup } = await setUp(t)
    provider.control.metadata = { revocation_endpoint: 'http://id.internal/revoke' }
    const refused = await setup.start()
    assert.equal((await login(refused)).status, 502)
    const allowed = await setup.start({ provider: { ...settings.provider, insecureHosts: ['id.internal'] } })
    assert.equal((await allowed.browser().open('/bff/login')).status, 302)
    assert.ok(await callbackOf({ browser: allowed.browser() }))
  })
})
