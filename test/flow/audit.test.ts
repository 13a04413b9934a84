import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createLogger } from '../../src/log.ts'
import { startCloakroom } from '../kit/cloakroom.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { startUpstream } from '../kit/upstream/upstream.ts'

test('the audit stream tells who did what and why, and no name', async (t) => {
  const provider = await startRotatingProvider({ control: { user: 'ada.lovelace-4711' } })
  t.after(() => provider.close())
  const api = await startUpstream()
  t.after(() => api.close())
  const cloakroom = await startCloakroom({
    provider: { ...provider.settings },
    resources: { orders: { resource: 'https://orders.test' } },
    routes: [
      { path: '/api', id: 'api', upstream: api.url, resource: 'orders' },
      { path: '/ops', id: 'ops', upstream: api.url, require: { claims: { groups: ['ops'] } } },
      { path: '/', id: 'app', upstream: api.url, auth: 'anonymous' },
    ],
  })
  t.after(() => cloakroom.close())
  const lines = () => cloakroom.logs.map((line) => JSON.parse(line) as Record<string, unknown>)
  const audit = () => lines().filter(({ stream }) => stream === 'audit')

  const browser = cloakroom.browser()
  await browser.signIn()
  await browser.fetch('/ops/x')
  await browser.fetch('/bff/callback?code=x&state=nobody-knows-it')
  const user = await browser.fetch('/bff/user')
  await browser.open(user.json()['bff:logout_url'])
  const other = cloakroom.browser()
  await other.signIn()
  await assert.rejects(cloakroom.reload({ basePath: 'no path' }))

  const told = audit().map(({ action, reason, by, route, step, outcome }) =>
    [action, reason ?? route ?? step ?? outcome, by].filter((one) => one !== undefined).join(' '),
  )
  assert.deepEqual(told, [
    'sign_in',
    'access_denied claims',
    'sign_in_failed callback',
    'token_revocation',
    'session_ended logout user',
    'sign_in',
    'config_reloaded refused',
  ])
  const [began, denied, , revoked, ended, again] = audit()
  assert.match(String(began?.session), /^[\w-]{12}$/)
  for (const line of [denied, revoked, ended]) assert.equal(line?.session, began?.session)
  assert.match(String(began?.subject), /^[\w-]{22}$/)
  assert.equal(again?.subject, began?.subject)
  assert.notEqual(again?.session, began?.session)
  // The access lines of the sign-in and the sign-out.
  for (const path of ['/bff/callback', '/bff/logout'])
    assert.ok(
      lines().some((line) => line.path === path && line.session === began?.session),
      path,
    )
  assert.doesNotMatch(cloakroom.logs.join('\n'), /ada\.lovelace/)
})

test('the audit stream is there at every level of the log', () => {
  const written: string[] = []
  const log = createLogger({ level: 'error', destination: { write: (line) => written.push(line) } })
  log.info({}, 'not this')
  log.audit?.('config_reloaded', { outcome: 'applied' })
  assert.equal(written.length, 1)
  const { stream, action, outcome, level } = JSON.parse(written[0] ?? '{}')
  assert.deepEqual([stream, action, outcome, level], ['audit', 'config_reloaded', 'applied', 'info'])
})
