import assert from 'node:assert/strict'
import { createPublicKey } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import type { ClientMetadata } from 'oidc-provider'
import type { ConfigData } from '../kit/config/cloakroom-config.ts'
import { startTlsProvider, type TlsProvider } from '../kit/provider/tls-provider.ts'
import { rsaKey, selfSigned } from '../kit/self-signed.ts'
import { APP, BILLING, movableClock, ORDERS, type Scope, startShop, verdict } from '../kit/shops/shop.ts'

const SECRET = 'a client secret of more than 32 bytes'
const KEY = rsaKey()
const NEXT_KEY = rsaKey()
const OWN = selfSigned(['cloakroom.test'], { days: 365 })
const jwkOf = (pem: string, kid: string) => ({
  ...createPublicKey(pem).export({ format: 'jwk' }),
  kid,
  use: 'sig',
})

/** How each client is registered, and how Cloakroom is told. */
const CLIENTS: Record<
  string,
  { registered: Partial<ClientMetadata>; clientAuth: ConfigData; tls?: ConfigData }
> = {
  client_secret_jwt: {
    registered: { client_secret: SECRET },
    clientAuth: { secret: SECRET },
  },
  private_key_jwt: {
    registered: { jwks: { keys: [jwkOf(KEY, 'key-1')] } },
    clientAuth: { key: KEY, keyId: 'key-1', algorithm: 'PS256' },
  },
  certificate: {
    registered: {
      token_endpoint_auth_method: 'private_key_jwt',
      token_endpoint_auth_signing_alg: 'PS256',
      jwks: { keys: [jwkOf(KEY, 'old'), jwkOf(NEXT_KEY, 'new')] },
    },
    clientAuth: {
      key: KEY,
      certificate: selfSigned(['cloakroom.test'], { key: KEY, days: 365 }).cert,
    },
  },
  tls_client_auth: {
    registered: { tls_client_auth_subject_dn: 'CN=Cloakroom tests' },
    clientAuth: {},
    tls: { cert: OWN.cert, key: OWN.key },
  },
}

describe('the features of a provider, at oidc-provider over TLS', () => {
  const cleanUps: (() => unknown)[] = []
  const scope: Scope = { after: (cleanUp) => void cleanUps.unshift(cleanUp) }
  let server: TlsProvider

  before(async () => {
    server = await startTlsProvider(scope, {
      clients: Object.entries(CLIENTS).map(([method, { registered }]) => ({
        ...{
          client_id: method,
          token_endpoint_auth_method: method as 'none',
          redirect_uris: [`${APP}/bff/callback`],
        },
        ...{ grant_types: ['authorization_code', 'refresh_token'] },
        post_logout_redirect_uris: [`${APP}/bff/logged-out`],
        ...registered,
      })),
      claims: { profile: { name: 'Ada Lovelace' }, groups: { groups: ['ops'] } },
      resources: { [ORDERS]: 'orders.read', [BILLING]: 'billing.read' },
    })
  })
  after(async () => {
    for (const cleanUp of cleanUps) await cleanUp()
  })

  /** A Cloakroom that is this client, and a browser that has signed in. */
  async function signedIn(t: Scope, method: keyof typeof CLIENTS, more: ConfigData = {}) {
    const { clientAuth, tls } = CLIENTS[method]!
    const clock = movableClock()
    const shop = await startShop(t, {
      provider: {
        ...{ issuer: server.issuer, clientId: method, clientAuth: { method, ...clientAuth } },
        ...{
          resourceDialect: 'resource-indicator',
          scopes: ['openid', 'profile', 'groups', 'offline_access'],
        },
        ...{ offlineConsent: 'always', tls: { ca: server.ca, ...tls }, ...more },
      },
      jwks: `${server.plainUrl}/jwks`,
      now: clock.now,
    })
    const browser = shop.browser({ connect: { [server.issuer]: server.plainUrl } })
    const seen = server.answered.length
    const answered = () => server.answered.slice(seen)
    return { shop, browser, clock, answered }
  }

  for (const method of Object.keys(CLIENTS))
    test(`${method}: pushed request, code, refresh and revocation are accepted`, async (t) => {
      const { browser, clock, answered } = await signedIn(t, method)
      assert.equal((await browser.signIn({ returnUrl: '/home' })).url.href, `${APP}/home`)
      assert.deepEqual(verdict(await browser.fetch('/api/orders/1')), [200, ORDERS])
      assert.deepEqual(verdict(await browser.fetch('/api/billing/1')), [200, BILLING])
      clock.advance(300_000)
      assert.deepEqual(verdict(await browser.fetch('/api/orders/1')), [200, ORDERS])
      assert.equal((await browser.fetch('/bff/logout', { method: 'POST' })).status, 200)
      const prefix = method === 'tls_client_auth' ? 'mtls ' : ''
      const posts = answered().filter((line) => /POST \/(?:request|token)/.test(line))
      assert.deepEqual(posts, [
        `${prefix}POST /request 201`,
        ...Array.from({ length: 3 }, () => `${prefix}POST /token 200`),
        `${prefix}POST /token/revocation 200`,
      ])
    })

  test('oidcc-client-test-mtls-endpoint-aliases: a client with a certificate calls the aliases, and no endpoint without', async (t) => {
    const { browser, answered } = await signedIn(t, 'tls_client_auth')
    assert.equal((await browser.signIn({ returnUrl: '/home' })).url.href, `${APP}/home`)
    assert.deepEqual(verdict(await browser.fetch('/api/billing/1')), [200, BILLING])
    const calls = answered().filter((line) =>
      / POST \/(?:request|token)\b|^POST \/(?:request|token)\b/.test(line),
    )
    assert.deepEqual(calls, ['mtls POST /request 201', ...Array(2).fill('mtls POST /token 200')])
  })

  test('a certificate is replaced while users are signed in, half a pair at a time, and nobody notices', async (t) => {
    const folder = await mkdtemp(join(tmpdir(), 'cloakroom-pair-'))
    t.after(() => rm(folder, { recursive: true, force: true }))
    const [key, certificate] = ['tls.key', 'tls.crt'].map((name) => join(folder, name)) as [string, string]
    const write = (pem: string) =>
      writeFile(certificate, selfSigned(['x.test'], { key: pem, days: 365 }).cert)
    await Promise.all([writeFile(key, KEY), write(KEY)])
    const clientAuth = { method: 'certificate', key: { file: key }, certificate: { file: certificate } }
    const { shop, browser, clock, answered } = await signedIn(t, 'certificate', { clientAuth })
    await browser.signIn()
    for (const change of [() => writeFile(key, NEXT_KEY), () => write(NEXT_KEY)]) {
      await change()
      clock.advance(300_000)
      assert.deepEqual(verdict(await browser.fetch('/api/orders/1')), [200, ORDERS])
    }
    assert.ok(!answered().some((line) => / [45]\d\d$/.test(line) && line.includes('/token')))
    const told = shop.cloakroom.logs.filter((line) =>
      /client authenticates with this|do not belong/.test(line),
    )
    assert.equal(told.length, 3)
  })

  test('a client that is refused is told with its method, its key and what to register', async (t) => {
    const stranger = rsaKey()
    const certificate = selfSigned(['cloakroom.test'], { key: stranger, days: 365 }).cert
    const { shop, browser } = await signedIn(t, 'certificate', {
      clientAuth: { method: 'certificate', key: stranger, certificate },
    })
    assert.equal((await browser.open('/bff/login')).status, 502)
    const lines = shop.cloakroom.logs.map((line) => JSON.parse(line))
    const fault = lines.find(({ level }) => level === 'error')
    const used = lines.find(({ msg }) => msg.startsWith('the client authenticates'))
    assert.deepEqual(
      [fault.reason, fault.clientAuth, fault.keyId, fault.resource],
      ['invalid_client', 'certificate', used.keyId, '(par)'],
    )
    assert.match(fault.cure, /register this certificate/)
    const text = shop.cloakroom.logs.join('\n')
    for (const secret of [SECRET, 'PRIVATE KEY', 'eyJ']) assert.ok(!text.includes(secret))
  })

  test('UserInfo claims are those of the session, through a refresh, and the APIs have tokens of their own', async (t) => {
    const { browser, clock, answered } = await signedIn(t, 'private_key_jwt', { userinfo: true })
    await browser.signIn({ user: 'ada' })
    const claims = async () => {
      const { sub, name, groups } = (await browser.fetch('/bff/user')).json()
      return { sub, name, groups }
    }
    const expected = { sub: 'ada', name: 'Ada Lovelace', groups: ['ops'] }
    assert.deepEqual(await claims(), expected)
    assert.deepEqual(verdict(await browser.fetch('/api/orders/1')), [200, ORDERS])
    clock.advance(300_000)
    assert.deepEqual(verdict(await browser.fetch('/api/billing/1')), [200, BILLING])
    assert.deepEqual(await claims(), expected)
    assert.equal(answered().filter((line) => line === 'GET /me 200').length, 1)
  })

  test('a login URL passes on what is listed, and max_age makes a signed-in user sign in again', async (t) => {
    const requests: Record<string, unknown>[] = []
    const note = ({ oidc }: { oidc: { params?: Record<string, unknown> } }) =>
      void requests.push({ ...oidc.params })
    server.provider.on('authorization.accepted', note as never)
    t.after(() => server.provider.off('authorization.accepted', note as never))
    const { browser, answered } = await signedIn(t, 'private_key_jwt', {
      loginParams: ['prompt', 'acr_values', 'max_age', 'ui_locales'],
    })
    const pages = () => answered().filter((line) => line.startsWith('POST /interaction/')).length
    const params = { acr_values: 'gold', max_age: '600', ui_locales: 'de fr', login_hint: 'eve' }
    const landing = await browser.signIn({ returnUrl: '/home', params })
    assert.equal(landing.url.href, `${APP}/home`)
    const { acr_values, max_age, ui_locales, login_hint } = requests.at(-1)!
    assert.deepEqual([acr_values, max_age, ui_locales, login_hint], ['gold', '600', 'de fr', undefined])
    const first = pages()
    // Asked for nothing, the provider lets a user pass who has signed in before.
    await browser.signIn({ params: { max_age: '600' } })
    assert.equal(pages() - first, first - 1, 'consent alone')
    await browser.signIn({ params: { max_age: '0' } })
    assert.equal(pages() - first, 2 * first - 1, 'the password again')
  })
})
