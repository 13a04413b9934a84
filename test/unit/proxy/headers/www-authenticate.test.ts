import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { bearerChallenge, parseChallenges } from '../../../../src/proxy/headers/www-authenticate.ts'
import { RECORDED, RECORDED_CLAIMS } from '../../../kit/upstream/recorded-challenge.ts'

/** `scheme`, `scheme token68`, or scheme and parameters. */
type Plain = string | [scheme: string, params: Record<string, string>]

function plain(fields: string[]): Plain[] {
  return parseChallenges(fields).map(({ scheme, token68, params }) => {
    if (token68 !== undefined) return `${scheme} ${token68}`
    return Object.keys(params).length === 0 ? scheme : [scheme, { ...params }]
  })
}

const FIELDS: [what: string, fields: string[], challenges: Plain[]][] = [
  ['no field', [], []],
  ['an empty field', [''], []],
  ['only commas and blanks', [' , ,\t,'], []],
  ['a scheme alone', ['Negotiate'], ['negotiate']],
  ['two schemes alone', ['Negotiate, NTLM'], ['negotiate', 'ntlm']],
  ['a scheme in odd case', ['bEaReR ReAlM="X"'], [['bearer', { realm: 'X' }]]],
  ['a token as value', ['Bearer error=invalid_token'], [['bearer', { error: 'invalid_token' }]]],
  ['an empty quoted value', ['Bearer realm=""'], [['bearer', { realm: '' }]]],
  ['two parameters', ['Bearer a="1", b="2"'], [['bearer', { a: '1', b: '2' }]]],
  [
    'commas, escapes and another challenge',
    ['Bearer error_description="a, b=\\"c\\"", Basic realm="x"'],
    [
      ['bearer', { error_description: 'a, b="c"' }],
      ['basic', { realm: 'x' }],
    ],
  ],
  [
    'RFC 9110 §11.6.1',
    ['Basic realm="simple", Newauth realm="apps", type=1, title="Login to \\"apps\\""'],
    [
      ['basic', { realm: 'simple' }],
      ['newauth', { realm: 'apps', type: '1', title: 'Login to "apps"' }],
    ],
  ],
  [
    'several fields',
    ['Negotiate', 'Bearer realm="x"', 'Basic realm="y"'],
    ['negotiate', ['bearer', { realm: 'x' }], ['basic', { realm: 'y' }]],
  ],
  [
    'a challenge inside a quoted string',
    ['X a="Bearer error=\\"b\\", c"'],
    [['x', { a: 'Bearer error="b", c' }]],
  ],
  [
    '= in a quoted string',
    ['Bearer u="https://a/?b=c&d==", e=f'],
    [['bearer', { u: 'https://a/?b=c&d==', e: 'f' }]],
  ],
  ['an escaped backslash at the end', ['Bearer a="b\\\\", c="d"'], [['bearer', { a: 'b\\', c: 'd' }]]],
  ['an escaped letter', ['Bearer a="\\b\\c"'], [['bearer', { a: 'bc' }]]],
  ['a token68', ['Negotiate YII+/-._~='], ['negotiate YII+/-._~=']],
  [
    'a padded token68 before another challenge',
    ['NTLM TlRM==, Basic realm="x"'],
    ['ntlm TlRM==', ['basic', { realm: 'x' }]],
  ],
  ['a token68 with one =', ['Negotiate abc=, Bearer'], ['negotiate abc=', 'bearer']],
  ['a token68 without =', ['Negotiate abc'], ['negotiate abc']],
  [
    'blanks around =',
    ['Bearer realm = "x" ,\terror\t=\tinvalid_token'],
    [['bearer', { realm: 'x', error: 'invalid_token' }]],
  ],
  ['many blanks', ['  Bearer    realm="x"  ,   error="y"   '], [['bearer', { realm: 'x', error: 'y' }]]],
  ['empty list elements', [',, Bearer a=1,, ,b=2,,'], [['bearer', { a: '1', b: '2' }]]],
  [
    'no blank after commas',
    ['Bearer a="1",b="2",Basic realm="x"'],
    [
      ['bearer', { a: '1', b: '2' }],
      ['basic', { realm: 'x' }],
    ],
  ],
  [
    'no commas at all',
    ['Bearer a="1" b="2" Basic realm="x"'],
    [
      ['bearer', { a: '1', b: '2' }],
      ['basic', { realm: 'x' }],
    ],
  ],
  ['a comma after the scheme', ['Bearer, realm="x"'], [['bearer', { realm: 'x' }]]],
  [
    'an unquoted URL',
    ['Bearer authorization_uri=https://login.windows.net/a?b=c, resource_id=https://x/'],
    [['bearer', { authorization_uri: 'https://login.windows.net/a?b=c', resource_id: 'https://x/' }]],
  ],
  ['unquoted base64', ['Bearer claims=e30+/A==, a=b'], [['bearer', { claims: 'e30+/A==', a: 'b' }]]],
  ['a name in odd case', ['Bearer ERROR="x"'], [['bearer', { error: 'x' }]]],
  ['a name twice', ['Bearer error="first", Error="second"'], [['bearer', { error: 'first' }]]],
  [
    'the same name in two challenges',
    ['Bearer error="a", DPoP error="b"'],
    [
      ['bearer', { error: 'a' }],
      ['dpop', { error: 'b' }],
    ],
  ],
  [
    'names of Object.prototype',
    ['Bearer __proto__="a", constructor="b"'],
    [
      [
        'bearer',
        Object.fromEntries([
          ['__proto__', 'a'],
          ['constructor', 'b'],
        ]),
      ],
    ],
  ],
  ['parameters before any scheme', ['realm="x", Bearer error="y"'], [['bearer', { error: 'y' }]]],
  [
    'a quote left open',
    ['Bearer realm="x, error=y', 'Basic realm="z"'],
    [
      ['bearer', { realm: 'x, error=y' }],
      ['basic', { realm: 'z' }],
    ],
  ],
  ['a lone backslash at the end', ['Bearer realm="x\\'], [['bearer', { realm: 'x\\' }]]],
  ['a value missing', ['Bearer a="1", realm=, error="x"'], [['bearer', { a: '1', realm: '', error: 'x' }]]],
  [
    'garbage between challenges',
    ['Bearer a=1, @@ "x, y" ==, Basic realm="z"'],
    [
      ['bearer', { a: '1' }],
      ['basic', { realm: 'z' }],
    ],
  ],
  ['garbage with a quoted comma', ['<"a, Bearer error=b">, Basic realm="z"'], [['basic', { realm: 'z' }]]],
  ['only garbage', ['"\\', '===', '{}', '\u0000\u0001', '()<>@;:/[]?'], []],
  [
    'a scheme that runs into a quote',
    ['Bearer"error=invalid_token", Basic realm="z"'],
    [['basic', { realm: 'z' }]],
  ],
  ['a scheme with a slash', ['Bearer/1.0 error="x", Basic realm="z"'], [['basic', { realm: 'z' }]]],
  ['line folding', ['Bearer a="1",\r\n b="2"'], [['bearer', { a: '1', b: '2' }]]],
  [
    'bytes beyond ASCII',
    ['Bearer realm="caf\u00e9", a=\u00e9'],
    [['bearer', { realm: 'caf\u00e9', a: '\u00e9' }]],
  ],
  [
    'what was recorded',
    [RECORDED],
    [
      [
        'bearer',
        {
          realm: '',
          authorization_uri: 'https://login.microsoftonline.com/common/oauth2/authorize',
          client_id: '00000003-0000-0000-c000-000000000000',
          error: 'insufficient_claims',
          claims: Buffer.from(RECORDED_CLAIMS).toString('base64'),
        },
      ],
    ],
  ],
]

describe('challenges are parsed', () => {
  for (const [what, fields, challenges] of FIELDS) {
    test(what, () => assert.deepEqual(plain(fields), challenges))
  }
})

describe('hostile fields are read in proportion to their length', () => {
  // Sixteen times what a header may have: quadratic time would take minutes.
  const size = 262_144
  const HOSTILE: [what: string, piece: string][] = [
    ['quotes', '"'],
    ['backslashes', '\\'],
    ['open quoted strings of escapes', 'a="\\"'],
    ['equals signs', '='],
    ['commas', ','],
    ['blanks', ' '],
    ['letters', 'a'],
    ['slashes', '/'],
    ['schemes', 'a '],
    ['schemes with wide gaps', `a${' '.repeat(64)}`],
    ['token68 that never ends well', 'a b= ='],
    ['parameters', 'a=b,'],
    ['parameters without commas', 'a=b '],
    ['garbage and quotes', '@"'],
  ]
  for (const [what, piece] of HOSTILE) {
    test(what, () => {
      for (const start of ['', 'Bearer ', 'Bearer a="']) {
        const text = start + piece.repeat(Math.ceil(size / piece.length))
        const begin = performance.now()
        bearerChallenge([text, `${text}"`, `Bearer claims="${text}`])
        assert.ok(performance.now() - begin < 5_000)
      }
    })
  }
})

test('no cut through real fields throws', () => {
  const text = `${RECORDED}, Negotiate YII==, Basic realm="a\\"b"`
  for (let i = 0; i < text.length; i++) {
    for (const part of [text.slice(0, i), text.slice(i), `${text.slice(0, i)}\u0000"${text.slice(i)}`]) {
      assert.doesNotThrow(() => bearerChallenge([part]))
    }
  }
})
