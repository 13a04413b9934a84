import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BffError } from '../../../../src/errors.ts'
import {
  hasLoginError,
  parseReturnUrl,
  withLoginError,
  withoutLoginError,
} from '../../../../src/oidc/sign-in/return-url.ts'
import { canonicalTarget } from '../../../../src/proxy/route-table.ts'

const ORIGIN = 'https://app.example.com'
const parse = (value: unknown) => parseReturnUrl(value, { publicUrl: ORIGIN, basePath: '/bff', isServed })

/** What the proxy lets through, whatever routes it has; none of them takes encoded slashes. */
function isServed(target: string): boolean {
  try {
    return !canonicalTarget(target).hasEncodedSlash
  } catch (error) {
    if (error instanceof BffError) return false
    throw error
  }
}

test('a path on this origin is kept with its query and fragment', () => {
  for (const path of [
    '/',
    '/orders',
    '/orders/42?x=1&y=/z',
    '/a#b',
    '/a%20b',
    '/bffx',
    '/a?next=//evil.com',
    '/users/@alice',
    '/@scope/pkg',
    '/@scope/pkg/v/1.0.0?tab=@x#@y',
    '/a:b/c,d=e+f&g!h$i(j)*k',
    '/caf%C3%A9/%E2%82%AC',
    '/search?q=a\\b|c^d',
    `/${'a'.repeat(10_000)}?${'b'.repeat(5_000)}`,
  ]) {
    assert.equal(parse(path), path)
  }
  assert.equal(parse(undefined), '/')
})

const HOSTS = ['evil.com', 'evil.com/', 'evil.com%2f..', 'evil.com#app.example.com', 'evil.com:443']
const PREFIXES = [
  '//',
  '///',
  '////',
  '/\\',
  '\\\\',
  '\\/',
  '/\\/',
  '/\t/',
  '/\n/',
  '/\r/',
  '/\v/',
  '/ /',
  '/%09/',
  '/%0a/',
  '/%0d%0a/',
  '/%5c',
  '/%5C%5c',
  '/%2f',
  '/%2F%2f',
  '/./\\',
  '/.//',
  '/..//',
  '/a/..//',
  '/./%5c',
  'http://',
  'https://',
  'https:',
  'https:/',
  'http:\\\\',
  'ftp://',
  '//app.example.com@',
  'https://app.example.com@',
  'https://app.example.com.',
  '@',
  '/\u0000/',
  '/\u00a0/',
  '/\u2028/',
  '/\uff0f',
  '\t//',
  ' //',
  '%2f%2f',
  '///app.example.com@',
  '/\\app.example.com@',
]

test(`${PREFIXES.length * HOSTS.length} ways to name another host are refused`, () => {
  for (const prefix of PREFIXES) {
    for (const host of HOSTS) {
      const parsed = parse(prefix + host)
      // What a lenient spelling is turned into may pass only if every browser keeps it on this origin.
      assert.equal(parsed, undefined, JSON.stringify(prefix + host))
    }
  }
})

test('a path that looks like a host stays a path on this origin, in every browser', () => {
  for (const path of [
    '/@evil.com',
    '/@evil.com/x',
    '/a@evil.com',
    '/x/@evil.com:443',
    '/.@evil.com',
    '/:443/x',
    '/evil.com',
  ]) {
    assert.equal(parse(path), path)
    assert.equal(new URL(path, ORIGIN).origin, ORIGIN)
    assert.equal(new URL(ORIGIN + path).origin, ORIGIN)
  }
})

test('what the proxy would refuse is no place to return to either', () => {
  for (const path of [
    '/a;b',
    '/a/../b',
    '/a/%2e%2e/b',
    '/a//b',
    '/a%2fb',
    '/a%5cb',
    '/a%252fb',
    '/a%00',
    '/a\\b',
    '/a b',
  ])
    assert.equal(parse(path), undefined, path)
})

test('scripts, data, header injection and no text are refused', () => {
  const refused = [
    'javascript:alert(1)',
    'JavaScript:alert(1)',
    '/javascript:alert(1)\r\n',
    'data:text/html,x',
    'vbscript:x',
    'mailto:a@b',
    '/%0d%0aSet-Cookie:x=1',
    '/a\r\nb',
    '/\u00e9',
    '/%zz',
    '/%c0%ae',
    'orders',
    '',
    42,
    ['/a', '/b'],
    {},
    null,
  ]
  for (const value of refused) assert.equal(parse(value), undefined, JSON.stringify(value))
})

test("Cloakroom's own endpoints are no place to return to", () => {
  for (const path of ['/bff', '/bff/login', '/bff/logout?sid=1', '/x/../bff/login', '/%62ff/login']) {
    assert.equal(parse(path), undefined, path)
  }
})

test('the outcome of a sign-in is added to a return URL, whose own query and fragment stay as they are', () => {
  const rows: [string, string][] = [
    ['/', '/?login_error=login_required'],
    ['/a?x=%20+1&y', '/a?x=%20+1&y&login_error=login_required'],
    ['/a#/b?c', '/a?login_error=login_required#/b?c'],
    ['/a?x=1#b', '/a?x=1&login_error=login_required#b'],
    ['/a?login_error=old&x=1', '/a?x=1&login_error=login_required'],
    ['/a?x=1&login_error=old#login_error=z', '/a?x=1&login_error=login_required#login_error=z'],
    ['/a?my_login_error=1', '/a?my_login_error=1&login_error=login_required'],
    ['/a?', '/a?&login_error=login_required'],
  ]
  for (const [before, after] of rows) {
    assert.equal(withLoginError(before, 'login_required'), after)
    assert.equal(hasLoginError(after), true)
  }
  assert.equal(withoutLoginError('/a?login_error=x'), '/a')
  assert.equal(withoutLoginError('/a?x=1&login_error=x#f'), '/a?x=1#f')
  assert.equal(withoutLoginError('/a?#login_error=x'), '/a?#login_error=x')
  assert.equal(hasLoginError('/a?x=login_error=1'), false)
})

test('another host is refused even where the proxy would let everything through', () => {
  const rules = { publicUrl: ORIGIN, basePath: '/bff', isServed: () => true }
  for (const prefix of PREFIXES)
    for (const host of [...HOSTS, '[', 'a:b:c'])
      assert.equal(parseReturnUrl(prefix + host, rules), undefined, JSON.stringify(prefix + host))
  assert.equal(parseReturnUrl('/a//b', rules), '/a//b')
  assert.equal(parseReturnUrl('/bff/login', rules), undefined)
  assert.equal(parseReturnUrl('/a%0ab', rules), undefined)
  assert.equal(parseReturnUrl('/a%7fb', rules), undefined)
  assert.equal(parseReturnUrl('/a%5cb', rules), undefined)
})
