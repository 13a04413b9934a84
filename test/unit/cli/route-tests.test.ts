import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { runRouteTests } from '../../../src/cli/config/route-tests.ts'
import { changed, load } from '../../kit/config/base-config.ts'

const RULES = `
    require:
      claims: { groups: [ops], email_verified: [true] }
      acr: [mfa, 2]
      maxAge: 15m
      scopes: [orders.write]`
const MAY = '{ groups: [ops], email_verified: true, acr: mfa, auth_time: -60 }'

/** What the config's one test says, with access rules on its route. */
function outcome(
  test: string,
  { resource = 'scopes: [api://orders/orders.write]', rules = RULES } = {},
): string[] {
  const text = changed('    headers: { x-user-id: "{claims.sub}" }', `    auth: required${rules}`)
    .replace('scopes: [api://orders/.default]', resource)
    .replace(/tests:.*$/s, `tests:\n${test}`)
  return runRouteTests(load(text).config).map(({ path, message }) => `${path.join('.')}: ${message}`)
}

const asking = (as: string | undefined, expect: string) =>
  `  - request: GET /api/orders/1\n${as === undefined ? '' : `    as: ${as}\n`}    expect: ${expect}\n`

describe("the config file's own tests, with access rules", () => {
  const PASS: [what: string, as: string | undefined, expect: string][] = [
    ['judge no rule without `as`', undefined, '{ route: orders, resource: orders }'],
    ['let in who has everything', MAY, '{ route: orders, resource: orders }'],
    ['refuse another group', MAY.replace('ops', 'staff'), '{ code: access_denied }'],
    ['refuse who has no claims', '{}', '{ code: access_denied }'],
    ['send a weak sign-in back', MAY.replace('mfa', 'pwd'), '{ code: reauthentication_required }'],
    ['send an old sign-in back', MAY.replace('-60', '-901'), '{ code: reauthentication_required }'],
    [
      'send a sign-in of unknown age back',
      MAY.replace(', auth_time: -60', ''),
      '{ code: reauthentication_required }',
    ],
    ['take an acr that is a number', MAY.replace('mfa', '2'), '{ route: orders }'],
    ['go by the scopes that are named', MAY.replace('}', ', scope: openid }'), '{ code: access_denied }'],
    ['know nobody', 'nobody', '{ code: session_required }'],
  ]
  for (const [what, as, expect] of PASS) test(what, () => assert.deepEqual(outcome(asking(as, expect)), []))

  test('a test that is not met says what happens instead', () => {
    assert.deepEqual(outcome(asking('{ groups: [staff] }', '{ route: orders }')), [
      'tests.0.expect.route: GET /api/orders/1 is refused with access_denied',
    ])
    assert.match(
      outcome(asking(MAY, '{ code: access_denied }'))[0]!,
      /is not refused: it goes to route "orders"/,
    )
  })

  test('scopes are those that the resource asks for, unless what it asks for is not known', () => {
    const test = asking(MAY, '{ code: access_denied }')
    assert.deepEqual(outcome(test, { resource: 'scopes: [api://orders/orders.read]' }), [])
    assert.deepEqual(
      outcome(asking(MAY, '{ route: orders }'), { resource: 'scopes: [api://orders/.default]' }),
      [],
    )
  })

  test('nobody passes a route that needs no session, without a token', () => {
    const asked = '  - request: GET /\n    as: nobody\n    expect: { route: spa, resource: null }\n'
    assert.deepEqual(outcome(asked), [])
  })
})
