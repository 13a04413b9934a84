import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { failedCall, failedSignIn } from '../../../../src/oidc/token-endpoint/provider-errors.ts'
import {
  type GrantFault,
  type GrantReaction,
  reactionTo,
  reactionToClient,
  reactionToExchange,
} from '../../../../src/oidc/token-endpoint/reactions.ts'
import { AADSTS } from '../../../kit/azure/aadsts-rows.ts'
import { MODEL, type ReactionRow } from '../../../kit/azure/reaction-rows.ts'

/** A text that says everything at once, in every alphabet, over several lines. */
const MISLEADING = [
  'AADSTS50196: invalid_client invalid_scope AADSTS7000222 AADSTS65001 consent_required',
  'interaction_required bad_token token_expired AADSTS70008 temporarily_unavailable "suberror":"basic_action"',
  'Größe von jürgen@contoso.com — 東京 \u2028 \u0000 {"error":"server_error","error_codes":[50076]}',
  'Trace ID: ef1f89f6-a14f-49de-9868-61bd4072f0a9',
  'Timestamp: 2016-04-11 18:59:01Z',
].join('\r\n')

function withMisleadingText({ status, body }: GrantFault): GrantFault {
  const error_uri = 'https://login.microsoftonline.com/error?code=50196'
  return { status, body: body && { ...body, error_description: MISLEADING, error_uri } }
}

const CODE_ROWS: readonly ReactionRow[] = AADSTS.flatMap(([codes, sentAs, means]) =>
  codes.flatMap((code) =>
    sentAs.map(([error, suberror, status = 400]): ReactionRow => {
      const words = [error, suberror, status === 400 ? undefined : `status ${status}`]
      const body = { error, ...(suberror ? { suberror } : {}), error_codes: [code] }
      return [`${code} as ${words.filter(Boolean).join(', ')}`, { status, body }, means]
    }),
  ),
)

for (const [table, rows] of [
  ['the reaction model', MODEL],
  ['the codes of Microsoft', CODE_ROWS],
] as const)
  describe(table, () => {
    for (const [said, fault, means] of rows)
      test(`${said} means ${means}, whatever the text says`, () => {
        assert.equal(reactionTo(fault), means)
        assert.equal(reactionTo(withMisleadingText(fault)), means)
        assert.notEqual(reactionToExchange(withMisleadingText(fault)), 'dead_grant')
        const isUsers = ['dead_grant', 'step_up', 'consent', 'user_must_act'].includes(means)
        assert.equal(reactionToClient(withMisleadingText(fault)), isUsers ? 'route_configuration' : means)
      })
  })

test('no row is there twice', () => {
  const said = [...MODEL, ...CODE_ROWS].map(([name]) => name)
  assert.deepEqual(
    said.filter((name, index) => said.indexOf(name) !== index),
    [],
  )
})

test('every reaction is the reaction of some row', () => {
  const all: Record<GrantReaction, true> = {
    ...{ dead_grant: true, step_up: true, consent: true, user_must_act: true },
    ...{ configuration: true, route_configuration: true, retry_later: true, loop: true },
  }
  const met = new Set([...MODEL, ...CODE_ROWS].map(([, , means]) => means))
  assert.deepEqual([...met].sort(), Object.keys(all).sort())
})

test('the first of several codes decides nothing', () => {
  const refusal = (...error_codes: number[]) =>
    reactionTo({ status: 400, body: { error: 'invalid_grant', error_codes } })
  assert.equal(refusal(70002, 70008), 'dead_grant')
  assert.equal(refusal(70002, 50076), 'step_up')
  assert.equal(refusal(70002, 65001), 'consent')
  assert.equal(refusal(70002, 50105), 'user_must_act')
})

/** What the browser is told, by where the error comes from. Status and Retry-After belong to the code. */
describe('the errors of OAuth 2.0 and OpenID Connect', () => {
  type Place = 'authorize' | 'code' | 'refresh'
  type Row = readonly [error: string, status: number, place: Place, problem: string, reason?: string]
  const rows: readonly Row[] = [
    ['invalid_grant', 400, 'code', 'invalid_callback'],
    ['invalid_grant', 400, 'refresh', 'session_required'],
    ['invalid_client', 400, 'code', 'provider_rejected', 'invalid_client'],
    ['invalid_client', 401, 'code', 'provider_rejected', 'invalid_client'],
    ['invalid_client', 400, 'refresh', 'provider_rejected', 'invalid_client'],
    ['invalid_client', 401, 'refresh', 'provider_rejected', 'invalid_client'],
    ...['unauthorized_client', 'unsupported_grant_type', 'invalid_request'].flatMap((error): Row[] => [
      [error, 400, 'code', 'provider_rejected', error],
      [error, 400, 'refresh', 'provider_rejected', error],
    ]),
    ...['invalid_scope', 'invalid_target', 'invalid_resource'].flatMap((error): Row[] => [
      [error, 400, 'code', 'provider_rejected', error],
      [error, 400, 'refresh', 'provider_rejected', error],
      [error, 400, 'authorize', 'provider_rejected', error],
    ]),
    ['access_denied', 400, 'authorize', 'access_denied', 'access_denied'],
    ...['login_required', 'interaction_required', 'consent_required', 'account_selection_required'].map(
      (error): Row => [error, 400, 'authorize', 'invalid_callback', error],
    ),
    ['login_required', 400, 'refresh', 'reauthentication_required', 'interaction_required'],
    ['interaction_required', 400, 'refresh', 'reauthentication_required', 'interaction_required'],
    ['consent_required', 400, 'refresh', 'reauthentication_required', 'consent_required'],
    ['server_error', 400, 'refresh', 'provider_unavailable'],
    ['temporarily_unavailable', 400, 'refresh', 'provider_unavailable'],
    ['server_error', 500, 'code', 'provider_unavailable'],
    ['invalid_request', 503, 'refresh', 'provider_unavailable'],
    ['invalid_request', 429, 'refresh', 'provider_unavailable'],
    ['server_error', 400, 'authorize', 'provider_unavailable', 'server_error'],
    ['temporarily_unavailable', 400, 'authorize', 'provider_unavailable', 'temporarily_unavailable'],
    ...['unauthorized_client', 'invalid_request', 'unsupported_response_type', 'made_up'].map(
      (error): Row => [error, 400, 'authorize', 'provider_rejected', error],
    ),
    // Tokens are never bound to a key, so a server that insists on it is one that we are not configured for.
    ['use_dpop_nonce', 400, 'refresh', 'provider_rejected', 'use_dpop_nonce'],
    ['invalid_dpop_proof', 400, 'refresh', 'provider_rejected', 'invalid_dpop_proof'],
    ['made_up', 400, 'refresh', 'provider_rejected', 'made_up'],
    ['made_up', 400, 'code', 'provider_rejected', 'made_up'],
  ]
  for (const [error, status, place, problem, reason] of rows)
    test(`${error} with ${status} at ${place} is the problem ${problem}`, () => {
      const seen = problemAt(place, status, error)
      assert.equal(seen.code, problem)
      if (reason !== undefined) assert.equal(seen.details?.reason, reason)
      assert.ok(!JSON.stringify([seen.message, seen.details]).includes('AADSTS'))
      const wantsPause = problem === 'provider_unavailable'
      assert.equal(seen.retryAfterSeconds !== undefined && seen.retryAfterSeconds > 0, wantsPause)
    })

  function problemAt(place: Place, status: number, error: string) {
    const answer = {
      status,
      body: { error, error_description: MISLEADING },
      retryAfterSeconds: undefined,
      isHtml: false,
    }
    const thrown = (code: string) => Object.assign(new Error(MISLEADING), { code, error })
    if (place === 'authorize') return failedSignIn(thrown('OAUTH_AUTHORIZATION_RESPONSE_ERROR'), undefined)
    const failure = thrown('OAUTH_RESPONSE_BODY_ERROR')
    return place === 'code' ? failedSignIn(failure, answer) : failedCall(failure, answer)
  }
})
