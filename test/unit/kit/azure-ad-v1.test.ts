import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { createRemoteJWKSet, jwtVerify } from 'jose'
import { allowInsecureRequests, discovery } from 'openid-client'
import { jwtClaims } from '../../../src/demo/scripted/signing.ts'
import { type ScriptedAzure, startAzureAdV1 } from '../../kit/azure/azure-ad.ts'
import { createPlainClient } from '../../kit/browsers/plain-client.ts'

const ORDERS = 'https://service.contoso.com/'
const BILLING = 'https://billing.contoso.com/'

/** The documented error response, member by member as it is on the wire. */
const DOCUMENTED_ERROR = `{"error":"invalid_resource","error_description":"AADSTS50001: The application named https://foo.microsoft.com/mail.read was not found in the tenant named 295e01fc-0c56-4ac3-ac57-5d0ed568f872.  This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant.  You might have sent your authentication request to the wrong tenant.\\r\\nTrace ID: ef1f89f6-a14f-49de-9868-61bd4072f0a9\\r\\nCorrelation ID: b6908274-2c58-4e91-aea9-1f6b9c99347c\\r\\nTimestamp: 2016-04-11 18:59:01Z","error_codes":[50001],"timestamp":"2016-04-11 18:59:01Z","trace_id":"ef1f89f6-a14f-49de-9868-61bd4072f0a9","correlation_id":"b6908274-2c58-4e91-aea9-1f6b9c99347c"}`

describe('scripted Azure AD v1', () => {
  let azure: ScriptedAzure
  before(async () => {
    azure = await startAzureAdV1()
  })
  after(() => azure.close())

  const signedIn = async () => (await createPlainClient(azure).signIn({ resource: ORDERS })).json

  test('a code is answered with string numbers, the resource and a signed ID token', async () => {
    const answer = await createPlainClient(azure).signIn({ resource: ORDERS })
    assert.equal(answer.status, 200)
    assert.deepEqual(Object.keys(answer.json), [
      ...['token_type', 'expires_in', 'expires_on', 'not_before', 'ext_expires_in', 'resource', 'scope'],
      ...['access_token', 'refresh_token', 'id_token'],
    ])
    assert.equal(answer.json.expires_in, '3600')
    assert.match(answer.json.expires_on, /^\d{10}$/)
    assert.equal(answer.json.resource, ORDERS)
    assert.equal(answer.json.scope, 'user_impersonation')
    const jwks = createRemoteJWKSet(new URL(azure.endpoints.jwks))
    const { payload } = await jwtVerify(answer.json.id_token, jwks, {
      issuer: azure.issuer,
      audience: azure.clientId,
    })
    assert.equal(payload.nonce, 'nonce-1')
    const access = await jwtVerify(answer.json.access_token, jwks, { audience: ORDERS })
    assert.deepEqual(
      [access.payload.sub, access.payload.tid, typeof access.payload.oid],
      ['frankm', azure.tenant, 'string'],
    )
  })

  test('one refresh token serves several resources and stays valid when it is used', async () => {
    const client = createPlainClient(azure)
    const { refresh_token: first } = await signedIn()
    const billing = await client.refresh(first, { resource: BILLING })
    assert.equal(jwtClaims(billing.json.access_token)?.aud, BILLING)
    assert.equal(billing.json.id_token, undefined)
    assert.notEqual(billing.json.refresh_token, first)
    const again = await client.refresh(first, { resource: ORDERS })
    assert.equal(again.json.resource, ORDERS)
  })

  test('the redirect carries session_state and ends with an empty fragment', async () => {
    const { status, response, location } = await createPlainClient(azure).authorize({ resource: ORDERS })
    assert.equal(status, 302)
    assert.ok(response?.searchParams.get('session_state'))
    assert.equal(response?.searchParams.get('state'), 'state-1')
    assert.ok(location?.endsWith('#'))
  })

  test('a code is redeemed once, and only with its verifier', async () => {
    const client = createPlainClient(azure)
    const { response, verifier } = await client.authorize({ resource: ORDERS })
    const form = {
      ...{
        client_id: azure.clientId,
        client_secret: azure.clientSecret ?? '',
        grant_type: 'authorization_code',
      },
      ...{ code: response?.searchParams.get('code') ?? '', redirect_uri: 'http://127.0.0.1/bff/callback' },
    }
    assert.equal((await client.token({ ...form, code_verifier: verifier })).status, 200)
    const twice = await client.token({ ...form, code_verifier: verifier })
    assert.deepEqual([twice.json.error, twice.json.error_codes], ['invalid_grant', [54005]])
    const other = await client.authorize({ resource: ORDERS })
    const code = other.response?.searchParams.get('code') ?? ''
    const forged = await client.token({ ...form, code, code_verifier: 'x'.repeat(43) })
    assert.deepEqual(forged.json.error_codes, [501481])
  })

  test('a refresh without a resource is refused as recorded', async () => {
    const { refresh_token } = await signedIn()
    const answer = await createPlainClient(azure).refresh(refresh_token)
    assert.equal(answer.status, 400)
    assert.equal(answer.json.error, 'invalid_resource')
    assert.match(
      answer.json.error_description,
      /^AADSTS50001: Resource identifier is not provided\.\r\nTrace ID: /,
    )
  })

  test('scope on a refresh is noted as a violation', async () => {
    const { refresh_token } = await signedIn()
    const seen = azure.violations.length
    await createPlainClient(azure).refresh(refresh_token, { resource: ORDERS, scope: 'openid' })
    assert.deepEqual(azure.violations.slice(seen), ['token request: scope on a v1 refresh'])
  })

  test('an unknown resource is refused with the documented bytes', async () => {
    const strict = await startAzureAdV1({
      tenant: '295e01fc-0c56-4ac3-ac57-5d0ed568f872',
      resources: { [ORDERS]: {} },
      trace: {
        traceId: 'ef1f89f6-a14f-49de-9868-61bd4072f0a9',
        correlationId: 'b6908274-2c58-4e91-aea9-1f6b9c99347c',
        timestamp: '2016-04-11 18:59:01Z',
      },
    })
    const client = createPlainClient(strict)
    const { json } = await client.signIn({ resource: ORDERS })
    const answer = await client.refresh(json.refresh_token, {
      resource: 'https://foo.microsoft.com/mail.read',
    })
    await strict.close()
    assert.equal(answer.status, 400)
    assert.equal(answer.text, DOCUMENTED_ERROR)
  })

  test('every request is recorded with its form in wire order, and every secret remembered', async () => {
    const { refresh_token, access_token, id_token } = await signedIn()
    await createPlainClient(azure).refresh(refresh_token, { resource: BILLING })
    assert.deepEqual(azure.tokenRequests().at(-1)?.form, [
      ['client_id', azure.clientId],
      ['client_secret', azure.clientSecret],
      ['grant_type', 'refresh_token'],
      ['refresh_token', refresh_token],
      ['resource', BILLING],
    ])
    for (const secret of [refresh_token, access_token, id_token])
      assert.ok(azure.issuedSecrets.includes(secret))
  })

  test('discovery works under the default issuer, and an issuer elsewhere is told as configured', async () => {
    const config = await discovery(new URL(azure.issuer), azure.clientId, undefined, undefined, {
      execute: [allowInsecureRequests],
    })
    assert.equal(config.serverMetadata().token_endpoint, azure.endpoints.token)
    const real = await startAzureAdV1({
      issuer: 'https://sts.windows.net/7fe81447-da57-4385-becb-6de57f21477e/',
    })
    const document = await fetch(`${real.origin}/${real.tenant}/.well-known/openid-configuration`)
    const { issuer } = (await document.json()) as { issuer: string }
    await real.close()
    assert.equal(issuer, 'https://sts.windows.net/7fe81447-da57-4385-becb-6de57f21477e/')
  })

  test('a sign-in form is shown when asked for', async () => {
    azure.policy.interactive = true
    const { status, text } = await createPlainClient(azure).authorize({ resource: ORDERS })
    const silent = await createPlainClient(azure).authorize({ resource: ORDERS, prompt: 'none' })
    azure.policy.interactive = false
    assert.equal(status, 200)
    assert.match(text, /<form method="post"/)
    assert.equal(silent.response?.searchParams.get('error'), 'login_required')
  })
})
