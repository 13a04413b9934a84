import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { createSigner } from '../../../../src/demo/scripted/signing.ts'
import { BffError } from '../../../../src/errors.ts'
import { actOnce } from '../../../../src/oidc/events/event-token.ts'
import { createSignalsReceiver, type SignalActions } from '../../../../src/oidc/events/signals-receiver.ts'
import { type AllowedSubjects, subjectOf } from '../../../../src/oidc/events/subjects.ts'
import { createMemoryStore } from '../../../../src/store/memory/memory-store.ts'
import { captureLog } from '../../../kit/cloakroom.ts'
import { EVENT } from '../../../kit/provider/ssf-transmitter.ts'

const ISSUER = 'https://id.example.com'
const START = 1_800_000_000_000
const HOUR_MS = 3_600_000
const signer = await createSigner()

function setUp({ audience = 'shop-signals' } = {}) {
  const clock = { at: START }
  const calls: unknown[] = []
  const fault: { next?: Error | undefined } = {}
  const { log, lines } = captureLog()
  const act = async (...call: unknown[]) => {
    const { next } = fault
    fault.next = undefined
    if (next) throw next
    calls.push(call)
    return 1
  }
  const actions: SignalActions = {
    endSessions: (of, how) => act('end', of, how),
    renewTokens: (of) => act('renew', of),
  }
  const store = createMemoryStore({ idleTimeoutMs: () => HOUR_MS, monotonicNow: () => clock.at })
  const receive = createSignalsReceiver({
    rules: {
      ...{ issuer: ISSUER, audience, subjects: ['iss_sub'], clockToleranceMs: 60_000 },
      ...{ longestAgeMs: HOUR_MS, now: () => clock.at, requireSigned: async () => undefined },
    },
    actOnce: (message, act) => actOnce(store, message, act),
    ...{ actions, log },
  })
  const set = (type: string, claims: object = {}, event: object = {}) =>
    signer.sign(
      {
        ...{ iss: ISSUER, aud: audience, jti: 'j', iat: clock.at / 1000, events: { [type]: event } },
        sub_id: { format: 'iss_sub', iss: ISSUER, sub: 'ada' },
        ...claims,
      },
      { typ: 'secevent+jwt' },
    )
  return { receive, set, calls, fault, clock, lines }
}

const ADA = { user: { iss: ISSUER, sub: 'ada' } }

suite('the receiver of security events', () => {
  test('reads an event byte for byte as Keycloak 26.7 sends it', async () => {
    const { receive, calls } = setUp()
    const seconds = START / 1000
    const header = { alg: 'RS256', typ: 'secevent+jwt', kid: 'k' }
    const claims = {
      ...{ jti: 'a-1', iss: ISSUER, iat: seconds, aud: 'shop-signals/0b6c9a5e-5a0b-4f86-8a4e-2b7f6f0f8d11' },
      events: {
        [EVENT.sessionRevoked]: {
          event_timestamp: seconds - 30,
          initiating_entity: 'user',
          reason_admin: { en: 'Logout' },
        },
      },
      sub_id: {
        format: 'complex',
        user: { format: 'iss_sub', iss: ISSUER, sub: 'ada' },
        session: { format: 'opaque', id: 'ALL' },
      },
      txn: 't-1',
    }
    const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
    await receive(`${part(header)}.${part(claims)}.c2ln`)
    assert.deepEqual(calls, [
      ['end', ADA, { reason: 'session_revoked', startedBefore: START - 30_000 + 61_000 }],
    ])
  })

  test('takes a client id for all of its streams, and a URL for itself alone', async () => {
    const accepts = async (audience: string, aud: unknown) => {
      const { receive, set } = setUp({ audience })
      const token = await set(EVENT.verification, { aud })
      const fault = await receive(token).then(
        () => undefined,
        (error) => error.fault,
      )
      assert.ok(fault === undefined || fault === 'invalid_audience')
      return fault === undefined
    }
    assert.equal(await accepts('shop', 'shop/stream-1'), true)
    assert.equal(await accepts('shop', ['other', 'shop/stream-1']), true)
    assert.equal(await accepts('shop/stream-1', 'shop/stream-1'), true)
    for (const aud of ['shopper', 'shop/', 'shop/a/b', 'other/shop', 'SHOP/stream-1', 7, null])
      assert.equal(await accepts('shop', aud), false, String(aud))
    for (const aud of ['https://shop.test/a', 'https://shop.test/', 'https://shop.test.evil'])
      assert.equal(await accepts('https://shop.test', aud), false, aud)
  })

  test('lets an event that could not be acted on come again, and acts on it once', async () => {
    const { receive, set, calls, fault, clock } = setUp()
    const token = await set(EVENT.accountDisabled)
    fault.next = new BffError('store_unavailable', 'away')
    await assert.rejects(receive(token), { code: 'store_unavailable' })
    assert.equal(calls.length, 0)
    await receive(token)
    await receive(token)
    clock.at += HOUR_MS
    await receive(token)
    assert.equal(calls.length, 1)
    clock.at += 61_000
    await assert.rejects(receive(token), { fault: 'invalid_request' }, 'then it is too old')
  })

  test('acts on each event of a token, on the newest form of its time, and allows no tolerance to a change of credentials', async () => {
    const { receive, set, calls } = setUp()
    const seconds = START / 1000
    const events = {
      [EVENT.credentialChange]: { event_timestamp: seconds - 10 },
      [EVENT.accountPurged]: { event_timestamp: START - 20_000 },
      [EVENT.sessionsRevoked]: {},
      [EVENT.credentialCompromise]: { event_timestamp: seconds + 500 },
      [EVENT.tokenClaimsChange]: { subject: { format: 'opaque', id: 's-1' } },
    }
    await receive(await set('', { events, toe: seconds - 5 }))
    assert.deepEqual(calls, [
      ['end', ADA, { reason: 'credential_change', startedBefore: START - 9_000 }],
      ['end', ADA, { reason: 'account_purged', startedBefore: START + 41_000 }],
      ['end', ADA, { reason: 'sessions_revoked', startedBefore: START + 56_000 }],
      ['end', ADA, { reason: 'credential_compromise', startedBefore: START + 61_000 }],
      ['renew', { idpSid: 's-1' }],
    ])
  })

  test('ends all of a user by what is about the user, although a session is named beside', async () => {
    const { receive, set, calls } = setUp()
    const sub_id = {
      format: 'complex',
      user: { format: 'iss_sub', iss: ISSUER, sub: 'ada' },
      session: { format: 'opaque', id: 's-1' },
    }
    await receive(await set(EVENT.accountDisabled, { sub_id, jti: '1' }))
    await receive(await set(EVENT.sessionRevoked, { sub_id, jti: '2' }))
    assert.deepEqual(
      calls.map((call) => (call as unknown[])[1]),
      [ADA, { ...ADA, idpSid: 's-1' }],
    )
  })
})

suite('a subject identifier', () => {
  const read = (identifier: unknown, allowed: AllowedSubjects = ['iss_sub', 'email']) =>
    subjectOf(identifier, allowed)
  const user = { format: 'iss_sub', iss: ISSUER, sub: 'ada' }
  const mail = { format: 'email', email: 'Ada@Example.com' }

  test('is read in the forms of RFC 9493, of SSF 1.0 and of its drafts', () => {
    assert.deepEqual(read(user), ADA)
    assert.deepEqual(read(mail), { email: 'ada@example.com' })
    assert.deepEqual(read({ format: 'opaque', id: 's-1' }), { idpSid: 's-1' })
    assert.deepEqual(read({ format: 'aliases', identifiers: [mail, user, 7, null] }), {
      ...ADA,
      email: 'ada@example.com',
    })
    assert.deepEqual(read({ subject_type: 'iss-sub', iss: ISSUER, sub: 'ada' }), ADA)
    assert.deepEqual(read({ user }), ADA, 'complex before it had a format')
    const tenant = { format: 'opaque', id: 't' }
    assert.deepEqual(read({ format: 'complex', user, tenant, device: tenant }), ADA)
  })

  test('names nobody when it is not allowed, incomplete, of another kind, or would mean everybody', () => {
    assert.equal(read(mail, ['iss_sub']), undefined)
    assert.equal(read(user, ['email']), undefined)
    for (const identifier of [
      undefined,
      ...[null, 7, 'ada', [user], {}, { format: 'iss_sub', iss: ISSUER }, { format: 'email', email: '' }],
      ...[
        { format: 'iss_sub', iss: ISSUER, sub: ['ada'] },
        { format: 'account', uri: 'acct:ada@example.com' },
      ],
      ...[{ format: 'opaque', id: 'ALL' }, { format: 'opaque', id: 7 }, { format: 'complex' }],
      { format: 'complex', tenant: { format: 'opaque', id: 't' } },
      { format: 'complex', session: { format: 'opaque', id: 'ALL' } },
      { format: 'aliases', identifiers: [{ format: 'aliases', identifiers: [user] }] },
      { format: 'aliases', identifiers: user },
    ])
      assert.equal(read(identifier), undefined, JSON.stringify(identifier))
  })
})
