import assert from 'node:assert/strict'
import { test } from 'node:test'
import { loadConfig } from '../../../src/config/load.ts'
import { withoutRestartFields } from '../../../src/config/restart-fields.ts'
import { configWith, sessionKey } from '../../kit/config/cloakroom-config.ts'

const KEY = sessionKey()

function config(changes: Record<string, unknown> = {}) {
  const place = {
    publicUrl: 'http://localhost:8080',
    listen: '127.0.0.1:8080',
    adminListen: '127.0.0.1:9090',
  }
  const provider = { issuer: 'https://id.test', clientId: 'c', clientAuth: { method: 'none' } }
  const base = { provider, routes: [{ path: '/', upstream: 'http://up:1' }], session: { keys: [KEY] } }
  const text = JSON.stringify(configWith({ ...base, ...changes }, place))
  return loadConfig({ text, file: 'c.yaml', env: {} }).config
}

const redis = (password: string) => ({
  session: { keys: [KEY], store: { type: 'redis', url: 'redis://redis', password } },
})

test('what is the same needs no restart', () => {
  assert.deepEqual(withoutRestartFields(config(), config()).needRestart, [])
  assert.deepEqual(withoutRestartFields(config(redis('a')), config(redis('a'))).needRestart, [])
})

const CHANGES: [field: string, changes: Record<string, unknown>][] = [
  ['listen', { listen: '127.0.0.1:8081' }],
  ['admin.listen', { admin: { listen: '127.0.0.1:9091' } }],
  ['session.store', redis('a')],
  ['limits', { limits: { connections: 5 } }],
]
for (const [field, changes] of CHANGES) {
  test(`a change of ${field} is named and left for the next start, everything else is taken over`, () => {
    const running = config()
    const wanted = config({ ...changes, basePath: '/auth', hosts: ['other:1'] })
    const { config: next, needRestart } = withoutRestartFields(wanted, running)
    assert.deepEqual(needRestart, [field])
    assert.equal(next.basePath, '/auth')
    assert.deepEqual(next.hosts, ['other:1'])
    assert.deepEqual(withoutRestartFields(next, running).needRestart, [])
  })
}

test('another secret is a change, and is not shown', () => {
  const { needRestart } = withoutRestartFields(config(redis('secret-a')), config(redis('secret-b')))
  assert.deepEqual(needRestart, ['session.store'])
})
