import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, type TestContext, test } from 'node:test'
import { sessionsCommand } from '../../src/cli/sessions.ts'
import { sessionHash } from '../../src/session/session.ts'
import type { Browser, FetchAnswer } from '../kit/browsers/browser.ts'
import { type RunningCloakroom, startCloakroom } from '../kit/cloakroom.ts'
import { type ConfigData, configWith, sessionKey } from '../kit/config/cloakroom-config.ts'
import { type RotatingProvider, startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { assertNoSecrets } from '../kit/secrets.ts'
import { APP, movableClock, type Scope, startApis } from '../kit/shops/shop.ts'
import { skipWithoutRedis, startRedis, type TestRedis } from '../kit/store/redis.ts'

const MINUTE = 60_000

type Listed = {
  id: string
  created: string
  lastSeen: string
  userAgent: string
  ip: string
  current: boolean
}

const listOf = async (browser: Browser): Promise<Listed[]> =>
  (await browser.fetch('/bff/sessions')).json().sessions
const end = (browser: Browser, id = '') =>
  browser.fetch(id === '' ? '/bff/sessions' : `/bff/sessions/${id}`, { method: 'DELETE' })
const isIn = async (browser: Browser) => (await browser.fetch('/bff/user?slide=false')).status === 200
const sessionIdOf = (browser: Browser) => {
  const cookie = browser.cookies.find(({ name }) => /^(?:__Host-Http-)?cloakroom$/.test(name))
  return /^s:([^.]+)\./.exec(decodeURIComponent(cookie?.value ?? ''))?.[1] ?? ''
}
const refusalOf = (answer: FetchAnswer) => [answer.status, answer.json().code]

/** One process with the memory store, whose clock the test moves. */
async function setUp(t: Scope, session: ConfigData = {}) {
  const provider = await startRotatingProvider({ control: { accessTokenSeconds: 100_000 } })
  t.after(() => provider.close())
  const clock = movableClock()
  const { config } = await startApis(t, { provider: provider.settings, jwks: provider.endpoints.jwks })
  const cloakroom = await startCloakroom(
    { ...config, session: { idleTimeout: '30m', absoluteTimeout: '2h', ...session } },
    { now: clock.now },
  )
  t.after(() => cloakroom.close())
  async function signIn(
    user: string,
    options: { userAgent?: string; claims?: object } = {},
  ): Promise<Browser> {
    provider.control.user = user
    provider.control.idTokenClaims = { ...options.claims }
    const browser = cloakroom.browser(options.userAgent === undefined ? {} : { userAgent: options.userAgent })
    await browser.signIn()
    return browser
  }
  return { provider, clock, cloakroom, signIn }
}

describe('the sessions of a user', () => {
  let system: Awaited<ReturnType<typeof setUp>>
  const scope = { cleanUps: [] as (() => unknown)[] }
  before(async () => {
    system = await setUp({ after: (cleanUp) => void scope.cleanUps.push(cleanUp) })
  })
  after(async () => {
    for (const cleanUp of scope.cleanUps.reverse()) await cleanUp()
  })

  test('are listed with what tells them apart, and ended one by one or all but this one', async () => {
    const { signIn, clock, provider, cloakroom } = system
    const begunAt = clock.now()
    const phone = await signIn('ada', { userAgent: `Phone/1.0 ${'x'.repeat(500)}` })
    clock.advance(5 * MINUTE)
    const laptop = await signIn('ada', { userAgent: 'Laptop/1.0' })
    const tablet = await signIn('ada', { userAgent: 'Tablet/1.0' })
    clock.advance(2 * MINUTE)
    assert.equal((await phone.fetch('/api/orders')).status, 200)

    const listed = await listOf(phone)
    assert.deepEqual(
      listed.map(({ userAgent, current, ip }) => [userAgent.slice(0, 9), current, ip]).sort(),
      [
        ['Laptop/1.', false, '127.0.0.1'],
        ['Phone/1.0', true, '127.0.0.1'],
        ['Tablet/1.', false, '127.0.0.1'],
      ],
    )
    const [first] = listed
    assert.ok(first?.current && first.userAgent.length === 256)
    assert.ok(Math.abs(Date.parse(first.created) - begunAt) < MINUTE)
    assert.ok(Math.abs(Date.parse(first.lastSeen) - clock.now()) < MINUTE)
    const other = listed.find(({ userAgent }) => userAgent === 'Laptop/1.0')
    assert.ok(other && Date.parse(other.lastSeen) < clock.now() - MINUTE)

    const ended = await end(phone, other.id)
    assert.deepEqual([ended.status, ended.body], [204, ''])
    assert.equal(await isIn(laptop), false)
    assert.deepEqual([await isIn(phone), await isIn(tablet)], [true, true])
    assert.deepEqual(refusalOf(await end(phone, other.id)), [404, 'route_not_found'])
    assert.equal((await end(phone)).status, 204)
    assert.deepEqual([await isIn(phone), await isIn(tablet)], [true, false])
    assert.equal((await listOf(phone)).length, 1)
    assert.equal((await end(phone)).status, 204)

    const metrics = await (await fetch(`${cloakroom.adminUrl}/metrics`)).text()
    assert.match(metrics, /cloakroom_sessions_total\{event="ended",reason="by_user"\} 2/)
    // Neither the refresh token of another session nor what names one is anywhere.
    assert.equal(provider.revoked.length, 0)
    const ids = [phone, laptop, tablet].map(sessionIdOf)
    assert.ok(ids.every((id) => id.length === 43))
    const texts = { ...phone.haystacks(), logs: cloakroom.logs.join('\n'), metrics }
    const answers = Object.entries(texts).filter(
      ([name]) => !name.includes('/bff/callback') && !name.includes('login'),
    )
    assertNoSecrets(Object.fromEntries(answers), [...ids.map(sessionHash), ...provider.issuedSecrets])
  })

  test('the session of the request is ended by its own name as by a sign-out: its refresh token is revoked', async () => {
    const { signIn, provider } = system
    const browser = await signIn('eve')
    const [own] = await listOf(browser)
    const revoked = provider.revoked.length
    const answer = await end(browser, own?.id)
    assert.equal(answer.status, 204)
    assert.match(String(answer.headers['set-cookie']), /cloakroom=;.*Expires=Thu, 01 Jan 1970/)
    assert.equal(answer.headers['clear-site-data'], '"cache"')
    assert.equal(provider.revoked.length, revoked + 1)
    assert.equal(await isIn(browser), false)
  })

  test('are seen and ended by nobody else, and by no other site', async () => {
    const { signIn, cloakroom } = system
    const [ada, bob] = [await signIn('ada-2'), await signIn('bob-2')]
    const [ofAda] = await listOf(ada)
    assert.ok(ofAda)
    const id = sessionIdOf(ada)
    for (const guess of [
      ofAda.id,
      sessionHash(id),
      id,
      id.slice(0, 22),
      'A'.repeat(22),
      '..',
      '%00',
      '%zz',
      '*',
    ])
      assert.ok([400, 404].includes((await end(bob, encodeURI(guess).replace('%25zz', '%zz'))).status), guess)
    assert.equal((await end(bob)).status, 204)
    assert.equal((await listOf(bob)).length, 1)
    assert.equal(await isIn(ada), true)

    const nobody = cloakroom.browser()
    for (const [method, path] of [
      ['GET', '/bff/sessions'],
      ['DELETE', '/bff/sessions'],
      ['DELETE', `/bff/sessions/${ofAda.id}`],
    ] as const) {
      assert.deepEqual(refusalOf(await nobody.fetch(path, { method })), [401, 'session_required'])
      const withoutHeader = await ada.fetch(path, { method, headers: { 'x-csrf': '' } })
      assert.deepEqual(refusalOf(withoutHeader), [403, 'csrf_required'])
      const fromElsewhere = await ada.fetch(path, { method, from: 'https://evil.example.test' })
      assert.deepEqual(refusalOf(fromElsewhere), [403, 'origin_forbidden'])
      const answer = await ada.fetch(path, { method: 'POST' })
      assert.deepEqual(refusalOf(answer), [405, 'method_not_allowed'])
    }
    assert.equal((await ada.fetch(`/bff/sessions/${ofAda.id}`)).headers.allow, 'DELETE')
    assert.equal((await ada.fetch('/bff/sessions', { method: 'HEAD' })).status, 200)
    assert.equal(await isIn(ada), true)
    // A user of the same name at the same time, whose session was ended from another one, cannot come back.
    const again = await signIn('ada-2')
    const stolen = ada.clone()
    await end(again)
    assert.deepEqual(refusalOf(await stolen.fetch('/bff/sessions')), [401, 'session_required'])
    assert.deepEqual(refusalOf(await stolen.fetch('/api/orders')), [401, 'session_required'])
  })

  test('B/user tells the idle and the absolute remaining time apart', async () => {
    const { signIn, clock } = system
    const browser = await signIn('ada-3')
    const times = async (query = '') => {
      const user = (await browser.fetch(`/bff/user${query}`)).json()
      const named = ['idle_expires_in', 'absolute_expires_in', 'expires_in']
      return named.map((name) => Math.ceil(user[`bff:session_${name}`] / 60))
    }
    assert.deepEqual(await times(), [30, 120, 30])
    clock.advance(10 * MINUTE)
    assert.deepEqual(await times('?slide=false'), [20, 110, 20])
    assert.deepEqual(await times(), [30, 110, 30])
    for (let count = 0; count < 4; count += 1) {
      clock.advance(25 * MINUTE)
      await times()
    }
    const [idle = 0, ...rest] = await times()
    assert.ok(idle >= 10)
    assert.deepEqual(rest, [10, 10])
    clock.advance(10 * MINUTE)
    assert.equal((await browser.fetch('/bff/user?anonymous=204')).status, 204)
  })

  test('requests of the background alone let a session end idle, whatever they refresh; those of its user keep it', async () => {
    const { signIn, clock, provider } = system
    provider.control.accessTokenSeconds = 240
    const browser = await signIn('ada-4')
    const refreshed = provider.counters.refreshCalls
    const headers = { 'cloakroom-background': '1' }
    const poll = (path: string) => browser.fetch(path, { headers })
    for (let count = 0; count < 5; count += 1) {
      clock.advance(5 * MINUTE)
      assert.equal((await poll('/api/orders')).status, 200)
      const user = (await poll('/bff/user')).json()
      assert.ok(user['bff:session_idle_expires_in'] <= (30 - 5 * (count + 1)) * 60)
      assert.equal((await poll('/bff/sessions')).status, 200)
    }
    // Hot by the polling of the moment before, and still counted.
    assert.equal((await browser.fetch('/api/orders')).status, 200)
    clock.advance(29 * MINUTE)
    const polled = await poll('/api/orders')
    assert.equal(polled.status, 200)
    assert.equal(polled.json().headers['cloakroom-background'], undefined)
    assert.ok(provider.counters.refreshCalls >= refreshed + 6)
    clock.advance(2 * MINUTE)
    assert.deepEqual(refusalOf(await poll('/api/orders')), [401, 'session_required'])
    provider.control.accessTokenSeconds = 100_000
  })

  test('the provider shortens a session: at its sign-in, and by what a refresh brings', async () => {
    const { signIn, clock, provider, cloakroom } = system
    const { control } = provider
    const absolute = async (browser: Browser) =>
      Math.round((await browser.fetch('/bff/user')).json()['bff:session_absolute_expires_in'] / 60)
    const seconds = (minutes: number) => Math.floor((clock.now() + minutes * MINUTE) / 1000)
    control.accessTokenSeconds = 400

    const byClaim = await signIn('ada-5', { claims: { session_expiry: seconds(50) } })
    assert.equal(await absolute(byClaim), 50)
    const inMs = await signIn('ada-5', { claims: { session_expiry: seconds(30) * 1000 } })
    assert.equal(await absolute(inMs), 30)
    control.editAnswer = (answer) => {
      answer.refresh_token_expires_in = '2400'
    }
    const byToken = await signIn('ada-5')
    assert.equal(await absolute(byToken), 40)
    control.editAnswer = undefined as never
    const unbound = await signIn('ada-5')
    assert.equal(await absolute(unbound), 120)

    // A refresh moves the end: nearer by an ID token that tells nothing else of the user, and farther by a new token.
    control.idTokenOnRefresh = true
    clock.advance(10 * MINUTE)
    control.idTokenClaims = { session_expiry: seconds(15) }
    assert.equal((await unbound.fetch('/api/orders')).status, 200)
    assert.equal(await absolute(unbound), 15)
    control.idTokenClaims = {}
    control.editAnswer = (answer) => {
      answer.refresh_token_expires_in = 3_600
    }
    assert.equal((await byToken.fetch('/api/orders')).status, 200)
    assert.equal(await absolute(byToken), 60)
    clock.advance(15 * MINUTE)
    assert.equal(await isIn(unbound), false)
    assert.equal(await isIn(byToken), true)
    control.editAnswer = undefined as never
    control.idTokenOnRefresh = false
    control.accessTokenSeconds = 100_000

    // Over before it begins: a page and a line that says why, and no session.
    const late = cloakroom.browser()
    control.idTokenClaims = { session_expiry: seconds(-1) }
    assert.equal((await late.signIn()).status, 400)
    assert.equal(await isIn(late), false)
    assert.ok(cloakroom.logs.some((line) => line.includes('"reason":"session_expiry"')))
    control.idTokenClaims = {}
  })
})

/** Two processes' worth of Cloakroom on one Redis. */
async function startReplicas(t: TestContext, session: ConfigData = {}) {
  const redis: TestRedis = await startRedis()
  t.after(() => redis.stop())
  const provider: RotatingProvider = await startRotatingProvider({ control: { accessTokenSeconds: 100_000 } })
  t.after(() => provider.close())
  const keys = [sessionKey()]
  const { config } = await startApis(t, {
    ...{ provider: provider.settings, jwks: provider.endpoints.jwks, redisUrl: redis.url },
    session: { keys, ...session },
  })
  const replicas: RunningCloakroom[] = []
  for (let count = 0; count < 2; count += 1) {
    const replica = await startCloakroom(config)
    t.after(() => replica.close())
    replicas.push(replica)
  }
  const [a, b] = replicas as [RunningCloakroom, RunningCloakroom]
  return { redis, provider, a, b, keys, config }
}

describe('the sessions of a user over two replicas', { skip: skipWithoutRedis() }, () => {
  test('session.maxPerUser: the oldest ends, also when two replicas sign in at once; other users are not touched', async (t) => {
    const { a, b, provider } = await startReplicas(t, { maxPerUser: 2 })
    const other = a.browser()
    provider.control.user = 'bob'
    await other.signIn()
    provider.control.user = 'ada'
    const browsers = [a, b, a].map((replica) => replica.browser())
    for (const browser of browsers) await browser.signIn()
    assert.deepEqual(await Promise.all(browsers.map(isIn)), [false, true, true])
    // The same browser once more: its own session makes room.
    await browsers[2]!.signIn()
    assert.deepEqual(await Promise.all(browsers.map(isIn)), [false, true, true])
    for (let round = 0; round < 3; round += 1) {
      const crowd = [a, b, a, b].map((replica) => replica.browser())
      await Promise.allSettled(crowd.map((browser) => browser.signIn()))
      const alive = (await Promise.all(crowd.map(isIn))).filter(Boolean)
      assert.equal(alive.length, 2)
    }
    assert.deepEqual(await Promise.all([...browsers, other].map(isIn)), [false, false, false, true])
  })

  test('a session that is listed and ended on another replica is gone on its own within a moment', async (t) => {
    const { a, b, provider } = await startReplicas(t)
    provider.control.user = 'ada'
    const [here, there] = [a.browser(), b.browser()]
    await here.signIn()
    await there.signIn()
    assert.equal((await there.fetch('/api/orders')).status, 200)
    const listed = await listOf(here)
    assert.equal(listed.length, 2)
    const [other] = listed.filter(({ current }) => !current)
    assert.equal((await end(here, other?.id)).status, 204)
    for (let tries = 0; (await there.fetch('/api/orders')).status === 200; tries += 1) assert.ok(tries < 50)
    assert.equal((await listOf(here)).length, 1)
  })

  test('an operator lists and ends the sessions of one user; WebSockets or not, they are gone on every replica', async (t) => {
    const { a, b, provider, keys, config } = await startReplicas(t)
    const [here, there, ofBob] = [a.browser({ userAgent: 'Evil\x9b2J/1.0' }), b.browser(), a.browser()]
    provider.control.user = 'ada'
    await here.signIn()
    await there.signIn()
    provider.control.user = 'bob'
    await ofBob.signIn()
    const folder = await mkdtemp(join(tmpdir(), 'cloakroom-sessions-'))
    t.after(() => rm(folder, { recursive: true }))
    const file = async (name: string, changes: ConfigData) => {
      const place = { publicUrl: APP, listen: '127.0.0.1:0', adminListen: '127.0.0.1:0' }
      const path = join(folder, name)
      await writeFile(path, JSON.stringify(configWith({ ...config, ...changes }, place)))
      return path
    }
    const path = await file('cloakroom.yaml', {})
    async function run(...args: string[]) {
      let [out, err] = ['', '']
      const io = {
        stdout: { write: (text: string) => (out += text) },
        stderr: { write: (text: string) => (err += text) },
        env: { CLOAKROOM_CONFIG: path },
      }
      const code = await sessionsCommand(args, io)
      return { code, out, err }
    }

    const listed = await run('--user', 'ada')
    const [head = '', ...lines] = listed.out.trimEnd().split('\n')
    assert.equal(listed.code, 0)
    assert.match(head, /^ID +CREATED +LAST SEEN +FROM +BROWSER$/)
    assert.equal(lines.length, 2)
    for (const line of lines)
      assert.match(
        line,
        /^[\w-]{22} {2}\d{4}-\S+Z {2}\d{4}-\S+Z {2}127\.0\.0\.1 +(?:Evil\?2J|ScriptedBrowser)\/1\.0$/,
      )
    const ids = [here, there].map(sessionIdOf)
    assertNoSecrets({ out: listed.out }, [...ids, ...ids.map(sessionHash), ...provider.issuedSecrets])
    const nobody = await run('--user', 'nobody')
    assert.deepEqual([nobody.code, nobody.out], [1, ''])
    assert.match(nobody.err, /\ncloakroom sessions: this user has no sessions\n$/)
    assert.equal((await run('--user', 'ada', '--issuer', 'https://other.test')).code, 1)

    const ended = await run('--user', 'ada', '--end')
    assert.deepEqual([ended.code, ended.out], [0, '2 sessions have ended\n'])
    // What the audit stream of the replicas calls her, and a line for each of her sessions.
    const audited = (text: string) => {
      const lines = text.split('\n').filter((line) => line.startsWith('{'))
      return lines.map((line) => JSON.parse(line)).filter(({ stream }) => stream === 'audit')
    }
    const began = audited(a.logs.join('\n')).find(({ action }) => action === 'sign_in')
    for (const { err } of [listed, ended])
      assert.ok(err.includes(`in the audit log: ${began.subject}\n`), err)
    const names = ids.map((id) => sessionHash(id).slice(0, 12)).sort()
    const told = audited(ended.err).map(({ session, ...line }) => {
      const { action, reason, by, subject, count } = line
      return [session, action, reason, by, subject, count]
    })
    const same = ['session_ended', 'operator', 'operator', began.subject, 2]
    assert.deepEqual(
      told.sort(),
      names.map((name) => [name, ...same]),
    )
    const changed = await file('changed.yaml', {
      session: { ...(config.session as object), keys: [sessionKey(), keys[0]] },
    })
    const { err } = await run('--user', 'ada', '--config', changed)
    assert.ok(err.includes(`; under earlier session keys: ${began.subject}\n`), err)
    for (let tries = 0; (await isIn(here)) || (await isIn(there)); tries += 1) assert.ok(tries < 50)
    assert.equal(await isIn(ofBob), true)
    assert.equal((await run('--user', 'ada', '--end')).code, 1)

    const issuer = 'https://login.microsoftonline.com/organizations/v2.0'
    const shared = await file('tenants.yaml', { provider: { ...(config.provider as object), issuer } })
    const ofTenant = await run('--user', 'ada', '--config', shared)
    assert.deepEqual([ofTenant.code, ofTenant.out], [1, ''])
    assert.match(ofTenant.err, /for many tenants.*give --issuer/)
    assert.equal((await run()).code, 1)
    assert.match((await run('--user', '')).err, /--user SUB is missing/)
    assert.equal((await run('--help')).code, 0)
    const inMemory = await run(
      ...['--user', 'ada', '--config'],
      await file('memory.yaml', { session: { ...(config.session as object), store: { type: 'memory' } } }),
    )
    assert.deepEqual([inMemory.code, inMemory.out], [1, ''])
    assert.match(inMemory.err, /session\.store is memory/)
    assert.equal((await run('--user', 'ada', '--config', join(folder, 'none.yaml'))).code, 78)
    const store = { type: 'redis', url: 'redis://127.0.0.1:1' }
    const away = await file('away.yaml', { session: { ...(config.session as object), store } })
    const refused = await run('--user', 'ada', '--config', away)
    assert.equal(refused.code, 1)
    assert.match(refused.err, /redis did not serve readUserIndex: .*ECONNREFUSED/)
  })

  test('session keys change under load, added, promoted, removed: nobody is signed out, and nothing fails', async (t) => {
    const { a, b, provider, keys, config } = await startReplicas(t)
    provider.control.user = 'ada'
    const [oldKey = ''] = keys
    const newKey = sessionKey()
    const browsers: Browser[] = []
    const statuses = new Map<string, number>()
    let isLoaded = false
    const note = (what: string, { status, url }: { status: number; url: URL }) => {
      const key = `${what} ${status} ${url.pathname}`
      statuses.set(key, (statuses.get(key) ?? 0) + 1)
    }
    async function signIn(replica: RunningCloakroom): Promise<void> {
      const browser = replica.browser()
      note('sign-in', await browser.signIn())
      browsers.push(browser)
    }
    const paths = ['/api/orders', '/api/billing', '/bff/user', '/bff/sessions']
    async function load(worker: number): Promise<void> {
      for (let count = worker; isLoaded; count += 1) {
        const browser = browsers[count % browsers.length]!
        const via = [a, b][count % 2]!.listenUrl
        note('request', await browser.fetch(paths[count % paths.length]!, { via }))
        if (count % 40 === 0) await signIn([a, b][count % 2]!)
      }
    }
    const change = async (next: readonly string[]) => {
      for (const replica of [a, b]) {
        await replica.reload({ session: { ...(config.session as object), keys: next } })
        await signIn(a)
        await signIn(b)
      }
    }
    await signIn(a)
    await signIn(b)
    const underLoad = async (work: () => Promise<void>) => {
      isLoaded = true
      const workers = [0, 1, 2, 3].map(load)
      await work()
      isLoaded = false
      await Promise.all(workers)
    }
    await underLoad(async () => {
      await change([oldKey, newKey])
      await change([newKey, oldKey])
    })
    // The sessions of before, and sign-ins on their way, are over by the time that the old key goes.
    const older = browsers.splice(0, browsers.length)
    await signIn(a)
    await underLoad(() => change([newKey]))
    const bad = [...statuses.keys()].filter((key) => !/^(?:request|sign-in) 200 /.test(key))
    assert.deepEqual(bad, [], JSON.stringify([...statuses]))
    assert.ok(browsers.length >= 5 && older.length >= 10)
    const known = await listOf(browsers[0]!)
    assert.ok(known.filter(({ current }) => current).length === 1)
    t.diagnostic([...statuses].map(([key, count]) => `${key}: ${count}`).join(', '))
  })
})
