import type { AzureErrorName } from '../../../src/demo/azure/azure-errors.ts'
import type { RawAnswer } from '../../../src/demo/azure/azure-policy.ts'
import { DOCUMENTED_EXPIRED, recorded, SEED_INVALID_RESOURCE, UNAVAILABLE_PAGE } from './azure-fixtures.ts'
import { NAMES } from './azure-shop.ts'
import type { Told } from './entra-verdicts.ts'

/** Of the token endpoint. */
export type Version = 'v1' | 'v2'

/** The recorded answer of that name for billing. */
export const recordedAs = (name: AzureErrorName) => (version: Version) =>
  recorded(name, version, NAMES[version].billing)

const STEP_UP: Told = { status: 401, code: 'reauthentication_required', loginUrl: 'challenge' }
/** The session is over. */
export const DEAD: Told = { status: 401, code: 'session_required', reason: 'grant_ended', loginUrl: 'plain' }
/** The operator must act. */
export const OURS: Told = { status: 502, code: 'provider_rejected' }
const AWAY: Told = { status: 503, code: 'provider_unavailable', retryAfter: 2 }

const inSevenSeconds = () => new Date(Date.now() + 7_000).toUTCString()

/** Refusals of a refresh for billing, by the letter of their fixture: what is said, and what a script is told. */
export const REFUSALS: readonly (readonly [
  letter: string,
  what: string,
  raw: (version: Version) => RawAnswer,
  told: Told,
])[] = [
  [
    'a',
    'the documented invalid_resource is told as our configuration, and only of this resource',
    (version) =>
      version === 'v1' ? { status: 400, body: SEED_INVALID_RESOURCE } : recordedAs('invalid-resource')('v2'),
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
    recordedAs('step-up'),
    { ...STEP_UP, reason: 'interaction_required' },
  ],
  [
    'e',
    '65001 with consent_required asks for consent to this resource',
    recordedAs('consent'),
    { ...STEP_UP, reason: 'consent_required' },
  ],
  ['f', '700082 as it was sent in 2020, without a suberror, ends the session', recordedAs('expired'), DEAD],
  ['f', '700082 with bad_token ends the session', recordedAs('expired-bad-token'), DEAD],
  [
    'g',
    '7000222 with status 401 is told as our configuration',
    recordedAs('secret-expired'),
    { ...OURS, reason: 'invalid_client' },
  ],
  ['h', '50034 with bad_token ends the session', recordedAs('wrong-directory'), DEAD],
  ['i', '50196 as invalid_grant is told as a long pause', recordedAs('loop'), { ...AWAY, retryAfter: 300 }],
  [
    'j',
    '429 with Retry-After in seconds is told as it is',
    (version) => ({ ...recordedAs('throttled')(version), headers: { 'retry-after': '7' } }),
    { ...AWAY, retryAfter: 7 },
  ],
  [
    'j',
    '429 with Retry-After as a date is told in seconds',
    (version) => ({ ...recordedAs('throttled')(version), headers: { 'retry-after': inSevenSeconds() } }),
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
