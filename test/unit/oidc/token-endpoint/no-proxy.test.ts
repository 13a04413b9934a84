import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isExcepted } from '../../../../src/oidc/token-endpoint/provider-connections.ts'

const ROWS: [entry: string, url: string, isExcepted: boolean][] = [
  ['*', 'https://id.example.com', true],
  ['*:443', 'https://id.example.com', true],
  ['*:80', 'https://id.example.com', false],
  ['id.example.com', 'https://id.example.com', true],
  ['ID.Example.com', 'https://id.example.com/token', true],
  ['id.example.com.', 'https://id.example.com', true],
  ['id.example.com', 'https://id.example.com.', true],
  ['example.com', 'https://id.example.com', true],
  ['.example.com', 'https://id.example.com', true],
  ['.example.com', 'https://example.com', true],
  ['*.example.com', 'https://id.example.com', true],
  ['*.example.com', 'https://example.com', false],
  ['ample.com', 'https://id.example.com', false],
  ['id.example.com', 'https://example.com', false],
  ['id.example.com:443', 'https://id.example.com', true],
  ['id.example.com:8443', 'https://id.example.com', false],
  ['id.example.com:8443', 'https://id.example.com:8443', true],
  ['id.example.com:80', 'http://id.example.com', true],
  ['10.0.0.7', 'https://10.0.0.7', true],
  ['10.0.0.0/8', 'https://10.200.0.7:8443', true],
  ['10.0.0.0/8', 'https://11.0.0.7', false],
  ['10.0.0.0/33', 'https://10.0.0.7', false],
  ['10.0.0.7/32', 'https://10.0.0.7', true],
  ['10.0.0.7/32', 'https://10.0.0.8', false],
  ['0.0.0.0/0', 'https://10.0.0.7', true],
  ['0.0.0.0/0', 'https://[fd12::1]', false],
  ['10.0.0.0/8x', 'https://10.0.0.7', false],
  ['10.0.0.0/-1', 'https://10.0.0.7', false],
  ['id.example.com/8', 'https://10.0.0.7', false],
  ['10.0.0.0/', 'https://10.0.0.7', false],
  ['10.0.0.0/8', 'https://10.example.com', false],
  ['fd00::/8', 'https://[fd12::1]', true],
  ['fd00::/8', 'https://[fe80::1]', false],
  ['fd12::1/128', 'https://[fd12::1]', true],
  ['fd12::1/128', 'https://[fd12::2]', false],
  ['fd00::/129', 'https://[fd12::1]', false],
  ['[fd00::]/8', 'https://[fd12::1]', true],
  ['::1', 'http://[::1]:8080', true],
  ['[::1]', 'http://[::1]:8080', true],
  ['[::1]:8080', 'http://[::1]:8080', true],
  ['[::1]:1', 'http://[::1]:8080', false],
]

test('an entry of NO_PROXY means what curl and undici take it for', () => {
  for (const [entry, url, expected] of ROWS)
    assert.equal(isExcepted(new URL(url), { except: [entry] }), expected, `${entry} for ${url}`)
  assert.equal(isExcepted(new URL('https://a.test'), { except: ['b.test', 'a.test'] }), true)
  assert.equal(isExcepted(new URL('https://a.test'), { except: [] }), false)
})
