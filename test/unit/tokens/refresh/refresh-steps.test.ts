import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { BffError } from '../../../../src/errors.ts'
import { sessionHash } from '../../../../src/session/session.ts'
import type { SealedTokens, TokenWrite, TokenWriteOutcome } from '../../../../src/store/port.ts'
import { createTokenSealer, packToken, type WantedToken } from '../../../../src/tokens/record/sealing.ts'
import {
  createRefresh,
  type RefreshDeps,
  type RefreshGrantOutcome,
  type RefreshGrantRequest,
} from '../../../../src/tokens/refresh/refresh.ts'

const START = 1_800_000_000_000
const HOUR_MS = 3_600_000
const LOCK_TTL_MS = 4_000
const GRANT = {
  ...{ indicators: ['urn:orders'], scopes: ['a'], granted: ['b'], userinfo: ['name'], steppedUp: ['c'] },
}
const holder = { id: 'id', hash: sessionHash('id'), claims: { sub: 'ada' }, ...GRANT }
const wanted: WantedToken = { holder, resource: 'orders' }

type Granted = Extract<RefreshGrantOutcome, { kind: 'renewed' }>
type Script = {
  /** What the store holds at each read; the last one stays. `undefined`: the session has ended. */
  readonly records?: readonly (Partial<SealedTokens> | undefined)[]
  /** How each write ends; `written` after that. */
  readonly writes?: readonly TokenWriteOutcome[]
  readonly grant?: (request: RefreshGrantRequest) => Promise<RefreshGrantOutcome> | RefreshGrantOutcome
  /** Waited for by every write. */
  readonly writeAfter?: () => Promise<TokenWriteOutcome>
  /** False: whatever ends a wait that takes too long happens at once. */
  readonly isPatient?: boolean
  readonly deps?: Partial<RefreshDeps>
}

/** A refresh over a scripted store, with time that passes when it waits. Texts are sealed as they are. */
function setUp({ records = [{}], writes = [], grant, deps, ...script }: Script = {}) {
  const { writeAfter, isPatient = true } = script
  const time = { ms: 0, pauses: [] as number[] }
  const log = {
    requests: [] as RefreshGrantRequest[],
    writes: [] as TokenWrite[],
    observed: [] as [outcome: string, resource: string][],
    ended: [] as unknown[],
    reads: 0,
  }
  const outcomes = writes.values()
  const renewed = (): Granted => ({
    kind: 'renewed',
    accessToken: `at-${log.requests.length}`,
    obtainedAt: START + time.ms,
    expiresAt: START + time.ms + HOUR_MS,
  })
  const refresh = createRefresh({
    records: {
      async read() {
        const found = records[Math.min(log.reads, records.length - 1)]
        log.reads += 1
        return found && { version: 3, refreshToken: 'rt-1', accessTokens: {}, ...found }
      },
      async write(_, change) {
        log.writes.push(change)
        await writeAfter?.()
        return outcomes.next().value ?? 'written'
      },
      lock: async () => true,
      unlock: async () => undefined,
      create: () => assert.fail(),
      keep: () => assert.fail(),
      forget: () => assert.fail(),
      forgetAll: () => assert.fail(),
    },
    sealer: createTokenSealer({ seal: (_, text) => text, open: (_, text) => text }),
    async refreshGrant(request) {
      log.requests.push(request)
      return grant ? grant(request) : renewed()
    },
    endSession: async (...end) => void log.ended.push(end),
    revoke: async () => undefined,
    reusesRefreshTokens: 'auto',
    admit: (work) => work(),
    clock: {
      now: () => START + time.ms,
      monotonicNow: () => time.ms,
      async pause(ms, signal) {
        if (signal && !isPatient) return
        if (signal) return new Promise((resolve) => signal.addEventListener('abort', () => resolve()))
        time.ms += ms
        time.pauses.push(ms)
      },
    },
    lockTtlMs: LOCK_TTL_MS,
    observe: {
      lock: (outcome, resource) => void log.observed.push([outcome, resource]),
      unseen: (resource, outcome) => void log.observed.push([outcome, resource]),
    },
    ...deps,
  })
  return { refresh, renewed, time, ...log, log }
}

const sealed = (value: string, expiresAt: number, forcedAt?: number) => ({
  orders: packToken({ value, expiresAt, renewAt: expiresAt, ...(forcedAt ? { forcedAt } : {}) }),
})

describe('step 2, the record', () => {
  test('that has a fresh token is all that is needed', async () => {
    const { refresh, log } = setUp({ records: [{ accessTokens: sealed('theirs', START + 1) }] })
    assert.equal((await refresh(wanted)).value, 'theirs')
    assert.deepEqual([log.reads, log.requests, log.writes], [1, [], []])
    assert.deepEqual(log.observed, [['settled_elsewhere', 'orders']])
  })

  test('that has one to be renewed, or the rejected one, is not', async () => {
    for (const [script, asked] of [
      [{ accessTokens: sealed('old', START) }, wanted],
      [{ accessTokens: sealed('bad', START + 1) }, { ...wanted, rejected: 'bad' }],
    ] as const) {
      const { refresh, log } = setUp({ records: [script] })
      assert.equal((await refresh(asked)).value, 'at-1')
      assert.equal(log.reads, 1, 'it is read once')
      assert.deepEqual(log.observed, [['worked', 'orders']])
    }
  })

  test('that is gone ends it', async () => {
    const { refresh, log } = setUp({ records: [undefined] })
    await assert.rejects(refresh(wanted), { code: 'session_required' })
    assert.deepEqual(log.observed, [])
  })

  test('with an attempt in flight is looked at every 50 ms, until its token is there', async () => {
    const inFlight = { attempt: 'open:other' } as const
    const { refresh, log, time } = setUp({
      records: [inFlight, inFlight, { ...inFlight, accessTokens: sealed('theirs', START + HOUR_MS) }],
    })
    assert.equal((await refresh(wanted)).value, 'theirs')
    assert.deepEqual(time.pauses, [50, 50])
    assert.deepEqual(log.requests, [])
    assert.deepEqual(log.observed, [['worked', 'orders']], 'by what the first look found')
  })

  test('with an attempt in flight is believed after 2 s where the refresh token may be offered again', async () => {
    const { refresh, log, time } = setUp({ records: [{ attempt: 'open:dead' }] })
    assert.equal((await refresh(wanted)).value, 'at-1')
    assert.equal(time.ms, 2_000)
    assert.deepEqual(log.requests[0]?.refreshToken, 'rt-1')
  })

  test('with an attempt in flight is believed after 5 s, once, where it may not', async () => {
    const { refresh, log, time } = setUp({ records: [{ attempt: 'open:rotates:dead' }] })
    const uncertain = { code: 'reauthentication_required', details: { reason: 'refresh_token_uncertain' } }
    await assert.rejects(refresh(wanted), uncertain)
    assert.equal(time.ms, 5_000)
    await assert.rejects(refresh({ ...wanted, resource: 'billing' }), uncertain)
    assert.equal(time.ms, 5_000)
    assert.deepEqual(log.requests, [])
    assert.deepEqual(log.observed.slice(0, 2), [
      ['worked', 'orders'],
      ['uncertain', 'orders'],
    ])
  })

  test('gives each owner its own time', async () => {
    const looks = Array.from({ length: 40 }, () => ({ attempt: 'open:one' }) as const)
    const { refresh, time } = setUp({ records: [...looks, { attempt: 'open:two' }] })
    await refresh(wanted)
    assert.equal(time.ms, 39 * 50 + 50 + 2_000)
  })
})

describe('step 3, the refresh token', () => {
  test('that is not there sends the user to sign in, if a sign-in brought the token before', async () => {
    const { refresh, log } = setUp({
      records: [{ refreshToken: undefined, accessTokens: sealed('old', START) }],
    })
    const details = { reason: 'no_refresh_token' }
    await assert.rejects(refresh(wanted), { code: 'reauthentication_required', details })
    assert.deepEqual(log.observed[1], ['no_refresh_token', 'orders'])
    const without = setUp({ records: [{ refreshToken: undefined }] })
    await assert.rejects(without.refresh(wanted), { code: 'provider_rejected', details })
    assert.deepEqual([log.writes, without.log.writes], [[], []])
  })

  test('that does not open here ends the session for this replica, and is no fault that is counted', async () => {
    const sealer = createTokenSealer({ seal: (_, text) => text, open: () => undefined })
    const { refresh, log } = setUp({ deps: { sealer } })
    await assert.rejects(refresh(wanted), { code: 'session_required' })
    assert.deepEqual(log.observed, [['worked', 'orders']])
  })

  test('is not offered for a resource that the sign-in did not ask for', async () => {
    const refused = new BffError('reauthentication_required', 'not asked for')
    const { refresh, log } = setUp({
      deps: {
        requireAsked(resource, signIn) {
          assert.deepEqual([resource, signIn], ['orders', GRANT])
          throw refused
        },
      },
    })
    await assert.rejects(refresh(wanted), (error) => error === refused)
    assert.deepEqual(log.writes, [])
  })

  test('is not offered while the process ends', async () => {
    const inFlight = { add() {}, end: async () => 0, isEnding: () => true, isOver: () => false }
    const { refresh, log } = setUp({ deps: { inFlight } })
    await assert.rejects(refresh(wanted), { code: 'provider_unavailable' })
    assert.deepEqual([log.writes, log.requests], [[], []])
  })
})

describe('step 4, the attempt', () => {
  test('that another replica began first is waited for, ten times at most', async () => {
    const superseded = Array.from({ length: 10 }, () => 'superseded' as const)
    const lucky = setUp({ writes: superseded.slice(1) })
    assert.equal((await lucky.refresh(wanted)).value, 'at-1')
    assert.equal(lucky.log.reads, 10)
    const unlucky = setUp({ writes: superseded })
    await assert.rejects(unlucky.refresh(wanted), { code: 'provider_unavailable', retryAfterSeconds: 1 })
    assert.deepEqual([unlucky.log.reads, unlucky.log.requests], [10, []])
    assert.deepEqual(unlucky.log.observed, [['worked', 'orders']])
  })
})

describe('step 5, the grant', () => {
  test('is asked with the refresh token, the resource and what the sign-in was granted', async () => {
    const { refresh, log } = setUp()
    await refresh({ ...wanted, claims: '{}' })
    const [{ keep, ...request } = assert.fail()] = log.requests
    const { hash: session } = holder
    assert.deepEqual(request, {
      ...{ refreshToken: 'rt-1', resource: 'orders', claims: '{}', signIn: GRANT, session },
    })
    assert.equal(typeof keep, 'function')
  })

  const error = new BffError('provider_unavailable', 'no answer')
  const lost: RefreshGrantOutcome = { kind: 'unavailable', error, isMaybeUsed: true }
  for (const [name, outcome, tookMs, mark] of [
    [
      'that did not reach the provider leaves the refresh token as it was',
      { ...lost, isMaybeUsed: false },
      0,
      'ended',
    ],
    ['whose answer was lost leaves a doubt', lost, 0, 'lost'],
    ['whose answer was lost within the time of a lock leaves that doubt', lost, LOCK_TTL_MS, 'lost'],
    ['during which this process stood still may have used it up', lost, LOCK_TTL_MS + 1, 'burnt'],
    ['that was refused may have used it up', { ...lost, kind: 'refused' }, 0, 'burnt'],
    [
      'that was refused before it was looked at has not',
      { ...lost, kind: 'refused', isMaybeUsed: false },
      0,
      'ended',
    ],
  ] as [string, RefreshGrantOutcome, number, string][])
    test(`${name}: ${mark}`, async () => {
      const found = setUp({
        grant() {
          found.time.ms += tookMs
          return outcome
        },
      })
      await assert.rejects(found.refresh(wanted), (thrown) => thrown === error)
      assert.deepEqual(found.log.writes[1], { expectedVersion: 4, attempt: mark })
      assert.deepEqual(found.log.ended, [])
    })

  test('teaches whether the provider rotates', async () => {
    for (const [next, kind, learned] of [
      ['rt-2', 'renewed', /^open:rotates:/],
      ['rt-2', 'refused', /^open:rotates:/],
      ['rt-1', 'renewed', /^open:(?!rotates:)/],
      [undefined, 'renewed', /^open:(?!rotates:)/],
    ] as const) {
      const found = setUp({
        async grant({ keep }) {
          if (next) await keep(next)
          return kind === 'renewed' ? found.renewed() : { kind, error, isMaybeUsed: false }
        },
      })
      await found.refresh(wanted).catch(() => undefined)
      await found.refresh({ ...wanted, resource: 'billing' }).catch(() => undefined)
      const marks = found.log.writes.flatMap(({ attempt }) => (attempt?.startsWith('open:') ? attempt : []))
      assert.match(marks[1] ?? '', learned, `${next} ${kind}`)
    }
  })

  test('that was refused without a rotation does not teach that the provider keeps its refresh tokens', async () => {
    let isRefused = true
    const found = setUp({
      records: [{}, { attempt: 'burnt' }],
      grant: () => (isRefused ? { kind: 'refused', error, isMaybeUsed: true } : found.renewed()),
    })
    await found.refresh(wanted).catch(() => undefined)
    isRefused = false
    await assert.rejects(found.refresh({ ...wanted, resource: 'billing' }), {
      code: 'reauthentication_required',
    })
  })
})

describe('step 6, the reaction', () => {
  test('to a dead grant ends the session', async () => {
    const { refresh, log } = setUp({ grant: () => ({ kind: 'dead', reason: 'invalid_grant' }) })
    await assert.rejects(refresh(wanted), { code: 'session_required', details: { reason: 'grant_ended' } })
    assert.deepEqual(log.ended, [[holder, 'invalid_grant']])
  })

  test('to an ID token of another user ends the session, to one of the same user nothing', async () => {
    for (const [subject, ended] of [
      ['mallory', [[holder, 'subject_changed']]],
      ['ada', []],
      [undefined, []],
    ] as const) {
      const found = setUp({ grant: () => ({ ...found.renewed(), subject }) })
      const answer = found.refresh(wanted)
      if (subject === 'mallory')
        await assert.rejects(answer, { code: 'session_required', details: undefined })
      else assert.equal((await answer).value, 'at-1')
      assert.deepEqual(found.log.ended, ended)
    }
  })

  test('to changed claims, or to an end of the refresh token, has the session follow, once the token is stored', async () => {
    const claimsAfter = () => undefined
    for (const change of [
      { claimsAfter },
      { refreshTokenExpiresAt: 7 },
      { claimsAfter, refreshTokenExpiresAt: 7 },
    ]) {
      const followed: Parameters<NonNullable<RefreshDeps['followClaims']>>[] = []
      const writes: number[] = []
      const found = setUp({
        grant: () => ({ ...found.renewed(), ...change }),
        deps: {
          async followClaims(...told) {
            followed.push(told)
            writes.push(found.log.writes.length)
          },
        },
      })
      await found.refresh(wanted)
      const [[who, after, endsAt] = assert.fail()] = followed
      assert.deepEqual([who, endsAt, followed.length, writes], [holder, change.refreshTokenExpiresAt, 1, [2]])
      assert.equal(after({ sub: 'ada' }), undefined)
      if (change.claimsAfter) assert.equal(after, claimsAfter)
    }
    const unchanged = setUp({ deps: { followClaims: async () => assert.fail('nothing has changed') } })
    await unchanged.refresh(wanted)
  })

  test('to a token stores it, with the time of the last forced renewal', async () => {
    const old = { accessTokens: sealed('old', START, 5) }
    for (const [asked, records, forcedAt] of [
      [wanted, [{}], undefined],
      [wanted, [old], 5],
      [{ ...wanted, rejected: 'old' }, [old], START],
      [{ ...wanted, rejected: 'old' }, [{}], START],
    ] as const) {
      const { refresh, log } = setUp({ records })
      const token = await refresh(asked)
      assert.equal(token.forcedAt, forcedAt)
      assert.deepEqual(log.writes[1]?.accessToken, { resource: 'orders', sealed: packToken(token) })
    }
  })
})

test('a refusal of the provider is remembered, by session and resource', async () => {
  const error = new BffError('provider_rejected', 'no')
  const { refresh, log, time } = setUp({ grant: () => ({ kind: 'refused', error, isMaybeUsed: false }) })
  for (let call = 0; call < 3; call += 1) await assert.rejects(refresh(wanted), { code: error.code })
  assert.equal(log.requests.length, 1)
  await assert.rejects(refresh({ ...wanted, resource: 'billing' }), { code: error.code })
  assert.equal(log.requests.length, 2)
  time.ms += 5_000
  await assert.rejects(refresh(wanted), { code: error.code })
  assert.equal(log.requests.length, 3)
})

test('callers that want the same share one refresh, those that were rejected or lack claims do not', async () => {
  const { refresh, log } = setUp()
  const all = [wanted, wanted, { ...wanted, rejected: 'bad' }, { ...wanted, claims: '{}' }]
  const values = await Promise.all(all.map(async (one) => (await refresh(one)).value))
  assert.deepEqual(values, ['at-1', 'at-1', 'at-2', 'at-3'])
  assert.deepEqual(
    log.observed.filter(([outcome]) => outcome === 'coalesced'),
    [['coalesced', 'orders']],
  )
})

test('a token that the store has not taken yet is used from memory until it expires or is rejected', async () => {
  const written = Promise.withResolvers<TokenWriteOutcome>()
  let isSlow = false
  const found = setUp({
    grant() {
      isSlow = true
      return found.renewed()
    },
    writeAfter: () => (isSlow ? written.promise : Promise.resolve('written')),
    isPatient: false,
  })
  const { refresh, time, log } = found
  const first = await refresh(wanted)
  assert.equal(await refresh(wanted), first)
  time.ms = first.expiresAt - START - 1
  assert.equal(await refresh(wanted), first)
  // Whoever is not served from memory waits for the refresh lock, which this session's writes still hold.
  const busy = { code: 'provider_unavailable', retryAfterSeconds: 2 }
  await assert.rejects(refresh({ ...wanted, rejected: first.value }), busy)
  await assert.rejects(refresh({ ...wanted, resource: 'billing' }), busy)
  time.ms += 1
  await assert.rejects(refresh(wanted), busy)
  assert.equal(log.requests.length, 1)
  written.resolve('written')
  await new Promise(setImmediate)
  time.ms += HOUR_MS
  assert.equal((await refresh(wanted)).value, 'at-2', 'once it is written the store is asked')
})
