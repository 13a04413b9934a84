import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { createCloakroom } from '../../../src/client/client.ts'
import type { CloakroomOptions, StreamEvent } from '../../../src/client/types.ts'
import { type Answer, eventually, fakeBrowser } from '../../kit/browsers/fake-tabs.ts'

/** A server that answers `/bff/user` by `session`, and everything else by `answer`. */
function setUp(t: TestContext, answer: (path: string) => Answer = () => ({ status: 200 })) {
  const session = { user: { sub: 'ada' } as object | undefined, id: 1 }
  const browser = fakeBrowser(t, ({ path }): Answer => {
    if (!path.startsWith('/bff/user')) return session.user ? answer(path) : REFUSAL
    const facts = { 'bff:session_expires_in': 1800, 'bff:logout_url': `${session.id}` }
    return session.user ? { status: 200, json: { ...session.user, ...facts } } : { status: 204 }
  })
  async function tab(options: CloakroomOptions = {}) {
    const cloakroom = createCloakroom({ fetch: browser.fetch, ...options })
    await cloakroom.refresh()
    return cloakroom
  }
  return { ...browser, session, tab }
}

const REFUSAL = { code: 'session_required', status: 401 }

test('a page that comes back from the history, or from another window, asks who is signed in', async (t) => {
  const { tab, session, dispatch } = setUp(t)
  const { getSnapshot } = await tab()
  session.user = undefined
  dispatch('pageshow')
  await eventually(() => getSnapshot().status === 'signed-out')
  session.user = { sub: 'ada' }
  dispatch('focus')
  await eventually(() => getSnapshot().status === 'signed-in')
})

test('an answer that was overtaken by a sign-in signs nobody out', async (t) => {
  const { tab, session, fetch, opened, finishPopup } = setUp(t)
  session.user = undefined
  const held: (() => void)[] = []
  let holds = false
  const cloakroom = await tab({
    async fetch(input, init) {
      const answer = await fetch(input, init)
      if (holds) await new Promise<void>((resolve) => held.push(resolve))
      return answer
    },
  })
  holds = true
  const late = cloakroom.refresh()
  await eventually(() => held.length === 1)
  holds = false
  const signedIn = cloakroom.signIn({ mode: 'popup' })
  session.user = { sub: 'ada' }
  finishPopup()
  assert.equal((await signedIn).status, 'signed-in')
  held[0]!()
  assert.equal((await late).status, 'signed-in')
  assert.equal(opened.length, 1)
})

test('a hundred refused calls ask the user once and the server once', async (t) => {
  const { tab, session, count } = setUp(t)
  let questions = 0
  const cloakroom = await tab({ onSignInNeeded: () => (questions += 1) })
  const asked = count('/bff/user')
  session.user = undefined
  const sent = Array.from({ length: 100 }, (_, index) =>
    cloakroom.fetch(`/api/${index}`, { method: 'POST', body: 'x', whenSignedOut: 'wait' }),
  )
  await eventually(() => questions === 1)
  assert.equal(count('/bff/user'), asked + 1)
  Object.assign(session, { user: { sub: 'ada' }, id: 2 })
  await cloakroom.refresh()
  const answers = await Promise.all(sent)
  assert.ok(answers.every(({ status }) => status === 200))
})

test('a listener or a question that throws disturbs nothing, and the call that waits is refused', async (t) => {
  const { tab, session } = setUp(t)
  const cloakroom = await tab({
    onSignInNeeded() {
      throw new Error('the dialog is broken')
    },
  })
  session.user = undefined
  await assert.rejects(cloakroom.fetch('/api/x', { whenSignedOut: 'wait' }), REFUSAL)
  await assert.rejects(cloakroom.fetch('/api/x', { method: 'HEAD' }), REFUSAL)
})

test('a login URL of another origin is never opened', async (t) => {
  const more = { login_url: 'https://evil.test/bff/login' }
  const { tab, left, opened } = setUp(t, () => ({ code: 'reauthentication_required', status: 401, more }))
  const { fetch, signIn } = await tab()
  await assert.rejects(fetch('https://api.evil.test/x'), { loginUrl: more.login_url })
  await assert.rejects(signIn(), TypeError)
  await assert.rejects(signIn({ mode: 'popup' }), TypeError)
  assert.deepEqual([left, opened], [[], []])
})

test('a second click gives up the first popup, and any popup that succeeds counts', async (t) => {
  const { tab, session, finishPopup } = setUp(t)
  session.user = undefined
  const { signIn } = await tab()
  const [first, second] = [signIn({ mode: 'popup' }), signIn({ mode: 'popup' })]
  await assert.rejects(first, { reason: 'popup_closed' })
  session.user = { sub: 'ada' }
  finishPopup({ done: 'of another tab' })
  assert.equal((await second).status, 'signed-in')
})

test('what others post on the channel changes nothing that the server does not say', async (t) => {
  const { tab } = setUp(t)
  const { getSnapshot } = await tab()
  const channel = new BroadcastChannel('cloakroom:/bff')
  const claims = { status: 'signed-out', user: { sub: 'mallory' }, id: '', expiresAt: 1 }
  for (const message of [{}, claims, { session: claims }, { done: '' }, { code: 'bad_request' }, 'text', 7])
    channel.postMessage(message)
  await new Promise((resolve) => setTimeout(resolve, 100))
  channel.close()
  assert.deepEqual([getSnapshot().status, getSnapshot().user], ['signed-in', { sub: 'ada' }])
})

test('while offline nothing is forgotten, and nobody is asked', async (t) => {
  const { tab, fetch } = setUp(t)
  let isOffline = false
  const cloakroom = await tab({
    fetch: (input, init) => (isOffline ? Promise.reject(new TypeError('offline')) : fetch(input, init)),
    onSignInNeeded: () => assert.fail('asked'),
  })
  isOffline = true
  await assert.rejects(cloakroom.fetch('/api/x', { whenSignedOut: 'wait' }), TypeError)
  assert.equal((await cloakroom.refresh()).status, 'signed-in')
  const { status } = await tab({ fetch: () => Promise.reject(new TypeError('offline')) }).then((one) =>
    one.getSnapshot(),
  )
  assert.equal(status, 'unknown')
})

test('an event stream reads what is odd, passes over what was cut off, and gives up where there is none', async (t) => {
  const type = { 'content-type': 'text/event-stream' }
  const bodies = [
    'retry: 1\nid: 1\ndata: a\u2028id: 9\n\nid\ndata\n\nid: 2\ndata: whole\n\nid: 3\ndata: cut off\n',
    '__proto__: x\ndata:  two blanks\n\n',
    '<h1>a page</h1>',
  ]
  let asked = 0
  const { tab, seen } = setUp(t, () => {
    const body = bodies[asked]!
    asked += 1
    return new Response(body, { headers: asked > 2 ? { 'content-type': 'text/html' } : type })
  })
  const cloakroom = await tab()
  const [events, states] = [[] as StreamEvent[], [] as string[]]
  cloakroom.eventSource('/api/events', {
    onMessage: (event) => events.push(event),
    onState: (state) => states.push(state),
  })
  await eventually(() => states.at(-1) === 'closed')
  assert.deepEqual(
    events.map(({ data, lastEventId }) => [data, lastEventId]),
    [
      ['a\u2028id: 9', '1'],
      ['', ''],
      ['whole', '2'],
      [' two blanks', '2'],
    ],
  )
  const ids = seen
    .filter(({ path }) => path === '/api/events')
    .map(({ headers }) => headers.get('last-event-id'))
  assert.deepEqual(ids, [null, '2', '2'])
})
