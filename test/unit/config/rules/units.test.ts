import assert from 'node:assert/strict'
import { test } from 'node:test'
import { nearestName } from '../../../../src/config/report/nearest-name.ts'
import { ISSUER, LISTEN, PROXY_RANGE, PUBLIC_URL, UPSTREAM } from '../../../../src/config/rules/addresses.ts'
import { isResourceIndicator } from '../../../../src/config/rules/oauth-rules.ts'
import { SESSION_TIME, SIZE, TIMEOUT } from '../../../../src/config/rules/units.ts'

test('durations have a unit, and no timer is asked for more than it can count', () => {
  const accepted = {
    '500ms': 500,
    '30s': 30_000,
    '30m': 1_800_000,
    '10h': 36_000_000,
    '24d': 2_073_600_000,
    '5 s': 5_000,
  }
  for (const [text, ms] of Object.entries(accepted)) assert.equal(TIMEOUT.parse(text), ms, text)
  for (const text of ['5', '', '0s', '-1s', '1.5h', '25d', '5 m s', '5S', '1e3s', 's', '5constructor']) {
    assert.equal(TIMEOUT.parse(text), undefined, text)
  }
  assert.equal(SESSION_TIME.parse('400d'), 34_560_000_000)
  assert.equal(SESSION_TIME.parse('401d'), undefined)
})

test('sizes have a decimal or binary unit', () => {
  const accepted = {
    '1B': 1,
    '2KB': 2_000,
    '16KiB': 16_384,
    '10MB': 10_000_000,
    '10MiB': 10_485_760,
    '1GB': 1e9,
    '1GiB': 2 ** 30,
  }
  for (const [text, bytes] of Object.entries(accepted)) assert.equal(SIZE.parse(text), bytes, text)
  for (const text of ['10', '0B', '10mib', '10M', '1.5MiB', '', '99999999999GiB']) {
    assert.equal(SIZE.parse(text), undefined, text)
  }
})

test('origins are normalised, and plain http is for loopback hosts', () => {
  assert.equal(PUBLIC_URL.parse('HTTPS://App.example.com:443/'), 'https://app.example.com')
  assert.equal(PUBLIC_URL.parse('http://127.9.9.9:1'), 'http://127.9.9.9:1')
  for (const text of [
    'http://127.0.0.1.example.com',
    'http://localhost.example.com',
    'https:\\\\a',
    ' https://a',
    'https://a#',
  ]) {
    assert.equal(PUBLIC_URL.parse(text), undefined, text)
  }
  assert.equal(UPSTREAM.parse('http://a:80/'), 'http://a')
  assert.equal(UPSTREAM.parse('http://a:80?'), undefined)
  assert.equal(ISSUER.parse('https://a/T/v2.0/'), 'https://a/T/v2.0/')
})

test('sockets and proxy ranges are IPv4 or IPv6', () => {
  assert.deepEqual(LISTEN.parse('[::]:8080'), { host: '::', port: 8080 })
  assert.deepEqual(LISTEN.parse('localhost:0'), { host: 'localhost', port: 0 })
  for (const text of ['8080', ':8080', '::1:80', '[1.2.3.4]:80', 'a:b'])
    assert.equal(LISTEN.parse(text), undefined, text)
  for (const text of ['10.0.0.1', '10.0.0.0/8', '::1', 'fd00::/8'])
    assert.equal(PROXY_RANGE.parse(text), text)
  for (const text of ['10.0.0', '10.0.0.0/', '10.0.0.0/33', 'fd00::/129', '10.0.0.0/8/8']) {
    assert.equal(PROXY_RANGE.parse(text), undefined, text)
  }
})

test('the nearest name forgives case, separators, swapped letters and one or two typing errors', () => {
  const names = ['clientId', 'clientAuth', 'timeout', 'tls']
  const near = {
    client_id: 'clientId',
    ClientID: 'clientId',
    cleintAuth: 'clientAuth',
    timout: 'timeout',
    tsl: 'tls',
  }
  for (const [written, meant] of Object.entries(near)) assert.equal(nearestName(written, names), meant)
  assert.equal(nearestName('upstream', names), undefined)
})

test('a resource indicator is an absolute URI without a fragment', () => {
  for (const text of ['https://a', 'api://x', 'urn:example:a']) assert.ok(isResourceIndicator(text), text)
  for (const text of ['a', '/a', 'https://a#b', 'https://a b']) assert.ok(!isResourceIndicator(text), text)
})
