import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { Config, ResourceConfig } from '../../../../src/config/config.ts'
import { BffError, type StepUp } from '../../../../src/errors.ts'
import { createDialect } from '../../../../src/oidc/grants/dialects.ts'
import type { LoginAttempt } from '../../../../src/oidc/sign-in/attempts.ts'
import { createAuthorization } from '../../../../src/oidc/sign-in/authorization.ts'
import type { GrantedTokens } from '../../../../src/oidc/token-endpoint/token-requests.ts'

const orders: ResourceConfig = { name: 'orders', scopes: ['orders'], grant: 'refresh_token' }
const billing: ResourceConfig = { name: 'billing', scopes: ['billing'], grant: 'refresh_token' }
const stock: ResourceConfig = { name: 'stock', scopes: [], grant: 'token_exchange', subject: 'billing' }
const CHECKS = { state: 's', nonce: 'n', codeVerifier: 'v' }
const attempt = { ...CHECKS, returnUrl: '/' } as LoginAttempt

const granted: GrantedTokens = {
  ...{ accessToken: 'at', obtainedAt: 0, expiresAt: 1, refreshToken: 'rt', idToken: undefined },
  ...{ claims: undefined, resource: undefined },
}

type Scene = {
  provider?: Partial<Config['provider']>
  inUse?: ResourceConfig[]
  fail?: unknown
  grant?: GrantedTokens
  userInfo?: object
}

function setUp({ provider = {}, inUse = [orders, billing], fail, grant = granted, userInfo }: Scene = {}) {
  const clock = { at: 0 }
  const userInfoAsked: [string, string][] = []
  const sent: (readonly (readonly [string, string])[])[] = []
  const asked: unknown[] = []
  const noted: unknown[] = []
  const lines: [object, string][] = []
  const config = {
    provider: {
      ...{ issuer: 'https://id.test', clientId: 'shop', scopes: ['openid', 'offline_access'] },
      ...{ resourceDialect: 'scope', signInScopes: 'all', offlineConsent: 'auto', clientCapabilities: [] },
      ...{ authorizationParams: {}, ...provider },
    },
    resources: { orders, billing, stock },
  } as unknown as Config
  const authorization = createAuthorization({
    ...{ config, inUse, dialect: createDialect(config.provider, inUse), offlineConsent: new Map() },
    relyingParty: {
      async authorizationUrl(_, parameters) {
        sent.push(parameters)
        if (fail) throw fail
        return new URL('https://id.test/authorize')
      },
      async userInfo(accessToken, subject) {
        userInfoAsked.push([accessToken, subject])
        return { sub: subject, ...userInfo }
      },
      async codeGrant(_, checks, parameters) {
        asked.push(checks)
        sent.push(parameters)
        if (fail) throw fail
        return grant
      },
    },
    faults: {
      note: (result) => noted.push(result) > 0,
      noteSignIn: (step, failure) => void noted.push([step, failure?.error.code, failure?.isOwnRequest]),
    },
    log: {
      info() {},
      error() {},
      warn: (fields: object, text: string) => void lines.push([fields, text]),
    } as never,
    now: () => clock.at,
    monotonicNow: () => clock.at,
  })
  return { authorization, clock, sent, asked, noted, lines, userInfoAsked }
}

const ALL = ['scope', 'openid offline_access orders billing']

describe('an authorization request', () => {
  test('asks for all resources, the one of a step-up first', async () => {
    const { authorization, sent } = setUp()
    await authorization.authorizationUrl(CHECKS, {})
    await authorization.authorizationUrl(CHECKS, { stepUp: { resource: 'billing' } })
    await authorization.authorizationUrl(CHECKS, { stepUp: { resource: 'stock' } })
    const billingFirst = ['scope', 'openid offline_access billing orders']
    assert.deepEqual(sent, [[ALL], [billingFirst], [billingFirst]])
    assert.deepEqual(authorization.signInGrant(), {
      scopes: ['openid', 'offline_access', 'orders', 'billing'],
    })
  })

  test('carries what was asked for, each before what is configured', async () => {
    const authorizationParams = { prompt: 'login', login_hint: 'x', claims: '{}', domain_hint: 'contoso.com' }
    const { authorization, sent } = setUp({ provider: { authorizationParams, clientCapabilities: ['cp1'] } })
    const stepUp: StepUp = { resource: 'orders', claims: '{"id_token":{}}', acrValues: 'mfa', maxAge: 0 }
    await authorization.authorizationUrl(CHECKS, { prompt: 'none', loginHint: 'ada', stepUp })
    assert.deepEqual(sent[0]?.slice(1), [
      ['prompt', 'none'],
      ['login_hint', 'ada'],
      ['claims', '{"id_token":{},"access_token":{"xms_cc":{"values":["cp1"]}}}'],
      ['domain_hint', 'contoso.com'],
      ['acr_values', 'mfa'],
      ['max_age', '0'],
    ])
  })

  test('that fails is a fault of the configuration only where nobody else put something into it', async () => {
    const fail = new BffError('provider_rejected', 'refused', { logged: { step: 'par' } })
    const { authorization, noted } = setUp({ fail })
    const rejected = (request: Parameters<typeof authorization.authorizationUrl>[1]) =>
      assert.rejects(authorization.authorizationUrl(CHECKS, request), fail)
    await rejected({})
    await rejected({ isOfUser: true })
    await rejected({ stepUp: { resource: 'orders' } })
    assert.deepEqual(noted, [
      ['par', 'provider_rejected', true],
      ['par', 'provider_rejected', false],
      ['par', 'provider_rejected', false],
    ])
  })

  test('that never began, or that failed for no reason of ours, is not noted', async () => {
    for (const fail of [
      new BffError('provider_unavailable', '', { logged: { step: 'discovery' } }),
      new Error('no BffError'),
    ]) {
      const { authorization, noted } = setUp({ fail })
      await assert.rejects(authorization.authorizationUrl(CHECKS, {}), fail)
      assert.deepEqual(noted, [])
    }
    const { authorization, noted } = setUp()
    await authorization.authorizationUrl(CHECKS, {})
    assert.deepEqual(noted, [['par', undefined, undefined]])
    const plain = setUp({ fail: new BffError('provider_rejected', 'without more facts') })
    await assert.rejects(plain.authorization.authorizationUrl(CHECKS, {}))
    assert.deepEqual(plain.noted, [['par', 'provider_rejected', true]])
  })
})

describe('parameters of the login URL', () => {
  test('go before what is configured, after what a step-up needs, and are no fault of the configuration', async () => {
    const authorizationParams = { ui_locales: 'de', max_age: '9' }
    const { authorization, sent } = setUp({ provider: { authorizationParams } })
    const params = { acr_values: 'gold', max_age: '600', ui_locales: 'fr' }
    await authorization.authorizationUrl(CHECKS, { params, isOfUser: true })
    const stepUp: StepUp = { resource: 'orders', maxAge: 0 }
    await authorization.authorizationUrl(CHECKS, { params, stepUp })
    const rest = (max: string) => [
      ['ui_locales', 'fr'],
      ['max_age', max],
      ['acr_values', 'gold'],
    ]
    assert.deepEqual(
      sent.map((parameters) => parameters.slice(1)),
      [rest('600'), rest('0')],
    )
  })

  test('max_age is checked in the answer, from the beginning of the sign-in on, whoever has asked for it', async () => {
    const maxAgeOf = async (checks: object, provider = {}, stepUp?: StepUp) => {
      const { authorization, asked, clock } = setUp({ provider })
      clock.at = 100_500
      await authorization.codeGrant(new URL('https://app.test'), { ...CHECKS, ...checks }, stepUp)
      return (asked[0] as { maxAge?: number }).maxAge
    }
    const params = { max_age: '60' }
    assert.equal(await maxAgeOf({}), undefined)
    assert.equal(await maxAgeOf({ params, startedAt: 90_000 }), 71)
    assert.equal(await maxAgeOf({ params }), 60)
    // The clock of the replica that began it may be ahead.
    assert.equal(await maxAgeOf({ params, startedAt: 200_000 }), 60)
    assert.equal(await maxAgeOf({ startedAt: 100_500 }, { authorizationParams: { max_age: '7' } }), 7)
    assert.equal(await maxAgeOf({ params, startedAt: 100_500 }, {}, { resource: 'orders', maxAge: 0 }), 0)
    assert.equal(await maxAgeOf({}, { authorizationParams: { max_age: 'never' } }), undefined)
  })
})

describe('the UserInfo endpoint', () => {
  const claims = { sub: 'ada', iss: 'https://id.test', acr: 'gold', name: 'Ada', email: 'ada@id.test' }
  const grant: GrantedTokens = { ...granted, claims }
  const redeem = ({ authorization }: ReturnType<typeof setUp>) =>
    authorization.codeGrant(new URL('https://app.test'), CHECKS)
  const provider = { userinfo: true }

  test('is asked with the token of the code; its claims are added and win, those of the protocol stay', async () => {
    const userInfo = {
      groups: ['ops'],
      name: 'Ada L.',
      iss: 'https://evil.test',
      acr: 'none',
      tid: 'x',
      sid: 'y',
    }
    const scene = setUp({ provider, grant, userInfo })
    const { claims: merged, userinfo } = await redeem(scene)
    assert.deepEqual(scene.userInfoAsked, [['at', 'ada']])
    assert.deepEqual(merged, { ...claims, groups: ['ops'], name: 'Ada L.' })
    assert.deepEqual(userinfo, ['groups', 'name'])
    assert.deepEqual(scene.noted.at(-1), ['userinfo', undefined, undefined])
  })

  test('is not asked unless that is configured', async () => {
    const scene = setUp({ grant, userInfo: { groups: ['ops'] } })
    assert.deepEqual((await redeem(scene)).claims, claims)
    assert.deepEqual(scene.userInfoAsked, [])
  })

  test('fails the sign-in when there is no token for it, or when it sends more than a session can hold', async () => {
    for (const scene of [
      setUp({ provider, grant: { ...grant, accessToken: '' } }),
      setUp({ provider, grant, userInfo: { groups: 'x'.repeat(65_536) } }),
    ]) {
      const isRejected = (error: unknown) => error instanceof BffError && error.logged?.step === 'userinfo'
      await assert.rejects(redeem(scene), isRejected)
      assert.deepEqual(scene.noted.at(-1), ['userinfo', 'provider_rejected', false])
    }
  })

  test('with RFC 8707 the code is redeemed for no resource, and its token is kept for none', async () => {
    const resource = { ...orders, resource: 'https://orders.test' }
    const scene = setUp({
      provider: { ...provider, resourceDialect: 'resource-indicator' },
      inUse: [resource],
      grant,
      userInfo: {},
    })
    const redeemed = await redeem(scene)
    assert.deepEqual(scene.sent, [[]])
    assert.equal(scene.authorization.resourceOf(redeemed, {}), undefined)
  })
})

describe('the prompt', () => {
  test('is that of the user, else the configured one, and none for a repetition but consent', () => {
    const { promptFor } = setUp({
      provider: { authorizationParams: { prompt: 'select_account' } },
    }).authorization
    assert.equal(promptFor({ returnUrl: '/' }), 'select_account')
    assert.equal(promptFor({ returnUrl: '/', prompt: 'login' }), 'login')
    assert.equal(promptFor({ returnUrl: '/', prompt: 'login', isRepeated: true }), 'consent')
    const asked = { sub: 'ada', stepUp: { resource: 'orders', consent: true as const } }
    assert.equal(promptFor({ returnUrl: '/', asked }), 'select_account consent')
    assert.equal(setUp().authorization.promptFor({ returnUrl: '/' }), undefined)
  })
})

describe('a code grant', () => {
  const callback = new URL('https://shop.test/bff/callback?code=x')

  test('passes max_age and claims of its step-up on', async () => {
    const { authorization, asked, sent, noted } = setUp({ inUse: [orders] })
    const stepUp: StepUp = { resource: 'orders', maxAge: 60, claims: '{"id_token":{}}' }
    assert.equal(await authorization.codeGrant(callback, CHECKS, stepUp), granted)
    assert.deepEqual(asked, [{ ...CHECKS, maxAge: 60 }])
    assert.deepEqual(sent, [
      [
        ['scope', 'orders openid offline_access'],
        ['claims', '{"id_token":{}}'],
      ],
    ])
    assert.deepEqual(noted, [['code', undefined, undefined]])
  })

  test('without any token is good only where no API needs one', async () => {
    const none = { ...granted, accessToken: '', refreshToken: undefined }
    await assert.rejects(
      setUp({ grant: none }).authorization.codeGrant(callback, CHECKS),
      (error) => error instanceof BffError && error.code === 'invalid_callback',
    )
    assert.equal(await setUp({ grant: none, inUse: [] }).authorization.codeGrant(callback, CHECKS), none)
    for (const grant of [
      { ...none, accessToken: 'at' },
      { ...none, refreshToken: 'rt' },
    ])
      assert.equal(await setUp({ grant }).authorization.codeGrant(callback, CHECKS), grant)
  })
})

describe('the access token of a code grant', () => {
  test('is kept for the one resource that it is for', () => {
    const { resourceOf } = setUp().authorization
    const all = { scopes: ['openid', 'orders', 'billing'] }
    assert.equal(resourceOf({ ...granted, scope: 'billing' }, all), 'billing')
    assert.equal(resourceOf({ ...granted, scope: 'orders billing' }, all), undefined)
    assert.equal(resourceOf({ ...granted, scope: 'orders', accessToken: '' }, all), undefined)
    assert.equal(resourceOf(granted, { scopes: ['openid', 'orders'] }), 'orders')
    assert.equal(resourceOf(granted, all), undefined)
    assert.equal(setUp({ inUse: [] }).authorization.resourceOf(granted, {}), undefined)
  })

  test('that is for none is not used, and the log says so once a minute', () => {
    const { authorization, noted, lines, clock } = setUp({ provider: { signInScopes: 'first' } })
    const other = { ...granted, scope: 'stranger' }
    const stepUp = { resource: 'billing' }
    for (let round = 0; round < 3; round += 1)
      assert.equal(authorization.resourceOf(other, {}, stepUp), undefined)
    assert.deepEqual(noted[0], {
      ...{ resource: 'billing', outcome: 'scope_not_granted', expected: 'billing', actual: 'stranger' },
      isOfUser: true,
    })
    clock.at = 60_000
    authorization.resourceOf(other, {}, stepUp)
    assert.deepEqual(
      lines.map(([fields]) => (fields as { count: number }).count),
      [1, 3],
    )
  })
})

describe('a sign-in without a refresh token', () => {
  const lacking = { refreshToken: undefined }

  test('is repeated once, and the log says what may cure it where it is not', () => {
    const { authorization, lines } = setUp()
    assert.equal(authorization.isToBeRepeated(attempt, lacking), true)
    assert.equal(authorization.isToBeRepeated({ ...attempt, isRepeated: true }, lacking), false)
    assert.equal(authorization.isToBeRepeated(attempt, { refreshToken: 'rt' }), false)
    assert.equal(lines.length, 1)
    assert.deepEqual(lines[0]?.[0], { reason: 'no_refresh_token', count: 1 })
    assert.match(lines[0]![1], /set provider\.offlineConsent: always/)
  })

  test('is none of our business where no resource is in use', () => {
    const { authorization, lines } = setUp({ inUse: [] })
    assert.equal(authorization.isToBeRepeated(attempt, lacking), false)
    assert.deepEqual(lines, [])
  })

  test('has another cure for each configuration', () => {
    for (const [provider, text] of [
      [{ scopes: ['openid'] }, /provider\.scopes lacks offline_access$/],
      [{ offlineConsent: 'always' }, /; is the client registered for refresh tokens\?$/],
      [{ offlineConsent: 'never' }, /set provider\.offlineConsent: always/],
    ] as const) {
      const { authorization, lines } = setUp({ provider })
      const repeated = { ...attempt, isRepeated: true }
      assert.equal(authorization.isToBeRepeated(repeated, lacking), false)
      assert.match(lines[0]![1], text)
    }
  })

  test('is repeated no more after three refusals of the provider, which are no passing faults', () => {
    const repeated = { ...attempt, isRepeated: true }
    const refusal = (code: 'provider_rejected' | 'provider_unavailable', logged: Record<string, string>) =>
      new BffError(code, '', { logged })
    const outcome = (error: unknown) => {
      const { authorization } = setUp()
      for (let round = 0; round < 3; round += 1) authorization.noteFailed(repeated, error)
      return authorization.isToBeRepeated(attempt, lacking)
    }
    const step = 'authorization'
    assert.equal(outcome(refusal('provider_rejected', { step, oauthError: 'invalid_request' })), false)
    assert.equal(outcome(refusal('provider_unavailable', { step, oauthError: 'server_error' })), true)
    assert.equal(outcome(refusal('provider_rejected', { step })), true)
    assert.equal(outcome(refusal('provider_rejected', { step: 'code', oauthError: 'invalid_grant' })), true)
    assert.equal(outcome(new Error('no BffError')), true)
  })
})
