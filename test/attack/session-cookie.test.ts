import assert from 'node:assert/strict'
import { request } from 'node:http'
import { describe, test } from 'node:test'
import { setUp } from '../kit/attack/sign-in.ts'
import { sessionKey } from '../kit/config/cloakroom-config.ts'

const NAME = 'cloakroom'

/** The same cookie value as a parser reads it, written differently. */
const DISGUISES: Record<string, (value: string) => string> = {
  'a percent-encoded letter of the id': (value) =>
    value.replace(/^s%3A(.)/, (_, letter) => `s%3A%${letter.charCodeAt(0).toString(16)}`),
  'the prefix not encoded': (value) => value.replace('s%3A', 's:'),
  'the prefix in small letters': (value) => value.replace('s%3A', 's%3a'),
  'an encoded prefix letter': (value) => value.replace('s%3A', '%73%3A'),
  'an encoded dot': (value) => value.replace('.', '%2E'),
  quotes: (value) => `"${value}"`,
}

describe('a session that ended stays ended in every disguise of its cookie', () => {
  for (const [name, disguise] of Object.entries(DISGUISES)) {
    test(name, async (t) => {
      const { browser, cloakroom } = await setUp(t)
      await browser.signIn()
      const value = browser.cookies.find((cookie) => cookie.name === NAME)!.value
      const thief = cloakroom.browser()
      const ask = (path: string) => thief.fetch(path, { headers: { cookie: `${NAME}=${disguise(value)}` } })
      // Whether it is taken or not: what matters is that it is not remembered.
      await ask('/bff/user')
      await ask('/api/orders')
      assert.equal((await browser.fetch('/bff/logout', { method: 'POST' })).status, 200)
      assert.equal((await ask('/bff/user')).status, 401)
      assert.equal((await ask('/api/orders')).status, 401)
    })
  }
})

describe('no session is found for', () => {
  type Forge = (value: string, other: string) => string
  const forgeries: Record<string, Forge> = {
    'the id of one and the signature of another': (value, other) =>
      `${value.slice(0, value.indexOf('.'))}${other.slice(other.indexOf('.'))}`,
    'a cookie cut short': (value) => value.slice(0, -3),
    'a cookie with more behind it': (value) => `${value}A`,
    'the id alone': (value) => value.slice(0, value.indexOf('.')),
    'an empty id': (value) => `s%3A${value.slice(value.indexOf('.'))}`,
    'an empty cookie': () => '',
    'a broken percent-encoding': (value) => value.replace('s%3A', 's%3A%zz'),
    'the same cookie twice': (value) => `${value}; ${NAME}=${value}`,
    'two cookies of the name': (value) => `${value}; ${NAME}=s%3Aplanted.x`,
    'another planted before it behind a tab': (value) => `x; a=b;\t${NAME}=planted; ${NAME}x=${value}`,
    '15 KB of it': (value) => value + 'A'.repeat(15_000 - value.length),
  }
  for (const [name, forge] of Object.entries(forgeries)) {
    test(name, async (t) => {
      const { browser, cloakroom } = await setUp(t)
      await browser.signIn()
      const second = cloakroom.browser()
      await second.signIn()
      const [value, other] = [browser, second].map(
        ({ cookies }) => cookies.find((cookie) => cookie.name === NAME)!.value,
      )
      const cookie = `${NAME}=${forge(value!, other!)}`
      const answer = await cloakroom.browser().fetch('/bff/user', { headers: { cookie } })
      assert.deepEqual([answer.status, answer.json().code], [401, 'session_required'])
      assert.equal(answer.headers['set-cookie'], undefined)
    })
  }

  test('a cookie with any one bit turned', async (t) => {
    const { browser, cloakroom } = await setUp(t)
    await browser.signIn()
    const value = browser.cookies.find((cookie) => cookie.name === NAME)!.value
    const visitor = cloakroom.browser()
    for (let at = 0; at < value.length; at += 1) {
      const turned = String.fromCharCode(value.charCodeAt(at) ^ 1)
      if (!/[\w%.:+/-]/.test(turned)) continue
      const cookie = `${NAME}=${value.slice(0, at)}${turned}${value.slice(at + 1)}`
      assert.equal((await visitor.fetch('/bff/user', { headers: { cookie } })).status, 401, String(at))
    }
  })
})

test('two session cookies in one request are told in the log: at once, then once a minute, with no value of theirs', async (t) => {
  const { browser, cloakroom, advance } = await setUp(t)
  await browser.signIn()
  const value = browser.cookies.find((cookie) => cookie.name === NAME)!.value
  const cookie = `${NAME}=${value}; ${NAME}=s%3Aplanted.x`
  const visitor = cloakroom.browser()
  const warnings = () =>
    cloakroom.logs.map((line) => JSON.parse(line)).filter(({ reason }) => reason === 'repeated_cookie')
  for (let times = 0; times < 200; times += 1)
    assert.equal((await visitor.fetch('/api/orders', { headers: { cookie } })).status, 401)
  assert.equal(warnings().length, 1)
  advance(60_000)
  assert.equal((await twoCookieLines(cloakroom.listenUrl, value)).status, 401)
  assert.deepEqual(
    warnings().map(({ level, count }) => [level, count]),
    [
      ['warn', 1],
      ['warn', 200],
    ],
  )
  for (const line of cloakroom.logs)
    assert.ok(!line.includes('planted') && !line.includes(value.slice(4, 20)))
})

/** The same in two header lines of their own. */
function twoCookieLines(listenUrl: string, value: string): Promise<{ status: number | undefined }> {
  const headers = [
    'host',
    new URL(listenUrl).host,
    'x-csrf',
    '1',
    'cookie',
    `${NAME}=${value}`,
    'cookie',
    `${NAME}=planted`,
  ]
  return new Promise((resolve, reject) => {
    const req = request(`${listenUrl}/bff/user`, { headers }, (res) => {
      res.resume()
      resolve({ status: res.statusCode })
    })
    req.on('error', reject)
    req.end()
  })
}

test('a cookie planted before sign-in is neither used nor kept, even one that belongs to a living session', async (t) => {
  for (const sameSite of ['strict', 'lax']) {
    const session = { store: { type: 'memory' }, keys: [sessionKey()], cookie: { sameSite } }
    const { cloakroom, provider } = await setUp(t, { config: { session } })
    const attacker = cloakroom.browser()
    await attacker.signIn()
    const planted = attacker.cookies.find((cookie) => cookie.name === NAME)!.value
    const victim = attacker.clone()
    provider.control.user = 'victim'
    await victim.signIn()
    const now = victim.cookies.find((cookie) => cookie.name === NAME)!.value
    assert.notEqual(now, planted)
    assert.equal((await victim.fetch('/bff/user')).json().sub, 'victim')
    assert.equal((await attacker.fetch('/bff/user')).status, 401, sameSite)
  }
})

describe('the cookie is deleted with the attributes it was set with', () => {
  for (const publicUrl of [undefined, 'https://app.example.test']) {
    test(publicUrl ?? 'loopback', async (t) => {
      const { browser } = await setUp(t, { config: publicUrl ? { publicUrl } : {} })
      await browser.signIn()
      const set = browser.exchanges
        .flatMap(({ headers }) => headers['set-cookie'] ?? [])
        .find((cookie) => !cookie.includes('-login-'))!
      const logout = await browser.fetch('/bff/logout', { method: 'POST' })
      const [cleared] = logout.headers['set-cookie'] ?? []
      const attributes = (cookie: string) =>
        cookie
          .split('; ')
          .slice(1)
          .filter((part) => !/^(?:Expires|Max-Age)=/.test(part))
          .sort()
      assert.deepEqual(attributes(cleared!), attributes(set))
      assert.match(cleared!, /Expires=Thu, 01 Jan 1970/)
      if (publicUrl) assert.match(set, /^__Host-Http-cloakroom=.*; Secure/)
      assert.doesNotMatch(set, /Expires|Max-Age|Domain/i)
    })
  }
})

test('polling for ever keeps no session beyond its absolute timeout, and idling ends it at the idle one', async (t) => {
  const session = {
    store: { type: 'memory' },
    keys: [sessionKey()],
    idleTimeout: '30m',
    absoluteTimeout: '2h',
  }
  const { browser, advance } = await setUp(t, { config: { session } })
  await browser.signIn()
  for (let minutes = 0; minutes < 119; minutes += 17) {
    assert.equal((await browser.fetch('/bff/user')).status, 200, `${minutes} minutes`)
    advance(17 * 60_000)
  }
  advance(2 * 60_000)
  assert.equal((await browser.fetch('/bff/user')).status, 401)
  assert.equal((await browser.fetch('/api/orders')).status, 401)

  await browser.signIn()
  for (let minutes = 0; minutes < 25; minutes += 5) {
    assert.equal((await browser.fetch('/bff/user?slide=false')).status, 200)
    advance(5 * 60_000)
  }
  advance(6 * 60_000)
  assert.equal((await browser.fetch('/bff/user')).status, 401)
})
