import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ResourceConfig } from '../../../../src/config/config.ts'
import type { BffError } from '../../../../src/errors.ts'
import { createConfigFaults, type GrantOutcome } from '../../../../src/oidc/grants/config-faults.ts'
import { createDialect } from '../../../../src/oidc/grants/dialects.ts'
import { createResourceGrants } from '../../../../src/oidc/grants/resource-grants.ts'
import { problemOf } from '../../../../src/oidc/token-endpoint/provider-errors.ts'
import { reactionTo } from '../../../../src/oidc/token-endpoint/reactions.ts'

const MINUTE_MS = 60_000
const orders: ResourceConfig = { name: 'orders', scopes: ['orders'], grant: 'refresh_token' }
const stock: ResourceConfig = { ...orders, name: 'stock', grant: 'token_exchange', subject: 'orders' }

/** Two users at a provider that refuses one of them with `error`. */
function scene() {
  const clock = { at: 0 }
  const counted: GrantOutcome[] = []
  const alarms: string[] = []
  const log = { info() {}, warn() {}, error() {} }
  const faults = createConfigFaults({
    log,
    monotonicNow: () => clock.at,
    observe: {
      grant: (_, outcome) => void counted.push(outcome),
      configFault: (resource, error, isFault) => void (isFault && alarms.push(`${resource} ${error}`)),
    } as Parameters<typeof createConfigFaults>[0]['observe'],
  })
  let answer: object = {}
  const grant = async () => answer
  const deps = {
    dialect: createDialect({ resourceDialect: 'scope', scopes: ['openid'], signInScopes: 'all' }, [orders]),
    resources: { orders, stock },
    ...{ clientCapabilities: [], log, monotonicNow: () => clock.at, note: faults.note },
    relyingParty: { refreshGrant: grant, tokenExchangeGrant: grant } as never,
  }
  const grants = createResourceGrants(deps)
  const exchange = grants.tokenExchangeGrant
  const give = () => {
    answer = { accessToken: 'at', obtainedAt: 0, expiresAt: 1, scope: undefined, claims: undefined }
  }
  const refuse = (error: string, status = 400) => {
    const body = { error }
    const told = { status, body, retryAfterSeconds: undefined, isHtml: false }
    answer = { error: problemOf(reactionTo(told), told), answer: told, wasSent: true }
  }
  /** As Glewlwyd refuses a refresh token that has ended, or the page of a gateway, or JSON without an error. */
  const refuseWithoutJson = ({
    isHtml,
    body,
    status = 400,
  }: {
    isHtml: boolean
    body?: object
    status?: number
  }) => {
    const told = { status, body: body as Record<string, unknown>, retryAfterSeconds: undefined, isHtml }
    answer = { error: problemOf(reactionTo(told), told), answer: told, wasSent: true }
  }
  const refresh = (session: string) =>
    grants.refreshGrant({ refreshToken: 'rt', resource: 'orders', session, keep: async () => undefined })
  async function verdict(session: string) {
    const outcome = await refresh(session)
    if (outcome.kind === 'dead' || outcome.kind === 'renewed') return outcome.kind
    return `${outcome.error.code} ${outcome.error.details?.reason}`
  }
  return {
    ...grants,
    exchange,
    give,
    refuse,
    refuseWithoutJson,
    verdict,
    clock,
    counted,
    alarms,
    retire: faults.retire,
  }
}

test("a word that nobody knows is this session's matter when the resource was renewed for another within five minutes", async () => {
  for (const error of ['made_up', 'invalid_request']) {
    const { give, refuse, verdict, clock, alarms, retire } = scene()
    give()
    assert.equal(await verdict('alice'), 'renewed')
    refuse(error)
    assert.equal(await verdict('bob'), `reauthentication_required ${error}`)
    assert.deepEqual(alarms, [])
    clock.at += 5 * MINUTE_MS
    assert.equal(await verdict('bob'), `provider_rejected ${error}`)
    assert.equal(alarms.length, 1)
    retire()
  }
})

test("a 400 without a word is this session's matter while others are renewed; a page never is", async () => {
  const { give, refuseWithoutJson, verdict, clock, alarms } = scene()
  refuseWithoutJson({ isHtml: false })
  assert.equal(await verdict('bob'), 'provider_unavailable undefined')
  give()
  await verdict('alice')
  refuseWithoutJson({ isHtml: true })
  assert.equal(await verdict('bob'), 'provider_unavailable undefined')
  refuseWithoutJson({ isHtml: false })
  assert.equal(await verdict('bob'), 'reauthentication_required interaction_required')
  refuseWithoutJson({
    isHtml: false,
    body: { errorCode: 'E0000011', errorSummary: 'Invalid token provided' },
  })
  assert.equal(await verdict('bob'), 'reauthentication_required interaction_required')
  refuseWithoutJson({ isHtml: false, body: {}, status: 403 })
  assert.equal(await verdict('bob'), 'provider_unavailable undefined', 'a firewall has this for everybody')
  refuseWithoutJson({ isHtml: false })
  clock.at += 5 * MINUTE_MS
  assert.equal(await verdict('bob'), 'provider_unavailable undefined')
  assert.deepEqual(alarms, [])
})

test('however often one session is renewed, the other one that was is not forgotten', async () => {
  const { give, refuse, verdict } = scene()
  give()
  await verdict('bob')
  for (let time = 0; time < 3; time += 1) await verdict('alice')
  refuse('made_up')
  assert.equal(await verdict('alice'), 'reauthentication_required made_up')
})

test('its own renewal of before says nothing, and neither does what is known for a fault of the configuration', async () => {
  const { give, refuse, verdict, alarms, retire } = scene()
  give()
  await verdict('bob')
  refuse('made_up')
  assert.equal(await verdict('bob'), 'provider_rejected made_up')
  give()
  await verdict('alice')
  await verdict('bob')
  for (const error of ['invalid_client', 'unauthorized_client', 'invalid_scope', 'invalid_target']) {
    refuse(error)
    assert.equal(await verdict('bob'), `provider_rejected ${error}`)
    assert.ok(alarms.includes(`orders ${error}`))
  }
  retire()
})

test("the words of Auth0, Okta and others for one user's grant raise no alarm, and their own word is the reason", async () => {
  const { refuse, verdict, alarms } = scene()
  for (const [error, status] of [
    ['mfa_required', 403],
    ['access_denied', 403],
    ['unauthorized', 401],
  ] as const) {
    refuse(error, status)
    assert.equal(await verdict('bob'), `reauthentication_required ${error}`)
  }
  refuse('invalid_token', 401)
  assert.equal(await verdict('bob'), 'dead')
  assert.deepEqual(alarms, [])
})

test('an exchange is judged by the same evidence', async () => {
  const { give, refuse, exchange } = scene()
  const code = async (session: string) => {
    const request = { resource: 'stock', subjectToken: 'at', session }
    return exchange(request).then(
      () => 'exchanged',
      (error: BffError) => error.code,
    )
  }
  refuse('made_up')
  assert.equal(await code('bob'), 'provider_rejected')
  give()
  assert.equal(await code('alice'), 'exchanged')
  refuse('made_up')
  assert.equal(await code('bob'), 'reauthentication_required')
})

test('one session without a refresh token, while others have theirs, is no fault of the configuration', async () => {
  const { give, verdict, noRefreshToken, alarms, counted, clock, retire } = scene()
  give()
  await verdict('alice')
  noRefreshToken('orders')
  assert.deepEqual([alarms, counted.at(-1)], [[], 'no_refresh_token'])
  clock.at += 5 * MINUTE_MS
  noRefreshToken('orders')
  assert.deepEqual(alarms, ['orders no_refresh_token'])
  retire()
})
