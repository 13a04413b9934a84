import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { describe, test } from 'node:test'
import { Secret } from '../../../../src/config/secrets/secret.ts'
import { BffError } from '../../../../src/errors.ts'
import { ISSUER, scriptedProvider } from '../../../kit/provider/scripted-provider.ts'

const CHECKS = { state: 'the-state', nonce: 'the-nonce', codeVerifier: 'v'.repeat(43) }
const secret = new Secret('s-e.c_r+t')
const codeOf = (error: unknown) => (error instanceof BffError ? error.code : String(error))

describe('discovery', () => {
  test('happens once, then again after an hour, and a failure leaves the last one in use', async () => {
    const { relyingParty, clock, requests, scripts, discoveries } = scriptedProvider()
    await Promise.all([relyingParty.ready(), relyingParty.ready()])
    clock.at += 3_599_999
    await relyingParty.ready()
    assert.equal(requests.length, 1)
    scripts.clear()
    clock.at += 1
    await relyingParty.ready()
    await new Promise(setImmediate)
    assert.equal(requests.length, 2)
    assert.equal(await relyingParty.endSessionEndpoint(), `${ISSUER}/end`)
    await new Promise(setImmediate)
    assert.deepEqual(
      discoveries.map((error) => error?.code),
      [undefined, 'provider_unavailable'],
    )
  })

  test('that fails is not repeated for half a second, doubling to 30 s', async () => {
    const { relyingParty, clock, requests, scripts } = scriptedProvider()
    scripts.set('/.well-known/openid-configuration', () => new Response(null, { status: 503 }))
    let asked = 0
    for (const waitMs of [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]) {
      await assert.rejects(relyingParty.ready(), (error) => codeOf(error) === 'provider_unavailable')
      asked += 1
      assert.equal(requests.length, asked)
      clock.at += waitMs - 1
      await assert.rejects(relyingParty.ready())
      assert.equal(requests.length, asked, `asked again after ${waitMs - 1} ms`)
      clock.at += 1
    }
  })

  test('is not needed where all endpoints are configured', async () => {
    const { relyingParty, requests } = scriptedProvider({
      provider: {
        endpoints: {
          ...{
            authorization: 'https://other.test/a',
            token: 'https://other.test/t',
            jwks: 'https://other.test/k',
          },
          endSession: 'https://other.test/e',
        },
      },
    })
    await relyingParty.ready()
    assert.equal(await relyingParty.endSessionEndpoint(), 'https://other.test/e')
    assert.equal(await relyingParty.revoke('rt'), false)
    assert.deepEqual(requests, [])
  })

  for (const missing of ['authorization', 'token', 'jwks'] as const)
    test(`is needed where ${missing} alone is not configured`, async () => {
      const all = { authorization: `${ISSUER}/a`, token: `${ISSUER}/t`, jwks: `${ISSUER}/k` }
      const { [missing]: _, ...endpoints } = all
      const { relyingParty, requests } = scriptedProvider({ provider: { endpoints } })
      await relyingParty.ready()
      assert.equal(requests.length, 1)
    })

  test('a configured endpoint takes the place of the one that was discovered', async () => {
    const { relyingParty } = scriptedProvider({
      provider: { endpoints: { endSession: 'https://other.test/e' } },
    })
    assert.equal(await relyingParty.endSessionEndpoint(), 'https://other.test/e')
    const url = await relyingParty.authorizationUrl(CHECKS, [])
    assert.equal(url.origin + url.pathname, `${ISSUER}/authorize`)
  })

  const ENDPOINTS = [
    ...[
      'authorization_endpoint',
      'token_endpoint',
      'jwks_uri',
      'revocation_endpoint',
      'end_session_endpoint',
    ],
    ...['userinfo_endpoint', 'pushed_authorization_request_endpoint'],
  ]
  for (const name of ENDPOINTS)
    test(`refuses ${name} in plain http, or that is no URL, unless the host is allowed`, async () => {
      const metadata = { [name]: 'http://id.example.com:81/x' }
      const outcome = (provider = {}, of: object = metadata) =>
        scriptedProvider({ metadata: of, provider })
          .relyingParty.ready()
          .then(() => 'ready', codeOf)
      assert.equal(await outcome(), 'provider_rejected')
      assert.equal(await outcome({ insecureHosts: ['id.example.com:80'] }), 'provider_rejected')
      assert.equal(await outcome({ insecureHosts: ['id.example.com:81'] }), 'ready')
      assert.equal(await outcome({ insecureHosts: ['id.example.com'] }), 'ready')
      assert.equal(
        await outcome({ insecureHosts: ['id.example.com:80'] }, { [name]: 'http://id.example.com/x' }),
        'ready',
      )
      assert.equal(
        await outcome({ insecureHosts: ['id.example.com'] }, { [name]: 'ftp://id.example.com/x' }),
        'provider_rejected',
      )
      assert.equal(await outcome({}, { [name]: 'http://127.0.0.1:81/x' }), 'provider_rejected')
    })

  test('says which endpoint is no URL', async () => {
    for (const value of ['', '/token', 7]) {
      const { relyingParty, discoveries } = scriptedProvider({ metadata: { revocation_endpoint: value } })
      await assert.rejects(relyingParty.ready())
      assert.match(String(discoveries[0]?.cause), /the discovery document has no URL for revocation_endpoint/)
    }
  })

  test('says which endpoint is not https, and what allows it', async () => {
    const { relyingParty, discoveries } = scriptedProvider({
      metadata: { jwks_uri: 'http://id.example.com:81/keys' },
    })
    await assert.rejects(relyingParty.ready())
    const cause = discoveries[0]?.cause
    assert.ok(cause instanceof Error)
    assert.equal(
      cause.message,
      'the discovery document names jwks_uri at http://id.example.com:81, which is not https: ' +
        'correct it at the provider, or allow the host: provider.insecureHosts: [id.example.com:81]',
    )
    assert.deepEqual(discoveries[0]?.logged, { step: 'discovery' })
  })

  test('a provider on this machine may name others on it', async () => {
    const issuer = 'http://localhost:8080'
    const local = (jwks_uri: string) =>
      scriptedProvider({
        metadata: { issuer, authorization_endpoint: `${issuer}/a`, jwks_uri },
        provider: { issuer },
      })
        .relyingParty.ready()
        .then(() => 'ready', codeOf)
    for (const host of ['localhost:1', 'id.localhost', '127.0.0.1:1', '127.255.0.1', '[::1]:1'])
      assert.equal(await local(`http://${host}/keys`), 'ready', host)
    for (const host of ['localhost.example.com', '128.0.0.1', '127.0.0.1.example.com', '[::2]'])
      assert.equal(await local(`http://${host}/keys`), 'provider_rejected', host)
  })
})

describe('the authorization request', () => {
  test('binds the response to this browser, and carries PKCE S256', async () => {
    const { relyingParty } = scriptedProvider()
    const url = await relyingParty.authorizationUrl(CHECKS, [
      ['scope', 'openid orders'],
      ['resource', 'https://a.test'],
      ['resource', 'https://b.test'],
    ])
    assert.deepEqual(url.searchParams.getAll('resource'), ['https://a.test', 'https://b.test'])
    const { resource: _, ...rest } = Object.fromEntries(url.searchParams)
    assert.deepEqual(rest, {
      ...{ client_id: 'shop', response_type: 'code', scope: 'openid orders', state: 'the-state' },
      ...{ redirect_uri: 'https://shop.example.com/bff/callback', nonce: 'the-nonce' },
      code_challenge: createHash('sha256').update(CHECKS.codeVerifier).digest('base64url'),
      code_challenge_method: 'S256',
    })
  })

  const PUSHED = { pushed_authorization_request_endpoint: `${ISSUER}/par` }

  test('is pushed where the provider takes that, through a limiter of its own', async () => {
    const { relyingParty, scripts, requests, limited } = scriptedProvider({ metadata: PUSHED })
    scripts.set('/par', () => Response.json({ request_uri: 'urn:x', expires_in: 60 }, { status: 201 }))
    const url = await relyingParty.authorizationUrl(CHECKS, [['scope', 'openid']])
    assert.deepEqual(Object.fromEntries(url.searchParams), { client_id: 'shop', request_uri: 'urn:x' })
    assert.equal(requests.at(-1)?.form.get('state'), 'the-state')
    assert.deepEqual(limited, [{ grant: 'pushed_authorization', finding: undefined }])
  })

  test('is not pushed where that is switched off, and fails where it is required and not offered', async () => {
    const off = scriptedProvider({ metadata: PUSHED, provider: { par: 'off' } })
    const url = await off.relyingParty.authorizationUrl(CHECKS, [])
    assert.equal(url.searchParams.get('state'), 'the-state')
    const required = scriptedProvider({ provider: { par: 'required' } })
    await assert.rejects(required.relyingParty.authorizationUrl(CHECKS, []), (error) => {
      assert.ok(error instanceof BffError)
      return error.code === 'provider_rejected' && /takes no pushed/.test(error.message)
    })
  })

  test('that is refused when pushed tells the limiter, and the log, by its answer', async () => {
    const { relyingParty, scripts, limited } = scriptedProvider({ metadata: PUSHED })
    scripts.set('/par', () => Response.json({ error: 'invalid_scope' }, { status: 400 }))
    await assert.rejects(relyingParty.authorizationUrl(CHECKS, []), (error) => {
      assert.ok(error instanceof BffError)
      assert.deepEqual([error.code, error.details?.reason], ['provider_rejected', 'invalid_scope'])
      assert.deepEqual([error.logged?.step, error.logged?.oauthError], ['par', 'invalid_scope'])
      return true
    })
    assert.equal(limited[0]?.finding?.kind, 'refused')
  })
})

describe('revocation', () => {
  async function ways(
    provider: NonNullable<Parameters<typeof scriptedProvider>[0]>['provider'],
    supported?: string[],
    refuse = 0,
  ) {
    const metadata = supported ? { revocation_endpoint_auth_methods_supported: supported } : {}
    const { relyingParty, scripts } = scriptedProvider({ metadata, provider })
    const seen: string[] = []
    scripts.set('/revoke', ({ form, headers }) => {
      assert.equal(form.get('token'), 'rt')
      assert.equal(form.get('token_type_hint'), 'refresh_token')
      const basic = headers.get('authorization')
      seen.push(
        basic
          ? Buffer.from(basic.slice(6), 'base64').toString()
          : form.has('client_secret')
            ? `post ${form.get('client_secret')}`
            : form.has('client_assertion')
              ? 'jwt'
              : 'none',
      )
      return seen.length <= refuse
        ? Response.json({ error: 'invalid_client' }, { status: 401 })
        : new Response(null, { status: 200 })
    })
    const outcome = await relyingParty.revoke('rt').catch(codeOf)
    return [...seen, outcome]
  }

  // RFC 6749 §2.3.1 and appendix B: application/x-www-form-urlencoded.
  const BASIC = 'shop:s-e.c_r%2Bt'
  const post = { clientAuth: { method: 'client_secret_post', secret } } as const
  const basic = { clientAuth: { method: 'client_secret_basic', secret } } as const

  test('goes by what the metadata names, own method first', async () => {
    assert.deepEqual(await ways(post, ['client_secret_basic', 'client_secret_post']), [
      'post s-e.c_r+t',
      true,
    ])
    assert.deepEqual(await ways(post, ['client_secret_basic']), [BASIC, true])
    assert.deepEqual(await ways(basic, ['client_secret_post']), ['post s-e.c_r+t', true])
    assert.deepEqual(await ways(basic, ['client_secret_jwt']), ['jwt', true])
    assert.deepEqual(await ways(post, ['tls_client_auth']), ['post s-e.c_r+t', true])
    assert.deepEqual(await ways(post, ['client_secret_post'], 9), ['post s-e.c_r+t', 'provider_rejected'])
  })

  test('takes Basic where the metadata names none (RFC 8414 §2), and tries the next way after a refusal', async () => {
    assert.deepEqual(await ways(post), [BASIC, true])
    assert.deepEqual(await ways(post, undefined, 1), [BASIC, 'post s-e.c_r+t', true])
    assert.deepEqual(await ways(post, undefined, 9), [BASIC, 'post s-e.c_r+t', 'provider_rejected'])
    const endpoints = { revocation: `${ISSUER}/revoke` }
    assert.deepEqual(await ways({ ...post, endpoints }), ['post s-e.c_r+t', true])
  })

  test('a public client sends no secret, and any text where Basic is insisted on', async () => {
    assert.deepEqual(await ways({}), ['none', true])
    assert.deepEqual(await ways({}, undefined, 1), ['none', 'shop:none', true])
    assert.deepEqual(await ways({}, ['client_secret_basic']), ['shop:none', true])
  })

  test('a client that is refused with another status is refused all the same (RFC 6749 §5.2)', async () => {
    const { relyingParty, scripts, requests } = scriptedProvider({ provider: post })
    scripts.set('/revoke', ({ headers }) =>
      headers.has('authorization')
        ? Response.json({ error: 'invalid_client' }, { status: 400 })
        : new Response(null, { status: 200 }),
    )
    assert.equal(await relyingParty.revoke('rt'), true)
    assert.equal(requests.filter(({ path }) => path === '/revoke').length, 2)
  })

  test('reaches an endpoint in plain http whose host is allowed', async () => {
    const metadata = { revocation_endpoint: 'http://id.internal/revoke' }
    const provider = { insecureHosts: ['id.internal'] }
    const { relyingParty, scripts } = scriptedProvider({ metadata, provider })
    scripts.set('/revoke', () => new Response(null, { status: 200 }))
    assert.equal(await relyingParty.revoke('rt'), true)
  })

  test('a provider without the endpoint, as Entra ID is, is asked nothing, and that is no failure', async () => {
    const { relyingParty, requests } = scriptedProvider({ metadata: { revocation_endpoint: undefined } })
    assert.equal(await relyingParty.revoke('rt'), false)
    assert.ok(requests.every(({ path }) => path.startsWith('/.well-known/')))
  })

  test('a failure that is not of the client is not tried in another way', async () => {
    const { relyingParty, scripts, requests } = scriptedProvider({ provider: post })
    scripts.set('/revoke', () => Response.json({ error: 'invalid_request' }, { status: 400 }))
    await assert.rejects(relyingParty.revoke('rt'), (error) => codeOf(error) === 'provider_rejected')
    assert.equal(requests.filter(({ path }) => path === '/revoke').length, 1)
  })
})
