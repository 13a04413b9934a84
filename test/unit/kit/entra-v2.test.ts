import assert from 'node:assert/strict'
import { after, before, beforeEach, describe, test } from 'node:test'
import type { ResourcePolicy } from '../../../src/demo/azure/azure-policy.ts'
import { jwtClaims } from '../../../src/demo/scripted/signing.ts'
import { type ScriptedAzure, startEntraV2 } from '../../kit/azure/azure-ad.ts'
import { createPlainClient } from '../../kit/browsers/plain-client.ts'

const OIDC = 'openid profile email offline_access'
const ORDERS = 'api://orders/.default'
const BILLING = 'api://billing/.default'

describe('scripted Entra ID v2', () => {
  let entra: ScriptedAzure
  before(async () => {
    entra = await startEntraV2({
      resources: {
        'api://orders': { audience: '1f6b9c99-0c56-4ac3-ac57-5d0ed568f872', scopes: ['read', 'write'] },
        'api://billing': {},
        'https://graph.microsoft.com': {},
      },
    })
  })
  after(() => entra.close())
  beforeEach(() => {
    entra.policy.resources = {}
  })

  const signedIn = async (params: Record<string, string> = {}) => {
    const scope = `${ORDERS} ${OIDC}`
    return (await createPlainClient(entra).signIn({ scope, ...params }, { scope })).json
  }
  const refreshed = async (policy?: ResourcePolicy, scope = BILLING, signInParams = {}) => {
    const { refresh_token } = await signedIn(signInParams)
    if (policy) entra.policy.resources['api://billing'] = policy
    return createPlainClient(entra).refresh(refresh_token, { scope: `${scope} offline_access` })
  }

  test('a code is answered with numbers, the granted scopes and the configured audience', async () => {
    const answer = await signedIn()
    assert.equal(answer.expires_in, 3600)
    assert.equal(answer.ext_expires_in, 3600)
    assert.equal(
      answer.scope,
      'api://orders/read api://orders/write api://orders/.default openid profile email',
    )
    assert.equal(jwtClaims(answer.access_token)?.aud, '1f6b9c99-0c56-4ac3-ac57-5d0ed568f872')
    assert.equal(jwtClaims(answer.access_token)?.scp, 'read write')
    assert.equal(jwtClaims(answer.id_token)?.nonce, 'nonce-1')
  })

  test('offline_access brings the refresh token and openid the ID token, each only when asked', async () => {
    const plain = await createPlainClient(entra).signIn({ scope: ORDERS }, { scope: ORDERS })
    assert.equal(plain.json.refresh_token, undefined)
    assert.equal(plain.json.id_token, undefined)
  })

  test('one refresh token serves several resources', async () => {
    const answer = await refreshed()
    assert.equal(jwtClaims(answer.json.access_token)?.aud, 'api://billing')
    assert.ok(answer.json.refresh_token)
    assert.equal(answer.json.scope, 'api://billing/user_impersonation api://billing/.default')
  })

  test('the parameter resource is AADSTS901002', async () => {
    const { refresh_token } = await signedIn()
    const answer = await createPlainClient(entra).refresh(refresh_token, { resource: 'api://billing' })
    assert.equal(answer.status, 400)
    assert.equal(answer.json.error, 'invalid_request')
    assert.match(
      answer.json.error_description,
      /^AADSTS901002: The 'resource' request parameter is not supported\.\r\nTrace ID/,
    )
    const login = await createPlainClient(entra).authorize({ scope: OIDC, resource: 'api://billing' })
    assert.equal(login.response?.searchParams.get('error'), 'invalid_request')
  })

  test('scopes of two resources fail with the code and silently mean the first on a refresh', async () => {
    const scope = `${ORDERS} ${BILLING} ${OIDC}`
    const code = await createPlainClient(entra).signIn({ scope }, { scope })
    assert.deepEqual(code.json.error_codes, [28000])
    const refresh = await refreshed(undefined, `${BILLING} ${ORDERS}`)
    assert.equal(jwtClaims(refresh.json.access_token)?.aud, 'api://billing')
  })

  test('the token endpoint sets cookies that nobody may keep', async () => {
    const answer = await refreshed()
    const names = answer.headers.getSetCookie().map((line) => line.split('=')[0])
    assert.deepEqual(names, ['fpc', 'x-ms-gateway-slice', 'stsservicecookie'])
  })

  const refusals: [string, ResourcePolicy, number, string, number[], string?][] = [
    ['step-up', { outcome: 'step-up' }, 400, 'invalid_grant', [50076], 'basic_action'],
    ['consent', { outcome: 'consent' }, 400, 'invalid_grant', [65001], 'consent_required'],
    ['expired', { outcome: 'expired' }, 400, 'invalid_grant', [700082]],
    ['expired-bad-token', { outcome: 'expired-bad-token' }, 400, 'invalid_grant', [700082], 'bad_token'],
    ['revoked', { outcome: 'revoked' }, 400, 'invalid_grant', [50173], 'bad_token'],
    ['wrong-directory', { outcome: 'wrong-directory' }, 400, 'invalid_grant', [50034], 'bad_token'],
    ['misleading-codes', { outcome: 'misleading-codes' }, 400, 'invalid_grant', [70002, 70008]],
    ['loop', { outcome: 'loop' }, 400, 'invalid_grant', [50196]],
    ['secret-expired', { outcome: 'secret-expired' }, 401, 'invalid_client', [7000222]],
    ['throttled', { outcome: 'throttled' }, 429, 'temporarily_unavailable', [90055]],
    ['invalid-resource', { outcome: 'invalid-resource' }, 400, 'invalid_resource', [500011]],
  ]
  for (const [name, policy, status, error, codes, suberror] of refusals) {
    test(`the policy ${name} answers ${status} ${error} ${codes.join(', ')}`, async () => {
      const answer = await refreshed(policy)
      assert.equal(answer.status, status)
      assert.deepEqual(
        [answer.json.error, answer.json.error_codes, answer.json.suberror],
        [error, codes, suberror],
      )
      assert.match(
        answer.json.error_description,
        /\r\nTrace ID: .+\r\nCorrelation ID: .+\r\nTimestamp: \d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ$/,
      )
    })
  }

  test('throttling says when to come back, in seconds or as a date', async () => {
    const seconds = await refreshed({ outcome: 'throttled', retryAfterSeconds: 7 })
    assert.equal(seconds.headers.get('retry-after'), '7')
    const date = await refreshed({ outcome: 'throttled-until', retryAfterSeconds: 60 })
    assert.ok(Date.parse(date.headers.get('retry-after') ?? '') > Date.now())
  })

  test('an outage is an HTML page', async () => {
    const answer = await refreshed({ outcome: 'html-unavailable' })
    assert.equal(answer.status, 503)
    assert.match(answer.headers.get('content-type') ?? '', /^text\/html/)
  })

  test('step-up concerns its resource only, and a sign-in with the claims cures it', async () => {
    const challenged = await refreshed({ outcome: 'step-up' })
    const { claims } = challenged.json
    assert.ok(JSON.parse(claims).access_token.polids)
    entra.policy.resources['api://billing'] = { outcome: 'step-up' }
    const { refresh_token } = await signedIn()
    const orders = await createPlainClient(entra).refresh(refresh_token, { scope: ORDERS })
    assert.equal(orders.status, 200)
    const cured = await refreshed({ outcome: 'step-up' }, BILLING, { claims })
    assert.equal(cured.status, 200)
  })

  test('a policy can hold for a number of requests', async () => {
    entra.policy.resources['api://billing'] = { outcome: 'loop', times: 1 }
    const { refresh_token } = await signedIn()
    const client = createPlainClient(entra)
    assert.equal((await client.refresh(refresh_token, { scope: BILLING })).status, 400)
    assert.equal((await client.refresh(refresh_token, { scope: BILLING })).status, 200)
  })

  test('a wrong resource, a bare answer and a cut connection can be had', async () => {
    const wrong = await refreshed({ outcome: 'wrong-resource', answerFor: 'https://graph.microsoft.com' })
    assert.equal(jwtClaims(wrong.json.access_token)?.aud, 'https://graph.microsoft.com')
    const bare = await refreshed({ outcome: 'bare' })
    assert.deepEqual([bare.json.refresh_token, bare.json.expires_in], [undefined, undefined])
    const before = entra.issuedSecrets.length
    await assert.rejects(refreshed({ outcome: 'ok', dropConnection: true }))
    assert.ok(entra.issuedSecrets.length > before, 'the work was done')
  })

  test('revoked grants answer 50173, garbage 9002313, a wrong secret 401', async () => {
    const { refresh_token } = await signedIn()
    const client = createPlainClient(entra)
    entra.revokeGrants()
    const revoked = await client.refresh(refresh_token, { scope: ORDERS })
    assert.deepEqual(revoked.json.error_codes, [50173])
    const garbage = await client.refresh('garbage', { scope: ORDERS })
    assert.deepEqual(garbage.json.error_codes, [9002313])
    const wrong = await createPlainClient({ ...entra, clientSecret: 'wrong' }).refresh('x', {})
    assert.deepEqual([wrong.status, wrong.json.error], [401, 'invalid_client'])
  })
})
