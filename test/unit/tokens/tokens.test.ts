import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { BffError } from '../../../src/errors.ts'
import { sessionHash } from '../../../src/session/session.ts'
import type { SealedTokens } from '../../../src/store/port.ts'
import { packToken } from '../../../src/tokens/record/sealing.ts'
import { createTokens, type TokensDeps } from '../../../src/tokens/tokens.ts'

const START = 1_800_000_000_000
const HOUR_MS = 3_600_000
const holder = { id: 'id', hash: sessionHash('id'), claims: { sub: 'ada' } }
const GRANT = {
  ...{ refreshToken: 'rt-1', accessToken: 'at-1', obtainedAt: START, expiresAt: START + HOUR_MS },
}
const living = (value: string) =>
  packToken({ value, expiresAt: START + HOUR_MS, renewAt: START + HOUR_MS / 2 })

type Script = {
  /** The record in the store; undefined when the session has ended. */
  readonly record?: Partial<SealedTokens> | undefined
  readonly isCreated?: boolean
  readonly forget?: () => Promise<void>
  readonly provider?: Partial<TokensDeps['provider']>
} & Partial<Pick<TokensDeps, 'resources' | 'retiredResources'>>

/** The tokens room over a scripted store, with texts sealed as they are. Waits last for ever. */
function setUp(script: Script = {}) {
  const { isCreated = true, provider, ...parts } = script
  const record = 'record' in script ? script.record : {}
  const log = {
    created: [] as unknown[],
    forgotten: [] as unknown[],
    kept: [] as unknown[],
    ended: [] as unknown[],
    revoked: [] as string[],
    pauses: [] as number[],
    exchanged: [] as unknown[],
    endPause: undefined as (() => void) | undefined,
  }
  const found = record && { version: 1, refreshToken: 'rt-1', accessTokens: {}, ...record }
  const tokens = createTokens({
    store: {
      sessions: {
        end: async () => found,
        read: () => assert.fail(),
        create: () => assert.fail(),
        replace: () => assert.fail(),
      } as unknown as TokensDeps['store']['sessions'],
      tokens: {
        read: async () => found,
        async create(...creation) {
          log.created.push(creation)
          return isCreated
        },
        write: async () => 'written',
        async keep(_, token) {
          log.kept.push(token)
          return true
        },
        async forget(...forgotten) {
          log.forgotten.push(forgotten)
          await script.forget?.()
        },
        forgetAll: async () => true,
        lock: async () => true,
        unlock: async () => undefined,
      },
    },
    sealing: { seal: (_, text) => text, open: (_, text) => text },
    copy: { peek: () => undefined, load: (_key, _hash, read) => read(), prefetch() {} },
    provider: {
      refreshGrant: () => assert.fail('nothing is refreshed'),
      clientCredentialsGrant: async (resource) => ({ ...GRANT, accessToken: `${resource} of the client` }),
      async tokenExchangeGrant(request) {
        log.exchanged.push(request)
        return { ...GRANT, accessToken: 'exchanged' }
      },
      admit: (work) => work(),
      revoke: async (token) => void log.revoked.push(token),
      ...provider,
    },
    resources: {},
    reusesRefreshTokens: true,
    providerTimeoutMs: 1_000,
    clock: {
      now: () => START,
      monotonicNow: () => 0,
      pause: (ms, signal) =>
        new Promise((resolve) => {
          log.pauses.push(ms)
          log.endPause = resolve
          signal?.addEventListener('abort', () => resolve())
        }),
    },
    observe: {
      unseenRefresh() {},
      refreshLock() {},
      sessionEnded: (...end) => void log.ended.push(end),
    },
    ...parts,
  })
  return { tokens, log }
}

describe('the tokens of a code grant', () => {
  test('are kept for the session, the access token under its resource', async () => {
    const { tokens, log } = setUp()
    await tokens.keepFirst(holder, GRANT, 'orders')
    const token = { value: 'at-1', expiresAt: START + HOUR_MS - 5_000, renewAt: START + HOUR_MS - 300_000 }
    const record = { refreshToken: 'rt-1', accessTokens: { orders: packToken(token) } }
    assert.deepEqual(log.created, [[holder.hash, record]])
  })

  test('are kept without the one that is for no resource, or that did not come', async () => {
    const { tokens, log } = setUp()
    await tokens.keepFirst(holder, { ...GRANT, refreshToken: undefined }, undefined)
    assert.deepEqual(log.created, [[holder.hash, { refreshToken: undefined, accessTokens: {} }]])
  })

  test('are worth nothing when their session has gone meanwhile', async () => {
    const { tokens } = setUp({ isCreated: false })
    await assert.rejects(tokens.keepFirst(holder, GRANT, 'orders'), { code: 'store_unavailable' })
  })
})

describe('the end of a session', () => {
  test('revokes its refresh token, and is counted', async () => {
    const { tokens, log } = setUp()
    await tokens.end(holder, 'logout')
    assert.deepEqual(log.revoked, ['rt-1'])
    assert.deepEqual(log.ended, [[holder.hash, 'logout']])
    assert.deepEqual(log.pauses, [2_000])
  })

  test('of a session that another one takes the place of is not counted', async () => {
    for (const [record, isEnded, revoked] of [
      [{}, true, ['rt-1']],
      [{ refreshToken: undefined }, true, []],
      [undefined, false, []],
    ] as const) {
      const { tokens, log } = setUp({ record })
      assert.equal(await tokens.endReplaced(holder), isEnded)
      assert.deepEqual([log.revoked, log.ended], [revoked, []])
    }
  })

  test('waits for the revocation no longer than 2 s', async () => {
    const { tokens, log } = setUp({ provider: { revoke: () => new Promise(() => undefined) } })
    const ended = tokens.endReplaced(holder)
    const meanwhile = new Promise((resolve) => setImmediate(resolve, 'waiting'))
    assert.equal(await Promise.race([ended, meanwhile]), 'waiting')
    log.endPause?.()
    assert.equal(await ended, true)
  })

  for (const [name, outcome, revoked] of [
    ['of a dead grant leaves nothing to revoke', { kind: 'dead', reason: 'invalid_grant' }, []],
    [
      'of a grant that answers for another user revokes its refresh token',
      { kind: 'renewed', subject: 'mallory' },
      ['rt-1'],
    ],
  ] as const)
    test(`${name}, and is counted`, async () => {
      const { tokens, log } = setUp({
        provider: {
          refreshGrant: async () => (outcome.kind === 'dead' ? outcome : { ...GRANT, ...outcome }),
        },
      })
      await assert.rejects(async () => tokens.tokenFor(holder, 'orders'), { code: 'session_required' })
      assert.deepEqual(log.revoked, revoked)
      const reason = outcome.kind === 'dead' ? 'invalid_grant' : 'subject_changed'
      assert.deepEqual(log.ended, [[holder.hash, reason]])
    })
})

describe('tokens of resources that a reload took away', () => {
  const accessTokens = { orders: living('o'), billing: living('b'), stock: living('s') }

  test('are not used, and are forgotten', async () => {
    const { tokens, log } = setUp({
      record: { accessTokens },
      retiredResources: new Set(['billing', 'stock', 'audit']),
      resources: { billing: { grant: 'token_exchange', subject: 'orders' } },
    })
    assert.equal((await tokens.tokenFor(holder, 'orders')).value, 'o')
    assert.deepEqual(log.forgotten, [[holder.hash, ['billing', 'stock']]])
    assert.equal(
      (await tokens.tokenFor(holder, 'billing')).value,
      'exchanged',
      'one of the same name is another',
    )
  })

  test('cost nothing when there are none', async () => {
    for (const retiredResources of [undefined, new Set<string>(), new Set(['audit'])]) {
      const { tokens, log } = setUp({ record: { accessTokens }, retiredResources })
      assert.equal((await tokens.tokenFor(holder, 'billing')).value, 'b')
      assert.deepEqual(log.forgotten, [])
    }
  })

  test('that the store does not forget are met by the next reader', async () => {
    const { tokens } = setUp({
      record: { accessTokens },
      retiredResources: new Set(['billing']),
      forget: () => Promise.reject(new BffError('store_unavailable', 'away')),
    })
    assert.equal((await tokens.tokenFor(holder, 'orders')).value, 'o')
    await new Promise(setImmediate)
  })

  test('are those of a session that is gone, too', async () => {
    const { tokens } = setUp({ record: undefined, retiredResources: new Set(['billing']) })
    await assert.rejects(async () => tokens.tokenFor(holder, 'orders'), { code: 'session_required' })
  })
})

describe('the source of a token', () => {
  const record = { accessTokens: { orders: living('of the session') } }
  const resources = {
    ledger: { grant: 'token_exchange', subject: 'orders' },
    audit: { grant: 'client_credentials' },
  } as const

  test('is the exchange of another token of the session, where the resource says so', async () => {
    const { tokens, log } = setUp({ record, resources })
    const token = await tokens.tokenFor(holder, 'ledger')
    assert.equal(token.value, 'exchanged')
    assert.deepEqual(log.exchanged, [
      { resource: 'ledger', subjectToken: 'of the session', claims: undefined, session: holder.hash },
    ])
    assert.deepEqual(log.kept, [{ resource: 'ledger', sealed: packToken(token) }])
  })

  test('is the client itself, where the resource says so, whoever is signed in', async () => {
    const { tokens } = setUp({ record: undefined, resources })
    assert.equal((await tokens.tokenFor(holder, 'audit')).value, 'audit of the client')
    const challenge = { kind: 'invalid_token' } as const
    const rejection = { token: { value: 'audit of the client' }, challenge, isRepeatable: false }
    assert.deepEqual(await tokens.onRejected(holder, 'audit', rejection), { kind: 'relay' })
  })

  test('is asked about a rejected token, too', async () => {
    const { tokens, log } = setUp({ record, resources })
    const challenge = { kind: 'invalid_token' } as const
    const rejection = { token: { value: 'rejected' }, challenge, isRepeatable: true }
    const reaction = await tokens.onRejected(holder, 'ledger', rejection)
    assert.equal(reaction.kind === 'resend' && reaction.token.forcedAt, START)
    assert.equal(log.exchanged.length, 1)
    const kept = await tokens.onRejected(holder, 'orders', rejection)
    assert.equal(kept.kind === 'resend' && kept.token.value, 'of the session')
  })
})
