import assert from 'node:assert/strict'
import { test } from 'node:test'
import { mayHaveUsedRefreshToken } from '../../../../src/oidc/token-endpoint/provider-errors.ts'

const answered = (status: number, body?: Record<string, unknown>, isHtml = false) => ({
  answer: { status, body, retryAfterSeconds: undefined, isHtml },
  wasSent: true,
})

const LINES: [what: string, call: Parameters<typeof mayHaveUsedRefreshToken>[0], expected: boolean][] = [
  ['a success that cannot be read', answered(200), true],
  ['a page in the place of a success', answered(200, undefined, true), false],
  ['a success that calls itself a page', answered(200, { access_token: 'a' }, true), false],
  ['a gateway that lost its server', answered(502), true],
  ['a gateway that says so with a page', answered(502, undefined, true), true],
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
  ['a refused resource in the words of AD v1', answered(400, { error: 'invalid_resource' }), true],
  [
    'a resource that Entra ID refuses',
    answered(400, { error: 'invalid_resource', error_codes: [500011] }),
    false,
  ],
  ['a refused scope', answered(400, { error: 'invalid_scope' }), false],
  ['a wrong client secret', answered(401, { error: 'invalid_client' }), false],
  ['a request without an answer', { answer: undefined, wasSent: true }, true],
  ['a request that was not even begun', { answer: undefined, wasSent: false }, false],
]

for (const [what, call, expected] of LINES) {
  test(`after ${what} the refresh token ${expected ? 'may be' : 'is not'} used up`, () => {
    assert.equal(mayHaveUsedRefreshToken(call), expected)
  })
}
