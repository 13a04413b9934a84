import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { BffError } from '../../../../src/errors.ts'
import { IdTokenError } from '../../../../src/oidc/token-endpoint/id-token.ts'
import {
  failedCall,
  failedDiscovery,
  failedGrant,
  failedPush,
  failedSignIn,
  findingOf,
  isNetworkError,
  problemOf,
  refusalOf,
  signInAgain,
  signInFacts,
  unavailable,
} from '../../../../src/oidc/token-endpoint/provider-errors.ts'
import type { TokenAnswer } from '../../../../src/oidc/token-endpoint/provider-fetch.ts'
import type { GrantReaction } from '../../../../src/oidc/token-endpoint/reactions.ts'

const CORRELATION = '0f8fad5b-d9cb-469f-a165-70867728950e'
const TRACE = '7c9e6679-7425-40de-944b-e07fc1f90ae7'

function answer(
  status: number,
  body?: Record<string, unknown>,
  more: Partial<TokenAnswer> = {},
): TokenAnswer {
  return { status, body, retryAfterSeconds: undefined, isHtml: false, ...more }
}

function oauthError(code: string, more: object = {}): Error {
  return Object.assign(new Error('from openid-client'), { code, ...more })
}

const told = ({ code, details, retryAfterSeconds, logged }: BffError) => ({
  code,
  reason: details?.reason,
  retryAfterSeconds,
  logged,
})

describe('what of a refusal may be logged', () => {
  const NOTHING = {
    ...{ oauthError: undefined, suberror: undefined, errorCodes: undefined, correlationId: undefined },
    ...{ traceId: undefined, timestamp: undefined, providerStatus: undefined },
  }

  test('nothing of no answer', () => {
    assert.deepEqual(refusalOf(undefined), NOTHING)
    assert.deepEqual(refusalOf({ body: undefined, status: 503 }), { ...NOTHING, providerStatus: 503 })
  })

  test('the members of an OAuth error and those of Microsoft', () => {
    const body = {
      ...{ error: 'invalid_grant', suberror: 'bad_token', error_codes: [700082, 'x', 50076] },
      ...{ correlation_id: CORRELATION, trace_id: TRACE, timestamp: '2026-11-30 10:00:00Z' },
    }
    assert.deepEqual(refusalOf({ body, status: 400 }), {
      ...{ oauthError: 'invalid_grant', suberror: 'bad_token', errorCodes: '700082,50076' },
      ...{
        correlationId: CORRELATION,
        traceId: TRACE,
        timestamp: '2026-11-30 10:00:00Z',
        providerStatus: 400,
      },
    })
  })

  test('ten numbers at most', () => {
    const error_codes = Array.from({ length: 12 }, (_, index) => index + 1)
    assert.equal(refusalOf({ body: { error_codes } }).errorCodes, '1,2,3,4,5,6,7,8,9,10')
    const described = error_codes.map((code) => `AADSTS10${code}0`).join(' ')
    assert.equal(refusalOf({ body: { error_description: described } }).errorCodes?.split(',').length, 10)
  })

  test('no word that is too long for one, or holds what no word does', () => {
    const long = 'x'.repeat(48)
    assert.equal(refusalOf({ body: { error: long } }).oauthError, long)
    assert.equal(refusalOf({ body: { error: `${long}x` } }).oauthError, undefined)
    for (const error of ['', 'two words', 'new\nline', 7, null, {}])
      assert.equal(refusalOf({ body: { error } }).oauthError, undefined)
  })

  test('the codes and ids that stand in the description alone', () => {
    const error_description =
      `AADSTS50001: The resource was not found. AADSTS50001 AADB2C90118 MSIS9605\r\n` +
      `Trace ID: ${TRACE}\r\nCorrelation ID: ${CORRELATION}\r\nTimestamp: 2026-11-30 10:00:00Z user@example.test`
    assert.deepEqual(refusalOf({ body: { error_description } }), {
      ...NOTHING,
      ...{ errorCodes: '50001,AADB2C90118,MSIS9605', correlationId: CORRELATION, traceId: TRACE },
      timestamp: '2026-11-30 10:00:00Z',
    })
    assert.deepEqual(refusalOf({ body: { error_description: 'nothing of the kind' } }), NOTHING)
    assert.deepEqual(refusalOf({ body: { error_description: ['AADSTS50001'] } }), NOTHING)
    const far = `${' '.repeat(4_000)}AADSTS50001`
    assert.deepEqual(refusalOf({ body: { error_description: far } }), NOTHING)
  })

  test('a timestamp that is one', () => {
    for (const timestamp of ['2026-11-30T10:00:00.1234567Z', '2026-11-30 10:00:00'])
      assert.equal(refusalOf({ body: { timestamp } }).timestamp, timestamp)
    for (const timestamp of ['2026-11-30', 'x2026-11-30 10:00:00', '2026-11-30 10:00:00Zx', 7])
      assert.equal(refusalOf({ body: { timestamp } }).timestamp, undefined)
  })
})

describe('the problem for each reaction', () => {
  const LINES: [GrantReaction, TokenAnswer | undefined, string, string | undefined, number | undefined][] = [
    ['dead_grant', answer(400, { error: 'invalid_grant' }), 'session_required', 'invalid_grant', undefined],
    ['dead_grant', undefined, 'session_required', 'dead_grant', undefined],
    ['step_up', undefined, 'reauthentication_required', 'interaction_required', undefined],
    [
      'step_up',
      answer(400, { error: 'login_required' }),
      'reauthentication_required',
      'interaction_required',
      undefined,
    ],
    [
      'step_up',
      answer(403, { error: 'mfa_required' }),
      'reauthentication_required',
      'mfa_required',
      undefined,
    ],
    ['consent', undefined, 'reauthentication_required', 'consent_required', undefined],
    ['user_must_act', answer(400, { error: 'org_internal' }), 'access_denied', 'org_internal', undefined],
    [
      'configuration',
      answer(401, { error: 'invalid_client' }),
      'provider_rejected',
      'invalid_client',
      undefined,
    ],
    ['route_configuration', undefined, 'provider_rejected', 'route_configuration', undefined],
    ['retry_later', undefined, 'provider_unavailable', undefined, 2],
    ['retry_later', answer(503, undefined, { retryAfterSeconds: 9 }), 'provider_unavailable', undefined, 9],
    ['loop', undefined, 'provider_unavailable', undefined, 300],
    ['loop', answer(400, {}, { retryAfterSeconds: 7 }), 'provider_unavailable', undefined, 7],
  ]
  for (const [reaction, from, code, reason, retryAfterSeconds] of LINES)
    test(`${reaction} after ${from ? from.status : 'no answer'}`, () => {
      const problem = problemOf(reaction, from)
      assert.deepEqual(
        [problem.code, problem.details?.reason, problem.retryAfterSeconds],
        [code, reason, retryAfterSeconds],
      )
    })

  test('a wait of nothing is a wait of one second', () => {
    assert.equal(unavailable(undefined, 0).retryAfterSeconds, 1)
    assert.equal(unavailable(undefined).retryAfterSeconds, 2)
    assert.equal(unavailable(undefined, 30).retryAfterSeconds, 30)
    const cause = new Error('reset')
    assert.equal(unavailable(cause).cause, cause)
  })

  test('a sign-in that is asked for says why', () => {
    assert.equal(signInAgain().details?.reason, 'interaction_required')
    assert.equal(signInAgain('mfa_required').details?.reason, 'mfa_required')
  })
})

test('a network error is one that says nothing about the request', () => {
  assert.equal(isNetworkError(new TypeError('fetch failed')), true)
  assert.equal(isNetworkError(oauthError('OAUTH_TIMEOUT')), true)
  assert.equal(isNetworkError(oauthError('OAUTH_ABORT')), true)
  assert.equal(isNetworkError(oauthError('OAUTH_INVALID_RESPONSE')), false)
  assert.equal(
    isNetworkError(Object.assign(new TypeError('invalid URL'), { code: 'ERR_INVALID_URL' })),
    false,
  )
  assert.equal(isNetworkError(new Error('fetch failed')), false)
  assert.equal(isNetworkError('fetch failed'), false)
})

describe('a failed call', () => {
  const own = new BffError('store_unavailable', 'ours')
  const response = (status: number) => ({ cause: new Response(null, { status }) })
  const LINES: [string, unknown, TokenAnswer | undefined, string][] = [
    ['that we ended ourselves', own, answer(400, { error: 'invalid_grant' }), 'store_unavailable'],
    ['by its answer', new Error(), answer(400, { error: 'invalid_scope' }), 'provider_rejected'],
    ['with a page of status 200', new Error(), answer(200), 'provider_unavailable'],
    ['with an unusable answer', new Error(), answer(200, {}), 'provider_rejected'],
    ['without an answer', new TypeError('fetch failed'), undefined, 'provider_unavailable'],
    ['for another reason', new Error('odd'), undefined, 'provider_rejected'],
    ['that does not parse', oauthError('OAUTH_PARSE_ERROR'), undefined, 'provider_unavailable'],
    ['whose ID token does not parse', oauthError('OAUTH_PARSE_ERROR'), answer(200, {}), 'provider_rejected'],
    ['with a page', oauthError('OAUTH_RESPONSE_IS_NOT_JSON'), undefined, 'provider_unavailable'],
    ['with a 429', oauthError('any', { status: 429 }), undefined, 'provider_unavailable'],
    ['with a 400', oauthError('any', { status: 400 }), undefined, 'provider_rejected'],
    ...([500, 503, 429, 408].map((status) => [
      `with status ${status}`,
      oauthError('OAUTH_RESPONSE_IS_NOT_CONFORM', response(status)),
      undefined,
      'provider_unavailable',
    ]) as [string, unknown, undefined, string][]),
    ...([499, 404, 301].map((status) => [
      `with status ${status}`,
      oauthError('OAUTH_RESPONSE_IS_NOT_CONFORM', response(status)),
      undefined,
      'provider_rejected',
    ]) as [string, unknown, undefined, string][]),
    ['with a 500 of another kind', oauthError('OAUTH_OTHER', response(500)), undefined, 'provider_rejected'],
  ]
  for (const [what, error, from, code] of LINES)
    test(what, () => assert.equal(failedCall(error, from).code, code))

  test('its Retry-After is read from the answer that openid-client took for none', () => {
    const cause = new Response(null, { status: 503, headers: { 'retry-after': '17' } })
    const problem = failedCall(oauthError('OAUTH_RESPONSE_IS_NOT_CONFORM', { cause }), undefined)
    assert.equal(problem.retryAfterSeconds, 17)
    const at = Date.parse('2026-11-30T10:00:00Z')
    const date = new Headers({ 'retry-after': new Date(at + 40_000).toUTCString() })
    const dated = oauthError('OAUTH_RESPONSE_IS_NOT_CONFORM', {
      cause: new Response(null, { status: 503, headers: date }),
    })
    assert.equal(failedDiscovery(dated, at).retryAfterSeconds, 40)
    assert.deepEqual(failedDiscovery(dated, at).logged, { step: 'discovery' })
  })

  test('as a failed grant it keeps its answer', () => {
    const from = answer(400, { error: 'invalid_grant' })
    const failed = failedGrant(new Error(), from, true)
    assert.deepEqual([failed.error.code, failed.answer, failed.wasSent], ['session_required', from, true])
  })
})

test('a finding says what a failure means for the provider as a whole', () => {
  const LINES: [string, unknown, TokenAnswer | undefined, string][] = [
    ['a network error', new TypeError('fetch failed'), undefined, 'fault'],
    ['one that was not sent', new BffError('provider_rejected', ''), undefined, 'nothing'],
    ['a page', new Error(), answer(200), 'page'],
    ['a token answer that fails a check', new Error(), answer(200, {}), 'refused'],
    ['a 400', new Error(), answer(400, { error: 'invalid_grant' }), 'refused'],
    ['a 499', new Error(), answer(499), 'refused'],
    ['a 399', new Error(), answer(399), 'fault'],
    ['a 429', new Error(), answer(429), 'fault'],
    ['a 500', new Error(), answer(500), 'fault'],
    ['the loop detector with a 500', new Error(), answer(500, { error_codes: [50196] }), 'refused'],
  ]
  for (const [what, error, from, kind] of LINES) assert.equal(findingOf(error, from).kind, kind, what)
  const busy = answer(503, undefined, { retryAfterSeconds: 11 })
  assert.equal(findingOf(new Error(), busy).retryAfterSeconds, 11)
})

describe('a failed sign-in', () => {
  const refused = (parameters: Record<string, string>) =>
    oauthError('OAUTH_AUTHORIZATION_RESPONSE_ERROR', { cause: new URLSearchParams(parameters) })

  test('that the provider refused in its authorization response', () => {
    const LINES: [string, string, number | undefined][] = [
      ['server_error', 'provider_unavailable', 5],
      ['temporarily_unavailable', 'provider_unavailable', 5],
      ['access_denied', 'access_denied', undefined],
      ['login_required', 'invalid_callback', undefined],
      ['interaction_required', 'invalid_callback', undefined],
      ['consent_required', 'invalid_callback', undefined],
      ['account_selection_required', 'invalid_callback', undefined],
      ['invalid_scope', 'provider_rejected', undefined],
    ]
    for (const [error, code, retryAfterSeconds] of LINES) {
      const problem = failedSignIn(refused({ error, error_description: 'AADSTS65004' }), undefined)
      assert.deepEqual(
        [problem.code, problem.details?.reason, problem.retryAfterSeconds, problem.logged?.step],
        [code, error, retryAfterSeconds, 'authorization'],
      )
      assert.equal(problem.logged?.oauthError, error)
      assert.equal(problem.logged?.errorCodes, '65004')
    }
    assert.equal(failedSignIn(refused({ error: 'two words' }), undefined).details?.reason, 'error')
  })

  test('a response with both a code and an error is no provider’s', () => {
    const both = failedSignIn(refused({ error: 'access_denied', code: 'x' }), undefined)
    assert.deepEqual([both.code, both.logged?.step], ['invalid_callback', 'authorization'])
  })

  test('a bad response or ID token is the browser’s to repeat, a refused code grant is not', () => {
    const unsound = failedSignIn(
      new IdTokenError('the ID token has an empty sub', { claim: 'sub' }),
      answer(200, {}),
    )
    assert.deepEqual(told(unsound).code, 'invalid_callback')
    assert.deepEqual([unsound.logged?.step, unsound.logged?.claim], ['id_token', 'sub'])
    const response = failedSignIn(oauthError('OAUTH_INVALID_RESPONSE'), undefined)
    assert.deepEqual([response.code, response.logged?.step], ['invalid_callback', 'authorization'])
    const client = failedSignIn(new Error(), answer(401, { error: 'invalid_client' }))
    assert.deepEqual(
      [client.code, client.logged?.step, client.logged?.oauthError, client.logged?.providerStatus],
      ['provider_rejected', 'code', 'invalid_client', 401],
    )
    const code = failedSignIn(new Error(), answer(400, { error: 'invalid_grant' }))
    assert.deepEqual([code.code, code.logged?.step], ['invalid_callback', 'code'])
  })

  test('nobody who signs in is asked to sign in again', () => {
    const problem = failedSignIn(new Error(), answer(400, { error: 'interaction_required' }))
    assert.deepEqual([problem.code, problem.details?.reason], ['access_denied', 'interaction_required'])
  })

  test('a 401 without a word can only mean the client', () => {
    const problem = failedSignIn(new Error(), answer(401))
    assert.deepEqual(
      [problem.code, problem.details?.reason, problem.logged?.oauthError, problem.logged?.step],
      ['provider_rejected', 'invalid_client', 'invalid_client', 'code'],
    )
  })

  test('its facts are those of the ID token, where that is what failed', () => {
    const facts = signInFacts(new IdTokenError('unsound', { claim: 'azp' }), 'code', answer(200, {}))
    assert.deepEqual([facts.step, facts.claim, facts.providerStatus], ['id_token', 'azp', 200])
    assert.equal(signInFacts(new Error(), 'par').step, 'par')
  })
})

test('a pushed request that fails in passing is tried again, and one that is refused is a fault of ours', () => {
  const LINES: [TokenAnswer | undefined, unknown, string, string | undefined, number | undefined][] = [
    [answer(500), new Error(), 'provider_unavailable', undefined, 2],
    [answer(429, undefined, { retryAfterSeconds: 8 }), new Error(), 'provider_unavailable', undefined, 8],
    [answer(408), new Error(), 'provider_unavailable', undefined, 2],
    [answer(400, { error: 'server_error' }), new Error(), 'provider_unavailable', undefined, 2],
    [answer(401), new Error(), 'provider_rejected', 'invalid_client', undefined],
    [
      answer(400, { error: 'invalid_request' }),
      new Error(),
      'provider_rejected',
      'invalid_request',
      undefined,
    ],
    [answer(400), new Error(), 'provider_rejected', undefined, undefined],
    [undefined, new TypeError('fetch failed'), 'provider_unavailable', undefined, 2],
    [answer(400), new BffError('store_unavailable', ''), 'store_unavailable', undefined, undefined],
  ]
  for (const [from, error, code, reason, retryAfterSeconds] of LINES) {
    const problem = failedPush(error, from)
    const { logged, ...seen } = told(problem)
    assert.deepEqual(seen, { code, reason, retryAfterSeconds })
    assert.equal(logged?.step, 'par')
  }
})
