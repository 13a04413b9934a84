import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { CloakroomError, createCloakroom } from '../../../src/client/client.ts'
import type { CloakroomOptions, ProblemCode } from '../../../src/client/types.ts'
import type { ErrorCode } from '../../../src/errors.ts'
import {
  type Answer,
  eventually,
  type FakeUpload,
  fakeBrowser,
  fakeUploads,
} from '../../kit/browsers/fake-tabs.ts'

const ADA = { iss: 'https://idp.test', sub: 'ada', name: 'Ada' }
const GRACE = { iss: 'https://idp.test', sub: 'grace', name: 'Grace' }
const NO_SESSION = { code: 'session_required', status: 401 }

// The helper imports nothing, so its list is its own.
const _codes: [ProblemCode] extends [ErrorCode] ? ([ErrorCode] extends [ProblemCode] ? true : never) : never =
  true

/** A server with one session, and any number of tabs. */
function setUp(t: TestContext, { user = ADA as object | undefined, secondsLeft = 1800 } = {}) {
  const session = { user, id: 1, secondsLeft, slides: 0, stepUp: false }
  const posted: string[] = []
  const browser = fakeBrowser(t, ({ method, path, headers, body }): Answer => {
    assert.equal(headers.get('x-csrf'), '1', path)
    if (path.startsWith('/bff/user')) {
      if (!session.user) return { status: 204 }
      if (!headers.has('cloakroom-background')) session.slides += 1
      const facts = { 'bff:session_expires_in': session.secondsLeft, 'bff:logout_url': `${session.id}` }
      return { status: 200, json: { ...session.user, ...facts } }
    }
    if (path.startsWith('/bff/logout')) {
      session.user = undefined
      return { status: 200, json: { redirect: 'https://idp.test/end' } }
    }
    if (path === '/api/own401') return { status: 401, json: { code: 'session_required' } }
    if (!session.user) return NO_SESSION
    if (session.stepUp && method === 'POST') {
      const login_url = `/bff/login?returnUrl=/api/x&challenge=${browser.seen.length}`
      return { code: 'reauthentication_required', status: 401, more: { login_url, reason: 'claims' } }
    }
    if (method === 'POST') posted.push(body)
    return { status: method === 'POST' ? 201 : 200, json: { ok: true } }
  })
  async function tab(options: CloakroomOptions = {}) {
    const cloakroom = createCloakroom({ fetch: browser.fetch, ...options })
    await cloakroom.refresh()
    return cloakroom
  }
  return { ...browser, session, posted, tab }
}

test('it knows who is signed in, and gives the same snapshot until that changes', async (t) => {
  const { tab, session } = setUp(t)
  const cloakroom = createCloakroom({ fetch: async () => new Response(null, { status: 204 }) })
  assert.deepEqual(cloakroom.getSnapshot(), { status: 'unknown', expiring: false })
  const { getSnapshot, refresh, extend } = await tab()
  const first = getSnapshot()
  assert.deepEqual([first.status, first.user, first.expiring], ['signed-in', ADA, false])
  assert.ok(Math.abs(first.expiresAt! - Date.now() - 1_800_000) < 2_000)
  await refresh()
  assert.equal(getSnapshot(), first)
  assert.equal(session.slides, 0)
  await extend()
  assert.equal(session.slides, 1)
})

test('background calls say so, and none is sent again before a sign-in', async (t) => {
  const { tab, session, count, seen } = setUp(t)
  let questions = 0
  const tabs = await Promise.all([1, 2, 3].map(() => tab({ onSignInNeeded: () => (questions += 1) })))
  session.user = undefined
  for (let round = 0; round < 3; round += 1)
    for (const { fetch } of tabs)
      await assert.rejects(fetch('/api/orders', { background: true }), { code: 'session_required' })
  assert.equal(count('/api/orders'), 3)
  assert.ok(
    seen.every(({ path, headers }) => path !== '/api/orders' || headers.get('cloakroom-background') === '1'),
  )
  assert.equal(questions, 0)
  session.user = ADA
  await tabs[0]!.refresh()
  await eventually(() => tabs.every(({ getSnapshot }) => getSnapshot().status === 'signed-in'))
  for (const { fetch } of tabs) assert.equal((await fetch('/api/orders', { background: true })).status, 200)
})

test("an API's own 401 is an answer like any other", async (t) => {
  const { tab } = setUp(t)
  let questions = 0
  const { fetch, getSnapshot } = await tab({ onSignInNeeded: () => (questions += 1) })
  assert.equal((await fetch('/api/own401')).status, 401)
  assert.deepEqual([questions, getSnapshot().status], [0, 'signed-in'])
})

test('other refusals have the fields of the problem', async () => {
  const headers = { 'cloakroom-error': 'store_unavailable', 'retry-after': '2' }
  const body = JSON.stringify({ code: 'store_unavailable', status: 503, request_id: 'r1', detail: 'away' })
  const { fetch } = createCloakroom({ fetch: async () => new Response(body, { status: 503, headers }) })
  await assert.rejects(fetch('https://app.test/x'), (error) => {
    assert.ok(error instanceof CloakroomError)
    const { code, status, requestId, retryAfter, needsSignIn, message } = error
    const expected = ['store_unavailable', 503, 'r1', 2, false, 'away']
    assert.deepEqual([code, status, requestId, retryAfter, needsSignIn, message], expected)
    return true
  })
})

test('one question however many calls fail, and all that wait are sent once more with what they carried', async (t) => {
  const { tab, session, posted, opened, finishPopup } = setUp(t)
  let questions = 0
  const cloakroom = await tab({ onSignInNeeded: () => (questions += 1) })
  session.user = undefined
  const sent = ['a', 'b', 'c'].map((body) =>
    cloakroom.fetch('/api/orders', { method: 'POST', body, whenSignedOut: 'wait' }),
  )
  const thrown = cloakroom.fetch('/api/other')
  await assert.rejects(thrown, { needsSignIn: true, loginUrl: '/bff/login' })
  await eventually(() => questions === 1)
  const signedIn = cloakroom.signIn({ mode: 'popup' })
  assert.match(
    String(opened[0]!.url),
    /^https:\/\/app\.test\/bff\/login\?returnUrl=%2Fbff%2Fdone%3Fid%3D[\d.]+$/,
  )
  session.user = ADA
  finishPopup()
  assert.equal((await signedIn).status, 'signed-in')
  assert.deepEqual(
    (await Promise.all(sent)).map(({ status }) => status),
    [201, 201, 201],
  )
  assert.deepEqual(posted.toSorted(), ['a', 'b', 'c'])
  assert.equal(questions, 1)
})

test('a popup that is blocked, was closed or failed is told, and what waits goes on waiting', async (t) => {
  const { tab, session, posted, opened, focus, dispatch, blockPopups, finishPopup } = setUp(t)
  const cloakroom = await tab({ onSignInNeeded: () => undefined })
  session.user = undefined
  const sent = cloakroom.fetch('/api/orders', { method: 'POST', body: 'kept', whenSignedOut: 'wait' })
  await eventually(() => cloakroom.getSnapshot().status === 'signed-out')
  const first = cloakroom.signIn({ mode: 'popup' })
  // Cloakroom's pages have a COOP: every popup looks closed, from the beginning.
  opened[0]!.closed = true
  dispatch('focus')
  await Promise.race([first, new Promise((resolve) => setTimeout(resolve, 200))])
  focus.isHere = false
  await new Promise((resolve) => setTimeout(resolve, 100))
  focus.isHere = true
  await assert.rejects(first, { reason: 'popup_closed', needsSignIn: true })
  const second = cloakroom.signIn({ mode: 'popup', prompt: 'none', loginHint: 'ada' })
  assert.deepEqual(
    ['prompt', 'login_hint'].map((name) => opened[1]!.url.searchParams.get(name)),
    ['none', 'ada'],
  )
  finishPopup({ code: 'session_required', reason: 'login_required', requestId: 'r9' })
  await assert.rejects(second, { reason: 'login_required', requestId: 'r9' })
  const third = cloakroom.signIn({ mode: 'popup' })
  session.user = ADA
  finishPopup()
  await third
  assert.equal((await sent).status, 201)
  assert.deepEqual(posted, ['kept'])
  blockPopups()
  await assert.rejects(cloakroom.signIn({ mode: 'popup' }), { reason: 'popup_blocked' })
})

test("what one user wrote is not sent as another's, and a change of user is told", async (t) => {
  const { tab, session, posted, finishPopup } = setUp(t)
  const cloakroom = await tab({ onSignInNeeded: () => undefined })
  const other = await tab()
  const changes: unknown[] = []
  other.on('user-changed', ({ user }) => changes.push(user?.sub))
  session.user = undefined
  const sent = cloakroom.fetch('/api/orders', { method: 'POST', body: 'of Ada', whenSignedOut: 'wait' })
  const refusal = assert.rejects(sent, { code: 'session_required' })
  await eventually(() => cloakroom.getSnapshot().status === 'signed-out')
  session.user = GRACE
  void cloakroom.signIn({ mode: 'popup' })
  finishPopup()
  await refusal
  assert.deepEqual(posted, [])
  await eventually(() => changes.length > 0)
  assert.deepEqual(changes, ['grace'])
})

test('a user who declines, or a signal, ends the waiting', async (t) => {
  const { tab, session } = setUp(t)
  let questions = 0
  const cloakroom = await tab({
    onSignInNeeded: async () => {
      questions += 1
      return false
    },
  })
  session.user = undefined
  for (let round = 1; round < 3; round += 1) {
    await assert.rejects(cloakroom.fetch('/api/orders', { whenSignedOut: 'wait' }), { needsSignIn: true })
    assert.equal(questions, round)
  }
  const patient = await tab({ onSignInNeeded: () => undefined })
  const controller = new AbortController()
  const { signal } = controller
  const sent = patient.fetch('/api/orders', { whenSignedOut: 'wait', signal })
  setTimeout(() => controller.abort(new Error('left the page')), 50)
  await assert.rejects(sent, /left the page/)
})

test('a step-up opens its own login URL, and a new one after a popup that failed', async (t) => {
  const { tab, session, opened, finishPopup, posted } = setUp(t)
  const cloakroom = await tab({ onSignInNeeded: () => undefined })
  session.stepUp = true
  const sent = cloakroom.fetch('/api/x', { method: 'POST', body: 'pay', whenSignedOut: 'wait' })
  const challenge = () => opened.at(-1)!.url.searchParams.get('challenge')
  let asked = 0
  cloakroom.on('sign-in-needed', () => (asked += 1))
  await eventually(() => asked === 1)
  const failed = cloakroom.signIn({ mode: 'popup' })
  const first = challenge()
  assert.ok(first)
  finishPopup({ code: 'provider_unavailable', status: 503 })
  await assert.rejects(failed, { code: 'provider_unavailable' })
  await new Promise((resolve) => setTimeout(resolve, 20))
  const done = cloakroom.signIn({ mode: 'popup' })
  assert.ok(challenge() && challenge() !== first)
  assert.equal(cloakroom.getSnapshot().status, 'signed-in')
  session.stepUp = false
  finishPopup()
  await done
  assert.equal((await sent).status, 201)
  assert.deepEqual([posted, asked], [['pay'], 1])
})

test('a sign-in by redirect leaves for the login page and no other', async (t) => {
  const { tab, left } = setUp(t)
  const { signIn } = await tab()
  void signIn()
  void signIn({ returnTo: '/x', loginUrl: '/bff/login?returnUrl=/api&challenge=c' })
  assert.deepEqual(left, [
    'https://app.test/bff/login?returnUrl=%2Fpage%3Fq%3D1%23h',
    'https://app.test/bff/login?returnUrl=%2Fx&challenge=c',
  ])
  for (const loginUrl of ['https://evil.test/bff/login', '//evil.test/', 'javascript:alert(1)'])
    await assert.rejects(signIn({ loginUrl }), TypeError)
})

test('a sign-out is seen by the other tabs at once', async (t) => {
  const { tab, left } = setUp(t)
  const [one, other] = [await tab(), await tab()]
  const seen = new Promise((resolve) => other.on('signed-out', resolve))
  const began = performance.now()
  await one.signOut({ returnTo: '/bye' })
  await seen
  assert.ok(performance.now() - began < 300)
  assert.deepEqual(left, ['https://idp.test/end'])
  assert.equal(other.getSnapshot().user, undefined)
})

test("the end is announced, and another tab's activity takes that back", async (t) => {
  const { tab, session } = setUp(t, { secondsLeft: 3 })
  const [one, other] = [await tab({ warnBefore: 2 }), await tab({ warnBefore: 2 })]
  assert.equal(one.getSnapshot().expiring, false)
  session.secondsLeft = 2
  await new Promise((resolve) => one.on('expiring', resolve))
  await eventually(() => other.getSnapshot().expiring)
  session.secondsLeft = 1800
  await other.fetch('/api/orders')
  await eventually(() => !one.getSnapshot().expiring && !other.getSnapshot().expiring)
  session.secondsLeft = 1
  await one.refresh()
  session.user = undefined
  await eventually(() => other.getSnapshot().status === 'signed-out')
})

test('a step-up or sign-in by redirect in another tab wakes what waits here, and extends nothing', async (t) => {
  const { tab, session, posted, count } = setUp(t)
  let questions = 0
  const cloakroom = await tab({ onSignInNeeded: () => (questions += 1) })
  session.stepUp = true
  const sent = cloakroom.fetch('/api/x', { method: 'POST', body: 'pay', whenSignedOut: 'wait' })
  await eventually(() => questions === 1)
  // The other tab comes back from the provider: its page is loaded, and the session has another name.
  session.stepUp = false
  session.id += 1
  await tab()
  assert.equal((await sent).status, 201)
  assert.deepEqual([posted, questions, session.slides], [['pay'], 1, 0])
  assert.ok(count('/bff/user') < 12)
})

test('a request that each sign-in sends round in a circle is refused in the end', async (t) => {
  const { tab, session, finishPopup } = setUp(t)
  session.stepUp = true
  let questions = 0
  const cloakroom = await tab({
    onSignInNeeded() {
      questions += 1
      void cloakroom.signIn({ mode: 'popup' }).catch(() => {})
      session.id += 1
      finishPopup()
    },
  })
  const sent = cloakroom.fetch('/api/x', { method: 'POST', body: 'never', whenSignedOut: 'wait' })
  await assert.rejects(sent, { code: 'reauthentication_required' })
  assert.ok(questions <= 9, `${questions}`)
})

test('a server that fails, or a page of something in between, signs nobody out, and is asked again', async (t) => {
  const { tab, fetch, session } = setUp(t)
  let between: Response | undefined
  const cloakroom = await tab({ fetch: async (input, init) => between ?? fetch(input, init) })
  for (const status of [502, 404, 200]) {
    between = new Response(status === 404 ? '{"sub":"nobody"}' : '<h1>captive portal</h1>', { status })
    assert.equal((await cloakroom.refresh()).user?.sub, 'ada', `${status}`)
    await assert.rejects(cloakroom.extend())
  }
  between = undefined
  session.user = undefined
  assert.equal((await cloakroom.refresh()).status, 'signed-out')
})

test('a page that is closed for its successor, as by hot reload, asks nothing any more', async (t) => {
  const { tab, count, dispatch } = setUp(t)
  const cloakroom = await tab()
  cloakroom.close()
  const asked = count('/bff/user')
  dispatch('focus')
  const next = await tab()
  await next.refresh()
  assert.equal(count('/bff/user'), asked + 2)
})

test('a file is sent with its progress, ends when it is aborted, and its refusal is one of Cloakroom', async (t) => {
  const { tab, session } = setUp(t)
  const sent: FakeUpload[] = []
  fakeUploads(t, sent, () => (session.user ? { status: 201 } : NO_SESSION))
  const cloakroom = await tab({ onSignInNeeded: () => undefined })
  const progress: number[] = []
  const options = {
    headers: { 'X-Name': 'a' },
    onProgress: ({ loaded }: { loaded: number }) => void progress.push(loaded),
  }
  const answer = await cloakroom.upload('/api/files', 'content', options)
  assert.deepEqual(
    [answer.status, answer.headers.get('location'), await answer.text()],
    [201, '/files/1', 'stored'],
  )
  assert.deepEqual(progress, [7])
  assert.deepEqual(sent[0]!.headers, { 'X-CSRF': '1', 'X-Name': 'a' })

  session.user = undefined
  const waiting = cloakroom.upload('/api/files', 'later', { whenSignedOut: 'wait' })
  await eventually(() => cloakroom.getSnapshot().status === 'signed-out')
  assert.equal(sent.length, 1)
  session.user = ADA
  await cloakroom.refresh()
  assert.equal((await waiting).status, 201)
  await assert.rejects(cloakroom.upload('/api/files', 'never', { signal: AbortSignal.abort() }), {
    name: 'AbortError',
  })
  assert.equal(sent.length, 2)
})

test('an upload whose connection breaks is refused when the session has ended, and else has failed', async (t) => {
  const { tab, session } = setUp(t)
  let uploads = 0
  fakeUploads(t, [], () => {
    uploads += 1
    // The session ends while the second is on its way.
    if (uploads === 2) session.user = undefined
    return uploads === 3 ? { status: 201 } : Response.error()
  })
  const cloakroom = await tab({ onSignInNeeded: () => undefined })
  await assert.rejects(cloakroom.upload('/api/files', 'content'), TypeError)
  const waiting = cloakroom.upload('/api/files', 'content', { whenSignedOut: 'wait' })
  await eventually(() => cloakroom.getSnapshot().status === 'signed-out')
  session.user = ADA
  await cloakroom.refresh()
  assert.equal((await waiting).status, 201)
})
