import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { excerptOf } from '../../../src/config/report/excerpt.ts'

function shown(text: string, line = text.split('\n').length, column = 1): string {
  return excerptOf({ line, column }, text)
    .split('\n')[2]!
    .replace(/^\d+ \| /, '')
}

describe('the line that a report shows', () => {
  const SECRET = 'hush-hush'
  const KEY = 'q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA'
  const HOLDERS: string[] = [
    `secret: ${SECRET}`,
    `clientSecret: "${SECRET} with blanks"`,
    `client_secret : ${SECRET}`,
    `"password": '${SECRET}'`,
    `clientAuth: { method: client_secret_post, secret: ${SECRET} }`,
    `clientAuth: { secret: ${SECRET}, method: client_secret_post }`,
    `clientAuth: ${SECRET}`,
    `secret: { value: ${SECRET} }`,
    `secret: [${SECRET}]`,
    `  secret:\n    ${SECRET}`,
    `  secret:\n    value: ${SECRET}`,
    `  secret: |\n    ${SECRET}`,
    `  keys:\n    - ${SECRET}`,
    `keys:\n- ${SECRET}`,
    `  keys: [${SECRET}]`,
    `  keys:\n    - { env: A }\n    - ${SECRET}`,
    `url: redis://user:${SECRET}@redis:6379`,
    `url: redis//:${SECRET}@redis:6379`,
    `url: redis:${SECRET} with blanks@redis`,
    `{ a: 1, url: "redis://:${SECRET}@redis" }`,
    `provider:\n  authorizationParams:\n    login_hint: ${SECRET}`,
    `authorization: Bearer ${SECRET}`,
    `  key: |\n    -----BEGIN PRIVATE KEY-----\n    ${SECRET}`,
    `anything: ${KEY}`,
    `- ${KEY}`,
    `x: {token: ${SECRET}}`,
    `apiKey: ${SECRET}`,
    `private_key: ${SECRET}`,
    `\tsecret: ${SECRET}`,
    `secret:${SECRET}`,
    `secret ${SECRET}`,
    `secret = ${SECRET}`,
    `clientAuth:\n  secret ${SECRET}`,
  ]
  for (const text of HOLDERS) {
    test(`holds no secret: ${JSON.stringify(text)}`, () => {
      const line = shown(text)
      assert.ok(!line.includes('hush') && !line.includes('q83'), line)
      assert.match(line, /\[redacted\]/)
    })
  }

  const PLAIN: string[] = [
    'secret: { env: CLIENT_SECRET }',
    'secret: { file: /run/secrets/client-secret } # mine',
    'clientAuth: { method: client_secret_post, secret: { env: CLIENT_SECRET } }',
    'keys: [{ env: A }, { file: b }]',
    'clientId: 6731de76-14a6-49ae-97bc-6eba6914391e',
    'issuer: https://login.microsoftonline.com/6731de76-14a6-49ae-97bc-6eba6914391e/v2.0',
    'publicUrl: https://app.example.com',
    'keyPrefix: cloakroom',
    'session:\n  keys:\n    - { env: SESSION_KEY }',
    'provider:\n  clientAuth:\n    method: client_secret_pots',
    'globalTokenRevocation: yes',
    'resourceDialect: scopes',
    'scopes: [api://orders/orders.read, offline_access]',
  ]
  for (const text of PLAIN) {
    test(`is whole where nothing is secret: ${JSON.stringify(text)}`, () => {
      assert.equal(shown(text), text.split('\n').at(-1))
    })
  }

  test('has its caret below the part that is meant, also behind a masked one', () => {
    const text = 'a: { token: hush-hush, b: 1 }'
    assert.equal(
      excerptOf({ line: 1, column: 13 }, text),
      '\n  |\n1 | a: { token: [redacted]\n  |             ^^^^^^^^^^',
    )
    const url = 'url: redis://u:p@redis # x'
    assert.equal(
      excerptOf({ line: 1, column: 6 }, url),
      '\n  |\n1 | url: redis://[redacted]@redis # x\n  |      ^^^^^^^^^^^^^^^^^^^^^^^^',
    )
  })

  test('is cut around the caret when it is long, and steers no terminal', () => {
    const long = `${'a'.repeat(200)}: ${'bc.'.repeat(100)}`
    for (const column of [1, 150, 203, 480]) {
      const [, , line = '', caret = ''] = excerptOf({ line: 1, column }, long).split('\n')
      assert.ok(line.length < 130 && caret.length < 130)
    }
    assert.equal(shown('a: \u001b[31mred\u202e'), 'a: ·[31mred·')
  })

  test('is none for an empty line, and for a line that there is not', () => {
    assert.equal(excerptOf({ line: 1, column: 1 }, ''), '')
    assert.equal(excerptOf({ line: 9, column: 1 }, 'a'), '')
  })
})
