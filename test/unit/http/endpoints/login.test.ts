import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { LoginParam } from '../../../../src/config/config.ts'
import { createLogin } from '../../../../src/http/endpoints/login.ts'
import type { SignInGoal } from '../../../../src/oidc/sign-in/attempts.ts'

const ALL: readonly LoginParam[] = ['prompt', 'login_hint', 'acr_values', 'max_age', 'ui_locales']

/** What a sign-in is begun with for a login URL with these parameters. */
async function goalOf(query: Record<string, unknown>, loginParams: readonly LoginParam[] = ALL) {
  let goal: SignInGoal | undefined
  const login = createLogin({
    sessions: { find: async () => undefined, named: () => undefined },
    async beginSignIn(begun) {
      goal = begun
      return { url: new URL('https://id.test'), cookie: { id: 'i', secret: 's' } }
    },
    loginParams,
    loginCookies: { set() {} } as never,
    stepUps: {} as never,
    requireReturnUrl: () => '/',
    loginUrlFor: () => '/bff/login',
    noteReturnUrl() {},
  })
  await login({ method: 'GET', query } as never, { redirect() {} } as never, assert.fail)
  const { prompt, loginHint, params } = goal ?? assert.fail('nothing began')
  return { ...(prompt && { prompt }), ...(loginHint && { loginHint }), ...params }
}

test('a login URL passes on what it may, and nothing else', async () => {
  const query = {
    prompt: 'login',
    login_hint: 'ada',
    acr_values: 'gold silver',
    max_age: '0',
    ui_locales: 'de-CH fr',
  }
  const { login_hint: loginHint, ...same } = query
  assert.deepEqual(await goalOf({ ...query, scope: 'evil', redirect_uri: 'https://evil.test' }), {
    ...same,
    loginHint,
  })
  assert.deepEqual(await goalOf(query, ['prompt', 'login_hint']), { prompt: 'login', loginHint })
  assert.deepEqual(await goalOf(query, []), {})
})

test('a value that cannot be one is ignored: whoever signs in can write anything there', async () => {
  for (const query of [
    { prompt: 'evil' },
    { prompt: 'none login' },
    { prompt: 'login login' },
    { prompt: '' },
    { prompt: ['login', 'none'] },
    { login_hint: '' },
    { login_hint: 'x'.repeat(257) },
    { login_hint: 'ada\r\nset-cookie: x' },
    { acr_values: ' ' },
    { acr_values: 'gold\nsilver' },
    { acr_values: 'x'.repeat(513) },
    { max_age: '-1' },
    { max_age: '1.5' },
    { max_age: '1e9' },
    { max_age: '9999999999' },
    { max_age: ['1', '2'] },
    { max_age: { $gt: '1' } },
    { ui_locales: 'de;q=1' },
    { ui_locales: '<script>' },
  ])
    assert.deepEqual(await goalOf(query), {}, JSON.stringify(query))
  assert.deepEqual(await goalOf({ prompt: 'login consent' }), { prompt: 'login consent' })
})
