import assert from 'node:assert/strict'
import { createDecipheriv, createHash, hkdfSync } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { suite, type TestContext, test } from 'node:test'
import { createLoginAttempts } from '../../src/oidc/sign-in/attempts.ts'
import { sessionHash } from '../../src/session/session.ts'
import { bindToGrants, createSealing } from '../../src/tokens/record/sealing.ts'
import { startCloakroom } from '../kit/cloakroom.ts'
import { field, type RecordedRequest, sendJson, startLocalServer } from '../kit/local-server.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { skipWithoutRedis, startRedis, type TestRedis } from '../kit/store/redis.ts'
import { openRedisStore } from '../kit/store/store-contestants.ts'
import { startUpstream } from '../kit/upstream/upstream.ts'

/**
 * What Redis held on 21 November 2026 (commit fab72ac), as that code wrote it: a session with tokens, one whose refresh had
 * got no answer, and a sign-in in flight. While replicas are rolled out, versions read each other's records.
 */
const BEFORE = JSON.parse(readFileSync(new URL('./records/2026-11-21.json', import.meta.url), 'utf8')) as {
  at: number
  keys: string[]
  provider: { issuer: string; clientId: string }
  resources: Record<string, object>
  /** What an access token of each resource was bound to. */
  definitions: Record<string, string>
  cookies: Record<'ada' | 'grace' | 'bob', { name: string; value: string }[]>
  state: string
  redis: Record<string, string | Record<string, string>>
}

const LIFE_MS = 1_800_000

async function restore(redis: TestRedis): Promise<void> {
  for (const [key, value] of Object.entries(BEFORE.redis)) {
    if (typeof value === 'string') await redis.cli('SET', key, value, 'PX', String(LIFE_MS))
    else {
      await redis.cli('HSET', key, ...Object.entries(value).flat())
      await redis.cli('PEXPIRE', key, String(LIFE_MS))
    }
  }
}

const cookieOf = (person: keyof typeof BEFORE.cookies) =>
  BEFORE.cookies[person].map(({ name, value }) => `${name}=${value}`).join('; ')

const sessionIdOf = (cookie: string) => /=s(?:%3A|:)([^.]+)\./.exec(cookie)?.[1] ?? ''

/** Today's Cloakroom over what was stored then, at a token endpoint that answers every refresh. */
async function startToday(t: TestContext) {
  const redis = await startRedis()
  t.after(() => redis.stop())
  await restore(redis)
  const idp = await startLocalServer(({ path }: RecordedRequest, res) => {
    if (path !== '/token') return sendJson(res, 200, { keys: [] })
    const answer = {
      access_token: 'at-of-today',
      token_type: 'Bearer',
      expires_in: 300,
      refresh_token: 'rt_of_today',
    }
    return sendJson(res, 200, answer)
  })
  t.after(() => idp.close())
  const api = await startUpstream()
  t.after(() => api.close())
  const startedAt = Date.now()
  const clock = { aheadMs: 5_000 }
  const cloakroom = await startCloakroom(
    {
      publicUrl: 'https://app.example.test',
      provider: {
        ...BEFORE.provider,
        ...{
          clientAuth: { method: 'client_secret_post', secret: 'hush' },
          resourceDialect: 'resource-indicator',
        },
        endpoints: Object.fromEntries(
          ['authorization', 'token', 'jwks', 'revocation'].map((name) => [name, `${idp.origin}/${name}`]),
        ),
      },
      session: { store: { type: 'redis', url: redis.url }, keys: BEFORE.keys },
      resources: BEFORE.resources,
      routes: Object.keys(BEFORE.resources).map((resource) => ({
        ...{ path: `/api/${resource}`, upstream: api.url, resource },
      })),
    },
    { now: () => BEFORE.at + clock.aheadMs + (Date.now() - startedAt) },
  )
  t.after(() => cloakroom.close())
  const ask = (person: keyof typeof BEFORE.cookies, path: string, method = 'GET') =>
    fetch(cloakroom.listenUrl + path, {
      ...{ method, redirect: 'manual' },
      headers: {
        ...{ cookie: cookieOf(person), 'x-csrf': '1', 'x-forwarded-proto': 'https' },
        host: 'app.example.test',
      },
    })
  const refreshes = () =>
    idp.requests.filter(({ path }) => path === '/token').map(({ form }) => field(form, 'refresh_token'))
  return { redis, api, cloakroom, clock, ask, refreshes, idp }
}

/** How that version opened a sealed text, written down once more: format, key derivation and binding are for ever. */
function openAsBefore(
  sealed: string,
  { key, id, kind, name }: { key: string; id: string; kind: string; name: string },
): string {
  const ikm = Buffer.from(key, 'base64url')
  const kid = createHash('sha256').update('cloakroom key id').update(ikm).digest('base64url').slice(0, 8)
  const [version, sealedWith, text = ''] = sealed.split('.')
  assert.deepEqual([version, sealedWith], ['1', kid])
  const body = Buffer.from(text, 'base64url')
  const derived = Buffer.from(hkdfSync('sha256', ikm, id, `cloakroom ${kind}`, 32))
  const decipher = createDecipheriv('aes-256-gcm', derived, body.subarray(0, 12), { authTagLength: 16 })
  decipher.setAAD(Buffer.from(JSON.stringify(['1', kid, kind, id, name])))
  decipher.setAuthTag(body.subarray(-16))
  return decipher.update(body.subarray(12, -16), undefined, 'utf8') + decipher.final('utf8')
}

const types = (value: object, names: readonly string[]) =>
  names.map((name) => `${name}: ${typeof (value as Record<string, unknown>)[name]}`)

/** What that version needs of a session and its tokens; it ignores members and fields that it does not know. */
async function assertReadableBefore(
  redis: TestRedis,
  {
    id,
    key,
    grant,
    definitions,
  }: { id: string; key: string; grant: string; definitions: Record<string, string> },
) {
  const name = (part: string) => `cloakroom:{${createHash('sha256').update(id).digest('base64url')}}:${part}`
  const [sealed = ''] = await redis.cli('GET', name('session'))
  const session = JSON.parse(openAsBefore(sealed, { key, id, kind: 'session', name: grant }))
  assert.deepEqual(types(session, ['createdAt']), ['createdAt: number'])
  assert.deepEqual(types(session.user, ['idToken', 'logoutHandle']), [
    'idToken: string',
    'logoutHandle: string',
  ])
  assert.equal(typeof session.user.claims.sub, 'string')
  for (const list of ['indicators', 'steppedUp'])
    if (list in session.user) assert.ok(session.user[list].every((one: unknown) => typeof one === 'string'))

  const flat = await redis.cli('HGETALL', name('tokens'))
  const fields = new Map(
    Array.from({ length: flat.length / 2 }, (_, at) => [flat[2 * at]!, flat[2 * at + 1]!]),
  )
  assert.match(fields.get('v') ?? '', /^\d+$/)
  const refreshToken = openAsBefore(fields.get('rt') ?? '', { key, id, kind: 'refresh_token', name: grant })
  assert.match(fields.get('spend') ?? 'lost', /^(?:open:.+|lost|burnt)$/)
  const held = [...fields].filter(([one]) => one.startsWith('at:'))
  assert.ok(held.length > 0)
  for (const [one, text] of held) {
    const definition = definitions[one.slice('at:'.length)] ?? ''
    const token = JSON.parse(openAsBefore(text, { key, id, kind: 'access_token', name: definition }))
    assert.deepEqual(
      token.slice(0, 3).map((part: unknown) => typeof part),
      ['string', 'number', 'number'],
    )
  }
  // A replica of that version slides both, and ends the session by removing them.
  for (const part of ['session', 'tokens']) assert.ok(Number((await redis.cli('PTTL', name(part)))[0]) > 0)
  return { session, refreshToken }
}

suite('records of an older version', { skip: skipWithoutRedis() }, () => {
  test('are read: the session goes on with its tokens, is refreshed, slid, listed and ended', async (t) => {
    const { redis, api, ask, clock, refreshes, idp } = await startToday(t)
    const user = (await (await ask('ada', '/bff/user')).json()) as Record<string, unknown>
    assert.deepEqual([user.sub, user.email, user.sid], ['ada', 'ada@example.com', 'idp-session-1'])
    assert.ok(Number(user['bff:session_absolute_expires_in']) > 35_900)
    for (const path of ['/api/orders', '/api/billing']) assert.equal((await ask('ada', path)).status, 200)
    assert.deepEqual(refreshes(), [], 'its access tokens are used on')
    assert.match(String(api.requests[0]?.headers.authorization), /^Bearer eyJ/)
    // It began before there were indexes: its use has noted it.
    const { sessions } = (await (await ask('ada', '/bff/sessions')).json()) as { sessions: object[] }
    assert.equal(sessions.length, 1)
    assert.deepEqual(Object.entries(sessions[0] ?? {}).at(-1), ['current', true])

    clock.aheadMs += 300_000
    assert.equal((await ask('ada', '/api/orders')).status, 200)
    assert.match(String(refreshes()[0]), /^rt_/)
    assert.equal(api.requests.at(-1)?.headers.authorization, 'Bearer at-of-today')
    const id = sessionIdOf(cookieOf('ada'))
    const grant = JSON.stringify([BEFORE.provider.issuer, BEFORE.provider.clientId])
    const [key = ''] = BEFORE.keys
    const read = await assertReadableBefore(redis, { id, key, grant, definitions: BEFORE.definitions })
    assert.equal(read.refreshToken, 'rt_of_today')
    assert.equal((await ask('ada', '/bff/logout', 'POST')).status, 200)
    assert.equal(idp.requests.filter(({ path }) => path === '/revocation').length, 1)
    assert.deepEqual(await redis.cli('KEYS', `cloakroom:{${sessionHash(id)}}:*`), [])
  })

  test('are read: the mark of a refresh that got no answer means what it meant', async (t) => {
    const { redis, ask, refreshes } = await startToday(t)
    assert.equal((await ask('grace', '/api/orders')).status, 200)
    assert.deepEqual(refreshes(), [])
    assert.equal((await ask('grace', '/api/billing')).status, 200)
    assert.equal(refreshes().length, 1, 'it is offered once more')
    const hash = sessionHash(sessionIdOf(cookieOf('grace')))
    assert.deepEqual(await redis.cli('HEXISTS', `cloakroom:{${hash}}:tokens`, 'spend'), ['0'])
  })

  test('are read: a sign-in in flight', async (t) => {
    const redis = await startRedis()
    t.after(() => redis.stop())
    await restore(redis)
    const store = await openRedisStore(t, redis, { keyPrefix: 'cloakroom' })
    const keys = BEFORE.keys.map((key) => Buffer.from(key, 'base64url'))
    const sealing = bindToGrants(createSealing(keys), { provider: BEFORE.provider, resources: {} } as never)
    const attempts = createLoginAttempts({
      ...{ records: store.logins, endings: store.endings },
      seal: (id, text) => sealing.seal({ id, kind: 'login' }, text),
      open: (id, sealed) => sealing.open({ id, kind: 'login' }, sealed),
    })
    const [cookie] = BEFORE.cookies.bob
    const attempt = await attempts.take(BEFORE.state, cookie?.value ?? '')
    assert.equal(attempt?.returnUrl, '/elsewhere')
    for (const secret of [attempt?.nonce, attempt?.codeVerifier]) assert.match(secret ?? '', /^[\w-]{43}$/)
    assert.deepEqual(attempt?.indicators, ['https://orders.test', 'https://billing.test'])
  })

  test('the records of today are read by that version: it finds all that it needs, and ignores the rest', async (t) => {
    const redis = await startRedis()
    t.after(() => redis.stop())
    const provider = await startRotatingProvider({
      control: { idTokenClaims: { sid: 'idp-session-1', session_expiry: 4_102_444_800 } },
    })
    t.after(() => provider.close())
    provider.control.editAnswer = (answer) => {
      answer.refresh_token_expires_in = 3_600
    }
    const api = await startUpstream()
    t.after(() => api.close())
    const cloakroom = await startCloakroom({
      provider: { ...provider.settings },
      session: { store: { type: 'redis', url: redis.url }, keys: BEFORE.keys, maxPerUser: 3 },
      resources: BEFORE.resources,
      routes: [{ path: '/api/orders', upstream: api.url, resource: 'orders' }],
    })
    t.after(() => cloakroom.close())
    const browser = cloakroom.browser()
    await browser.signIn()
    assert.equal((await browser.fetch('/api/orders')).status, 200)
    const grant = JSON.stringify([provider.issuer, provider.clientId])
    const definitions = Object.fromEntries(
      Object.entries(BEFORE.definitions).map(([name, text]) => {
        const [, , resource] = JSON.parse(text)
        return [name, JSON.stringify([provider.issuer, provider.clientId, resource])]
      }),
    )
    const { name = '', value = '' } = browser.cookies.find((cookie) => cookie.name === 'cloakroom') ?? {}
    const [key = ''] = BEFORE.keys
    const id = sessionIdOf(`${name}=${value}`)
    const { session } = await assertReadableBefore(redis, { id, key, grant, definitions })
    assert.ok(session.user.refreshTokenExpiresAt > Date.now(), 'what that version does not know')
  })
})
