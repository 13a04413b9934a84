import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { test } from 'node:test'
import { Router } from 'express'
import request from 'supertest'
import { BffError } from '../../src/errors.ts'
import { createEdge } from '../../src/http/edge.ts'
import { createRequestLog } from '../../src/http/request-log.ts'
import { createSecurityHeaders } from '../../src/http/security-headers.ts'
import { captureLog } from '../kit/cloakroom.ts'

const SECRET = 'rt_a-token-that-an-error-carries'

/** The public listener in front of a route that fails in this way. */
async function failingWith(error: unknown) {
  const { log, lines } = captureLog()
  const edge = createEdge({
    publicUrl: 'http://127.0.0.1',
    basePath: '/bff',
    requestLog: createRequestLog({
      log,
      observe: { requestBegan() {}, firstByte() {}, request() {} },
      nowMs: () => performance.now(),
      clientIp: () => '127.0.0.1',
      isTrustedPeer: () => false,
    }),
    bffRoutes: Router(),
    loginUrlFor: () => '/bff/login',
    cors: (_req, _res, next) => next(),
    forward: () => Promise.reject(error),
    securityHeaders: createSecurityHeaders('http://127.0.0.1'),
    log,
    monotonicNow: Date.now,
  })
  const answer = await request(edge).get('/x')
  return { answer, text: answer.text, log: lines.join('\n') }
}

test('an unexpected error says nothing about itself, here or in the log', async () => {
  const error = Object.assign(new Error('first line\nsecond line'), {
    command: { name: 'set', args: [SECRET] },
    cause: Object.assign(new Error(SECRET), { body: { refresh_token: SECRET } }),
  })
  const { answer, text, log } = await failingWith(error)
  assert.equal(answer.status, 500)
  assert.equal(answer.headers['content-type'], 'application/problem+json')
  assert.deepEqual(Object.keys(JSON.parse(text)).sort(), ['request_id', 'status', 'title', 'type'])
  assert.ok(!log.includes(SECRET))
  assert.match(log, /first line second line/)
})

test('what is thrown and is no error is answered too', async () => {
  for (const thrown of [SECRET, { refresh_token: SECRET }, 42]) {
    const { answer, text, log } = await failingWith(thrown)
    assert.equal(answer.status, 500)
    assert.ok(!(text + log).includes(SECRET))
  }
})

test('not even a fault in the last step of all shows a stack', async () => {
  const error = new BffError('bad_request', 'no good', { headers: { 'no header name': 'x' } })
  const { answer, text } = await failingWith(error)
  assert.equal(answer.status, 500)
  assert.equal(text, '')
})

test('an error outside of any request ends the process, and shows nothing of what it carries', async () => {
  const script = `
    import { endOnUnexpected } from './src/cli/process.ts'
    import { createLogger } from './src/log.ts'
    endOnUnexpected(createLogger())
    Promise.reject(Object.assign(new Error('outside'), { cause: { body: { refresh_token: '${SECRET}' } } }))
    setTimeout(() => undefined, 5_000)`
  const { code, output } = await new Promise<{ code: unknown; output: string }>((resolve) => {
    const args = ['--input-type=module-typescript', '--eval', script]
    const cwd = new URL('../..', import.meta.url)
    execFile(process.execPath, args, { cwd }, (error, stdout, stderr) =>
      resolve({ code: error?.code, output: stdout + stderr }),
    )
  })
  assert.equal(code, 1)
  assert.match(output, /outside/)
  assert.ok(!output.includes(SECRET))
})
