import assert from 'node:assert/strict'
import { after, before, beforeEach, describe, test } from 'node:test'
import { jwtClaims } from '../../../src/demo/scripted/signing.ts'
import { createPlainClient } from '../../kit/browsers/plain-client.ts'
import { type RotatingProvider, startRotatingProvider } from '../../kit/provider/rotating-provider.ts'
import { startSeedProvider } from '../../kit/provider/seed-provider.ts'

const A = 'https://a.example'
const B = 'https://b.example'
const SCOPE = 'openid offline_access'

describe('rotating provider', () => {
  let provider: RotatingProvider
  before(async () => {
    provider = await startRotatingProvider()
  })
  after(() => provider.close())
  beforeEach(() => {
    provider.control.fault = undefined
  })

  const signedIn = async () =>
    (await createPlainClient(provider).signIn({ scope: SCOPE, resource: [A, B] })).json

  test('each refresh gives a token for the asked resource and a new refresh token', async () => {
    const client = createPlainClient(provider)
    const first = await signedIn()
    assert.equal(jwtClaims(first.access_token)?.aud, A)
    const second = await client.refresh(first.refresh_token, { resource: B })
    assert.equal(jwtClaims(second.json.access_token)?.aud, B)
    assert.notEqual(second.json.refresh_token, first.refresh_token)
    assert.ok(provider.isRefreshTokenLive(second.json.refresh_token))
    assert.ok(!provider.isRefreshTokenLive(first.refresh_token))
  })

  test('a refresh token used twice ends the whole grant', async () => {
    const client = createPlainClient(provider)
    const first = await signedIn()
    const second = await client.refresh(first.refresh_token)
    const before = provider.counters.reuseDetected
    const reuse = await client.refresh(first.refresh_token)
    assert.deepEqual([reuse.status, reuse.json.error], [400, 'invalid_grant'])
    assert.equal(provider.counters.reuseDetected, before + 1)
    const dead = await client.refresh(second.json.refresh_token)
    assert.equal(dead.json.error, 'invalid_grant')
  })

  test('two concurrent refreshes with one token never both succeed', async () => {
    const client = createPlainClient(provider)
    const { refresh_token } = await signedIn()
    provider.control.latencyMs = 20
    const answers = await Promise.all([1, 2, 3].map(() => client.refresh(refresh_token)))
    provider.control.latencyMs = 0
    assert.equal(answers.filter(({ status }) => status === 200).length, 1)
    assert.ok(provider.counters.mostConcurrentRefreshes >= 2)
  })

  test('a resource that the login did not name is refused and burns the refresh token', async () => {
    const client = createPlainClient(provider)
    const { refresh_token } = await signedIn()
    const answer = await client.refresh(refresh_token, { resource: 'https://c.example' })
    assert.equal(answer.json.error, 'invalid_target')
    assert.ok(!provider.isRefreshTokenLive(refresh_token))
  })

  test('refreshes are counted by resource', async () => {
    const client = createPlainClient(provider)
    const before = { ...provider.counters.refreshesByResource }
    const first = await signedIn()
    const second = await client.refresh(first.refresh_token, { resource: B })
    await client.refresh(second.json.refresh_token, { resource: B })
    assert.equal(provider.counters.refreshesByResource[B], (before[B] ?? 0) + 2)
    assert.equal(provider.counters.refreshesByResource[A], before[A])
  })

  test('an answer can be lost after the work is done, before it, or replaced by a status', async () => {
    const client = createPlainClient(provider)
    const { refresh_token } = await signedIn()
    provider.control.fault = { kind: 'drop-before', times: 1 }
    await assert.rejects(client.refresh(refresh_token))
    assert.ok(provider.isRefreshTokenLive(refresh_token))
    provider.control.fault = { kind: 'status', status: 503, retryAfter: '3', times: 1 }
    const unavailable = await client.refresh(refresh_token)
    assert.deepEqual([unavailable.status, unavailable.headers.get('retry-after')], [503, '3'])
    assert.ok(provider.isRefreshTokenLive(refresh_token))
    provider.control.fault = { kind: 'drop-after', times: 1 }
    await assert.rejects(client.refresh(refresh_token))
    assert.ok(!provider.isRefreshTokenLive(refresh_token))
  })

  test('client credentials bring an access token for the resource and nothing else', async () => {
    const answer = await createPlainClient(provider).token({
      ...{ client_id: provider.clientId, client_secret: provider.clientSecret },
      ...{ grant_type: 'client_credentials', resource: A },
    })
    assert.equal(jwtClaims(answer.json.access_token)?.aud, A)
    assert.deepEqual([answer.json.refresh_token, answer.json.id_token], [undefined, undefined])
  })

  test('revocation ends the grant and is recorded', async () => {
    const { refresh_token } = await signedIn()
    const form = { client_id: provider.clientId, client_secret: provider.clientSecret, token: refresh_token }
    const answer = await fetch(provider.endpoints.revocation, {
      method: 'POST',
      body: new URLSearchParams(form),
    })
    assert.equal(answer.status, 200)
    assert.equal(provider.revoked.at(-1), refresh_token)
    assert.ok(!provider.isRefreshTokenLive(refresh_token))
  })

  test('the end-session endpoint is recorded and sends the person back', async () => {
    const url = `${provider.endpoints.endSession}?post_logout_redirect_uri=http%3A%2F%2F127.0.0.1%2Fbye&state=s`
    const answer = await fetch(url, { redirect: 'manual' })
    assert.equal(answer.headers.get('location'), 'http://127.0.0.1/bye?state=s')
    assert.equal(provider.endSessions.length, 1)
  })
})

describe('provider with Basic revocation', () => {
  test('rotates, revokes with Basic authentication and shows blocked people an error screen', async () => {
    const provider = await startSeedProvider()
    const client = createPlainClient(provider)
    const { json } = await client.signIn({ scope: SCOPE })
    const second = await client.refresh(json.refresh_token, { audience: A })
    assert.equal(jwtClaims(second.json.access_token)?.aud, A)
    assert.ok(second.json.id_token)
    assert.equal((await client.refresh(json.refresh_token)).json.error, 'invalid_grant')

    const basic = Buffer.from(`${provider.clientId}:${provider.clientSecret}`).toString('base64')
    const body = new URLSearchParams({ token: second.json.refresh_token })
    const revoke = (authorization: string) =>
      fetch(provider.endpoints.revocation, { method: 'POST', body, headers: { authorization } })
    assert.equal((await revoke('Basic bm9ib2R5Om5vdGhpbmc=')).status, 401)
    assert.equal((await revoke(`Basic ${basic}`)).status, 200)
    assert.deepEqual(provider.revoked, [second.json.refresh_token])
    assert.equal((await client.refresh(second.json.refresh_token)).json.error, 'invalid_grant')

    const other = await client.signIn({ scope: SCOPE })
    provider.control.blocked = true
    const blocked = await client.refresh(other.json.refresh_token)
    assert.deepEqual([blocked.status, blocked.json], [403, undefined])
    assert.match(blocked.text, /blocked/)
    await provider.close()
  })
})
