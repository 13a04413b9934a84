import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import type { AzureErrorName } from '../kit/azure-errors.ts'
import {
  CAE_CHALLENGE,
  CAE_CLAIMS,
  DOCUMENTED_EXPIRED,
  recorded,
  SEED_INVALID_RESOURCE,
  UNAVAILABLE_PAGE,
} from '../kit/azure-fixtures.ts'
import type { RawAnswer } from '../kit/azure-policy.ts'
import {
  type AzureScene,
  LIFE_SECONDS,
  lastForm,
  NAMES,
  newestRefreshToken,
  refreshCalls,
  signedInAtAzure,
} from './azure-shop.ts'
import { testSeeds } from './entra-seeds.ts'
import {
  assertLogIsWhole,
  assertNothingReachesBrowser,
  assertSessionEnded,
  assertSessionLives,
  assertTold,
  type Told,
} from './entra-verdicts.ts'
import { verdict } from './shop.ts'

type Version = 'v1' | 'v2'

const VERSIONS = ['v1', 'v2'] as const
const LETTERS = [...'abcdefghijklmno']
const tested = new Set<string>()

/** Defines a test of one fixture; its letter leads the name. */
function fixture(letter: string, what: string, version: Version, run: (t: TestContext) => Promise<void>) {
  tested.add(letter)
  test(`(${letter}) ${what}, ${version}`, run)
}

const of = (name: AzureErrorName) => (version: Version) => recorded(name, version, NAMES[version].billing)

const STEP_UP: Told = { status: 401, code: 'reauthentication_required', loginUrl: 'challenge' }
const DEAD: Told = { status: 401, code: 'session_required', reason: 'grant_ended', loginUrl: 'plain' }
const OURS: Told = { status: 502, code: 'provider_rejected' }
const AWAY: Told = { status: 503, code: 'provider_unavailable', retryAfter: 2 }

/** When the answer of `then` comes 7 s after it was sent. */
const inSevenSeconds = () => new Date(Date.now() + 7_000).toUTCString()

const REFUSALS: readonly (readonly [
  letter: string,
  what: string,
  raw: (version: Version) => RawAnswer,
  told: Told,
])[] = [
  [
    'a',
    'the documented invalid_resource is told as our configuration, and only of this resource',
    (version) =>
      version === 'v1' ? { status: 400, body: SEED_INVALID_RESOURCE } : of('invalid-resource')('v2'),
    { ...OURS, reason: 'invalid_resource' },
  ],
  [
    'b',
    'the documented 70002 before 70008 ends the session, whatever the first code says',
    () => ({ status: 400, body: DOCUMENTED_EXPIRED }),
    DEAD,
  ],
  [
    'd',
    '50076 asks for a sign-in for this resource',
    of('step-up'),
    { ...STEP_UP, reason: 'interaction_required' },
  ],
  [
    'e',
    '65001 with consent_required asks for consent to this resource',
    of('consent'),
    { ...STEP_UP, reason: 'consent_required' },
  ],
  ['f', '700082 as it was sent in 2020, without a suberror, ends the session', of('expired'), DEAD],
  ['f', '700082 with bad_token ends the session', of('expired-bad-token'), DEAD],
  [
    'g',
    '7000222 with status 401 is told as our configuration',
    of('secret-expired'),
    { ...OURS, reason: 'invalid_client' },
  ],
  ['h', '50034 with bad_token ends the session', of('wrong-directory'), DEAD],
  ['i', '50196 as invalid_grant is told as a long pause', of('loop'), { ...AWAY, retryAfter: 300 }],
  [
    'j',
    '429 with Retry-After in seconds is told as it is',
    (version) => ({ ...of('throttled')(version), headers: { 'retry-after': '7' } }),
    { ...AWAY, retryAfter: 7 },
  ],
  [
    'j',
    '429 with Retry-After as a date is told in seconds',
    (version) => ({ ...of('throttled')(version), headers: { 'retry-after': inSevenSeconds() } }),
    { ...AWAY, retryAfter: 7 },
  ],
  ['k', '503 with a page is told as a short pause', () => UNAVAILABLE_PAGE, AWAY],
  ...(
    [
      [
        'that ask for a sign-in',
        'interaction_required',
        'basic_action',
        { ...STEP_UP, reason: 'interaction_required' },
      ],
      ['of a dead token', 'invalid_grant', 'bad_token', DEAD],
      ['of our configuration', 'unauthorized_client', undefined, { ...OURS, reason: 'unauthorized_client' }],
      ['of a pause', 'temporarily_unavailable', undefined, AWAY],
      // Words that are none: the reaction is told in their place.
      [
        'with line ends in the words too',
        'invalid_request\r\nx: y',
        'bad\ntoken',
        { ...OURS, reason: 'configuration' },
      ],
    ] as const
  ).map(
    ([what, error, suberror, told]) =>
      [
        'o',
        `texts in every alphabet and with line ends ${what} stay with us`,
        () => ({ status: 400, body: hostile(error, suberror) }),
        told,
      ] as const,
  ),
]

for (const version of VERSIONS)
  for (const [letter, what, rawOf, told] of REFUSALS)
    fixture(letter, what, version, async (t) => {
      const at = await signedInAtAzure(t, version)
      const raw = rawOf(version)
      at.setBilling({ outcome: 'raw', raw })
      const cookie = at.browser.cookieHeader()
      assertTold(await at.browser.fetch('/api/billing'), told)
      // What is remembered is told alike, and costs the provider nothing.
      const calls = refreshCalls(at)
      if (told !== DEAD) assertTold(await at.browser.fetch('/api/billing'), told)
      assert.equal(refreshCalls(at), calls)
      assert.equal(at.browser.cookieHeader(), cookie)
      await (told === DEAD ? assertSessionEnded(at) : assertSessionLives(at))
      assertNothingReachesBrowser(at, raw)
      assertLogIsWhole(at, raw)
      assert.deepEqual(at.azure.violations, [])
    })

for (const version of VERSIONS) {
  testSeeds(version, (what, run) => fixture('a', what, version, run))

  fixture(
    'l',
    'an answer for the other resource is sent nowhere, and its refresh token kept',
    version,
    async (t) => {
      const at = await signedInAtAzure(t, version)
      at.setBilling({ outcome: 'wrong-resource', answerFor: at.orders })
      assertTold(await at.browser.fetch('/api/billing'), { ...OURS, reason: 'wrong_audience' })
      assert.deepEqual([at.shop.orders.requests.length, at.shop.billing.requests.length], [0, 0])
      const kept = newestRefreshToken(at)
      await assertSessionLives(at)
      assert.equal(lastForm(at).refresh_token, kept)
    },
  )

  for (const absent of [
    'refresh_token',
    'expires_in',
    'expires_on',
    'expires_in and expires_on',
    'all three',
  ])
    fixture('m', `an answer without ${absent} is as good as any`, version, async (t) => {
      const at = await signedInAtAzure(t, version)
      const names = ['refresh_token', 'expires_in', 'expires_on']
      const left = names.filter((name) => absent === 'all three' || absent.split(' ').includes(name))
      const edit = (answer: Record<string, unknown>) => {
        for (const name of left) delete answer[name]
      }
      at.setBilling({ outcome: 'ok', edit })
      const before = newestRefreshToken(at)
      assert.deepEqual(verdict(await at.browser.fetch('/api/billing')), [200, at.billing])
      const issued = newestRefreshToken(at)
      // v1 says the end of the life twice; where no answer says it, a token is used for five minutes.
      const saysLife = !left.includes('expires_in') || (version === 'v1' && !left.includes('expires_on'))
      await assertLife(at, saysLife ? LIFE_SECONDS : 300)
      assert.equal(lastForm(at).refresh_token, left.includes('refresh_token') ? before : issued)
    })

  for (const [kind, expiresIn] of [
    ['a number', LIFE_SECONDS],
    ['a string', String(LIFE_SECONDS)],
  ] as const)
    fixture('n', `expires_in as ${kind} is believed`, version, async (t) => {
      const at = await signedInAtAzure(t, version)
      const edit = (answer: Record<string, unknown>) => Object.assign(answer, { expires_in: expiresIn })
      at.setBilling({ outcome: 'ok', edit })
      assert.deepEqual(verdict(await at.browser.fetch('/api/billing')), [200, at.billing])
      await assertLife(at, LIFE_SECONDS)
    })
}

fixture(
  'c',
  'the recorded chain ends the session: challenge, refresh with its claims, 50173',
  'v2',
  async (t) => {
    const at = await challenged(t)
    const raw = of('revoked')('v2')
    at.setBilling({ outcome: 'raw', raw })
    assertTold(await at.browser.fetch('/api/billing'), DEAD)
    assert.equal(lastForm(at).claims, CAE_CLAIMS)
    assert.equal(at.shop.billing.requests.length, 2, 'nothing is sent with the token that was taken back')
    await assertSessionEnded(at)
    assertNothingReachesBrowser(at, raw)
    assertLogIsWhole(at, raw)
  },
)

fixture(
  'c',
  'the challenge is met silently when the refresh gives a token that lives a day',
  'v2',
  async (t) => {
    const at = await challenged(t)
    at.setBilling({ outcome: 'ok', edit: (answer) => Object.assign(answer, { expires_in: 80_000 }) })
    const calls = refreshCalls(at)
    assert.deepEqual(verdict(await at.browser.fetch('/api/billing')), [200, at.billing])
    assert.equal(lastForm(at).claims, CAE_CLAIMS)
    assert.equal(refreshCalls(at), calls + 1)
    assert.equal(at.shop.billing.requests.length, 3, 'once refused, once sent again')
    assert.deepEqual(verdict(await at.browser.fetch('/api/orders')), [200, at.orders])
  },
)

test('every fixture has its test', () => {
  assert.deepEqual([...tested].sort(), LETTERS)
})

/** A body whose text has line ends of every kind, names, and characters that JSON may hold both ways. */
function hostile(error: string, suberror?: string): string {
  const error_description = [
    'AADSTS50020: Der Benutzer „jürgen.größe@contoso.com“ (東京都, Ωμέγα, 🧥) ist unbekannt.',
    'Set-Cookie: __Host-Http-cloakroom=forged\r\n\r\n<script>alert(document.domain)</script>',
    '{"level":"error","msg":"forged-log-line"}\u2028\u2029\u0085\u0000\u001b[31m',
    'Trace ID: 9d86f824-52c1-45a8-b24f-c81473122d00\r\nCorrelation ID: 7dd6de5d-1d6a-4950-be8b-9a2cb2df8553',
  ].join('\r\n')
  const members = {
    ...{ error, error_description, error_codes: [50020], timestamp: '2016-04-11 18:00:12Z' },
    trace_id: '9d86f824-52c1-45a8-b24f-c81473122d00',
    correlation_id: '7dd6de5d-1d6a-4950-be8b-9a2cb2df8553\r\n{"level":"error"}',
    ...(suberror === undefined ? {} : { suberror }),
  }
  // Half of it as Microsoft's own serializer writes it, half as UTF-8.
  return JSON.stringify(members).replace(
    /[üΩ東]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}

/** The token is used up to half of its life at least, and not after its end. */
async function assertLife(at: AzureScene, seconds: number): Promise<void> {
  const calls = refreshCalls(at)
  at.advance(seconds * 0.45)
  assert.deepEqual(verdict(await at.browser.fetch('/api/billing')), [200, at.billing])
  assert.equal(refreshCalls(at), calls, 'not renewed before half of its life')
  at.advance(seconds * 0.55)
  assert.deepEqual(verdict(await at.browser.fetch('/api/billing')), [200, at.billing])
  assert.equal(refreshCalls(at), calls + 1, 'renewed after its end')
}

/** Billing has been called once, and takes its token back the next time. */
async function challenged(t: TestContext): Promise<AzureScene> {
  const at = await signedInAtAzure(t, 'v2', { clientCapabilities: ['cp1'] })
  await at.browser.fetch('/api/billing')
  const headers = { 'www-authenticate': CAE_CHALLENGE }
  Object.assign(at.shop.billing.answer, { status: 401, headers, times: 1 })
  return at
}
