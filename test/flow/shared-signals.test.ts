import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { createSigner, unsignedJwt } from '../../src/demo/scripted/signing.ts'
import { setUp } from '../kit/attack/sign-in.ts'
import type { Browser } from '../kit/browsers/browser.ts'
import {
  complex,
  EVENT,
  issSub,
  PUSH_AUTHORIZATION,
  type SetParts,
  type SsfTransmitter,
  startSsfTransmitter,
} from '../kit/provider/ssf-transmitter.ts'
import { eventually } from '../kit/shops/deadline.ts'

const cleanUps: (() => unknown)[] = []
const scope = { after: (cleanUp: () => unknown) => void cleanUps.push(cleanUp) }
const EMAIL = { email: 'Ada@Example.com', email_verified: true }

let transmitter: SsfTransmitter
let system: Awaited<ReturnType<typeof setUp>>
let events: string
let revocation: string
let aheadMs = 0

before(async () => {
  transmitter = await startSsfTransmitter({ now: () => Date.now() + aheadMs })
  scope.after(() => transmitter.close())
  const sharedSignals = {
    ...{ transmitter: transmitter.issuer, audience: transmitter.audience },
    ...{ authorization: PUSH_AUTHORIZATION, subjects: ['iss_sub', 'email'] },
  }
  system = await setUp(scope, {
    provider: { control: { idTokenOnRefresh: true } },
    config: {
      provider: { sharedSignals, globalTokenRevocation: true },
      rateLimits: { login: 'off', callback: 'off', logout: 'off', events: '20/1m' },
    },
  })
  // A reload keeps all of it.
  const [orders, rest] = system.settings.routes
  const headers = { 'x-role': '{claims.role}' }
  await system.cloakroom.reload({ routes: [{ ...orders, headers }, rest] })
  events = `${system.cloakroom.listenUrl}/bff/ssf/events`
  revocation = `${system.cloakroom.listenUrl}/bff/global-token-revocation`
})
after(async () => {
  for (const cleanUp of cleanUps.reverse()) await cleanUp()
})

async function signedIn(user: string, claims: object = {}): Promise<{ browser: Browser; sid: string }> {
  Object.assign(system.provider.control, { user, idTokenClaims: claims })
  const browser = system.cloakroom.browser()
  await browser.signIn()
  return { browser, sid: (await browser.fetch('/bff/user')).json().sid }
}

const isSignedIn = async (browser: Browser) => (await browser.fetch('/api/orders')).status === 200
const user = (sub: string) => issSub(system.provider.issuer, sub)

async function push(type: string, subject: object | undefined, parts?: SetParts) {
  const set = await transmitter.set(type, subject, parts)
  return { set, ...(await transmitter.push(events, set)) }
}

function linesSince(count: number) {
  return system.cloakroom.logs.slice(count).map((line) => JSON.parse(line))
}

describe('an event about a user', () => {
  for (const [name, type] of Object.entries({
    ...{ credentialChange: EVENT.credentialChange, accountDisabled: EVENT.accountDisabled },
    ...{ accountPurged: EVENT.accountPurged, credentialCompromise: EVENT.credentialCompromise },
    ...{ sessionsRevoked: EVENT.sessionsRevoked, sessionRevoked: EVENT.sessionRevoked },
  })) {
    test(`of type ${name} ends every session of that user, and of nobody else`, async () => {
      const [one, two, other] = [await signedIn(name), await signedIn(name), await signedIn('somebody-else')]
      const before = system.cloakroom.logs.length
      const { status, text, headers } = await push(type, user(name))
      assert.deepEqual([status, text, headers.get('content-length')], [202, '', '0'])
      assert.deepEqual(
        [await isSignedIn(one.browser), await isSignedIn(two.browser), await isSignedIn(other.browser)],
        [false, false, true],
      )
      const line = linesSince(before).find(({ event }) => event)
      assert.deepEqual([line.outcome, line.count, line.level], ['ended', 2, 'info'])
    })
  }

  test('is understood in all the forms that transmitters use', async () => {
    const forms: [string, (sub: string) => object | undefined, ((sub: string) => SetParts)?][] = [
      ['complex', (sub) => complex(user(sub))],
      ['complex-all', (sub) => complex(user(sub), 'ALL')],
      ['aliases', (sub) => ({ format: 'aliases', identifiers: [{ format: 'phone_number' }, user(sub)] })],
      ['in-event', () => undefined, (sub) => ({ event: { subject: user(sub) } })],
      [
        'older',
        () => undefined,
        (sub) => ({ event: { subject: { subject_type: 'iss-sub', iss: system.provider.issuer, sub } } }),
      ],
      ['without-time', user, () => ({ event: { event_timestamp: undefined } })],
      ['milliseconds', user, () => ({ event: { event_timestamp: Date.now() } })],
      ['aud-list', user, () => ({ claims: { aud: ['https://other.test', transmitter.audience] } })],
    ]
    for (const [sub, subject, parts] of forms) {
      const { browser } = await signedIn(sub)
      assert.equal((await push(EVENT.sessionRevoked, subject(sub), parts?.(sub))).status, 202, sub)
      assert.equal(await isSignedIn(browser), false, sub)
    }
  })

  test('by e-mail address ends the sessions that it is verified for', async () => {
    const verified = await signedIn('ada', EMAIL)
    const unverified = await signedIn('eve', { ...EMAIL, email_verified: false })
    const subject = { format: 'email', email: 'ada@example.com' }
    assert.equal((await push(EVENT.accountDisabled, subject)).status, 202)
    assert.deepEqual(
      [await isSignedIn(verified.browser), await isSignedIn(unverified.browser)],
      [false, true],
    )
  })

  test('that is older than the sign-in leaves the session, whether it comes late or again', async () => {
    const first = await signedIn('late')
    const event = { event_timestamp: Math.floor(Date.now() / 1000) - 3600 }
    for (const type of [EVENT.credentialChange, EVENT.sessionRevoked, EVENT.accountDisabled]) {
      assert.equal((await push(type, user('late'), { event })).status, 202)
    }
    assert.equal(await isSignedIn(first.browser), true)
  })

  test('that nobody here is named by ends nothing, and is acknowledged', async () => {
    const { browser } = await signedIn('ada')
    const before = system.cloakroom.logs.length
    for (const subject of [
      issSub('https://other.test', 'ada'),
      { format: 'phone_number', phone_number: '+1' },
      { format: 'complex', session: { format: 'opaque', id: 'ALL' } },
      { format: 'complex', device: { format: 'opaque', id: 'd' } },
      undefined,
    ]) {
      assert.equal((await push(EVENT.accountDisabled, subject)).status, 202)
    }
    assert.equal(await isSignedIn(browser), true)
    const ignored = linesSince(before).filter(({ reason }) => reason === 'unknown_subject')
    assert.deepEqual([ignored.length, ignored[0]?.level], [4, 'warn'])
  })
})

describe('an event about a session of the provider', () => {
  test('ends what began in that session, and no other session of the user', async () => {
    const [one, two] = [await signedIn('ada'), await signedIn('ada')]
    assert.equal(
      (await push(EVENT.sessionRevoked, complex(user('ada'), one.sid))).status,
      202,
      'as Keycloak names it',
    )
    assert.deepEqual([await isSignedIn(one.browser), await isSignedIn(two.browser)], [false, true])
    assert.equal((await push(EVENT.sessionRevoked, { format: 'opaque', id: two.sid })).status, 202)
    assert.equal(await isSignedIn(two.browser), false)
  })

  test('of one user ends nothing of another', async () => {
    const { browser, sid } = await signedIn('ada')
    assert.equal((await push(EVENT.sessionRevoked, complex(user('bob'), sid))).status, 202)
    assert.equal(await isSignedIn(browser), true)
  })
})

describe('a change of claims', () => {
  for (const type of [EVENT.tokenClaimsChange, EVENT.assuranceLevelChange]) {
    test(`(${type.split('/').at(-1)}) makes the next request get new tokens and claims, and ends nothing`, async () => {
      const sub = `claims-${type.length}`
      const { browser } = await signedIn(sub, { role: 'admin' })
      const roleTold = async () => {
        assert.equal((await browser.fetch('/api/orders')).status, 200)
        return system.api.requests.at(-1)?.headers['x-role']
      }
      assert.equal(await roleTold(), 'admin')
      const refreshes = system.provider.counters.refreshCalls
      system.provider.control.idTokenClaims = { role: 'reader' }
      assert.equal((await push(type, user(sub), { event: { claims: { role: 'reader' } } })).status, 202)
      assert.equal(system.provider.counters.refreshCalls, refreshes, 'nothing is asked for in advance')
      assert.equal(await roleTold(), 'reader', 'in the very request that gets them')
      assert.equal(system.provider.counters.refreshCalls, refreshes + 1)
      assert.equal((await browser.fetch('/bff/user')).json().role, 'reader')
    })
  }
})

describe('events about the stream', () => {
  test('are acknowledged: a verification, whatever it may be, and types that nothing is done about', async () => {
    const before = system.cloakroom.logs.length
    const stream = { format: 'opaque', id: 'stream-1' }
    const verified = await push(EVENT.verification, stream, { event: { state: 'VGhpcyBpcyBhbiBleGFtcGxl' } })
    const unknown = await push('https://example.test/event/unheard-of', user('ada'))
    const device = await push(EVENT.deviceComplianceChange, user('ada'))
    assert.deepEqual([verified.status, unknown.status, device.status], [202, 202, 202])
    const told = linesSince(before).filter(({ event }) => event)
    assert.deepEqual(
      told.map(({ event, outcome }) => [event, outcome]),
      [
        ['verification', 'verified'],
        ['unheard-of', 'ignored'],
        ['device-compliance-change', 'ignored'],
      ],
    )
  })

  test('warn when the transmitter pauses or disables it', async () => {
    const before = system.cloakroom.logs.length
    for (const status of ['paused', 'disabled', 'enabled']) {
      assert.equal((await push(EVENT.streamUpdated, undefined, { event: { status } })).status, 202)
    }
    const levels = linesSince(before).filter(({ event }) => event === 'stream-updated')
    assert.deepEqual(
      levels.map(({ level, outcome }) => [level, outcome]),
      [
        ['warn', 'paused'],
        ['warn', 'disabled'],
        ['info', 'enabled'],
      ],
    )
  })
})

describe('a push that must not be believed', () => {
  test('is refused with the code of RFC 8935 that says why, in one line of the log, and ends nothing', async () => {
    const { browser } = await signedIn('victim')
    const subject = user('victim')
    const now = Math.floor(Date.now() / 1000)
    const set = (parts: SetParts) => transmitter.set(EVENT.sessionRevoked, subject, parts)
    const foreign = await createSigner({ ownKey: true })
    const [head = '', payload = '', signature = ''] = (await set({})).split('.')
    const edited = Buffer.from(
      Buffer.from(payload, 'base64url').toString().replace('victim', 'victor'),
    ).toString('base64url')
    const cases: [string, string][] = [
      ['invalid_key', await set({ signer: foreign })],
      ['invalid_key', `${head}.${edited}.${signature}`],
      ['invalid_key', unsignedJwtOf(payload)],
      ['invalid_issuer', await set({ claims: { iss: system.provider.issuer } })],
      ['invalid_audience', await set({ claims: { aud: 'https://other.test' } })],
      ['invalid_audience', await set({ claims: { aud: `${transmitter.audience}/below` } })],
      ['invalid_audience', await set({ claims: { aud: undefined } })],
      ['invalid_request', await set({ header: { typ: 'JWT' } })],
      ['invalid_request', await set({ header: { typ: 'logout+jwt' } })],
      ['invalid_request', await set({ claims: { iat: now + 3600 } })],
      ['invalid_request', await set({ claims: { iat: now - 11 * 3600 } })],
      ['invalid_request', await set({ claims: { iat: undefined } })],
      ['invalid_request', await set({ claims: { exp: now - 600 } })],
      ['invalid_request', await set({ claims: { jti: undefined } })],
      ['invalid_request', await set({ claims: { events: {} } })],
      ['invalid_request', await set({ claims: { events: { [EVENT.sessionRevoked]: 'yes' } } })],
      ['invalid_request', await set({ claims: { events: [] } })],
      ['invalid_request', 'no token at all'],
      ['invalid_request', ''],
    ]
    for (const [code, body] of cases) {
      const before = system.cloakroom.logs.length
      const { status, text, headers } = await transmitter.push(events, body)
      const what = `${code} ${text}`
      assert.deepEqual([status, JSON.parse(text).err], [400, code], what)
      assert.deepEqual(
        [headers.get('content-type'), headers.get('content-language'), headers.get('cache-control')],
        ['application/json', 'en', 'no-store'],
      )
      assert.equal(typeof JSON.parse(text).description, 'string')
      const lines = linesSince(before).filter(({ level }) => level === 'warn')
      assert.deepEqual([lines.length, lines[0]?.code], [1, code], what)
    }
    assert.equal(await isSignedIn(browser), true)
  })

  test('is no SET by its type, or too long: nothing is read of it', async () => {
    const set = await transmitter.set(EVENT.sessionRevoked, user('ada'))
    for (const type of ['application/json', 'application/jwt', 'text/plain']) {
      const answer = await transmitter.push(events, set, { type })
      assert.deepEqual([answer.status, JSON.parse(answer.text).err], [400, 'invalid_request'], type)
    }
    const long = await transmitter.push(events, 'x'.repeat(70_000))
    assert.deepEqual([long.status, JSON.parse(long.text).code], [413, 'body_too_large'])
    const got = await fetch(events)
    assert.deepEqual([got.status, got.headers.get('allow')], [405, 'POST'])
  })

  test('is not made twice: the second time it is acknowledged as RFC 8935 asks, and does nothing', async () => {
    await signedIn('again')
    const { set, status } = await push(EVENT.sessionRevoked, user('again'))
    assert.equal(status, 202)
    const { browser } = await signedIn('again')
    const before = system.cloakroom.logs.length
    for (const replay of await Promise.all([1, 2, 3].map(() => transmitter.push(events, set)))) {
      assert.deepEqual([replay.status, replay.text], [202, ''])
    }
    assert.equal(await isSignedIn(browser), true)
    assert.equal(linesSince(before).filter(({ outcome }) => outcome === 'repeated').length, 3)
  })
})

describe('the keys of the transmitter', () => {
  test('are read again for a new one; while they cannot be, the push is to be made again, and is not lost', async () => {
    const { browser } = await signedIn('rotated')
    await transmitter.signer.rotateKey()
    const set = await transmitter.set(EVENT.sessionRevoked, user('rotated'))
    transmitter.intercept = (request, res) => {
      if (!request.path.endsWith('/keys')) return false
      res.writeHead(503).end()
      return true
    }
    const away = await transmitter.push(events, set)
    assert.deepEqual([away.status, JSON.parse(away.text).code], [503, 'provider_unavailable'])
    assert.ok(Number(away.headers.get('retry-after')) >= 1)
    assert.equal(await isSignedIn(browser), true)
    delete transmitter.intercept
    aheadMs += 61_000
    system.advance(61_000)
    assert.equal((await transmitter.push(events, set)).status, 202)
    assert.equal(await isSignedIn(browser), false)
  })
})

describe('global token revocation', () => {
  const revoke = (body: unknown, authorization: string | undefined = PUSH_AUTHORIZATION) =>
    fetch(revocation, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...(authorization ? { authorization } : {}) },
      body: JSON.stringify(body),
    })
  const callerToken = (claims: object = {}, typ = 'global-token-revocation+jwt') => {
    const now = Math.floor((Date.now() + aheadMs) / 1000)
    const aud = `${system.cloakroom.publicUrl}/bff/global-token-revocation`
    const sound = { iss: system.provider.issuer, aud, iat: now, exp: now + 300, jti: String(Math.random()) }
    return system.provider.signer.sign({ ...sound, ...claims }, { typ })
  }

  test('ends every session of the subject, named in each way, and answers 204', async () => {
    const bodies: [string, (sub: string) => object, object?][] = [
      ['g-iss', (sub) => ({ sub_id: user(sub) })],
      ['g-opaque', (sub) => ({ sub_id: { format: 'opaque', id: sub } })],
      ['g-draft', (sub) => ({ subject: user(sub) })],
      ['g-mail', () => ({ sub_id: { format: 'email', email: 'ada@example.com' } }), EMAIL],
    ]
    for (const [sub, body, claims] of bodies) {
      const { browser } = await signedIn(sub, claims)
      const answer = await revoke(body(sub))
      assert.deepEqual([answer.status, await answer.text()], [204, ''], sub)
      assert.equal(await isSignedIn(browser), false, sub)
    }
    assert.equal((await revoke({ sub_id: user('unheard-of') })).status, 204, 'tells nothing of who there is')
  })

  test('takes a token that the provider made for this, and no other', async () => {
    const { browser } = await signedIn('g-jwt')
    const now = Math.floor(Date.now() / 1000)
    const foreign = await createSigner({ ownKey: true })
    const aud = `${system.cloakroom.publicUrl}/bff/global-token-revocation`
    const wrong = [
      undefined,
      'Bearer nonsense',
      'Basic c2VjcmV0',
      `Bearer ${await callerToken({}, 'JWT')}`,
      `Bearer ${await callerToken({ aud: system.provider.clientId })}`,
      `Bearer ${await callerToken({ iss: transmitter.issuer })}`,
      `Bearer ${await callerToken({ exp: now - 600 })}`,
      `Bearer ${await callerToken({ exp: now + 86_400 })}`,
      `Bearer ${await callerToken({ exp: undefined })}`,
      `Bearer ${await foreign.sign({ iss: system.provider.issuer, aud, exp: now + 300 }, { typ: 'global-token-revocation+jwt' })}`,
    ]
    for (const authorization of wrong) {
      const headers = { 'content-type': 'application/json', ...(authorization ? { authorization } : {}) }
      const answer = await fetch(revocation, {
        method: 'POST',
        headers,
        body: JSON.stringify({ sub_id: user('g-jwt') }),
      })
      const problem = (await answer.json()) as Record<string, unknown>
      assert.deepEqual(
        [answer.status, problem.code, problem.reason, problem.login_url],
        [401, 'session_required', 'invalid_token', undefined],
        authorization ?? 'none',
      )
      assert.match(answer.headers.get('www-authenticate') ?? '', /^Bearer/)
    }
    assert.equal(await isSignedIn(browser), true)
    const sound = await revoke({ sub_id: user('g-jwt') }, `Bearer ${await callerToken()}`)
    assert.equal(sound.status, 204)
    assert.equal(await isSignedIn(browser), false)
  })

  test('refuses what names no user', async () => {
    for (const body of [{}, { sub_id: 'ada' }, { sub_id: { format: 'phone_number' } }, [], null, 7]) {
      const before = system.cloakroom.logs.length
      const answer = await revoke(body)
      assert.deepEqual(
        [answer.status, ((await answer.json()) as { code: string }).code],
        [400, 'bad_request'],
        JSON.stringify(body),
      )
      await eventually('the line', () => linesSince(before).some(({ claim }) => claim === 'sub_id'))
    }
  })
})

describe('a push of a stranger', () => {
  test('is refused before anything else is looked at, and soon not even that', async () => {
    const { browser } = await signedIn('strangers')
    const set = await transmitter.set(EVENT.sessionRevoked, user('strangers'))
    const asked = transmitter.requests.length
    for (const authorization of [
      undefined,
      '',
      'Bearer wrong',
      PUSH_AUTHORIZATION.slice(0, -1),
      `${PUSH_AUTHORIZATION}x`,
    ]) {
      const answer = await transmitter.push(events, set, { authorization, type: 'text/plain' })
      assert.deepEqual([answer.status, JSON.parse(answer.text).err], [400, 'authentication_failed'])
    }
    const statuses = new Set<number>()
    for (let count = 0; count < 20; count += 1) {
      statuses.add((await transmitter.push(events, set, { authorization: 'Bearer wrong' })).status)
    }
    assert.ok(statuses.has(429))
    assert.equal(transmitter.requests.length, asked)
    assert.equal(await isSignedIn(browser), true)
    assert.equal((await transmitter.push(events, set)).status, 202, 'the transmitter has no such limit')
    assert.equal(await isSignedIn(browser), false)
  })

  test('finds neither endpoint where nothing is configured', async () => {
    const plain = await system.start({ provider: system.provider.settings })
    for (const path of ['/bff/ssf/events', '/bff/global-token-revocation']) {
      const answer = await fetch(`${plain.listenUrl}${path}`, { method: 'POST' })
      assert.equal(answer.status, 404, path)
    }
  })

  test('nothing of an event or a secret is in the log', () => {
    const log = system.cloakroom.logs.join('\n')
    for (const secret of [PUSH_AUTHORIZATION, 'VGhpcyBpcyBhbiBleGFtcGxl', 'ada@example.com', 'victim'])
      assert.ok(!log.toLowerCase().includes(secret.toLowerCase()), secret)
  })
})

function unsignedJwtOf(payload: string): string {
  return `${unsignedJwt(JSON.parse(Buffer.from(payload, 'base64url').toString()))}c2ln`.replace(
    /^[^.]+/,
    Buffer.from(JSON.stringify({ alg: 'none', typ: 'secevent+jwt' })).toString('base64url'),
  )
}
