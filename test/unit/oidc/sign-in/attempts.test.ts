import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { describe, test } from 'node:test'
import { createLoginAttempts, loginAttemptId } from '../../../../src/oidc/sign-in/attempts.ts'
import type { SessionHash } from '../../../../src/store/port.ts'
import { loginRecordsInSight } from '../../../kit/store/login-records.ts'

const MINUTE_MS = 60_000
/** 256 random bits in base64url. */
const RANDOM = /^[\w-]{43}$/
const STATE = 's'.repeat(43)
const SESSION = { id: 'session-1', hash: 'hash-1' as SessionHash, sub: 'ada', sid: 'sid-1' }

function setUp() {
  const store = loginRecordsInSight()
  const endings = { number: 3 }
  const deps = { ...store.deps, endings: { last: async () => endings.number } }
  return { ...store, endings, attempts: createLoginAttempts(deps) }
}

describe('an attempt', () => {
  test('has a state, a nonce and a PKCE verifier of its own, and a cookie that is named for the state', async () => {
    const { attempts } = setUp()
    const { attempt, cookie } = await attempts.start({ returnUrl: '/orders', prompt: 'login' })
    assert.deepEqual([attempt.returnUrl, attempt.prompt], ['/orders', 'login'])
    const secrets = [attempt.state, attempt.nonce, attempt.codeVerifier, cookie.secret]
    for (const secret of secrets) assert.match(secret, RANDOM)
    assert.equal(new Set(secrets).size, 4)
    assert.equal(cookie.id, loginAttemptId(attempt.state))
    assert.match(cookie.id, /^[\w-]{16}$/)
    const second = await attempts.start({ returnUrl: '/orders' })
    assert.notEqual(second.attempt.state, attempt.state)
    assert.notEqual(second.cookie.id, cookie.id)
  })

  test('comes back whole with its state and the secret of its cookie, once', async () => {
    const { attempts } = setUp()
    const { attempt, cookie } = await attempts.start({
      ...{ returnUrl: '/a', hadCookie: true, previous: SESSION, isRepeated: true, loginHint: 'ada' },
      ...{ indicators: ['https://api.test'], scopes: ['openid', 'orders'] },
    })
    assert.deepEqual(await attempts.take(attempt.state, cookie.secret), attempt)
    assert.equal(await attempts.take(attempt.state, cookie.secret), undefined)
  })

  test('knows how many sign-outs came from elsewhere before it began; one of an earlier version takes all for later', async () => {
    const { attempts, endings, deps } = setUp()
    const { attempt, cookie } = await attempts.start({ returnUrl: '/' })
    endings.number += 1
    assert.equal((await attempts.take(attempt.state, cookie.secret))?.endingsBefore, 3)
    const { attempt: next, cookie: its } = await attempts.start({ returnUrl: '/' })
    const key = createHash('sha256').update(its.secret).digest('base64url')
    const { endingsBefore: _, ...older } = next
    await deps.records.put(key, deps.seal(its.secret, JSON.stringify(older)), MINUTE_MS)
    assert.equal((await attempts.take(next.state, its.secret))?.endingsBefore, 0)
  })

  test('of another state is not given out, and is used up all the same', async () => {
    const { attempts } = setUp()
    const { attempt, cookie } = await attempts.start({ returnUrl: '/' })
    assert.equal(await attempts.take(STATE, cookie.secret), undefined)
    assert.equal(await attempts.take(attempt.state, cookie.secret), undefined)
  })

  test('is not found with the secret of another', async () => {
    const { attempts } = setUp()
    const one = await attempts.start({ returnUrl: '/1' })
    const other = await attempts.start({ returnUrl: '/2' })
    assert.equal(await attempts.take(one.attempt.state, other.cookie.secret), undefined)
    assert.equal(await attempts.take(one.attempt.state, 'x'.repeat(43)), undefined)
    assert.equal((await attempts.take(one.attempt.state, one.cookie.secret))?.returnUrl, '/1')
  })

  test('lives for 15 minutes under a key that tells nothing of its secret', async () => {
    const { attempts, kept } = setUp()
    const { attempt, cookie } = await attempts.start({ returnUrl: '/' })
    const [[key, { ttlMs }] = ['', { ttlMs: 0 }]] = [...kept]
    assert.equal(ttlMs, 15 * MINUTE_MS)
    for (const secret of [cookie.secret, attempt.state, attempt.nonce]) assert.ok(!key.includes(secret))
  })

  test('that an earlier version stored is read by this one, and the other way round', async () => {
    const { attempts, kept } = setUp()
    const { cookie } = await attempts.start({ returnUrl: '/', previous: SESSION })
    const [[, { value }] = ['', { value: '{}' }]] = [...kept]
    const { sealedUnder, plaintext } = JSON.parse(value)
    const { earlier, previous } = JSON.parse(plaintext)
    assert.equal(sealedUnder, cookie.secret)
    assert.deepEqual([earlier, previous], [SESSION, undefined])
  })
})

describe('a session that began while other tabs were signing in', () => {
  test('is told to them by their secrets, each of which takes it once', async () => {
    const { attempts, kept } = setUp()
    const secrets = ['1'.repeat(43), '2'.repeat(43)]
    await attempts.leavePrevious(secrets, SESSION)
    assert.deepEqual(
      [...kept.values()].map(({ ttlMs }) => ttlMs),
      [15 * MINUTE_MS, 15 * MINUTE_MS],
    )
    for (const secret of secrets) assert.deepEqual(await attempts.takePrevious(secret), SESSION)
    for (const secret of secrets) assert.equal(await attempts.takePrevious(secret), undefined)
  })

  test('is written under no cookie value that cannot be one of ours', async () => {
    const { attempts, kept } = setUp()
    await attempts.leavePrevious(['', 'x', 'x'.repeat(44), `${'x'.repeat(42)}=`, 'x'.repeat(100)], SESSION)
    assert.equal(kept.size, 0)
  })

  test('does not keep a sign-in from ending while the store is away', async () => {
    const { attempts, failure } = setUp()
    failure.error = new Error('no store')
    await attempts.leavePrevious(['1'.repeat(43)], SESSION)
    assert.equal(await attempts.takePrevious('1'.repeat(43)), undefined)
  })
})

describe('a response that has made a session', () => {
  test('leads that very session to its page, and any other to the start page', async () => {
    const { attempts, kept } = setUp()
    assert.equal(await attempts.keepFinished(STATE, SESSION, '/orders?x=1'), true)
    assert.deepEqual(
      [...kept.values()].map(({ ttlMs }) => ttlMs),
      [15 * MINUTE_MS],
    )
    assert.deepEqual(await attempts.finished(STATE, SESSION), { returnUrl: '/orders?x=1' })
    assert.deepEqual(await attempts.finished(STATE, SESSION), { returnUrl: '/orders?x=1' }, 'not used up')
    assert.deepEqual(await attempts.finished(STATE, { id: 'another' }), { returnUrl: '/' })
    assert.equal(await attempts.isFinished(STATE), true)
  })

  test('is told from one that has made none', async () => {
    const { attempts } = setUp()
    await attempts.keepFinished(STATE, SESSION, '/')
    const unknown = 'u'.repeat(43)
    assert.equal(await attempts.isFinished(unknown), false)
    assert.equal(await attempts.finished(unknown, SESSION), undefined)
  })

  test('whose state cannot be one of ours costs no look at the store', async () => {
    const { attempts, asked } = setUp()
    for (const state of ['', 'x', 'x'.repeat(42), 'x'.repeat(44), `${'x'.repeat(42)}!`, `\n${STATE}`]) {
      assert.equal(await attempts.isFinished(state), false)
      assert.equal(await attempts.finished(state, SESSION), undefined)
    }
    assert.deepEqual(asked, [])
    await attempts.isFinished(STATE)
    assert.equal(asked.length, 1)
  })

  test('that could not be kept is told, and fails nothing', async () => {
    const { attempts, failure } = setUp()
    failure.error = new Error('no store')
    assert.equal(await attempts.keepFinished(STATE, SESSION, '/'), false)
  })
})
