import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { describe, type TestContext, test } from 'node:test'
import { setUp } from '../kit/attack/sign-in.ts'
import type { ConfigData } from '../kit/config/cloakroom-config.ts'
import { type RecordedRequest, sendJson } from '../kit/local-server.ts'

const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
const pem = {
  key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
  publicKeyPem: publicKey.export({ type: 'spki', format: 'pem' }).toString(),
}

/** What stands between the colon and its ends in the Basic credentials of a request. */
function basicOf(request: RecordedRequest | undefined): string[] | undefined {
  const encoded = /^Basic (.+)$/.exec(request?.headers.authorization ?? '')?.[1]
  return encoded === undefined ? undefined : Buffer.from(encoded, 'base64').toString('utf8').split(':')
}

/** The method that a request was authenticated with. */
function methodOf(request: RecordedRequest): string {
  const form = new URLSearchParams(request.form)
  if (basicOf(request)) return 'client_secret_basic'
  if (form.has('client_secret')) return 'client_secret_post'
  const [header = ''] = form.get('client_assertion')?.split('.') ?? []
  if (!header) return 'none'
  const { alg } = JSON.parse(Buffer.from(header, 'base64url').toString('utf8'))
  return alg === 'HS256' ? 'client_secret_jwt' : 'private_key_jwt'
}

describe('client_secret_basic encodes id and secret as application/x-www-form-urlencoded does (RFC 6749 appendix B)', () => {
  for (const [secret, encoded] of [
    ['6731de76-14a6-49ae-97bc-6eba6914391e', '6731de76-14a6-49ae-97bc-6eba6914391e'],
    ['a-b.c_d*e', 'a-b.c_d*e'],
    ["~!'()", '%7E%21%27%28%29'],
    [' %&+£€', '+%25%26%2B%C2%A3%E2%82%AC'],
    ['a:b/c=d?e@f', 'a%3Ab%2Fc%3Dd%3Fe%40f'],
  ] as const)
    test(JSON.stringify(secret), async (t) => {
      const { browser, provider } = await setUp(t, {
        provider: { clientId: 'the-shop.v1_a', clientSecret: secret },
        config: { provider: { clientAuth: { method: 'client_secret_basic', secret } } },
      })
      await browser.signIn()
      assert.deepEqual(basicOf(provider.tokenRequests()[0]), ['the-shop.v1_a', encoded])
    })
})

describe('revocation authenticates in a way that the revocation endpoint takes', () => {
  const SECRET = 'rotating-client-secret'
  type Row = {
    readonly name: string
    readonly auth: string
    readonly named?: readonly string[]
    /** The endpoint refuses everything else. */
    readonly takes: string
    readonly tried: readonly string[]
    readonly configured?: boolean
  }
  const [basic, post, jwt, key, none] = [
    ...['client_secret_basic', 'client_secret_post', 'client_secret_jwt', 'private_key_jwt', 'none'],
  ] as [string, string, string, string, string]
  const rows: Row[] = [
    { name: 'unnamed: Basic, whatever the token endpoint takes', auth: post, takes: basic, tried: [basic] },
    { name: 'unnamed and no Basic', auth: post, takes: post, tried: [basic, post] },
    { name: 'unnamed, Basic at the token endpoint', auth: basic, takes: post, tried: [basic, post] },
    { name: 'no metadata', auth: post, takes: post, tried: [post], configured: true },
    { name: 'no metadata and Basic', auth: post, takes: basic, tried: [post, basic], configured: true },
    { name: 'Basic named', auth: post, named: [basic], takes: basic, tried: [basic] },
    { name: 'post named', auth: basic, named: [post], takes: post, tried: [post] },
    {
      name: 'both named: as at the token endpoint',
      auth: post,
      named: [basic, post],
      takes: post,
      tried: [post],
    },
    { name: 'client_secret_jwt named', auth: post, named: [jwt], takes: jwt, tried: [jwt] },
    {
      name: 'nothing that we can do named',
      auth: post,
      named: ['tls_client_auth'],
      takes: post,
      tried: [post],
    },
    { name: 'private_key_jwt, unnamed', auth: key, takes: key, tried: [key] },
    { name: 'private_key_jwt, Basic named', auth: key, named: [basic], takes: key, tried: [key] },
    { name: 'a public client, unnamed', auth: none, takes: none, tried: [none] },
    { name: 'a public client, and Basic insisted on', auth: none, takes: basic, tried: [none, basic] },
  ]
  for (const { name, auth, named, takes, tried, configured } of rows)
    test(name, async (t: TestContext) => {
      const clientAuth: Record<string, ConfigData> = {
        [basic]: { method: basic, secret: SECRET },
        [post]: { method: post, secret: SECRET },
        [key]: { method: key, key: pem.key, secret: undefined },
        [none]: { method: none, secret: undefined },
      }
      const setup = await setUp(t, {
        provider: {
          ...(auth === key ? { publicKeyPem: pem.publicKeyPem } : {}),
          control: {
            metadata: named ? { revocation_endpoint_auth_methods_supported: named } : {},
            intercept: () => false,
          },
        },
      })
      const { provider, settings } = setup
      const revocations = () => provider.requests.filter(({ path }) => path === '/revoke')
      provider.control.intercept = (request, res) => {
        if (request.path === '/token' && auth === none) request.form.push(['client_secret', SECRET])
        if (request.path !== '/revoke') return false
        if (methodOf(request) === takes) res.writeHead(200).end()
        else sendJson(res, 401, { error: 'invalid_client' })
        return true
      }
      const cloakroom = await setup.start({
        provider: {
          ...settings.provider,
          clientAuth: clientAuth[auth],
          ...(configured ? { endpoints: { revocation: provider.endpoints.revocation } } : {}),
        },
      })
      const browser = cloakroom.browser()
      await browser.signIn()
      assert.equal((await browser.fetch('/bff/logout', { method: 'POST' })).status, 200)
      assert.deepEqual(revocations().map(methodOf), tried)
      for (const request of revocations().filter((one) => methodOf(one) === basic && auth !== none))
        assert.deepEqual(basicOf(request), ['shop', SECRET])
    })
})
