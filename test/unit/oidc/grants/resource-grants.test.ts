import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ResourceConfig, ResourceDialect } from '../../../../src/config/config.ts'
import { BffError, type ErrorCode, stepUpFingerprint } from '../../../../src/errors.ts'
import type { GrantResult } from '../../../../src/oidc/grants/config-faults.ts'
import { createDialect } from '../../../../src/oidc/grants/dialects.ts'
import { createResourceGrants, outcomeOf } from '../../../../src/oidc/grants/resource-grants.ts'
import { type FailedGrant, problemOf } from '../../../../src/oidc/token-endpoint/provider-errors.ts'
import { reactionTo } from '../../../../src/oidc/token-endpoint/reactions.ts'
import type { GrantedTokens } from '../../../../src/oidc/token-endpoint/token-requests.ts'

const SUCCESS = { status: 200, body: {}, retryAfterSeconds: undefined, isHtml: false }

function outcome(code: ErrorCode) {
  return outcomeOf({ error: new BffError(code, 'any'), answer: SUCCESS })
}

test('a success that cannot be used is a fault that only the operator can cure', () => {
  assert.equal(outcome('provider_rejected'), 'unusable_answer')
})

test('a success that came too late, or could not be kept because the user signed out, is no fault of the provider', () => {
  assert.equal(outcome('provider_unavailable'), 'retry_later')
  assert.equal(outcome('session_required'), 'retry_later')
  assert.equal(outcome('store_unavailable'), 'retry_later')
})

const orders: ResourceConfig = { name: 'orders', scopes: ['orders'], grant: 'refresh_token' }
const RESOURCES: Record<string, ResourceConfig> = {
  orders,
  bound: { ...orders, name: 'bound', scopes: [], audience: 'https://bound.test' },
  audit: { ...orders, name: 'audit', scopes: ['audit'], grant: 'client_credentials' },
  stock: { ...orders, name: 'stock', scopes: ['stock'], grant: 'token_exchange', subject: 'orders' },
  mail: {
    ...{ name: 'mail', scopes: ['https://mail.test/.default'], grant: 'token_exchange', subject: 'orders' },
    exchange: 'on_behalf_of',
  },
}
const GRANTED: GrantedTokens = {
  ...{ accessToken: 'at', obtainedAt: 1, expiresAt: 2, refreshToken: undefined, idToken: undefined },
  ...{ claims: undefined, resource: undefined },
}
const CHALLENGE = '{"access_token":{"polids":{"essential":true}}}'

/** The grants of a client, at a token endpoint that answers as the test says. */
function setUp({ capabilities = [] as string[], resourceDialect = 'scope' as ResourceDialect } = {}) {
  const asked: unknown[][] = []
  const noted: GrantResult[] = []
  const lines: [object, string][] = []
  const next: { grant: GrantedTokens | FailedGrant } = { grant: GRANTED }
  /** Whether the faults of the configuration have told the operator already. */
  const settings = { isNoteLogged: false, requestId: undefined as string | undefined }
  const ask = async (...request: unknown[]) => {
    asked.push(request)
    return next.grant
  }
  const write = (fields: object, text: string) => void lines.push([fields, text])
  const grants = createResourceGrants({
    relyingParty: {
      ...{ refreshGrant: ask, clientCredentialsGrant: ask, tokenExchangeGrant: ask },
    },
    dialect: createDialect({ resourceDialect, scopes: ['openid'], signInScopes: 'all' }, [orders]),
    ...{ resources: RESOURCES, clientCapabilities: capabilities, monotonicNow: () => 0 },
    log: { info: write, warn: write, error: write } as never,
    note: (result) => noted.push(result) > 0 && settings.isNoteLogged,
    requestId: () => settings.requestId,
  })
  const refuse = (body: Record<string, unknown>, status = 400) => {
    const answer = { status, body, retryAfterSeconds: undefined, isHtml: false }
    next.grant = { error: problemOf(reactionTo(answer), answer), answer, wasSent: true }
  }
  const exchange = (more: { claims?: string } = {}, resource = 'stock') =>
    grants.tokenExchangeGrant({ resource, subjectToken: 'at-1', ...more })
  const refresh = (more: object = {}) =>
    grants.refreshGrant({ resource: 'orders', refreshToken: 'rt', keep: async () => undefined, ...more })
  return { ...grants, exchange, refresh, refuse, next, asked, noted, lines, settings }
}

async function problem(work: Promise<unknown>): Promise<BffError> {
  const error = await work.then(
    () => assert.fail('it succeeded'),
    (reason) => reason,
  )
  assert.ok(error instanceof BffError)
  return error
}

test('a token exchange names the token it has and the one it wants (RFC 8693 §2.1)', async () => {
  const { exchange, asked } = setUp({ capabilities: ['cp1'] })
  const accessToken = 'urn:ietf:params:oauth:token-type:access_token'
  assert.deepEqual(await exchange({ claims: CHALLENGE }), { ...GRANTED, untoldScope: 'stock' })
  assert.deepEqual(asked, [
    [
      'urn:ietf:params:oauth:grant-type:token-exchange',
      [
        ['subject_token', 'at-1'],
        ['subject_token_type', accessToken],
        ['requested_token_type', accessToken],
        ['scope', 'stock'],
        ['claims', '{"access_token":{"polids":{"essential":true},"xms_cc":{"values":["cp1"]}}}'],
      ],
    ],
  ])
})

test("Entra ID's on-behalf-of flow sends the token as an assertion (RFC 7523 §2.1)", async () => {
  const { exchange, asked } = setUp()
  await exchange({}, 'mail')
  assert.deepEqual(asked, [
    [
      'urn:ietf:params:oauth:grant-type:jwt-bearer',
      [
        ['assertion', 'at-1'],
        ['requested_token_use', 'on_behalf_of'],
        ['scope', 'https://mail.test/.default'],
      ],
    ],
  ])
})

test('an exchange that is refused never ends a session, and tells which sign-in would cure it', async () => {
  const { exchange, refuse, noted, lines } = setUp()
  refuse({ error: 'invalid_grant' })
  const refused = await problem(exchange({ claims: CHALLENGE }))
  assert.equal(refused.code, 'reauthentication_required')
  assert.deepEqual(refused.stepUp, { resource: 'stock', claims: CHALLENGE })
  assert.deepEqual([noted[0]?.resource, noted[0]?.outcome], ['stock', 'step_up'])
  assert.deepEqual(JSON.parse(JSON.stringify(lines)), [
    [
      {
        ...{ resource: 'stock', code: 'reauthentication_required', outcome: 'step_up' },
        ...{ oauthError: 'invalid_grant', providerStatus: 400 },
      },
      'an exchange was refused',
    ],
  ])
})

test('an exchange without an answer, or with one that cannot be used, keeps its own problem', async () => {
  const { exchange, next, noted } = setUp()
  for (const [code, answer, outcome] of [
    ['provider_unavailable', undefined, 'retry_later'],
    ['provider_rejected', SUCCESS, 'unusable_answer'],
  ] as const) {
    const error = new BffError(code, 'any')
    next.grant = { error, answer, wasSent: true }
    assert.equal(await problem(exchange()), error)
    assert.equal(noted.pop()?.outcome, outcome)
  }
})

test('a challenge of the provider comes before the one that was asked with, unless it is of an insane length', async () => {
  const { exchange, refresh, refuse } = setUp()
  const claims = (length: number) => 'x'.repeat(length)
  for (const [sent, expected] of [
    ['{"from":"provider"}', '{"from":"provider"}'],
    [claims(8_192), claims(8_192)],
    [claims(8_193), CHALLENGE],
  ]) {
    refuse({ error: 'interaction_required', claims: sent })
    assert.equal((await problem(exchange({ claims: CHALLENGE }))).stepUp?.claims, expected)
    const outcome = await refresh({ claims: CHALLENGE })
    assert.ok(outcome.kind === 'refused')
    assert.deepEqual(outcome.error.stepUp, { resource: 'orders', claims: expected })
  }
  refuse({ error: 'interaction_required' })
  const outcome = await refresh()
  assert.ok(outcome.kind === 'refused')
  assert.deepEqual(outcome.error.stepUp, { resource: 'orders' })
})

test('what a user would have to cure is the operator’s where the client asks for itself', async () => {
  const { clientCredentialsGrant, refuse, next, noted, asked } = setUp()
  assert.deepEqual(await clientCredentialsGrant('audit'), { ...GRANTED, untoldScope: 'audit' })
  assert.deepEqual(asked, [[[['scope', 'audit']]]])
  assert.equal(noted.pop()?.outcome, 'renewed')
  for (const error of ['invalid_grant', 'interaction_required', 'consent_required']) {
    refuse({ error })
    assert.equal((await problem(clientCredentialsGrant('audit'))).code, 'provider_rejected', error)
    const { outcome, resource, refusal } = noted.pop()!
    assert.deepEqual([outcome, resource, refusal?.oauthError], ['route_configuration', 'audit', error])
  }
  refuse({ error: 'temporarily_unavailable' }, 503)
  assert.equal((await problem(clientCredentialsGrant('audit'))).code, 'provider_unavailable')
  assert.equal(noted.pop()?.outcome, 'retry_later')
  const unanswered = new BffError('provider_unavailable', 'no answer')
  next.grant = { error: unanswered, answer: undefined, wasSent: true }
  assert.equal(await problem(clientCredentialsGrant('audit')), unanswered)
})

test('a refresh whose grant is dead says so by the word of the provider, and one line tells the operator', async () => {
  const { refresh, refuse, lines, noted } = setUp()
  for (const error of ['invalid_grant', 'token_expired']) {
    refuse({ error })
    assert.deepEqual(await refresh(), { kind: 'dead', reason: error })
    assert.equal(noted.pop()?.outcome, 'dead_grant')
    const [[fields, text] = [{}, '']] = lines.splice(0)
    assert.match(text, /the grant is dead/)
    assert.equal((fields as { oauthError: string }).oauthError, error)
  }
})

test('a token for another audience is no user’s matter, and is told by what was expected and what came', async () => {
  const { refresh, next, noted, lines } = setUp()
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const accessToken = `${part({ alg: 'RS256' })}.${part({ aud: 'https://other.test' })}.c2ln`
  next.grant = { ...GRANTED, accessToken }
  const outcome = await refresh({ resource: 'bound' })
  assert.ok(outcome.kind === 'refused')
  assert.deepEqual([outcome.error.code, outcome.isMaybeUsed], ['provider_rejected', false])
  assert.match(outcome.error.message, /answered for another resource/)
  const { outcome: counted, isOfUser, expected, actual } = noted.pop()!
  assert.deepEqual(
    [counted, isOfUser, expected, actual],
    ['wrong_audience', false, 'https://bound.test', 'https://other.test'],
  )
  assert.equal(lines.at(-1)?.[1], 'a token is not for its resource: not sent')
})

test('the line of a refresh that was refused says for whose request and session, and what status the provider gave', async () => {
  const { refresh, exchange, refuse, lines, settings } = setUp()
  settings.requestId = 'request-1'
  for (const error of ['interaction_required', 'invalid_grant']) {
    refuse({ error })
    await refresh({ session: 'h'.repeat(43) })
    const fields = lines.pop()?.[0] as Record<string, unknown>
    const told = [fields.request_id, fields.session, fields.oauthError, fields.providerStatus, fields.status]
    assert.deepEqual(told, ['request-1', 'h'.repeat(12), error, 400, undefined])
  }
  await problem(exchange())
  assert.deepEqual(
    lines.map(([fields]) => 'request_id' in fields && fields.request_id),
    ['request-1'],
  )
})

test('a refused refresh has one line in the log: that of a fault of the configuration, or its own', async () => {
  const { refresh, refuse, lines, settings } = setUp()
  refuse({ error: 'interaction_required' })
  await refresh()
  assert.deepEqual(
    lines.splice(0).map(([, text]) => text),
    ['a refresh was refused'],
  )
  settings.isNoteLogged = true
  await refresh()
  assert.deepEqual(lines, [])
})

test('a refresh tells whether its refresh token may be used up, and whether it is worth another try', async () => {
  const { refresh, refuse, next } = setUp()
  refuse({ error: 'server_error' }, 503)
  assert.equal((await refresh()).kind, 'unavailable')
  refuse({ error: 'invalid_client' }, 401)
  assert.equal((await refresh()).kind, 'refused')
  const error = new BffError('provider_unavailable', 'no answer')
  for (const wasSent of [true, false]) {
    next.grant = { error, answer: undefined, wasSent }
    const outcome = await refresh()
    assert.ok(outcome.kind === 'unavailable')
    assert.equal(outcome.isMaybeUsed, wasSent)
  }
})

test('the claims after a refresh keep what its scopes did not ask for', async () => {
  const { refresh, next } = setUp()
  next.grant = { ...GRANTED, claims: { sub: 'ada', iat: 2, department: 'R&D' } }
  const outcome = await refresh({ signIn: { scopes: ['openid', 'profile', 'groups'] } })
  assert.ok(outcome.kind === 'renewed')
  assert.equal(outcome.subject, 'ada')
  assert.deepEqual(outcome.claimsAfter?.({ sub: 'ada', iat: 1, name: 'Ada', groups: ['ops'], left: 1 }), {
    ...{ sub: 'ada', iat: 2, department: 'R&D', name: 'Ada', groups: ['ops'] },
  })
  next.grant = { ...GRANTED, unverifiedSubject: 'eve' }
  const unverified = await refresh()
  assert.ok(unverified.kind === 'renewed')
  assert.deepEqual([unverified.subject, unverified.claimsAfter], ['eve', undefined])
})

test('a refresh that names no scopes asks for all of the sign-in’s: a claim that it does not bring is gone', async () => {
  const { refresh, next } = setUp({ resourceDialect: 'resource' })
  next.grant = { ...GRANTED, claims: { sub: 'ada', iat: 2, department: 'R&D' } }
  const outcome = await refresh({ signIn: { scopes: ['openid', 'profile'] } })
  assert.ok(outcome.kind === 'renewed')
  assert.deepEqual(outcome.claimsAfter?.({ sub: 'ada', iat: 1, name: 'Ada' }), next.grant.claims)
})

test('a resource that no configuration names is refused before anything is asked', async () => {
  const { refreshGrant, clientCredentialsGrant, exchange, asked } = setUp()
  const keep = async () => undefined
  for (const work of [
    refreshGrant({ resource: 'none', refreshToken: 'rt', keep }),
    clientCredentialsGrant('none'),
    exchange({}, 'none'),
  ])
    assert.equal((await problem(work)).code, 'provider_rejected')
  assert.deepEqual(asked, [])
})

test('a resource that the sign-in did not ask for, or was not granted, needs another sign-in, and costs no refresh token', () => {
  const { requireAsked, noted } = setUp()
  requireAsked('orders', { scopes: ['openid', 'orders'], granted: ['openid', 'orders'] })
  const reasonOf = (signIn: Parameters<typeof requireAsked>[1]) => {
    try {
      requireAsked('orders', signIn)
      return assert.fail('it was let through')
    } catch (error) {
      assert.ok(error instanceof BffError)
      assert.equal(error.code, error.stepUp ? 'reauthentication_required' : 'provider_rejected')
      return [error.details?.reason, error.stepUp]
    }
  }
  assert.deepEqual(reasonOf({ scopes: ['openid'] }), [
    'resource_not_granted',
    { resource: 'orders', lacks: 'orders' },
  ])
  const denied = { scopes: ['openid', 'orders'], granted: ['openid'] }
  const stepUp = { resource: 'orders', consent: true as const, lacks: 'orders' }
  assert.deepEqual(reasonOf(denied), ['scope_not_granted', stepUp])
  const { outcome, expected, actual, isOfUser } = noted.pop()!
  assert.deepEqual([outcome, expected, actual, isOfUser], ['scope_not_granted', 'orders', 'openid', true])
  // Consent was asked for once more, and did not help: it is not the user's to give.
  const steppedUp = [stepUpFingerprint(stepUp)]
  assert.deepEqual(reasonOf({ ...denied, steppedUp }), ['scope_not_granted', undefined])
})
