import assert from 'node:assert/strict'
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { describe, it, type TestContext } from 'node:test'
import { SignJWT } from 'jose'
import { createDemoApi } from '../../../src/demo/demo-api.ts'
import { listenOnLoopback } from '../../../src/demo/loopback-server.ts'

const ISSUER = 'https://id.example.com'
const AUDIENCE = 'https://orders.example.com'
const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })

type TokenChanges = {
  readonly aud?: string
  readonly iss?: string
  readonly scope?: string
  readonly expiresIn?: string
  readonly key?: KeyObject
  readonly typ?: string
}

function accessToken(changes: TokenChanges = {}): Promise<string> {
  return new SignJWT({ scope: changes.scope ?? 'orders.read', client_id: 'app' })
    .setProtectedHeader({ alg: 'RS256', kid: 'k1', typ: changes.typ ?? 'at+jwt' })
    .setIssuer(changes.iss ?? ISSUER)
    .setAudience(changes.aud ?? AUDIENCE)
    .setSubject('ada')
    .setIssuedAt()
    .setExpirationTime(changes.expiresIn ?? '1m')
    .sign(changes.key ?? privateKey)
}

async function startApi(t: TestContext) {
  const jwk = { ...publicKey.export({ format: 'jwk' }), kid: 'k1', alg: 'RS256', use: 'sig' }
  const issuer = await listenOnLoopback(() => (_req, res) => res.end(JSON.stringify({ keys: [jwk] })))
  const api = await listenOnLoopback(() =>
    createDemoApi({
      issuer: ISSUER,
      jwksUrl: `${issuer.origin}/jwks`,
      audience: AUDIENCE,
      requiredScope: 'orders.read',
      content: () => ({ orders: [1] }),
    }),
  )
  t.after(() => Promise.all([api.close(), issuer.close()]))
  return (token?: string) =>
    fetch(`${api.origin}/orders?x=1`, {
      headers: { 'x-note': 'n', ...(token !== undefined && { authorization: `Bearer ${token}` }) },
    })
}

describe('a demo API', () => {
  it('answers with its content, the claims and the names of the headers, never the token', async (t) => {
    const call = await startApi(t)
    const token = await accessToken()
    const text = await (await call(token)).text()
    const { orders, received } = JSON.parse(text)
    assert.deepEqual(orders, [1])
    assert.equal(received.path, '/orders?x=1')
    assert.equal(received.claims.aud, AUDIENCE)
    assert.equal(received.claims.sub, 'ada')
    assert.ok(received.headerNames.includes('authorization') && received.headerNames.includes('x-note'))
    assert.ok(!text.includes(token))
  })

  it('refuses a request without a token, and names no error then', async (t) => {
    const response = await (await startApi(t))()
    assert.equal(response.status, 401)
    assert.equal(response.headers.get('www-authenticate'), 'Bearer')
    assert.equal(response.headers.get('content-type'), 'application/problem+json')
  })

  const { privateKey: foreignKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const refused: readonly [string, TokenChanges][] = [
    ['for another audience', { aud: 'https://billing.example.com' }],
    ['of another issuer', { iss: 'https://evil.example.com' }],
    ['that expired', { expiresIn: '-1s' }],
    ['signed with a foreign key', { key: foreignKey }],
    ['that is an ID token', { typ: 'JWT' }],
  ]
  for (const [what, changes] of refused) {
    it(`refuses a token ${what} as invalid_token`, async (t) => {
      const response = await (await startApi(t))(await accessToken(changes))
      assert.equal(response.status, 401)
      assert.match(response.headers.get('www-authenticate') ?? '', /^Bearer error="invalid_token"/)
    })
  }

  it('refuses a token without its scope as insufficient_scope', async (t) => {
    const response = await (await startApi(t))(await accessToken({ scope: 'other' }))
    assert.equal(response.status, 403)
    assert.match(response.headers.get('www-authenticate') ?? '', /error="insufficient_scope"/)
  })

  it('refuses garbage without failing', async (t) => {
    assert.equal((await (await startApi(t))('not.a.jwt')).status, 401)
  })
})
