import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createEndSession } from '../../../../src/oidc/sign-in/end-session.ts'

function setUp(endSessionEndpoint: () => Promise<string | undefined>) {
  const lines: [object, string][] = []
  const config = { publicUrl: 'https://shop.test', basePath: '/bff', provider: { clientId: 'shop' } } as never
  const log = {
    info() {},
    error() {},
    warn: (fields: object, text: string) => void lines.push([fields, text]),
  }
  return {
    endSession: createEndSession({ config, relyingParty: { endSessionEndpoint }, log: log as never }),
    lines,
  }
}

const state = async () => 'the-state'
const ENDPOINT = 'https://id.test/end?tenant=1'

test('the browser ends its session at the provider with its ID token, and comes back with a state', async () => {
  const { endSession } = setUp(async () => ENDPOINT)
  const request = await endSession('ID', state)
  const back = encodeURIComponent('https://shop.test/bff/logged-out')
  assert.deepEqual(request, {
    url: `${ENDPOINT}&id_token_hint=ID&post_logout_redirect_uri=${back}&state=the-state&client_id=shop`,
    isTooLong: false,
    form: {
      action: ENDPOINT,
      fields: [
        ['id_token_hint', 'ID'],
        ['post_logout_redirect_uri', 'https://shop.test/bff/logged-out'],
        ['state', 'the-state'],
        ['client_id', 'shop'],
      ],
    },
    urlWithoutHint: `${ENDPOINT}&post_logout_redirect_uri=${back}&state=the-state&client_id=shop`,
  })
})

test('without a state it still comes back', async () => {
  const { endSession } = setUp(async () => ENDPOINT)
  const request = await endSession('ID', async () => undefined)
  assert.deepEqual(
    request?.form.fields.map(([name]) => name),
    ['id_token_hint', 'post_logout_redirect_uri', 'client_id'],
  )
})

test('a URL of more than 2000 characters is to be posted', async () => {
  const { endSession } = setUp(async () => ENDPOINT)
  const { length } = (await endSession('', state))!.url
  assert.equal((await endSession('x'.repeat(2000 - length), state))?.isTooLong, false)
  assert.equal((await endSession('x'.repeat(2001 - length), state))?.isTooLong, true)
})

test('a provider without the endpoint needs no state', async () => {
  const { endSession, lines } = setUp(async () => undefined)
  assert.equal(await endSession('ID', () => assert.fail('a state was made')), undefined)
  assert.deepEqual(lines, [])
})

test('a provider that does not answer leaves a line, and the sign-out goes on', async () => {
  const { endSession, lines } = setUp(() => Promise.reject(new TypeError('fetch failed')))
  assert.equal(await endSession('ID', state), undefined)
  assert.deepEqual(lines, [
    [
      { err: { name: 'TypeError', message: 'fetch failed' } },
      'no end-session endpoint: the provider does not answer',
    ],
  ])
})

test('a provider that was never reached is waited for one second', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { endSession, lines } = setUp(() => new Promise(() => undefined))
  const ended = endSession('ID', state)
  t.mock.timers.tick(1_000)
  assert.equal(await ended, undefined)
  assert.match(JSON.stringify(lines), /the provider was not reached in time/)
})
