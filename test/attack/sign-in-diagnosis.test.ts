import assert from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import { callbackOf, instead, setUp } from '../kit/attack/sign-in.ts'
import { type ConfigData, sessionKey } from '../kit/config/cloakroom-config.ts'
import { sendJson } from '../kit/local-server.ts'
import type { RotatingOptions } from '../kit/provider/rotating-provider.ts'

/** As seed 001 has it: Azure AD's refusal, whose text repeats what its members say, and names a person. */
const REFUSAL = {
  error_description: [
    'AADSTS50001: The application named https://foo.test was not found for ada@example.com.',
    'Trace ID: ef1f89f6-a14f-49de-9868-61bd4072f0a9',
    'Correlation ID: b6908274-2c58-4e91-aea9-1f6b9c99347c',
    'Timestamp: 2016-04-11 18:59:01Z',
  ].join('\r\n'),
  error_codes: [50001],
  timestamp: '2016-04-11 18:59:01Z',
  trace_id: 'ef1f89f6-a14f-49de-9868-61bd4072f0a9',
  correlation_id: 'b6908274-2c58-4e91-aea9-1f6b9c99347c',
}
const TOLD = {
  errorCodes: '50001',
  timestamp: '2016-04-11 18:59:01Z',
  traceId: 'ef1f89f6-a14f-49de-9868-61bd4072f0a9',
  correlationId: 'b6908274-2c58-4e91-aea9-1f6b9c99347c',
}

async function start(t: TestContext, options: { provider?: RotatingOptions; config?: ConfigData } = {}) {
  const setup = await setUp(t, options)
  const { cloakroom, browser } = setup
  const metrics = async (name: string) => {
    const text = await (await fetch(`${cloakroom.adminUrl}/metrics`)).text()
    return text.split('\n').filter((line) => line.startsWith(name))
  }
  return {
    ...setup,
    faults: () => metrics('cloakroom_provider_config_fault{'),
    /** Those that have come to pass. */
    failures: async () =>
      (await metrics('cloakroom_sign_in_failures_total{')).filter((line) => !line.endsWith(' 0')),
    /** The browser delivers a response; gives the answer, and the lines at warn with its request id. */
    async deliver(response: { pathname: string; search: string }) {
      const answer = await browser.open(response.pathname + response.search)
      const { request_id: requestId, code } = answer.json()
      const warnings = cloakroom.logs
        .map((line) => JSON.parse(line))
        .filter((line) => line.level === 'warn' && line.request_id === requestId)
      assert.ok(!cloakroom.logs.join().includes('ada@example.com'))
      return { answer, status: answer.status, code, requestId, warnings }
    },
  }
}

function refusedBy(callback: URL, parameters: Record<string, string>): URL {
  callback.searchParams.delete('code')
  for (const [name, value] of Object.entries(parameters)) callback.searchParams.set(name, value)
  return callback
}

describe('an error in the redirect is told once by request id, counted, and sets no alarm', () => {
  const errors: [error: string, status: number, code: string][] = [
    ['invalid_scope', 502, 'provider_rejected'],
    ['invalid_request', 502, 'provider_rejected'],
    ['unauthorized_client', 502, 'provider_rejected'],
    ['unsupported_response_type', 502, 'provider_rejected'],
    ['server_error', 503, 'provider_unavailable'],
    ['temporarily_unavailable', 503, 'provider_unavailable'],
    ['access_denied', 403, 'access_denied'],
  ]
  for (const [error, status, code] of errors)
    test(`${error}: ${status}`, async (t) => {
      const setup = await start(t)
      const { error_description } = REFUSAL
      const seen = await setup.deliver(refusedBy(await callbackOf(setup), { error, error_description }))
      assert.deepEqual([seen.status, seen.code], [status, code])
      if (status === 503) assert.match(String(seen.answer.headers['retry-after']), /^\d+$/)
      assert.equal(seen.warnings.length, 1)
      const [line] = seen.warnings
      const { errorCodes, timestamp, traceId, correlationId } = line
      assert.deepEqual({ errorCodes, timestamp, traceId, correlationId }, TOLD)
      assert.deepEqual([line.oauthError, line.step, line.code], [error, 'authorization', code])
      assert.deepEqual(await setup.faults(), [])
      assert.deepEqual(await setup.failures(), [
        `cloakroom_sign_in_failures_total{step="authorization",error="${error}"} 1`,
      ])
    })

  test('an error whose issuer is missing is refused, and what it says is told', async (t) => {
    const setup = await start(t)
    const callback = refusedBy(await callbackOf(setup), {
      error: 'invalid_scope',
      ...{ error_description: REFUSAL.error_description },
    })
    callback.searchParams.delete('iss')
    const seen = await setup.deliver(callback)
    assert.deepEqual([seen.status, seen.warnings.length], [400, 1])
    assert.deepEqual([seen.warnings[0].oauthError, seen.warnings[0].traceId], ['invalid_scope', TOLD.traceId])
    assert.deepEqual(await setup.faults(), [])
  })

  test('a response that breaks a rule is told with the rule', async (t) => {
    const setup = await start(t)
    const changes: [why: RegExp, change: (callback: URL) => void][] = [
      [/unexpected "iss"/, (callback) => callback.searchParams.set('iss', 'https://other.test')],
      [
        /"code" parameter must be provided only once/,
        (callback) => callback.searchParams.append('code', 'x'),
      ],
    ]
    for (const [why, change] of changes) {
      const callback = await callbackOf(setup)
      change(callback)
      const seen = await setup.deliver(callback)
      assert.deepEqual([seen.status, seen.warnings.length], [400, 1])
      assert.match(seen.warnings[0].err.message, why)
    }
  })

  test('it stays the same while the circuit of the token endpoint is open', async (t) => {
    const { provider, ...setup } = await start(t)
    provider.control.intercept = instead('/token', (res) => void res.writeHead(503).end())
    for (let sign = 0; sign < 6; sign += 1) {
      assert.equal((await setup.deliver(await callbackOf(setup))).status, 503)
    }
    const seen = await setup.deliver(refusedBy(await callbackOf(setup), { error: 'access_denied' }))
    assert.deepEqual([seen.status, seen.code], [403, 'access_denied'])
  })

  test('what is made up has no label and no line of its own making', async (t) => {
    const setup = await start(t)
    for (const error of ['<script>', 'a'.repeat(5_000), 'x\r\n{"level":"error"}', 'made_up']) {
      const description = `${'AADSTS1234567 '.repeat(200)} Trace ID: <b>`
      const callback = refusedBy(await callbackOf(setup), { error, error_description: description })
      const seen = await setup.deliver(callback)
      assert.equal(seen.status, 502)
      assert.equal(seen.warnings.length, 1)
      assert.ok(JSON.stringify(seen.warnings).length < 1_000)
    }
    const labels = (await setup.failures()).map((line) => /error="([^"]*)"/.exec(line)?.[1])
    assert.deepEqual(new Set(labels), new Set(['other']))
    assert.deepEqual(await setup.faults(), [])
  })
})

describe('a fault of the configuration is 502, has a line for each sign-in, and raises the alarm', () => {
  test('the provider does not know our secret', async (t) => {
    const { provider, advance, ...setup } = await start(t)
    provider.control.intercept = instead('/token', (res) =>
      sendJson(res, 401, { error: 'invalid_client', ...REFUSAL }),
    )
    for (let sign = 0; sign < 2; sign += 1) {
      const seen = await setup.deliver(await callbackOf(setup))
      assert.deepEqual([seen.status, seen.code], [502, 'provider_rejected'])
      const [line, ...more] = seen.warnings
      assert.deepEqual(more, [])
      const { errorCodes, timestamp, traceId, correlationId } = line
      assert.deepEqual({ errorCodes, timestamp, traceId, correlationId }, TOLD)
      assert.deepEqual([line.oauthError, line.step], ['invalid_client', 'code'])
    }
    const gauge = 'cloakroom_provider_config_fault{resource="(code)",error="invalid_client"}'
    assert.deepEqual(await setup.faults(), [`${gauge} 1`])
    delete provider.control.intercept
    await setup.browser.signIn()
    advance(61_000)
    await setup.browser.signIn()
    assert.deepEqual(await setup.faults(), [`${gauge} 0`])
  })

  for (const [name, answer, error] of [
    ['401 without a body', { status: 401, body: undefined }, 'invalid_client'],
    ['unauthorized_client', { status: 401, body: { error: 'unauthorized_client' } }, 'unauthorized_client'],
    ['invalid_scope', { status: 400, body: { error: 'invalid_scope' } }, 'invalid_scope'],
  ] as const)
    test(`the token endpoint answers ${name}`, async (t) => {
      const { provider, ...setup } = await start(t)
      provider.control.intercept = instead('/token', (res) =>
        answer.body ? sendJson(res, answer.status, answer.body) : res.writeHead(answer.status).end(),
      )
      const seen = await setup.deliver(await callbackOf(setup))
      assert.deepEqual([seen.status, seen.code, seen.warnings.length], [502, 'provider_rejected', 1])
      assert.deepEqual(await setup.faults(), [
        `cloakroom_provider_config_fault{resource="(code)",error="${error}"} 1`,
      ])
    })

  test('a code that the provider does not take is none, whatever it says of it', async (t) => {
    const { provider, ...setup } = await start(t)
    for (const [error, status] of [
      ['invalid_grant', 400],
      ['invalid_request', 502],
      ['made_up', 502],
    ] as const) {
      provider.control.intercept = instead('/token', (res) => sendJson(res, 400, { error, ...REFUSAL }))
      const seen = await setup.deliver(await callbackOf(setup))
      assert.deepEqual([seen.status, seen.warnings.length], [status, 1])
      assert.equal(seen.warnings[0].oauthError, error)
    }
    assert.deepEqual(await setup.faults(), [])
  })

  for (const [name, status, body, error] of [
    ['invalid_client', 401, { error: 'invalid_client' }, 'invalid_client'],
    ['nothing but 401', 401, undefined, 'invalid_client'],
    ['invalid_request', 400, { error: 'invalid_request' }, 'invalid_request'],
    ['nothing but 403', 403, undefined, 'other'],
    ['nothing but 404', 404, undefined, 'other'],
  ] as const)
    test(`a pushed authorization request is refused with ${name}`, async (t) => {
      const { provider, ...setup } = await start(t, {
        provider: { control: {} },
        config: { provider: { par: 'required' } },
      })
      const { cloakroom, settings } = setup
      provider.control.metadata = { pushed_authorization_request_endpoint: `${provider.origin}/par` }
      await cloakroom.reload({ provider: settings.provider })
      provider.control.intercept = instead('/par', (res) =>
        body ? sendJson(res, status, { ...body, ...REFUSAL }) : res.writeHead(status).end(),
      )
      const seen = await setup.deliver(new URL('http://x/bff/login'))
      assert.deepEqual([seen.status, seen.code, seen.warnings.length], [502, 'provider_rejected', 1])
      assert.deepEqual([seen.warnings[0].step, seen.warnings[0].traceId], ['par', body && TOLD.traceId])
      assert.deepEqual(await setup.faults(), [
        `cloakroom_provider_config_fault{resource="(par)",error="${error}"} 1`,
      ])
    })

  test('a pushed request that is refused for a parameter of the user’s login URL raises none', async (t) => {
    const { provider, ...setup } = await start(t, { config: { provider: { par: 'required' } } })
    provider.control.metadata = { pushed_authorization_request_endpoint: `${provider.origin}/par` }
    await setup.cloakroom.reload({ provider: setup.settings.provider })
    provider.control.intercept = instead('/par', (res) => sendJson(res, 400, { error: 'invalid_request' }))
    const seen = await setup.deliver(new URL('http://x/bff/login?login_hint=%22'))
    assert.deepEqual([seen.status, seen.warnings.length], [502, 1])
    assert.deepEqual(await setup.faults(), [])
  })

  test('nor does one that is refused for what an API asked of one user', async (t) => {
    const session = { store: { type: 'memory' }, keys: [sessionKey()] }
    const { provider, api, browser, ...setup } = await start(t, { config: { session } })
    await browser.signIn()
    provider.control.metadata = { pushed_authorization_request_endpoint: `${provider.origin}/par` }
    await setup.cloakroom.reload({ provider: { ...setup.settings.provider, par: 'required' }, session })
    const challenge = 'Bearer error="insufficient_user_authentication", acr_values="unknown"'
    Object.assign(api.answer, { status: 401, headers: { 'www-authenticate': challenge } })
    const { login_url } = (await browser.fetch('/api/orders')).json()
    assert.match(login_url, /challenge=/)
    provider.control.intercept = instead('/par', (res) => sendJson(res, 400, { error: 'invalid_request' }))
    const seen = await setup.deliver(new URL(login_url, 'http://x'))
    assert.deepEqual([seen.status, seen.warnings.length], [502, 1])
    assert.deepEqual(await setup.faults(), [])
  })

  for (const [name, document] of [
    ['is not there', undefined],
    ['is another issuer’s', { issuer: 'https://other.test' }],
  ] as const)
    test(`the discovery document ${name}`, async (t) => {
      const setup = await start(t, {
        provider: {
          control: {
            intercept: instead('/.well-known/openid-configuration', (res) =>
              document ? sendJson(res, 200, document) : res.writeHead(404).end(),
            ),
          },
        },
      })
      const seen = await setup.deliver(new URL('http://x/bff/login'))
      assert.deepEqual([seen.status, seen.code, seen.warnings.length], [502, 'provider_rejected', 1])
      assert.equal(seen.warnings[0].step, 'discovery')
      assert.match(
        seen.warnings[0].err.message,
        document ? /is of the issuer "https:\/\/other\.test"/ : /status 404/,
      )
      assert.deepEqual(await setup.faults(), [
        'cloakroom_provider_config_fault{resource="(discovery)",error="discovery"} 1',
      ])
    })

  test('the key set is not there', async (t) => {
    const { provider, ...setup } = await start(t)
    provider.control.intercept = instead('/jwks', (res) => void res.writeHead(404).end())
    const seen = await setup.deliver(await callbackOf(setup))
    assert.deepEqual([seen.status, seen.warnings.length], [502, 1])
    assert.equal(seen.warnings[0].step, 'keys')
    assert.deepEqual(await setup.faults(), [
      'cloakroom_provider_config_fault{resource="(code)",error="keys"} 1',
    ])
  })
})

describe('what passes is 503 with Retry-After, has a line, and raises no alarm', () => {
  for (const status of [429, 500, 503])
    test(`discovery answers ${status}`, async (t) => {
      const setup = await start(t, {
        provider: {
          control: {
            intercept: instead('/.well-known/openid-configuration', (res) =>
              res.writeHead(status, { 'retry-after': '17' }).end(),
            ),
          },
        },
      })
      const seen = await setup.deliver(new URL('http://x/bff/login'))
      assert.deepEqual([seen.status, seen.code, seen.warnings.length], [503, 'provider_unavailable', 1])
      assert.equal(seen.answer.headers['retry-after'], '17')
      assert.deepEqual(await setup.faults(), [])
    })

  for (const [path, login] of [
    ['/token', false],
    ['/par', true],
  ] as const)
    test(`${path} answers 429 or 503`, async (t) => {
      const { provider, ...setup } = await start(t)
      if (login) {
        provider.control.metadata = { pushed_authorization_request_endpoint: `${provider.origin}/par` }
        await setup.cloakroom.reload({ provider: setup.settings.provider })
      }
      for (const status of [429, 503]) {
        const response = login ? new URL('http://x/bff/login') : await callbackOf(setup)
        provider.control.intercept = instead(path, (res) =>
          res.writeHead(status, { 'retry-after': '17' }).end(),
        )
        const seen = await setup.deliver(response)
        assert.deepEqual([seen.status, seen.code, seen.warnings.length], [503, 'provider_unavailable', 1])
        assert.equal(seen.warnings[0].providerStatus, status)
        assert.equal(seen.answer.headers['retry-after'], '17')
        assert.deepEqual(await setup.faults(), [])
        delete provider.control.intercept
      }
    })
})

describe('an ID token that fails a check is told with claim, offset and key', () => {
  const seconds = () => Math.floor(Date.now() / 1000)
  const rows: Record<string, [change: () => Record<string, unknown>, claim: string, offset?: number]> = {
    'exp in the past': [() => ({ exp: seconds() - 300 }), 'exp', -300],
    'nbf in the future': [() => ({ nbf: seconds() + 300 }), 'nbf', 300],
    'iat in the future': [() => ({ iat: seconds() + 300 }), 'iat', 300],
    'another nonce': [() => ({ nonce: 'x' }), 'nonce'],
    'another audience': [() => ({ aud: 'x' }), 'aud'],
    'another azp': [() => ({ azp: 'x' }), 'azp'],
  }
  for (const [name, [change, claim, offset]] of Object.entries(rows))
    test(name, async (t) => {
      const { provider, ...setup } = await start(t)
      const kid = provider.signer.jwks().keys[0]?.kid
      provider.control.forgeIdToken = (claims) => provider.signer.sign({ ...claims, ...change() })
      const seen = await setup.deliver(await callbackOf(setup))
      assert.deepEqual([seen.status, seen.code, seen.warnings.length], [400, 'invalid_callback', 1])
      const [line] = seen.warnings
      assert.deepEqual([line.step, line.claim, line.keyId], ['id_token', claim, kid])
      if (offset !== undefined) {
        assert.ok(Math.abs(line.offsetSeconds - offset) <= 2, String(line.offsetSeconds))
        assert.match(line.err.message, /provider\.clockTolerance is 60 s/)
      }
      assert.deepEqual(await setup.failures(), [
        `cloakroom_sign_in_failures_total{step="id_token",error="${claim}"} 1`,
      ])
    })

  test('or with the rule that it breaks', async (t) => {
    const { provider, ...setup } = await start(t)
    const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
    const forgeries: [why: RegExp, forge: NonNullable<typeof provider.control.forgeIdToken>][] = [
      [/"sub" \(subject\) claim missing/, (claims) => provider.signer.sign({ ...claims, sub: undefined })],
      [/unexpected JWT "alg"/, async (claims) => `${part({ alg: 'none' })}.${part(claims)}.`],
      [/failed to parse JWT Header/, async () => 'not.a.jwt'],
    ]
    for (const [why, forge] of forgeries) {
      provider.control.forgeIdToken = forge
      const seen = await setup.deliver(await callbackOf(setup))
      assert.deepEqual([seen.status, seen.warnings.length, seen.warnings[0].step], [400, 1, 'id_token'])
      assert.match(seen.warnings[0].err.message, why)
    }
  })

  test('of a refresh, too, whose access token is used all the same', async (t) => {
    const { provider, advance, browser, cloakroom } = await start(t)
    await browser.signIn()
    Object.assign(provider.control, { idTokenOnRefresh: true })
    provider.control.forgeIdToken = (claims) =>
      provider.signer.sign({ ...claims, iat: Number(claims.iat) + 10_000 })
    advance(301_000)
    assert.equal((await browser.fetch('/api/orders')).status, 200)
    const [line] = cloakroom.logs
      .map((text) => JSON.parse(text))
      .filter(({ msg }) => msg.startsWith('the ID token of a refresh'))
    assert.deepEqual([line.claim, line.keyId], ['iat', provider.signer.jwks().keys[0]?.kid])
    assert.ok(line.offsetSeconds > 9_000)
  })

  test('one tolerance is for iat, nbf and exp: provider.clockTolerance', async (t) => {
    const { provider, ...setup } = await start(t, { config: { provider: { clockTolerance: '5m' } } })
    for (const [change, status] of [
      [() => ({ iat: seconds() + 290, nbf: seconds() + 290 }), 200],
      [() => ({ exp: seconds() - 290 }), 200],
      [() => ({ iat: seconds() + 310 }), 400],
      [() => ({ nbf: seconds() + 310 }), 400],
      [() => ({ exp: seconds() - 310 }), 400],
    ] as const) {
      provider.control.forgeIdToken = (claims) => provider.signer.sign({ ...claims, ...change() })
      const callback = await callbackOf(setup)
      assert.equal((await setup.browser.fetch(callback.pathname + callback.search)).status, status)
    }
  })
})

test('a foreign tenant is told with its reason', async (t) => {
  const setup = await start(t, { config: { provider: { allowedTenants: ['ours'] } } })
  setup.provider.control.idTokenClaims = { tid: 'theirs' }
  const seen = await setup.deliver(await callbackOf(setup))
  assert.deepEqual([seen.status, seen.code, seen.warnings.length], [403, 'access_denied', 1])
  assert.equal(seen.warnings[0].reason, 'tenant')
  assert.ok(!JSON.stringify(seen.warnings).includes('theirs'))
  assert.deepEqual(await setup.failures(), [
    'cloakroom_sign_in_failures_total{step="callback",error="tenant"} 1',
  ])
})

test('a callback without an attempt is told, too; what is refused before it is a sign-in is not', async (t) => {
  const setup = await start(t)
  const seen = await setup.deliver(new URL('http://x/bff/callback?code=x&state=y'))
  assert.deepEqual([seen.status, seen.warnings.length], [400, 1])
  const refused = await setup.deliver(new URL('http://x/bff/login?returnUrl=//evil.test'))
  assert.deepEqual([refused.status, refused.warnings.length], [400, 0])
})

test('the reference on the page leads to the line', async (t) => {
  const setup = await start(t)
  const callback = refusedBy(await callbackOf(setup), { error: 'invalid_scope' })
  const page = await setup.browser.navigate(callback.href)
  const lines = setup.cloakroom.logs.map((line) => JSON.parse(line))
  const line = lines.find(({ level, oauthError }) => level === 'warn' && oauthError === 'invalid_scope')
  assert.ok(page.body.includes(line.request_id))
})
