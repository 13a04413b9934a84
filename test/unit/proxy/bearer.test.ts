import assert from 'node:assert/strict'
import type { IncomingMessage } from 'node:http'
import { describe, test } from 'node:test'
import type { AccessRules, RouteConfig } from '../../../src/config/config.ts'
import { BffError } from '../../../src/errors.ts'
import { invalidToken } from '../../../src/oidc/bearer-token.ts'
import { createFindBearerCaller } from '../../../src/proxy/bearer.ts'
import { isOfBearer } from '../../../src/session/session.ts'
import { accessCheckAt, routeWith } from '../../kit/upstream/routes.ts'

const NOW = 1_800_000_000_000

/** One request with these Authorization fields on a route that takes bearers; gives what comes of it. */
async function run(
  authorization: readonly string[],
  {
    route = {},
    isExchanged = false,
    claims = {},
    scopes = [],
    hasCookie = false,
  }: {
    route?: Partial<RouteConfig>
    isExchanged?: boolean
    claims?: Record<string, unknown>
    scopes?: string[]
    hasCookie?: boolean
  } = {},
) {
  const steps: string[] = []
  const find = createFindBearerCaller({
    hasSessionCookie: () => hasCookie,
    requireOrigin: () => void steps.push('origin'),
    async verify(value, { audience }, client) {
      steps.push(`verify ${value} for ${audience} of ${client}`)
      return { value, hash: 'h', claims: { sub: 'alice', ...claims }, expiresAt: NOW + 1_000 }
    },
    async exchange({ value }, resource) {
      steps.push(`exchange ${value} for ${resource}`)
      return { value: 'exchanged', expiresAt: 0, renewAt: 0 }
    },
    accessRefusal: accessCheckAt(NOW, scopes),
    clientOf: () => 'client-1',
    ...{ invalidToken, now: () => NOW },
  })
  const bearer = { audience: 'api://orders', scopes: [], isExchanged }
  const rawHeaders = authorization.flatMap((value, index) => [
    index % 2 ? 'AUTHORIZATION' : 'Authorization',
    value,
  ])
  const headers = authorization[0] === undefined ? {} : { authorization: authorization[0] }
  const req = { headers, rawHeaders } as unknown as IncomingMessage
  try {
    const caller = await find(req, routeWith({ path: '/x', resource: 'orders', bearer, ...route }))
    return { caller, steps }
  } catch (error) {
    assert.ok(error instanceof BffError, String(error))
    return { error, steps }
  }
}

describe('an access token of the client', () => {
  test('is taken in any letter case of its scheme, and passed on as it is', async () => {
    for (const scheme of ['Bearer', 'bearer', 'BEARER', 'Bearer ']) {
      const { caller, steps } = await run([`${scheme} a.b-c_d~e+f/g==`])
      assert.equal(caller?.token.value, 'a.b-c_d~e+f/g==')
      assert.deepEqual(steps, ['origin', 'verify a.b-c_d~e+f/g== for api://orders of client-1'])
    }
  })

  test('makes a caller with its claims and its end, who is no session', async () => {
    const { caller } = await run(['Bearer t'])
    const { session } = caller!
    assert.deepEqual([session.claims, session.expiresAt, session.id], [{ sub: 'alice' }, NOW + 1_000, ''])
    assert.ok(isOfBearer(session))
  })

  test('is exchanged where the route says so, once access was judged', async () => {
    const { caller, steps } = await run(['Bearer t'], { isExchanged: true })
    assert.equal(caller?.token.value, 'exchanged')
    assert.deepEqual(steps.slice(1), ['verify t for api://orders of client-1', 'exchange t for orders'])
    const require = { claims: [{ name: 'groups', values: ['ops'] }] }
    const denied = await run(['Bearer t'], { isExchanged: true, route: { require } })
    assert.equal(denied.error?.code, 'access_denied')
    assert.equal(denied.steps.length, 2)
  })

  test('is not there in another scheme, or without the header', async () => {
    for (const authorization of [[], ['Basic YTpi'], ['Negotiate abc'], ['BearerToken abc'], ['']])
      assert.deepEqual(await run(authorization), { caller: undefined, steps: [] })
  })

  test('that is no token at all is refused', async () => {
    const values = [
      'Bearer',
      'Bearer ',
      'Bearer a b',
      'Bearer a,Bearer b',
      'Bearer a=b',
      'Bearer ü',
      'Bearer "a"',
    ]
    for (const value of values) {
      const { error } = await run([value])
      assert.deepEqual([error?.code, error?.logged], ['session_required', { claim: 'form' }], value)
    }
  })

  test('that is bound to a key is refused, because its proof is not for the upstream', async () => {
    const { error } = await run(['DPoP abc'])
    assert.deepEqual([error?.code, error?.logged], ['session_required', { claim: 'cnf' }])
  })

  test('must come alone: neither twice nor with another credential, nor beside a session cookie', async () => {
    for (const authorization of [
      ['Bearer a', 'Bearer a'],
      ['Bearer a', 'Bearer b'],
      ['Basic YTpi', 'Bearer a'],
    ])
      assert.equal((await run(authorization)).error?.code, 'bad_request')
    for (const value of ['Bearer a', 'Bearer', 'Bearer "a"', 'DPoP a']) {
      const { error, steps } = await run([value], { hasCookie: true })
      assert.equal(error?.code, 'bad_request')
      assert.deepEqual(steps, ['origin'])
    }
  })
})

describe('access rules for an access token of the client', () => {
  const judged = (require: AccessRules, rest: Parameters<typeof run>[1] = {}) =>
    run(['Bearer t'], { route: { require }, ...rest })

  test('go by its claims and its scopes', async () => {
    const require = { claims: [{ name: 'groups', values: ['ops'] }], scopes: ['w'] }
    assert.ok((await judged(require, { claims: { groups: ['ops'] }, scopes: ['w'] })).caller)
    const { error } = await judged(require, { claims: { groups: ['dev'] }, scopes: ['w'] })
    assert.deepEqual(
      [error?.code, error?.details, error?.headers],
      ['access_denied', { reason: 'claims' }, undefined],
    )
  })

  test('tell the scope that is missing (RFC 6750 §3.1)', async () => {
    const { error } = await judged({ scopes: ['w', 'x'] })
    assert.equal(error?.code, 'access_denied')
    assert.deepEqual(error?.headers, { 'www-authenticate': 'Bearer error="insufficient_scope", scope="w x"' })
  })

  test('tell what the next token must bring (RFC 9470 §3), and offer no sign-in of ours', async () => {
    const { error } = await judged({ acr: ['mfa', 'h"k\\'], maxAgeMs: 900_000 })
    assert.deepEqual(
      [error?.code, error?.details],
      ['reauthentication_required', { reason: 'insufficient_user_authentication' }],
    )
    assert.deepEqual(error?.headers, {
      'www-authenticate':
        'Bearer error="insufficient_user_authentication", acr_values="mfa hk", max_age="900"',
    })
    assert.deepEqual([error?.offersLogin, error?.stepUp], [false, undefined])
  })
})
