import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import { createSigner } from '../../src/demo/scripted/signing.ts'
import { setUp as setUpSignIn } from '../kit/attack/sign-in.ts'
import type { Browser } from '../kit/browsers/browser.ts'
import { eventually } from '../kit/shops/deadline.ts'

type Setup = Awaited<ReturnType<typeof setUpSignIn>>

const EVENT = 'http://schemas.openid.net/event/backchannel-logout'
const FORM = 'application/x-www-form-urlencoded'

/** One system for all tests of this file: a provider, an API and Cloakroom. */
let system: Setup
const cleanUps: (() => unknown)[] = []
before(async () => {
  system = await setUpSignIn({ after: (cleanUp) => cleanUps.push(cleanUp) })
})
after(async () => {
  for (const cleanUp of cleanUps.reverse()) await cleanUp()
})

let count = 0
const fresh = (name: string) => `${name}-${++count}`

async function signedIn(sub: string, sid?: string): Promise<Browser> {
  const { provider, cloakroom } = system
  provider.control.user = sub
  provider.control.idTokenClaims = sid === undefined ? {} : { sid }
  const browser = cloakroom.browser()
  await browser.signIn()
  return browser
}

async function isSignedIn(browser: Browser): Promise<boolean> {
  return (await browser.fetch('/bff/user')).status === 200
}

const areSignedIn = (...browsers: Browser[]) => Promise.all(browsers.map(isSignedIn))

async function post(
  body: string | URLSearchParams,
  headers: Record<string, string> = { 'content-type': FORM },
) {
  const url = `${system.cloakroom.listenUrl}/bff/backchannel-logout`
  const answer = await fetch(url, { method: 'POST', body: String(body), headers, redirect: 'manual' })
  const text = await answer.text()
  return { status: answer.status, headers: answer.headers, text, json: () => JSON.parse(text) }
}

async function logout(claims: Record<string, unknown>, header?: Record<string, string>) {
  const token = await system.provider.logoutToken(claims, header)
  return { token, answer: await post(new URLSearchParams({ logout_token: token })) }
}

async function ended(reason: string): Promise<number> {
  const metrics = await (await fetch(`${system.cloakroom.adminUrl}/metrics`)).text()
  const [, value = '0'] =
    new RegExp(`^cloakroom_sessions_total\\{[^}]*reason="${reason}"[^}]*\\} (\\d+)$`, 'm').exec(metrics) ?? []
  return Number(value)
}

suite('a back-channel logout', () => {
  test('by sid ends the sessions that began in one session at the provider, and no other of the user', async () => {
    const [sub, one, two] = [fresh('ada'), fresh('sid'), fresh('sid')]
    const mine = await Promise.all([signedIn(sub, one)])
    const [other, nameless] = [await signedIn(sub, two), await signedIn(sub)]
    const before = await ended('backchannel_logout')
    const { answer } = await logout({ sid: one })
    assert.deepEqual([answer.status, answer.text], [200, ''])
    assert.equal(answer.headers.get('cache-control'), 'no-store')
    assert.equal(answer.headers.get('set-cookie'), null)
    assert.deepEqual(await areSignedIn(...mine, other, nameless), [false, true, true])
    assert.equal(await ended('backchannel_logout'), before + 1)
  })

  test('by sub ends every session of a user, and of nobody else', async () => {
    const [ada, bob] = [fresh('ada'), fresh('bob')]
    const browsers = [await signedIn(ada, fresh('sid')), await signedIn(ada), await signedIn(bob)]
    assert.equal((await logout({ sub: ada })).answer.status, 200)
    assert.deepEqual(await areSignedIn(...browsers), [false, false, true])
  })

  test('by both ends what is of both, and the sid of one user ends nothing of another', async () => {
    const [ada, bob, sid] = [fresh('ada'), fresh('bob'), fresh('sid')]
    const browsers = [await signedIn(ada, sid), await signedIn(ada, fresh('sid'))]
    assert.equal((await logout({ sub: bob, sid })).answer.status, 200)
    assert.deepEqual(await areSignedIn(...browsers), [true, true])
    assert.equal((await logout({ sub: ada, sid })).answer.status, 200)
    assert.deepEqual(await areSignedIn(...browsers), [false, true])
  })

  test('of an unknown session or user is done at once', async () => {
    assert.equal((await logout({ sid: fresh('unknown') })).answer.status, 200)
    assert.equal((await logout({ sub: fresh('unknown') })).answer.status, 200)
  })

  test('leaves one line that tells which sessions have ended and why, and no word of the token', async () => {
    const [sub, sid] = [fresh('ada'), fresh('sid')]
    await signedIn(sub, sid)
    const { logs } = system.cloakroom
    const from = logs.length
    const { token } = await logout({ sub, sid })
    await logout({ sub, sid, iss: 'https://elsewhere.example' })
    const lines = logs.slice(from).join('\n')
    assert.match(
      lines,
      /"session":"[\w-]{12}","reason":"backchannel_logout".*a session was ended from elsewhere/,
    )
    assert.match(lines, /"reason":"backchannel_logout","count":1.*the provider ended sessions/)
    assert.match(
      lines,
      /"reason":"invalid_issuer","claim":"iss".*a logout token was refused: the token is of another issuer/,
    )
    for (const secret of [sub, sid, ...token.split('.')]) assert.ok(!lines.includes(secret), secret)
  })

  test('sends its body with other parameters, which are not looked at, and with a charset', async () => {
    const [sub, token] = [fresh('ada'), await system.provider.logoutToken({ sub: 'nobody' })]
    const browser = await signedIn(sub)
    const { answer } = await logout({ sub })
    assert.equal(answer.status, 200)
    const body = new URLSearchParams({ sub, state: 'x', logout_token: token })
    assert.equal((await post(body, { 'content-type': `${FORM};charset=UTF-8` })).status, 200)
    assert.equal(await isSignedIn(browser), false)
  })
})

suite('a back-channel logout is refused', () => {
  /** The errors of RFC 6749 §5.2, as Back-Channel Logout §2.8 wants them. */
  function assertRefused({ status, headers, json }: Awaited<ReturnType<typeof post>>, what: string) {
    assert.deepEqual([status, json().error], [400, 'invalid_request'], what)
    assert.ok(json().error_description.length > 5, what)
    assert.match(String(headers.get('content-type')), /^application\/json/)
    assert.equal(headers.get('cache-control'), 'no-store')
    assert.equal(headers.get('cloakroom-error'), /large/.test(what) ? 'body_too_large' : 'bad_request')
    assert.match(json().request_id, /^[\w-]{36}$/)
  }

  test('for a token that is not sound, and the session stays', async () => {
    const [sub, sid] = [fresh('ada'), fresh('sid')]
    const browser = await signedIn(sub, sid)
    const now = Math.floor(Date.now() / 1000)
    const stranger = await createSigner({ ownKey: true })
    const claims = {
      ...{ iss: system.provider.issuer, aud: 'shop', sub, sid, iat: now, exp: now + 120 },
      ...{ jti: fresh('jti'), events: { [EVENT]: {} } },
    }
    const forged: Record<string, string> = {
      'by a stranger': await stranger.sign(claims, { typ: 'logout+jwt' }),
      'for another client': await system.provider.logoutToken({ sub, aud: 'another' }),
      'with a nonce': await system.provider.logoutToken({ sub, nonce: 'n' }),
      'without events': await system.provider.logoutToken({ sub, events: undefined }),
      'of an ID token': await system.provider.logoutToken(
        { sub, events: undefined, nonce: 'n' },
        { typ: 'JWT' },
      ),
      'that is old': await system.provider.logoutToken({ sub, iat: now - 3_600 }),
      'that is none': 'none',
    }
    for (const [what, token] of Object.entries(forged)) {
      assertRefused(await post(new URLSearchParams({ logout_token: token })), what)
    }
    assert.equal(await isSignedIn(browser), true)
  })

  test('when it comes again', async () => {
    const sub = fresh('ada')
    const { token, answer } = await logout({ sub })
    assert.equal(answer.status, 200)
    const browser = await signedIn(sub)
    assertRefused(await post(new URLSearchParams({ logout_token: token })), 'again')
    assert.equal(await isSignedIn(browser), true)
  })

  test('with another body than a form with one logout_token', async () => {
    const sub = fresh('ada')
    const browser = await signedIn(sub)
    const token = await system.provider.logoutToken({ sub })
    const good = String(new URLSearchParams({ logout_token: token }))
    const bodies: [what: string, body: string, headers?: Record<string, string>][] = [
      ['an empty body', ''],
      ['no token', 'token=x'],
      ['an empty token', 'logout_token='],
      ['two tokens', `${good}&${good}`],
      ['two tokens, the second empty', `${good}&logout_token=`],
      ['JSON', JSON.stringify({ logout_token: token }), { 'content-type': 'application/json' }],
      ['the token alone', token, { 'content-type': 'application/logout+jwt' }],
      ['no type', good, {}],
      ['a form that is compressed', good, { 'content-type': FORM, 'content-encoding': 'gzip' }],
      ['a form that is too large', `${good}&x=${'x'.repeat(1_000_000)}`],
    ]
    for (const [what, body, headers] of bodies) {
      // A body that is not read cuts the connection: the client may still be writing then.
      const answer = await post(body, headers).catch((error) => error as Error)
      if (!(answer instanceof Error)) assertRefused(answer, what)
      else assert.match(what, /large/)
    }
    assert.equal(await isSignedIn(browser), true)
    assert.equal((await post(good)).status, 200)
    assert.equal(await isSignedIn(browser), false)
  })

  test('by another method, or in the query', async () => {
    const token = await system.provider.logoutToken({ sub: 'ada' })
    const url = `${system.cloakroom.listenUrl}/bff/backchannel-logout?logout_token=${token}`
    for (const method of ['GET', 'HEAD', 'PUT', 'DELETE']) {
      const answer = await fetch(url, { method })
      assert.deepEqual([answer.status, answer.headers.get('allow')], [405, 'POST'], method)
      assert.equal(answer.headers.get('cache-control'), 'no-store')
    }
    assertRefused(await fetchInQuery(url), 'in the query')
  })

  async function fetchInQuery(url: string) {
    const answer = await fetch(url, { method: 'POST', headers: { 'content-type': FORM } })
    const text = await answer.text()
    return { status: answer.status, headers: answer.headers, text, json: () => JSON.parse(text) }
  }

  test('with 503 while the keys cannot be read, and the same token is good afterwards', async (t) => {
    const { start, provider } = system
    const sub = fresh('ada')
    const other = await start()
    t.after(() => other.close())
    const token = await provider.logoutToken({ sub })
    const send = () =>
      fetch(`${other.listenUrl}/bff/backchannel-logout`, {
        method: 'POST',
        body: new URLSearchParams({ logout_token: token }),
      })
    provider.control.intercept = ({ path }, res) => {
      if (path !== '/jwks') return false
      res.writeHead(503).end()
      return true
    }
    const refused = await send()
    delete provider.control.intercept
    assert.deepEqual(
      [refused.status, ((await refused.json()) as { error: string }).error],
      [503, 'temporarily_unavailable'],
    )
    assert.ok(Number(refused.headers.get('retry-after')) > 0)
    system.advance(60_000)
    assert.equal((await send()).status, 200)
  })

  test('for a client that has sent too much that is not good; what is good never counts', async (t) => {
    const { start, provider, cloakroom } = system
    const rateLimits = { login: 'off', callback: 'off', backchannelLogout: '3/1m' }
    const limited = await start({ rateLimits })
    t.after(() => limited.close())
    const send = async (claims: Record<string, unknown>) => {
      const body = new URLSearchParams({ logout_token: await provider.logoutToken(claims) })
      return fetch(`${limited.listenUrl}/bff/backchannel-logout`, { method: 'POST', body })
    }
    for (let index = 0; index < 10; index += 1) assert.equal((await send({ sub: fresh('ada') })).status, 200)
    for (let index = 0; index < 4; index += 1)
      assert.equal((await send({ sub: 'ada', aud: 'x' })).status, 400)
    const refused = await send({ sub: 'ada' })
    assert.deepEqual(
      [refused.status, ((await refused.json()) as { error: string }).error],
      [429, 'temporarily_unavailable'],
    )
    assert.ok(Number(refused.headers.get('retry-after')) > 0)
    assert.match(
      await (await fetch(`${limited.adminUrl}/metrics`)).text(),
      /^cloakroom_rate_limited_total\{endpoint="backchannelLogout"[^}]*\} 1$/m,
    )
    assert.ok(cloakroom.logs.length > 0)
  })
})

suite('a front-channel logout', () => {
  const get = async (query: Record<string, string> | string, headers: Record<string, string> = {}) => {
    const search = typeof query === 'string' ? query : String(new URLSearchParams(query))
    const answer = await fetch(`${system.cloakroom.listenUrl}/bff/frontchannel-logout?${search}`, { headers })
    return { status: answer.status, headers: answer.headers, text: await answer.text() }
  }
  const FRAME = {
    ...{ 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'iframe', 'sec-fetch-site': 'cross-site' },
  }

  test('ends the sessions of that sid without any cookie, and no other', async () => {
    const [sub, sid] = [fresh('ada'), fresh('sid')]
    const browsers = [await signedIn(sub, sid), await signedIn(sub, fresh('sid'))]
    const before = await ended('frontchannel_logout')
    const { issuer: iss } = system.provider
    assert.equal((await get({ iss, sid }, FRAME)).status, 200)
    assert.deepEqual(await areSignedIn(...browsers), [false, true])
    assert.equal(await ended('frontchannel_logout'), before + 1)
    assert.equal((await get({ iss, sid }, FRAME)).status, 200, 'a second one is harmless')
  })

  test('without iss is of the one provider there is, as Entra ID sends it', async () => {
    const sid = fresh('sid')
    const browser = await signedIn(fresh('ada'), sid)
    assert.equal((await get({ sid }, FRAME)).status, 200)
    assert.equal(await isSignedIn(browser), false)
  })

  test('may be framed by the provider alone, is kept nowhere, and holds nothing', async () => {
    const { status, headers, text } = await get({ sid: fresh('unknown') }, FRAME)
    assert.deepEqual([status, text], [200, ''])
    const policy = String(headers.get('content-security-policy')).split(';')
    assert.deepEqual(
      policy.filter((directive) => directive.includes('ancestors')),
      [`frame-ancestors ${system.provider.origin}`],
    )
    assert.ok(policy.includes("default-src 'none'"))
    assert.equal(headers.get('x-frame-options'), null)
    assert.equal(headers.get('cache-control'), 'no-store')
    assert.equal(headers.get('clear-site-data'), '"cache"')
    assert.equal(headers.get('set-cookie'), null)
    assert.match(String(headers.get('content-type')), /^text\/html/)
  })

  test('of another issuer, without sid, with several or ahead of a navigation changes nothing', async () => {
    const sid = fresh('sid')
    const browser = await signedIn(fresh('ada'), sid)
    const { issuer } = system.provider
    for (const [query, headers, status, claim] of [
      [{ iss: 'https://evil.example', sid }, FRAME, 400, 'iss'],
      [{ iss: `${issuer}/`, sid }, FRAME, 400, 'iss'],
      [{ iss: '', sid }, FRAME, 400, 'iss'],
      [`iss=${encodeURIComponent(issuer)}&iss=${encodeURIComponent(issuer)}&sid=${sid}`, FRAME, 400, 'iss'],
      [`sid=${sid}&sid=${sid}`, FRAME, 400, 'sid'],
      [{ iss: issuer }, FRAME, 400, 'sid'],
      [{ sid: '' }, FRAME, 400, 'sid'],
      ['', FRAME, 400, 'sid'],
      [{ sid }, { 'sec-purpose': 'prefetch' }, 403, undefined],
    ] as const) {
      const before = system.cloakroom.logs.length
      const answer = await get(query, headers)
      assert.equal(answer.status, status, JSON.stringify(query))
      const line = await eventually('the line', () => system.cloakroom.logs.slice(before)[0])
      assert.equal(JSON.parse(line).claim, claim)
      assert.match(String(answer.headers.get('content-type')), /^application\/problem\+json/)
      assert.equal(answer.headers.get('x-frame-options'), 'SAMEORIGIN')
    }
    assert.equal((await browser.fetch(`/bff/frontchannel-logout?sid=${sid}`, { method: 'HEAD' })).status, 405)
    assert.equal(await isSignedIn(browser), true)
  })

  test('does not end the session of the browser that has the cookie but not the sid', async () => {
    const browser = await signedIn(fresh('ada'), fresh('sid'))
    assert.equal((await browser.open(`/bff/frontchannel-logout?sid=${fresh('sid')}`)).status, 200)
    assert.equal(await isSignedIn(browser), true)
  })
})
