import assert from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import { createMissingSessions } from '../../src/session/missing-session.ts'
import { setUp } from '../kit/attack/sign-in.ts'
import { sessionKey } from '../kit/config/cloakroom-config.ts'
import { skipWithoutRedis, startRedis } from '../kit/store/redis.ts'

const NAME = 'cloakroom'

async function start(t: TestContext, store: object = { type: 'memory' }) {
  const keys = [sessionKey(), sessionKey()]
  const setup = await setUp(t, {
    config: { session: { store, keys: [keys[0]], idleTimeout: '30m', absoluteTimeout: '40m' } },
  })
  const { cloakroom, browser } = setup
  await browser.signIn()
  const cookie = browser.cookies.find(({ name }) => name === NAME)?.value ?? ''
  const session = (...ring: (string | undefined)[]) => ({
    ...{ store, keys: ring, idleTimeout: '30m', absoluteTimeout: '40m' },
  })
  return {
    ...setup,
    cookie,
    keys,
    session,
    /** What the log and the metrics say of a request with this Cookie header, and what the browser is told. */
    async ask(header: string | undefined, path = '/bff/user') {
      const answer = await fetch(`${cloakroom.listenUrl}${path}`, {
        headers: { 'x-csrf': '1', ...(header === undefined ? {} : { cookie: header }) },
      })
      const body = (await answer.json()) as Record<string, unknown>
      const lineOf = () =>
        cloakroom.logs
          .map((line) => JSON.parse(line))
          .find(({ request_id, msg }) => msg === 'request' && request_id === body.request_id)
      while (!lineOf()) await new Promise((resolve) => setImmediate(resolve))
      const { login_url, instance, request_id, ...told } = body
      return { status: answer.status, reason: lineOf().reason, told: JSON.stringify(told) }
    },
    async counted(reason: string): Promise<number> {
      const text = await (await fetch(`${cloakroom.adminUrl}/metrics`)).text()
      const line = `cloakroom_sessions_missing_total{reason="${reason}"} `
      return Number(
        text
          .split('\n')
          .find((one) => one.startsWith(line))
          ?.slice(line.length) ?? 0,
      )
    },
  }
}

const stores: [string, (t: TestContext) => Promise<object>, object][] = [
  ['the memory store', async () => ({ type: 'memory' }), {}],
  [
    'Redis',
    async (t) => {
      const redis = await startRedis()
      t.after(() => redis.stop())
      return { type: 'redis', url: redis.url }
    },
    { skip: skipWithoutRedis() },
  ],
]

for (const [name, storeOf, options] of stores)
  describe(`the log says why there is no session, and the browser is not told (${name})`, options, () => {
    test('absent, repeated, forged and unknown', async (t) => {
      const setup = await start(t, await storeOf(t))
      const { ask, cookie, browser, cloakroom } = setup
      const other = cloakroom.browser()
      await other.signIn()
      const ended = other.cookies.find(({ name }) => name === NAME)?.value ?? ''
      await other.fetch('/bff/logout', { method: 'POST' })
      const asks: [header: string | undefined, reason: string][] = [
        [undefined, 'absent'],
        ['other=1', 'absent'],
        [`${NAME}=${cookie}; ${NAME}=${cookie}`, 'repeated'],
        [`${NAME}=`, 'forged'],
        [`${NAME}=s%3A${'A'.repeat(43)}.${'B'.repeat(43)}`, 'forged'],
        [`${NAME}=${cookie.slice(0, -3)}AAA`, 'forged'],
        [`${NAME}=%FF`, 'forged'],
        [`${NAME}=${ended}`, 'unknown'],
      ]
      const told = new Set<string>()
      for (const [header, reason] of asks) {
        for (const path of ['/bff/user', '/api/orders']) {
          const before = await setup.counted(reason)
          const seen = await ask(header, path)
          assert.deepEqual([seen.status, seen.reason], [401, reason], `${path} with ${header}`)
          assert.equal(await setup.counted(reason), before + 1)
          if (path === '/bff/user') told.add(seen.told)
        }
      }
      assert.equal(told.size, 1)
      assert.equal((await browser.fetch('/bff/user')).status, 200)
    })

    test('expired, when its longest life is over', async (t) => {
      const { ask, cookie, advance, browser } = await start(t, await storeOf(t))
      advance(29 * 60_000)
      assert.equal((await browser.fetch('/bff/user')).status, 200)
      advance(12 * 60_000)
      assert.equal((await ask(`${NAME}=${cookie}`)).reason, 'expired')
      assert.equal((await ask(`${NAME}=${cookie}`)).reason, 'expired')
    })

    test('sealed with a session key that is gone', async (t) => {
      const { ask, cookie, cloakroom, session, keys, counted } = await start(t, await storeOf(t))
      await cloakroom.reload({ session: session(keys[1]) })
      assert.equal((await ask(`${NAME}=${cookie}`)).reason, 'key_gone')
      assert.equal(await counted('key_gone'), 1)
      assert.equal((await ask(`${NAME}=s%3A${'A'.repeat(43)}.${'B'.repeat(43)}`)).reason, 'forged')
      await cloakroom.reload({ session: session(keys[1], keys[0]) })
      const answer = await fetch(`${cloakroom.listenUrl}/bff/user`, {
        headers: { 'x-csrf': '1', cookie: `${NAME}=${cookie}` },
      })
      assert.equal(answer.status, 200)
    })
  })

test('forged cookies make us read the store 20 times a second at most', async () => {
  let reads = 0
  let time = 0
  const { reasonOf } = createMissingSessions({
    cookieName: NAME,
    signingSecrets: ['secret'],
    records: {
      async read() {
        reads += 1
        return undefined
      },
    },
    open: () => undefined,
    monotonicNow: () => time,
  })
  const forged = { headers: { cookie: `${NAME}=s%3Aid.signature` } } as never
  for (let request = 0; request < 100; request += 1) assert.equal(await reasonOf(forged), 'forged')
  assert.equal(reads, 20)
  time = 1_000
  await reasonOf(forged)
  assert.equal(reads, 21)
})
