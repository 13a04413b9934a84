import assert from 'node:assert/strict'
import { existsSync, globSync } from 'node:fs'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { codeIn, fileText, ROOT, tableRows } from '../../kit/house/readme-parts.ts'

/** The numbers that there are, from and to. */
const NUMBERS: readonly (readonly [number, number])[] = [
  [1, 38],
  [40, 67],
  [70, 78],
  [80, 86],
  [90, 98],
  [100, 113],
  [120, 134],
  [140, 154],
  [160, 197],
  [200, 212],
]

const OIDCC = 'oidcc-client-test'
const LOGOUT = `${OIDCC}-rp-backchannel-rpinitlogout`
const FAPI1 = 'fapi1-advanced-final-client-test'
const FAPI2 = 'fapi2-security-profile-final-client-test'
const named = (prefix: string, endings: string) => endings.split(/\s+/).map((ending) => `${prefix}-${ending}`)

/** The modules of the OpenID Foundation's plans for Relying Parties. */
const MODULES: readonly string[] = [
  OIDCC,
  ...named(
    OIDCC,
    `invalid-iss missing-sub invalid-aud missing-iat kid-absent-single-jwks kid-absent-multiple-jwks idtoken-sig-rs256
    idtoken-sig-none invalid-sig-rs256 userinfo-invalid-sub nonce-invalid scope-userinfo-claims client-secret-basic
    form-post-error invalid-athash invalid-sig-hs256 invalid-sig-es256 userinfo-signed missing-aud mtls-endpoint-aliases
    discovery-openid-config discovery-jwks-uri-keys discovery-issuer-mismatch signing-key-rotation-just-before-signing
    signing-key-rotation refresh-token refresh-token-invalid-issuer refresh-token-invalid-sub 3rd-party-init-login
    rp-init-logout rp-init-logout-other-state rp-init-logout-no-state rp-frontchannel-rpinitlogout
    rp-frontchannel-opinitlogout`,
  ),
  LOGOUT,
  ...named(LOGOUT, 'alg-none no-event with-nonce wrong-alg wrong-aud wrong-event wrong-iss'),
  `${OIDCC}-session-management`,
  ...named(
    FAPI2,
    `happy-path discovery-issuer-mismatch invalid-iss invalid-aud invalid-secondary-aud invalid-null-alg
    invalid-alternate-alg invalid-expired-exp invalid-missing-exp invalid-missing-aud invalid-missing-iss
    valid-aud-as-array invalid-nonce invalid-missing-nonce invalid-authorization-response-iss
    remove-authorization-response-iss ensure-authorization-response-with-invalid-state-fails
    ensure-authorization-response-with-invalid-missing-state-fails token-endpoint-response-without-expires_in
    token-type-case-insensitivity rs-dpop-auth-scheme-case-insensitivity happy-path-no-dpop-nonce`,
  ),
  'fapi2-security-profile-final-client-refresh-token-test',
  `${FAPI2}-invalid-openbanking-intent-id`,
  ...named(
    `${FAPI2}-ensure-jarm`,
    `without-iss-fails with-invalid-iss-fails without-aud-fails with-invalid-aud-fails without-exp-fails
    with-expired-exp-fails with-invalid-sig-fails signature-is-not-none`,
  ),
  ...named(
    FAPI1,
    `encrypted-idtoken-usingrsa15 iat-is-week-in-past no-scope-in-token-endpoint-response encrypted-idtoken
    missing-athash`,
  ),
]

const REASON = /(?:not built|not applicable|decided otherwise): \S.{10}/
const document = fileText('test/REQUIREMENTS.md')
const requirements = tableRows(document, 'number')
const modules = tableRows(document, 'module')

/** Whether a text of the source begins so. */
const hasTitle = (source: string, title: string) =>
  ["'", '"', '`'].some((quote) => source.includes(quote + title))

test('every requirement has one line, in order', () => {
  const numbers = NUMBERS.flatMap(([from, to]) =>
    Array.from({ length: to - from + 1 }, (_, index) => `R-${String(from + index).padStart(3, '0')}`),
  )
  assert.deepEqual(
    requirements.map(([number]) => number),
    numbers,
  )
})

test('a line says little, and names a test or a reason', () => {
  for (const [number = '', words = '', shown = ''] of requirements) {
    assert.ok(words.split(' ').length <= 14, `${number} says too much`)
    assert.ok(/^`[^`]+` › “./.test(shown) || REASON.test(shown), `${number} names neither test nor reason`)
    for (const [start] of shown.matchAll(/(?:not|decided) \w+:/g)) {
      assert.ok(REASON.test(shown.slice(shown.indexOf(start))), `${number} begins a reason and gives none`)
    }
  }
})

test('every file that a line names is there, and every title is in it', () => {
  for (const [number = '', , shown = ''] of requirements) {
    for (const [, name = '', title = ''] of shown.matchAll(/`([\w./-]+)` › “([^”]+)”/g)) {
      if (name.endsWith('.md')) {
        assert.match(
          fileText(name),
          new RegExp(`^#+ .*${title}`, 'm'),
          `${number}: ${name} has no “${title}”`,
        )
        continue
      }
      const path = [`test/${name}.test.ts`, `test/${name}.ts`].find((one) =>
        existsSync(fileURLToPath(new URL(one, ROOT))),
      )
      assert.ok(path, `${number}: there is no ${name}`)
      assert.ok(hasTitle(fileText(path), title), `${number}: no test of ${path} is called “${title}”`)
    }
  }
})

test('every file that a reason names is there', () => {
  for (const [number = '', , shown = ''] of [...requirements, ...modules]) {
    for (const [, name = ''] of shown.matchAll(/`((?:src|unit|flow|attack|wire|conformance)\/[\w./-]+)`/g)) {
      const places = name.startsWith('src/') ? [name] : [`test/${name}.test.ts`, `test/${name}.ts`]
      const isThere = places.some((one) => existsSync(fileURLToPath(new URL(one, ROOT))))
      assert.ok(isThere, `${number}: there is no ${name}`)
    }
  }
})

test('every module of the conformance suite has one line, and one test or a reason', () => {
  assert.deepEqual(modules.map(([module]) => codeIn(module)).sort(), [...MODULES].sort())
  const sources = globSync('test/**/*.test.ts', { cwd: fileURLToPath(ROOT) }).map(
    (path) => [path, fileText(path)] as const,
  )
  for (const [cell, , where = ''] of modules) {
    const module = codeIn(cell) ?? ''
    const played = sources.flatMap(([path, source]) =>
      Array.from(source.matchAll(new RegExp(`['"\`]${module}: `, 'g')), () => path),
    )
    const file = codeIn(where)
    assert.deepEqual(played, file === undefined ? [] : [`test/${file}.test.ts`], module)
    if (file === undefined) assert.match(where, REASON, module)
  }
})
