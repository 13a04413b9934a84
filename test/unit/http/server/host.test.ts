import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createHostCheck } from '../../../../src/http/server/host.ts'

const ELSEWHERE = '203.0.113.7'
const https = createHostCheck({
  publicUrl: 'https://app.test',
  hosts: ['app.svc:8080', 'plain.svc', '10.0.0.9:80'],
})
const withPort = createHostCheck({ publicUrl: 'https://app.test:8443', hosts: [] })
const local = createHostCheck({ publicUrl: 'http://localhost:8080', hosts: [] })

test('the public host is served in any letter case, with or without the port of its scheme', () => {
  for (const host of ['app.test', 'APP.Test', 'app.test:443', 'APP.test:443'])
    assert.equal(https.judge(host, ELSEWHERE), 'served', host)
  for (const host of ['app.test:80', 'app.test:8080', 'app.test.', 'xapp.test', 'app.test.evil.test'])
    assert.equal(https.judge(host, ELSEWHERE), 'foreign', host)
  assert.equal(withPort.judge('app.test:8443', ELSEWHERE), 'served')
  for (const host of ['app.test', 'app.test:443'])
    assert.equal(withPort.judge(host, ELSEWHERE), 'foreign', host)
})

test('configured hosts are served, and the default port of either scheme may be left out or written', () => {
  for (const host of [
    'app.svc:8080',
    'App.Svc:8080',
    'plain.svc',
    'plain.svc:80',
    'plain.svc:443',
    '10.0.0.9',
  ])
    assert.equal(https.judge(host, ELSEWHERE), 'served', host)
  for (const host of ['app.svc', 'app.svc:80', 'plain.svc:8080', '10.0.0.9:443'])
    assert.equal(https.judge(host, ELSEWHERE), 'foreign', host)
})

test('loopback names with any port are served to this machine, and to everybody when the public host is one', () => {
  const names = [
    'localhost',
    'localhost:9',
    'LocalHost:8080',
    'a.b.localhost:1',
    '127.0.0.1:1',
    '127.9.9.9',
    '[::1]:3',
  ]
  for (const host of names) {
    for (const peer of ['127.0.0.1', '127.3.2.1', '::1', '::ffff:127.0.0.1'])
      assert.equal(https.judge(host, peer), 'served', `${host} from ${peer}`)
    for (const peer of [ELSEWHERE, '::ffff:10.0.0.1', '1127.0.0.1', undefined])
      assert.equal(https.judge(host, peer), 'foreign', `${host} from ${peer}`)
    assert.equal(local.judge(host, ELSEWHERE), 'served', host)
  }
  for (const host of [
    'evillocalhost:3000',
    'localhost.evil.test',
    '127.0.0.1.evil.test',
    '128.0.0.1',
    '[::2]',
    '127.1',
  ])
    assert.equal(local.judge(host, '127.0.0.1'), 'foreign', host)
})

test('what is no host and port is invalid', () => {
  for (const host of [
    '',
    ' ',
    'a b',
    'u@app.test',
    'app.test/x',
    'app.test?x',
    'app.test#x',
    'a,app.test',
    'app.test:',
  ])
    assert.equal(https.judge(host, ELSEWHERE), 'invalid', host)
  for (const host of [
    'app.test:x',
    ':443',
    '[::1',
    '::1',
    'app.test\\x',
    'äpp.test',
    'app.test:123456',
    '[u@::1]',
  ])
    assert.equal(https.judge(host, ELSEWHERE), 'invalid', host)
})

test('an absolute target is ours when Host agrees with it, and the public host only in its own scheme', () => {
  assert.ok(https.isSameOrigin('https', 'APP.test:443', 'app.test'))
  assert.ok(https.isSameOrigin('http', 'app.svc:8080', 'app.svc:8080'))
  assert.ok(!https.isSameOrigin('http', 'app.test', 'app.test'))
  assert.ok(!https.isSameOrigin('https', 'app.svc:8080', 'app.test'))
  assert.ok(!https.isSameOrigin('https', 'app.test', 'app.test:80'))
})
