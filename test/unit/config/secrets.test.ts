import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { resolve } from 'node:path'
import { describe, test } from 'node:test'
import { inspect } from 'node:util'
import { changed, ENV, load, problemsOf, SESSION_KEY } from './base-config.ts'

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
    assert.doesNotMatch(printed, /hush-hush|BwcH|07 07|7,7,7|"data"/)
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
    assert.match(wrong!.message, /names no variable/)
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
    const bytes = Buffer.from('fb'.repeat(32), 'hex')
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
