import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BffError } from '../../../src/errors.ts'
import { mayHaveSpent } from '../../../src/oidc/provider-errors.ts'

const failed = (cause?: unknown) => new BffError('provider_unavailable', 'failed', { cause })
const answered = (status: number, body?: Record<string, unknown>) => ({
  error: failed(),
  answer: { status, body, retryAfterSeconds: undefined },
})
const cut = (code: string) => ({
  error: failed(Object.assign(new TypeError('fetch failed'), { cause: { code } })),
  answer: undefined,
})

const LINES: [what: string, call: Parameters<typeof mayHaveSpent>[0], expected: boolean][] = [
  ['a success that cannot be read', answered(200), true],
  ['a gateway that lost its server', answered(502), true],
  ['a gateway that outwaited its server', answered(504), true],
  ['a 502 of the token endpoint itself', answered(502, { error: 'server_error' }), false],
  ['a 500', answered(500), false],
  ['a 503', answered(503), false],
  ['a 429', answered(429), false],
  [
    'a refused resource: some providers rotate before they look at it',
    answered(400, { error: 'invalid_target' }),
    true,
  ],
  ['a wrong client secret', answered(401, { error: 'invalid_client' }), false],
  ['a connection reset after the request was sent', cut('ECONNRESET'), true],
  ['no answer in time', cut('UND_ERR_HEADERS_TIMEOUT'), true],
  ['no connection', cut('ECONNREFUSED'), false],
  ['no such host', cut('ENOTFOUND'), false],
  ['no trusted certificate', cut('CERT_HAS_EXPIRED'), false],
]

for (const [what, call, expected] of LINES) {
  test(`after ${what} the refresh token ${expected ? 'may be' : 'is not'} spent`, () => {
    assert.equal(mayHaveSpent(call), expected)
  })
}
