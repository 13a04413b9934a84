import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { createServer } from 'node:http'
import { type TestContext, test } from 'node:test'
import { Router } from 'express'
import { BffError } from '../../src/errors.ts'
import { createEdge } from '../../src/http/edge.ts'
import { createRequestLog } from '../../src/http/request-log.ts'
import { listenOn } from '../../src/http/server/public-server.ts'
import { captureLog } from '../kit/cloakroom.ts'

const SECRET = 'rt_a-token-that-an-error-carries'

/** The public listener in front of a route that fails in this way. */
async function failingWith(t: TestContext, error: unknown) {
  const { log, lines } = captureLog()
  const edge = createEdge({
    publicUrl: 'http://127.0.0.1',
    basePath: '/bff',
    requestLog: createRequestLog({
      log,
      observe: () => undefined,
      nowMs: () => performance.now(),
      clientIp: () => '127.0.0.1',
    }),
    bffRoutes: Router(),
    loginUrlFor: () => '/bff/login',
    cors: (_req, _res, next) => next(),
    forward: () => Promise.reject(error),
    ownHeaders: {},
    log,
    monotonicNow: Date.now,
  })
  const server = createServer(edge)
  const port = await listenOn(server, { host: '127.0.0.1', port: 0 })
  t.after(() => server.close())
  const answer = await fetch(`http://127.0.0.1:${port}/x`)
  return { answer, text: await answer.text(), log: lines.join('\n') }
}

test('an error that nobody expected says nothing about itself, here or in the log', async (t) => {
  const error = Object.assign(new Error('first line\nsecond line'), {
    command: { name: 'set', args: [SECRET] },
    cause: Object.assign(new Error(SECRET), { body: { refresh_token: SECRET } }),
  })
  const { answer, text, log } = await failingWith(t, error)
  assert.equal(answer.status, 500)
  assert.equal(answer.headers.get('content-type'), 'application/problem+json')
  assert.deepEqual(Object.keys(JSON.parse(text)).sort(), ['request_id', 'status', 'title', 'type'])
  assert.ok(!log.includes(SECRET))
  assert.match(log, /first line second line/)
})

test('what is thrown and is no error is answered too', async (t) => {
  for (const thrown of [SECRET, { refresh_token: SECRET }, 42]) {
    const { answer, text, log } = await failingWith(t, thrown)
    assert.equal(answer.status, 500)
    assert.ok(!(text + log).includes(SECRET))
  }
})

test('not even a fault in the last step of all shows a stack', async (t) => {
  const error = new BffError('bad_request', 'no good', { headers: { 'no header name': 'x' } })
  const { answer, text } = await failingWith(t, error)
  assert.equal(answer.status, 500)
  assert.equal(text, '')
})

test('an error outside of any request ends the process, and shows nothing of what it carries', async () => {
  const script = `
    import { endOnUnexpected } from './src/cli/unexpected.ts'
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
