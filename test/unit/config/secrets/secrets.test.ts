import assert from 'node:assert/strict'
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { resolve } from 'node:path'
import { describe, test } from 'node:test'
import { inspect } from 'node:util'
import { sessionKeyCheck } from '../../../../src/config/rules/secret-rules.ts'
import {
  BASE,
  changed,
  ENV,
  load,
  problemsOf,
  SESSION_KEY,
  SESSION_KEY_BYTES,
} from '../../../kit/config/base-config.ts'

const SECRET = '{ env: CLIENT_SECRET }'

function clientSecret(text: string, options?: Parameters<typeof load>[1]) {
  const { clientAuth } = load(text, options).config.provider
  assert.ok('secret' in clientAuth)
  return clientAuth.secret
}

describe('a secret', () => {
  test('comes from a variable, a file beside the config file, or the file itself', () => {
    const files = { [resolve('secrets/client')]: 'from-file\n', '/run/secrets/client': 'absolute\r\n' }
    const read = (source: string) => clientSecret(changed(SECRET, source), { files }).reveal()
    assert.equal(read(SECRET), ENV.CLIENT_SECRET)
    assert.equal(read('{ file: secrets/client }'), 'from-file')
    assert.equal(read('{ file: /run/secrets/client }'), 'absolute')
    assert.equal(read('in-the-file'), 'in-the-file')
  })

  test('is read from where its own reading says, in whatever order configurations are read and secrets used', () => {
    const from = (value: string) =>
      clientSecret(changed(SECRET, '{ file: /secret }'), { files: { '/secret': value } })
    const [one, two] = [from('one'), from('two')]
    assert.throws(() => clientSecret(changed(SECRET, '{ file: /gone }'), { files: {} }))
    assert.deepEqual([one.reveal(), two.reveal(), one.reveal()], ['one', 'two', 'one'])
    assert.equal(clientSecret(BASE).reveal(), ENV.CLIENT_SECRET)
  })

  test('in a file is read again when the file changes, and kept while it is missing or empty', () => {
    const files: Record<string, string> = { '/secret': 'one\n' }
    const secret = clientSecret(changed(SECRET, '{ file: /secret }'), { files })
    assert.equal(secret.reveal(), 'one')
    files['/secret'] = 'two\n'
    assert.equal(secret.reveal(), 'two')
    files['/secret'] = '\n'
    assert.equal(secret.reveal(), 'two')
    delete files['/secret']
    assert.equal(secret.reveal(), 'two')
    files['/secret'] = 'three'
    assert.equal(secret.reveal(), 'three')
  })

  test('under a key of another word is told the right one, and nothing of what was written', () => {
    for (const [written, right] of [
      ['path', 'file'],
      ['variable', 'env'],
      ['enV', 'env'],
    ]) {
      const [problem] = problemsOf(changed(SECRET, `{ ${written}: hunter2 }`))
      assert.match(problem!.message, new RegExp(`\\(did you mean "${right}"\\?\\)`))
      assert.doesNotMatch(problem!.message, /hunter2/)
    }
    assert.doesNotMatch(problemsOf(changed(SECRET, '{ hunter2: }'))[0]!.message, /hunter2|did you mean/)
  })

  test('that is empty is an error, in a variable as in a file', () => {
    const [variable] = problemsOf(changed(SECRET, SECRET), { env: { ...ENV, CLIENT_SECRET: '' } })
    assert.equal(variable?.message, 'environment variable CLIENT_SECRET is empty')
    const [file] = problemsOf(changed(SECRET, '{ file: /e }'), { files: { '/e': '\n' } })
    assert.equal(file?.message, 'the file /e is empty')
  })

  test('is never printed by inspecting, serialising or joining the config', () => {
    const { config } = load(changed(SECRET, 'hush-hush'))
    const printed = [inspect(config, { depth: 9 }), JSON.stringify(config), `${config.session.keys}`].join()
    assert.match(printed, /\[redacted\]/)
    const [a, b, c] = SESSION_KEY_BYTES
    for (const form of [
      SESSION_KEY.slice(0, 6),
      `${a},${b},${c}`,
      SESSION_KEY_BYTES.toString('hex').slice(0, 8),
    ]) {
      assert.ok(!printed.includes(form), form)
    }
    assert.doesNotMatch(printed, /hush-hush|Buffer|"data"/)
  })

  test('is never in a report, wherever it was put by mistake', () => {
    const mistakes = [
      changed(SECRET, '[hunter2]'),
      changed(SECRET, '{ value: hunter2 }'),
      changed(
        'clientAuth:\n    method: client_secret_post\n    secret: { env: CLIENT_SECRET }',
        'clientAuth: hunter2',
      ),
      changed('    - { env: SESSION_KEY }', '    - hunter2'),
      changed('keys:\n    - { env: SESSION_KEY }', 'keys: hunter2'),
      changed('keyPrefix: cloakroom', 'passwort: hunter2'),
      changed('url: rediss://redis:6379', 'url: redis:hunter2@redis'),
      changed('type: redis\n', 'type: redis://:hunter2@redis\n'),
      changed('http://orders:8080', 'http://me:hunter2@orders:8080/v1'),
      changed('headers: { x-user-id: "{claims.sub}" }', 'headers: { x-api-key: "hunter2{" }'),
      changed('headers: { x-user-id: "{claims.sub}" }', 'headers: hunter2'),
    ]
    for (const text of mistakes) {
      for (const { message } of problemsOf(text)) assert.doesNotMatch(message, /hunter2/)
    }
  })
})

describe('the environment', () => {
  const issuer = (text: string, env: Record<string, string> = {}) =>
    load(changed('https://id.example.com', text), { env: { ...ENV, ...env } }).config.provider.issuer
  const reference = (name: string) => `$\{${name}}`

  test('fills any part of a text, and a doubled dollar sign does not', () => {
    assert.equal(issuer(`https://${reference('HOST')}/${reference('HOST')}`, { HOST: 'a' }), 'https://a/a')
    assert.equal(issuer(`https://id/$${reference('HOST')}`, { HOST: 'a' }), `https://id/${reference('HOST')}`)
    assert.equal(issuer('https://id/$HOST'), 'https://id/$HOST')
  })

  test('must have every variable that is named, and the report says which it has not', () => {
    const [unset, ...more] = problemsOf(
      changed('https://id.example.com', `https://${reference('A')}${reference('B')}`),
    )
    assert.deepEqual(more, [])
    assert.deepEqual([unset?.line, unset?.path], [8, 'provider.issuer'])
    assert.equal(unset?.message, 'environment variable A is not set; environment variable B is not set')
    const [wrong] = problemsOf(changed('https://id.example.com', `https://${reference('A:-b')}`))
    assert.match(wrong!.message, /with a default, which is not read/)
    const [nameless] = problemsOf(changed('https://id.example.com', `https://${reference('A B')}`))
    assert.match(nameless!.message, /names no variable/)
  })

  test('is named when it is empty, where an empty text will not do', () => {
    for (const [before, path] of [
      ['https://id.example.com', 'provider.issuer'],
      ['http://orders:8080', 'routes[0].upstream'],
    ] as const) {
      const [problem, ...more] = problemsOf(changed(before, reference('A')), { env: { ...ENV, A: '' } })
      assert.deepEqual(more, [])
      assert.deepEqual([problem?.path, problem?.message], [path, 'environment variable A is empty'])
    }
  })

  test('is not shown in a report: the text stands there as it is written', () => {
    const env = { ...ENV, UPSTREAM: 'hunter2' }
    const [problem] = problemsOf(changed('http://orders:8080', reference('UPSTREAM')), { env })
    assert.match(problem!.message, /\(got "\$\{UPSTREAM\}"\)/)
    assert.doesNotMatch(problem!.message, /hunter2/)
  })

  test('may hold a secret without the warning for secrets in the file', () => {
    assert.deepEqual(load(changed('{ env: SESSION_KEY }', `"${reference('SESSION_KEY')}"`)).warnings, [])
  })
})

describe('a session key', () => {
  test('is 32 bytes in base64url or base64, with or without padding', () => {
    // Holds what base64 and base64url write differently.
    const bytes = Buffer.from(`fbefbe${SESSION_KEY_BYTES.toString('hex').slice(6)}`, 'hex')
    for (const key of [
      bytes.toString('base64url'),
      bytes.toString('base64'),
      `${bytes.toString('base64url')}=`,
    ]) {
      const { config } = load(changed('{ env: SESSION_KEY }', `{ file: /k }`), { files: { '/k': key } })
      assert.equal(Buffer.compare(config.session.keys[0]!, bytes), 0)
    }
  })

  test('of another length or alphabet is refused without being shown', () => {
    for (const key of [
      SESSION_KEY.slice(1),
      `${SESSION_KEY}A`,
      '07'.repeat(32),
      `${SESSION_KEY.slice(1)}!`,
    ]) {
      const [problem] = problemsOf(changed('{ env: SESSION_KEY }', '{ file: /k }'), { files: { '/k': key } })
      assert.match(problem!.message, /must hold 256 bits/)
      assert.ok(!problem?.message.includes(key))
    }
  })
})

const KEYS = 'keys:\n    - { env: SESSION_KEY }'

describe('a session key that is no secret', () => {
  const refused = (bytes: Buffer) =>
    problemsOf(changed('{ env: SESSION_KEY }', '{ file: /k }'), {
      files: { '/k': bytes.toString('base64url') },
    }).map(({ path, message }) => `${path} ${message}`)

  test('because it has a pattern is refused, with what the pattern is and how a key is made', () => {
    const rows: [Buffer, RegExp][] = [
      [Buffer.alloc(32), /is all zeros/],
      [Buffer.alloc(32, 7), /is one byte again and again/],
      [Buffer.alloc(32, 0xff), /is one byte again and again/],
      [Buffer.alloc(32, 'ab'), /repeats itself/],
      [Buffer.alloc(32, '0123456789'), /repeats itself/],
      [Buffer.alloc(32, SESSION_KEY_BYTES.subarray(0, 16)), /repeats itself/],
      [Buffer.from(Array.from({ length: 32 }, (_, index) => index)), /counts in even steps/],
      [Buffer.from(Array.from({ length: 32 }, (_, index) => 255 - index * 3)), /counts in even steps/],
      [Buffer.concat([Buffer.alloc(31), Buffer.from([1])]), /has only 2 different bytes/],
      [Buffer.concat([Buffer.alloc(24), SESSION_KEY_BYTES.subarray(0, 8)]), /has only \d different bytes/],
    ]
    for (const [bytes, what] of rows) {
      const [problem = ''] = refused(bytes)
      assert.match(problem, /^session\.keys\[0\] must be random, but /)
      assert.match(problem, what)
      assert.match(problem, /cloakroom keygen$/)
    }
  })

  test('is never one that keygen could print', () => {
    for (let round = 0; round < 2_000; round++)
      assert.equal(sessionKeyCheck(randomBytes(32).toString('base64url')), undefined)
  })

  test('because it is text is warned about', () => {
    const text = Buffer.from('correct horse battery staple 123').toString('base64url')
    const { warnings } = load(changed('{ env: SESSION_KEY }', '{ file: /k }'), { files: { '/k': text } })
    assert.deepEqual(
      warnings.map(({ path }) => path),
      ['session.keys[0]'],
    )
    assert.match(warnings[0]!.message, /32 characters of text.*cloakroom keygen/)
  })

  test('because it is the client secret or the Redis password too is warned about', () => {
    const same = { ...ENV, CLIENT_SECRET: SESSION_KEY }
    assert.match(load(BASE, { env: same }).warnings[0]!.message, /is provider\.clientAuth\.secret too/)
    const text = changed('    keyPrefix', '    password: { env: SESSION_KEY }\n    keyPrefix')
    assert.match(load(text).warnings[0]!.message, /is session\.store\.password too/)
  })

  test('because it is listed twice is refused at its second place, however it is spelt and wherever it is from', () => {
    const bytes = Buffer.from(`fbefbe${SESSION_KEY_BYTES.toString('hex').slice(6)}`, 'hex')
    const env = { ...ENV, SESSION_KEY: bytes.toString('base64url') }
    const spellings: [string, string][] = [
      ['{ env: SESSION_KEY }', ''],
      ['{ file: /k }', bytes.toString('base64')],
      ['{ file: /k }', `${bytes.toString('base64url')}=\r\n`],
      [`"${bytes.toString('base64').replace('=', '')}"`, ''],
    ]
    for (const [source, content] of spellings) {
      const text = changed(KEYS, `keys:\n    - { env: SESSION_KEY }\n    - ${source}`)
      const [problem, ...more] = problemsOf(text, { env, files: { '/k': content } })
      assert.deepEqual(more, [])
      assert.deepEqual([problem?.path, problem?.line], ['session.keys[1]', 24])
      assert.match(problem!.message, /is the same key as session\.keys\[0\]; remove one of the two/)
    }
  })
})

describe('what an editor, a shell or a web page adds to a secret', () => {
  const withFile = (content: string) =>
    [changed(SECRET, '{ file: /s }'), { files: { '/s': content } }] as const
  const BOM = '\ufeff'

  test('is cut off where it is a final line break, of a file as of a variable', () => {
    for (const end of ['\n', '\r\n', '\n\n']) {
      assert.equal(clientSecret(...withFile(`hush${end}`)).reveal(), 'hush')
      const env = { ...ENV, CLIENT_SECRET: `hush${end}` }
      assert.equal(clientSecret(BASE, { env }).reveal(), 'hush')
    }
  })

  const HIDDEN: [string, string, RegExp][] = [
    ['a byte order mark', `${BOM}hush`, /byte order mark.*save it as UTF-8 without BOM/],
    ['another encoding', 'h\0u\0s\0h\0', /another encoding \(UTF-16\?\)/],
    ['bytes that are no UTF-8', 'hush\ufffd', /another encoding/],
    ['a zero-width space', 'hu\u200bsh', /invisible character U\+200B/],
    ['a second line', 'hush\nhush', /must be one line of text/],
    ['a tab', 'hush\t', /must be one line of text/],
    ['a carriage return alone', 'hush\r', /must be one line of text/],
  ]
  for (const [what, value, message] of HIDDEN) {
    test(`is refused where it is ${what}`, () => {
      const password = changed('    keyPrefix', '    password: { env: PASSWORD }\n    keyPrefix')
      for (const [path, problems] of [
        ['provider.clientAuth.secret', problemsOf(...withFile(value))],
        ['provider.clientAuth.secret', problemsOf(BASE, { env: { ...ENV, CLIENT_SECRET: value } })],
        ['session.store.password', problemsOf(password, { env: { ...ENV, PASSWORD: value } })],
      ] as const) {
        assert.deepEqual(
          problems.map((problem) => problem.path),
          [path],
        )
        assert.match(problems[0]!.message, message)
        assert.doesNotMatch(problems[0]!.message, /hu.?sh/)
      }
    })
  }

  test('is warned about where it is a blank, which is sent as it is', () => {
    for (const value of ['hush ', ' hush', 'hush\u00a0', 'hush \n']) {
      const sources: [string, Parameters<typeof load>[1]][] = [
        withFile(value) as unknown as [string, Parameters<typeof load>[1]],
        [BASE, { env: { ...ENV, CLIENT_SECRET: value } }],
      ]
      for (const [text, options] of sources) {
        const { warnings } = load(text, options)
        assert.deepEqual(
          warnings.map(({ path }) => path),
          ['provider.clientAuth.secret'],
        )
        assert.match(warnings[0]!.message, /begins or ends with a blank.*store it without/)
        assert.equal(clientSecret(text, options).reveal(), value.replace('\n', ''))
      }
    }
    const password = changed('    keyPrefix', '    password: { env: PASSWORD }\n    keyPrefix')
    const { warnings } = load(password, { env: { ...ENV, PASSWORD: 'hush ' } })
    assert.deepEqual(
      warnings.map(({ path }) => path),
      ['session.store.password'],
    )
  })

  test('is warned about where it is quotation marks, which docker --env-file keeps', () => {
    for (const quoted of ['"hush"', "'hush'"]) {
      const { warnings } = load(BASE, { env: { ...ENV, CLIENT_SECRET: quoted } })
      assert.deepEqual(
        warnings.map(({ path }) => path),
        ['provider.clientAuth.secret'],
      )
      assert.match(warnings[0]!.message, /quotation marks, which are sent as a part of it/)
      const key = problemsOf(BASE, { env: { ...ENV, SESSION_KEY: quoted.replace('hush', SESSION_KEY) } })
      assert.match(key[0]!.message, /stands in quotation marks.*remove them/)
      const other = changed('http://orders:8080', '$' + '{UPSTREAM}')
      const [problem] = problemsOf(other, { env: { ...ENV, UPSTREAM: quoted } })
      assert.match(problem!.message, /variable UPSTREAM is in quotation marks.*set it without/)
    }
    for (const plain of ['"', "don't", '"a', 'a"b"']) {
      assert.deepEqual(load(BASE, { env: { ...ENV, CLIENT_SECRET: plain } }).warnings, [], plain)
    }
  })

  test('is named where it is a session key that it makes invalid', () => {
    const problem = (value: string) => problemsOf(BASE, { env: { ...ENV, SESSION_KEY: value } })[0]!.message
    assert.match(problem(`${SESSION_KEY} `), /a blank stands before or behind it/)
    assert.match(problem(`${BOM}${SESSION_KEY}`), /byte order mark/)
    assert.match(problem(`${SESSION_KEY}\u200b`), /U\+200B/)
    assert.equal(load(BASE, { env: { ...ENV, SESSION_KEY: `${SESSION_KEY}\r\n` } }).warnings.length, 0)
  })

  test('makes a secret of blanks alone an empty one', () => {
    assert.match(problemsOf(...withFile(' \n'))[0]!.message, /the file \/s is empty/)
    assert.match(problemsOf(BASE, { env: { ...ENV, CLIENT_SECRET: `${BOM} ` } })[0]!.message, /is empty/)
  })

  test('is not taken up while Cloakroom runs: the secret before is used on', () => {
    const files: Record<string, string> = { '/s': 'one\n' }
    const secret = clientSecret(changed(SECRET, '{ file: /s }'), { files })
    for (const wrong of [`${BOM}two`, 'two\ntwo', '  \n']) {
      files['/s'] = wrong
      assert.equal(secret.reveal(), 'one')
    }
    files['/s'] = 'two'
    assert.equal(secret.reveal(), 'two')
  })

  test('is cut off or refused in a variable that stands in any other field', () => {
    const reference = (name: string) => `$\{${name}}`
    const text = changed('http://orders:8080', reference('UPSTREAM'))
    const withValue = (value: string) => ({ env: { ...ENV, UPSTREAM: value } })
    assert.equal(
      load(text, withValue('http://orders:8080\r\n')).config.routes[0]?.upstream,
      'http://orders:8080',
    )
    for (const value of ['http://orders:8080 ', ` http://orders:8080`, `${BOM}http://orders:8080`]) {
      const [problem] = problemsOf(text, withValue(value))
      assert.match(
        problem!.message,
        /variable UPSTREAM begins or ends with a blank or a byte order mark: set it without/,
      )
    }
  })
})

describe('a key for private_key_jwt', () => {
  const privateKey = (pair: { privateKey: { export(o: object): string | Buffer } }) =>
    String(pair.privateKey.export({ type: 'pkcs8', format: 'pem' }))
  const p384 = privateKey(generateKeyPairSync('ec', { namedCurve: 'P-384' }))
  const withKey = (more = '') =>
    changed(
      'client_secret_post\n    secret: { env: CLIENT_SECRET }',
      `private_key_jwt\n    key: { file: /key }${more}`,
    )

  test('decides the algorithm when none is given', () => {
    const { clientAuth } = load(withKey(), { files: { '/key': p384 } }).config.provider
    assert.ok(clientAuth.method === 'private_key_jwt')
    assert.equal(clientAuth.algorithm, 'ES384')
  })

  test('must fit the algorithm that is given', () => {
    const [problem] = problemsOf(withKey('\n    algorithm: RS256'), { files: { '/key': p384 } })
    assert.equal(problem?.path, 'provider.clientAuth.algorithm')
    assert.equal(problem?.message, 'must fit the key (got "RS256"), e.g. ES384')
  })
})

test('a text with an invisible character is told, wherever it stands and wherever it comes from', () => {
  const told = (text: string, env = {}) =>
    load(text, { env: { ...ENV, ...env } }).warnings.map(({ path, message }) => `${path}: ${message}`)
  assert.deepEqual(told(changed('clientId: spa', 'clientId: spa\u200b')), [
    'provider.clientId: must not hold the invisible character U+200B, which was copied along with it; type or copy it again',
  ])
  assert.match(
    told(changed('clientId: spa', `clientId: $\{A}`), { A: 'a\u2060b' })[0]!,
    /^provider\.clientId: .*U\+2060/,
  )
  assert.match(
    told(changed('http://orders:8080', 'http://ord\u00aders:8080'))[0]!,
    /^routes\[0\]\.upstream: .*U\+00AD/,
  )
})
