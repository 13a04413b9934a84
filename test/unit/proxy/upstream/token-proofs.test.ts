import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { test } from 'node:test'
import { createTokenProofs } from '../../../../src/proxy/upstream/token-proofs.ts'

const { privateKey: key } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const APP = 'https://app.test'
const route = { upstream: 'http://orders:8080', preserveHost: false }

function setUp() {
  const proved: unknown[] = []
  const learned: unknown[] = []
  const proofs = createTokenProofs(
    {
      proofFor(by, request) {
        assert.equal(by, key)
        proved.push(request)
        return `proof-${proved.length}`
      },
      learn: (url, nonce) => learned.push([url, nonce]) > 0 && nonce !== undefined,
    },
    APP,
  )
  return { ...proofs, proved, learned }
}

const bearer = { value: 'at', expiresAt: 1, renewAt: 1 }
const bound = { ...bearer, key }

test('a bound token goes with a proof for the URL that its upstream sees, and a new one each time', () => {
  const { prove, proved } = setUp()
  const fields = ['authorization', 'Bearer old', 'x-a', '1']
  prove(fields, { route, target: '/v1/42?x=1', method: 'PUT', token: bound })
  assert.deepEqual(fields, ['authorization', 'DPoP at', 'x-a', '1', 'dpop', 'proof-1'])
  prove(fields, { route: { ...route, preserveHost: true }, target: '/v1', method: 'GET', token: bound })
  assert.deepEqual(fields, ['authorization', 'DPoP at', 'x-a', '1', 'dpop', 'proof-2'])
  const server = route.upstream
  assert.deepEqual(proved, [
    { method: 'PUT', url: 'http://orders:8080/v1/42?x=1', accessToken: 'at', server },
    { method: 'GET', url: `${APP}/v1`, accessToken: 'at', server },
  ])
  prove(fields, { route, target: '/v1', method: 'GET', token: bearer })
  assert.deepEqual(fields, ['authorization', 'Bearer at', 'x-a', '1'])
})

test('only a 401 that names the lack of a nonce, and has one, is one', () => {
  const { lacksNonce, learned } = setUp()
  const lacks = (status: number, challenge: string | string[] | undefined, nonce?: string) =>
    lacksNonce(
      { route, target: '/' },
      { status, headers: { 'www-authenticate': challenge, 'dpop-nonce': nonce } },
    )
  const demand = 'DPoP error="use_dpop_nonce"'
  for (const challenge of [demand, demand.toLowerCase(), ['Bearer', demand], `Bearer realm="x", ${demand}`])
    assert.equal(lacks(401, challenge, 'n'), true)
  assert.equal(lacks(401, demand), false)
  assert.equal(lacks(401, 'DPoP error="invalid_token"', 'n'), false)
  assert.equal(lacks(401, 'Bearer error="use_dpop_nonce"', 'n'), false)
  assert.equal(lacks(401, undefined, 'n'), false)
  assert.equal(lacks(400, demand, 'n'), false)
  learned.length = 0
  assert.equal(lacks(200, undefined, 'for-the-next'), false)
  assert.deepEqual(learned, [['http://orders:8080', 'for-the-next']])
})
