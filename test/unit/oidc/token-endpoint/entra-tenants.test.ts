import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { exportJWK, generateKeyPair, SignJWT } from 'jose'
import { createIsIssuer } from '../../../../src/oidc/token-endpoint/endpoints.ts'
import { maySignFor } from '../../../../src/oidc/token-endpoint/jwt.ts'
import { NOW, scriptedProvider } from '../../../kit/provider/scripted-provider.ts'

const SECONDS = NOW / 1000
const OWN = '72f988bf-86f1-41af-91ab-2d7cd011db47'
const OTHER = '9188040d-6c67-4c5b-b112-36a304b66dad'
const CLOUDS = ['https://login.microsoftonline.com', 'https://login.microsoftonline.us']
const { privateKey, publicKey } = await generateKeyPair('RS256')
const jwk = { ...(await exportJWK(publicKey)), kid: 'k1', use: 'sig' }

type Scene = {
  cloud?: string
  authority?: string
  /** The `issuer` of the signing key, as Entra ID writes it. */
  keyIssuer?: string
  endpoints?: object
}

/** Whether an ID token passes, of an authority whose metadata are for many tenants. */
async function outcome(
  claims: object,
  { cloud = CLOUDS[0]!, authority = 'organizations', ...more }: Scene = {},
) {
  const issuer = `${cloud}/${authority}/v2.0`
  const template = `${cloud}/{tenantid}/v2.0`
  const { relyingParty, scripts } = scriptedProvider({
    provider: { issuer, ...(more.endpoints ? { endpoints: more.endpoints } : {}) },
    metadata: {},
  })
  scripts.set(`/${authority}/v2.0/.well-known/openid-configuration`, () =>
    Response.json({
      issuer: template,
      authorization_endpoint: `${cloud}/${authority}/oauth2/v2.0/authorize`,
      token_endpoint: `${cloud}/${authority}/oauth2/v2.0/token`,
      jwks_uri: `${cloud}/${authority}/discovery/v2.0/keys`,
      id_token_signing_alg_values_supported: ['RS256'],
    }),
  )
  const key = { ...jwk, ...('keyIssuer' in more ? { issuer: more.keyIssuer } : {}) }
  scripts.set(`/${authority}/discovery/v2.0/keys`, () => Response.json({ keys: [key] }))
  const usual = { aud: 'shop', sub: 'ada', nonce: 'n', iat: SECONDS, exp: SECONDS + 300 }
  const token = await new SignJWT({ ...usual, ...claims })
    .setProtectedHeader({ alg: 'RS256', kid: 'k1' })
    .sign(privateKey)
  scripts.set(`/${authority}/oauth2/v2.0/token`, () =>
    Response.json({ access_token: 'at', token_type: 'Bearer', expires_in: 300, id_token: token }),
  )
  const callback = new URL('https://shop.example.com/bff/callback?code=c&state=s')
  const checks = { state: 's', nonce: 'n', codeVerifier: 'v'.repeat(43) }
  const result = await relyingParty.codeGrant(callback, checks, []).then(
    ({ claims: found }) => found?.tid,
    (error) => [error.code, error.logged?.claim ?? error.cause?.message],
  )
  return { result }
}

const of = (tid: string, cloud = CLOUDS[0]!) => ({ iss: `${cloud}/${tid}/v2.0`, tid })

describe('an authority of Entra ID for many tenants', () => {
  test('issues ID tokens in the name of the tenant that the token names, in every cloud', async () => {
    for (const cloud of CLOUDS) {
      for (const authority of ['organizations', 'common', 'consumers']) {
        const { result } = await outcome(of(OWN, cloud), { cloud, authority })
        assert.equal(result, OWN, `${cloud} ${authority}`)
      }
    }
  })

  test('refuses an ID token whose issuer is another tenant, another cloud, the template itself, or without tid', async () => {
    for (const claims of [
      { ...of(OWN), tid: OTHER },
      { ...of(OWN, CLOUDS[1]) },
      { iss: `${CLOUDS[0]}/{tenantid}/v2.0`, tid: OWN },
      { iss: `${CLOUDS[0]}/${OWN}/v2.0` },
    ]) {
      assert.deepEqual((await outcome(claims)).result, ['invalid_callback', 'iss'])
    }
  })

  test('signs with keys that are for one issuer, or for every tenant', async () => {
    const template = `${CLOUDS[0]}/{tenantid}/v2.0`
    assert.equal((await outcome(of(OWN), { keyIssuer: template })).result, OWN)
    assert.equal((await outcome(of(OTHER), { keyIssuer: `${CLOUDS[0]}/${OTHER}/v2.0` })).result, OTHER)
    // The key of personal accounts must not vouch for anybody's tenant.
    const foreign = await outcome(of(OWN), { keyIssuer: `${CLOUDS[0]}/${OTHER}/v2.0` })
    assert.deepEqual(foreign.result, [
      'invalid_callback',
      'no key of the provider verifies the signature of the token',
    ])
  })

  test('signs tokens of its v1 endpoints with the same keys', () => {
    const jws = (claims: object) => `e30.${Buffer.from(JSON.stringify(claims)).toString('base64url')}.`
    const v1 = { iss: `https://sts.windows.net/${OWN}/`, tid: OWN }
    const key = (issuer: string) => ({ kty: 'RSA', issuer })
    assert.equal(maySignFor(key(`${CLOUDS[0]}/{tenantid}/v2.0`), jws(v1)), true)
    assert.equal(maySignFor(key(`${CLOUDS[0]}/${OWN}/v2.0`), jws(v1)), true)
    assert.equal(maySignFor(key(`${CLOUDS[0]}/${OTHER}/v2.0`), jws(v1)), false)
    assert.equal(maySignFor(key(`${CLOUDS[0]}/{tenantid}/v2.0`), jws({ ...v1, tid: OTHER })), false)
    assert.equal(maySignFor(key('https://id.test/realms/a'), jws({ iss: 'https://id.test/realms/b' })), false)
    assert.equal(maySignFor({ kty: 'RSA' }, jws(v1)), true)
  })

  test('tells of the ends of sessions in the name of a tenant that may sign in, and of no other', () => {
    const issuer = `${CLOUDS[0]}/organizations/v2.0`
    const some = createIsIssuer({ issuer, allowedTenants: [OWN] })
    const all = createIsIssuer({ issuer, allowedTenants: [] })
    for (const isIssuer of [some, all]) {
      for (const iss of [issuer, of(OWN).iss]) assert.equal(isIssuer(iss), true, iss)
      const foreign = [
        of(OWN, CLOUDS[1]).iss,
        `${of(OWN).iss}/`,
        `${CLOUDS[0]}/${OWN}`,
        `${CLOUDS[0]}/x/v2.0`,
      ]
      const forged = [`${CLOUDS[0]}/${OWN}/evil/v2.0`, `${CLOUDS[0]}/{tenantid}/v2.0`, '', OWN]
      for (const iss of [...foreign, ...forged]) assert.equal(isIssuer(iss), false, iss)
    }
    assert.deepEqual([some(of(OTHER).iss), all(of(OTHER).iss)], [false, true])
    const single = createIsIssuer({ issuer: of(OWN).iss, allowedTenants: [OWN, OTHER] })
    assert.deepEqual([single(of(OWN).iss), single(of(OTHER).iss)], [true, false])
  })

  test('signs logout tokens, which name their tenant in the issuer alone', () => {
    const jws = `e30.${Buffer.from(JSON.stringify({ iss: of(OWN).iss })).toString('base64url')}.`
    const key = (issuer: string) => ({ kty: 'RSA', issuer })
    assert.equal(maySignFor(key(`${CLOUDS[0]}/{tenantid}/v2.0`), jws), true)
    assert.equal(maySignFor(key(`${CLOUDS[0]}/${OTHER}/v2.0`), jws), false)
  })

  test('is one with endpoints that are configured, too', async () => {
    const endpoints = { endSession: 'https://app.example.com/bye' }
    assert.equal((await outcome(of(OWN), { endpoints })).result, OWN)
    assert.deepEqual((await outcome({ ...of(OWN), tid: OTHER }, { endpoints })).result, [
      'invalid_callback',
      'iss',
    ])
  })
})
