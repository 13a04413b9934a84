import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { suite, type TestContext, test } from 'node:test'
import type { SessionConfig } from '../../../src/config/config.ts'
import { BffError } from '../../../src/errors.ts'
import {
  type BffSession,
  createSessions,
  type SessionsDeps,
  sessionHash,
} from '../../../src/session/session.ts'
import { createSessionStore } from '../../../src/store/session-store.ts'
import {
  type Contestant,
  memoryContestant,
  redisContestant,
  redisForThisFile,
  silentLog,
} from '../../kit/store/store-contestants.ts'

const server = redisForThisFile()

for (const contestant of [memoryContestant, redisContestant(server)]) {
  suite(`sessions over the ${contestant.name} store`, { skip: contestant.skip }, () => {
    sessionRules(contestant)
  })
}

const IDLE_MS = 60_000
const ABSOLUTE_MS = 600_000
const SIGNED_IN_AT = 1_000_000
const ALICE = { claims: { sub: 'alice' }, idToken: 'a.b.c', scopes: ['openid'] }

/** Seals by turning the text round and naming the id: enough to see that nothing passes unsealed. */
const seal = (id: string, text: string) => `${id}|${[...text].reverse().join('')}`
const open = (id: string, sealed: string) =>
  sealed.startsWith(`${id}|`) ? [...sealed.slice(id.length + 1)].reverse().join('') : undefined

/** No copies, so that every look is one at the store. */
const noCopy: SessionsDeps['copy'] = {
  peek: () => undefined,
  peekOf: () => undefined,
  load: (_key, _hash, read) => read(),
}

const requestWith = (cookie: string | undefined) => ({ headers: { cookie } }) as IncomingMessage

async function setUp(t: TestContext, contestant: Contestant, options: Partial<SessionsDeps> = {}) {
  const { store, elapse } = await contestant.open(t, { idleTimeoutMs: IDLE_MS })
  const clock = { time: SIGNED_IN_AT }
  const expired: string[] = []
  const cookie = { path: '/', httpOnly: true, secure: false, sameSite: 'strict' } as const
  const sessionsWith = (changed: Partial<SessionsDeps> = {}) =>
    createSessions({
      store: createSessionStore({ records: store.sessions, seal, open, hash: sessionHash, cookie }),
      records: store.sessions,
      config: {
        ...{ idleTimeoutMs: IDLE_MS, absoluteTimeoutMs: ABSOLUTE_MS },
        cookie: { name: 'sid', secure: false, sameSite: 'strict' },
      } as SessionConfig,
      signingSecrets: ['new', 'old'],
      copy: noCopy,
      expired: (id) => void expired.push(id),
      log: silentLog,
      now: () => clock.time,
      monotonicNow: () => clock.time,
      ...options,
      ...changed,
    })
  const sessions = sessionsWith()
  return { store, elapse, clock, expired, sessions, sessionsWith, signIn: signInOverHttp(t, sessions) }
}

/** Signs in with a real request and response; `cookie` is what a browser sends from then on. */
function signInOverHttp(t: TestContext, sessions: ReturnType<typeof createSessions>) {
  return async (
    headers: Record<string, string> = {},
    after: (req: IncomingMessage, res: ServerResponse) => void = () => {},
  ) => {
    let begun: BffSession | undefined
    let failure: unknown
    const site = createServer((req, res) => {
      sessions
        .signIn(req, res, ALICE)
        .then(
          (session) => {
            begun = session
            after(req, res)
          },
          (error) => {
            failure = error
          },
        )
        .finally(() => res.end('signed in'))
    }).listen(0, '127.0.0.1')
    t.after(() => site.close())
    await once(site, 'listening')
    const response = await fetch(`http://127.0.0.1:${(site.address() as AddressInfo).port}/`, { headers })
    await response.text()
    const setCookie = response.headers.getSetCookie()
    return { session: begun, failure, setCookie, cookie: setCookie[0]?.split(';')[0] }
  }
}

function sessionRules(contestant: Contestant): void {
  test('a session is read back with its end, and its cookie is the one that the config says', async (t) => {
    const { sessions, store, signIn } = await setUp(t, contestant)
    const { session, cookie, setCookie } = await signIn()
    assert.match(setCookie.join(), /^sid=s%3A[\w-]{43}\.[^;]+; Path=\/; HttpOnly; SameSite=Strict$/)
    assert.ok(session)
    assert.match(session.logoutHandle, /^[\w-]{22}$/)
    assert.deepEqual(await sessions.find(requestWith(cookie)), session)
    assert.deepEqual(session, {
      ...{ id: session.id, hash: sessionHash(session.id), logoutHandle: session.logoutHandle },
      ...ALICE,
      createdAt: SIGNED_IN_AT,
      expiresAt: SIGNED_IN_AT + IDLE_MS,
      idleExpiresAt: SIGNED_IN_AT + IDLE_MS,
      absoluteExpiresAt: SIGNED_IN_AT + ABSOLUTE_MS,
    })
    const sealed = (await store.sessions.read(session.hash)) ?? ''
    assert.doesNotMatch(sealed, /alice|cookie|sameSite/)
    assert.deepEqual(JSON.parse(open(session.id, sealed) ?? ''), {
      user: { ...ALICE, logoutHandle: session.logoutHandle },
      createdAt: SIGNED_IN_AT,
    })
  })

  test('peeking and asking for the time left do not extend a session, finding it does', async (t) => {
    const { sessions, elapse, signIn } = await setUp(t, contestant)
    const { cookie, session } = await signIn()
    await elapse(300)
    const peeked = await sessions.peek(requestWith(cookie))
    assert.ok(peeked && peeked.expiresAt <= SIGNED_IN_AT + IDLE_MS - 300)
    const left = await sessions.timeLeft(session!)
    assert.ok(left && left <= IDLE_MS - 300)
    assert.equal((await sessions.find(requestWith(cookie)))?.expiresAt, SIGNED_IN_AT + IDLE_MS)
    const after = await sessions.timeLeft(session!)
    assert.ok(after && after > IDLE_MS - 300)
  })

  test('the time left is that of a copy while it lives; past its end the store is asked', async (t) => {
    let copied: BffSession | undefined
    const copy: SessionsDeps['copy'] = {
      ...noCopy,
      peekOf: (hash) => (copied?.hash === hash ? copied : undefined),
    }
    const { sessions, store, clock, signIn } = await setUp(t, contestant, { copy })
    const { session } = await signIn()
    copied = { ...session!, expiresAt: clock.time + 100 }
    assert.equal(await sessions.timeLeft(session!), 100)
    clock.time += 100
    const left = await sessions.timeLeft(session!)
    assert.ok(left && left > 100, 'another replica has extended it')
    await store.sessions.end(session!.hash)
    assert.equal(await sessions.timeLeft(session!), undefined)
  })

  test('constant use does not carry a session beyond its absolute timeout, and its record stays for the other replicas', async (t) => {
    const { sessions, store, clock, expired, signIn } = await setUp(t, contestant)
    const { cookie, session } = await signIn()
    const { id, hash } = session!
    await store.tokens.create(hash, { refreshToken: 'sealed', accessTokens: {} })
    clock.time += ABSOLUTE_MS - 1
    assert.equal((await sessions.find(requestWith(cookie)))?.expiresAt, SIGNED_IN_AT + ABSOLUTE_MS)
    assert.equal(await sessions.timeLeft(session!), 1)
    assert.deepEqual(expired, [])
    clock.time += 1
    assert.equal(await sessions.find(requestWith(cookie)), undefined)
    assert.equal(await sessions.peek(requestWith(cookie)), undefined)
    assert.equal(await sessions.timeLeft(session!), undefined)
    assert.deepEqual(expired, [id, id])
    // Our clock may be the wrong one.
    assert.ok(await store.sessions.read(hash))
    assert.ok(await store.tokens.read(hash))
    clock.time -= 1
    assert.ok(await sessions.find(requestWith(cookie)))
  })

  test('a request of the background finds the session and extends nothing, and its copy keeps no other request from doing so', async (t) => {
    const copies = new Map<string, BffSession>()
    const copy: SessionsDeps['copy'] = {
      ...noCopy,
      peek: (key) => copies.get(key),
      async load(key, _hash, read) {
        const session = await read()
        if (session) copies.set(key, session)
        return session
      },
    }
    const uses: string[] = []
    const noteUse: SessionsDeps['noteUse'] = async ({ hash }) => void uses.push(hash)
    const { sessions, elapse, clock, signIn, store } = await setUp(t, contestant, { copy, noteUse })
    const { cookie, session } = await signIn()
    const background = (value = '1') =>
      ({ headers: { cookie, 'cloakroom-background': value } }) as unknown as IncomingMessage
    await elapse(300)
    clock.time += 300
    for (let count = 0; count < 2; count += 1) {
      const found = await sessions.find(background())
      assert.equal(found?.hash, session?.hash)
      assert.ok(found && found.idleExpiresAt <= clock.time + IDLE_MS - 300)
    }
    assert.equal(copies.size, 1)
    assert.ok(Number(await store.sessions.timeLeft(session!.hash)) <= IDLE_MS - 300)
    assert.equal((await sessions.find(requestWith(cookie)))?.idleExpiresAt, clock.time + IDLE_MS)
    assert.ok(Number(await store.sessions.timeLeft(session!.hash)) > IDLE_MS - 300)
    // The copy that slid serves both.
    assert.equal(sessions.find(background()), sessions.find(requestWith(cookie)))
    copies.clear()
    for (const value of ['0', 'true', '', '1, 1']) {
      await elapse(5)
      await sessions.find(background(value))
      assert.ok(Number(await store.sessions.timeLeft(session!.hash)) > IDLE_MS - 100, value)
      copies.clear()
    }
    assert.deepEqual(uses, [session!.hash], 'the sign-in alone, within the minute')
    clock.time += 60_000
    await sessions.find(background())
    assert.equal(uses.length, 1)
    await sessions.find(requestWith(cookie))
    assert.equal(uses.length, 2)
  })

  test('the provider shortens a session: by its claim, or by the end of its refresh token; never lengthens it', async (t) => {
    const { sessions, store, clock, signIn } = await setUp(t, contestant)
    const { cookie, session } = await signIn()
    const { id, hash } = session!
    async function endOf(user: object): Promise<number | undefined> {
      const before = (await store.sessions.read(hash)) ?? ''
      const contents = JSON.parse(open(id, before) ?? '')
      const after = seal(id, JSON.stringify({ ...contents, user: { ...contents.user, ...user } }))
      assert.equal(await store.sessions.replace(hash, { before, after }), true)
      const found = await sessions.find(requestWith(cookie))
      assert.equal(found?.expiresAt, found && Math.min(found.idleExpiresAt, found.absoluteExpiresAt))
      const leftMs = await sessions.timeLeft(session!)
      if (found) assert.ok(Math.abs(Number(leftMs) - (found.expiresAt - clock.time)) < 1_000)
      else assert.equal(leftMs, undefined)
      return found?.absoluteExpiresAt
    }
    const claims = (session_expiry: unknown) => ({ claims: { sub: 'alice', session_expiry } })
    const seconds = SIGNED_IN_AT / 1000
    assert.equal(await endOf(claims(seconds + 10)), SIGNED_IN_AT + 10_000)
    assert.equal(await endOf(claims(String(seconds + 20))), SIGNED_IN_AT + 20_000)
    assert.equal(await endOf(claims(seconds + 10_000)), SIGNED_IN_AT + ABSOLUTE_MS)
    for (const useless of [undefined, null, 0, -5, Number.NaN, 'soon', true, [seconds + 10], {}])
      assert.equal(await endOf(claims(useless)), SIGNED_IN_AT + ABSOLUTE_MS, String(useless))
    assert.equal(
      await endOf({ refreshTokenExpiresAt: SIGNED_IN_AT + 30_000, ...claims(seconds + 40) }),
      SIGNED_IN_AT + 30_000,
    )
    assert.equal(await endOf(claims(seconds + 20)), SIGNED_IN_AT + 20_000)
    clock.time += 20_000
    assert.equal(await endOf({}), undefined)
    assert.equal(await endOf({ ...claims(seconds + 25) }), SIGNED_IN_AT + 25_000)
  })

  test('a sign-in whose session is over by the claim of its own ID token is refused, and nothing is kept', async (t) => {
    const { sessions, clock } = await setUp(t, contestant)
    const user = { ...ALICE, claims: { sub: 'alice', session_expiry: SIGNED_IN_AT / 1000 } }
    assert.equal(clock.time, SIGNED_IN_AT)
    await assert.rejects(
      sessions.signIn({ headers: {} } as IncomingMessage, {} as ServerResponse, user),
      (error: unknown) =>
        error instanceof BffError &&
        error.code === 'invalid_callback' &&
        error.details?.reason === 'session_expiry',
    )
  })

  test('a session without a login time counts as absent', async (t) => {
    const { sessions, store, signIn } = await setUp(t, contestant)
    const { cookie, session } = await signIn()
    const { id, hash } = session!
    const before = (await store.sessions.read(hash)) ?? ''
    const { createdAt, ...contents } = JSON.parse(open(id, before) ?? '')
    assert.equal(
      await store.sessions.replace(hash, { before, after: seal(id, JSON.stringify(contents)) }),
      true,
    )
    assert.equal(await sessions.find(requestWith(cookie)), undefined)
    assert.equal(await sessions.timeLeft(session!), undefined)
  })

  test('a record that does not open counts as absent, and stays for the replica that has its key', async (t) => {
    const { sessions, sessionsWith, store, signIn } = await setUp(t, contestant)
    const { cookie, session } = await signIn()
    const none = { ...{ records: store.sessions, seal, hash: sessionHash }, open: () => undefined }
    const keyless = sessionsWith({ store: createSessionStore({ ...none, cookie: COOKIE }) })
    assert.equal(await keyless.find(requestWith(cookie)), undefined)
    assert.ok(await store.sessions.read(session!.hash))
    assert.ok(await sessions.find(requestWith(cookie)))
  })

  test('a session that has ended is not found in any way', async (t) => {
    const { sessions, store, signIn } = await setUp(t, contestant)
    const { cookie, session } = await signIn()
    await store.sessions.end(session!.hash)
    assert.equal(await sessions.find(requestWith(cookie)), undefined)
    assert.equal(await sessions.peek(requestWith(cookie)), undefined)
    assert.equal(await sessions.timeLeft(session!), undefined)
  })

  test('a clock that was set past the end of a copy asks the store, and the session goes on', async (t) => {
    const copies = new Map<string, BffSession>()
    const copy: SessionsDeps['copy'] = { ...noCopy, peek: (key) => copies.get(key) }
    const { sessions, clock, signIn } = await setUp(t, contestant, { copy })
    const { cookie, session } = await signIn()
    copies.set(cookie!.slice('sid='.length), session!)
    assert.equal(sessions.find(requestWith(cookie)), session)
    clock.time += IDLE_MS
    const found = await sessions.find(requestWith(cookie))
    assert.equal(found?.expiresAt, clock.time + IDLE_MS)
  })

  test('a sign-in takes no cookie of the request, and a cookie that an older key signed still opens its session', async (t) => {
    const { sessions, sessionsWith, signIn } = await setUp(t, contestant)
    const planted = await signIn()
    const second = await signIn({ cookie: planted.cookie! })
    assert.notEqual(second.session?.id, planted.session?.id)
    assert.notEqual(second.cookie, planted.cookie)
    assert.ok(
      await sessions.find(requestWith(planted.cookie)),
      'it ends when the new one is safe, not before',
    )
    const rotated = sessionsWith({ signingSecrets: ['newest', 'new'] })
    assert.equal((await rotated.find(requestWith(second.cookie)))?.id, second.session?.id)
    const withoutKey = sessionsWith({ signingSecrets: ['newest'] })
    assert.equal(withoutKey.find(requestWith(second.cookie)), undefined)
    assert.equal(await withoutKey.peek(requestWith(second.cookie)), undefined)
  })

  test('a session that was withdrawn, or could not be saved, sends no cookie', async (t) => {
    const { sessions, signIn } = await setUp(t, contestant)
    assert.deepEqual((await signIn({}, (req) => sessions.withdraw(req))).setCookie, [])
    const away = async () => {
      throw new BffError('store_unavailable', 'away')
    }
    const records = { read: away, create: away, end: away }
    const store = createSessionStore({ records, seal, open, hash: sessionHash, cookie: COOKIE })
    const broken = await setUp(t, contestant, { store })
    const { setCookie, failure } = await broken.signIn()
    assert.deepEqual(setCookie, [])
    assert.ok(failure instanceof BffError && failure.code === 'store_unavailable')
  })
}

const COOKIE = { path: '/', httpOnly: true, secure: false, sameSite: 'strict' } as const
