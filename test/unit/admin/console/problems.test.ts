import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { findProblems, type ProblemFacts } from '../../../../src/admin/console/problems.ts'
import { type Gauges, NOTHING, NOTHING_READ } from '../../../../src/admin/console/readings.ts'
import type { RouteStatus } from '../../../../src/admin/console/route-states.ts'

const NOW = 1_800_000_000_000
const DAY_MS = 86_400_000

const GAUGES: Gauges = {
  ...{ requestsInFlight: 0, streamsInFlight: 0, providerInFlight: 0, providerQueue: 0, configHash: 'abc' },
  circuits: { tokens: 'closed', code: 'closed', par: 'closed' },
  ...{ configFaults: [], tokenLifetimes: new Map(), certificateEnds: new Map(), droppedLogLines: 0 },
  ...{ sessions: { started: 0, ended: 0 }, signIns: {} },
}
const QUIET: ProblemFacts = {
  readiness: { ready: true, draining: false, dependencies: { store: 'ok', provider: 'ok' } },
  ...{ isInvalidationLive: true, issuer: 'https://id.example.com', providerCause: 'ECONNREFUSED' },
  ...{ gauges: GAUGES, reading: NOTHING_READ, routes: [], resources: [], restartRequired: [] },
  ...{ lastReload: undefined, now: NOW, idTokenCause: 'an iat 600 s in the future' },
  clock: { offsetSeconds: -1, toleranceMs: 60_000 },
}
const route = (more: Partial<RouteStatus>): RouteStatus => ({
  ...{ id: 'orders', path: '/api/orders', upstream: 'http://orders', auth: 'required', websocket: false },
  ...{ state: 'up', circuit: 'closed', upstreamErrors: 0, upstreamP99Ms: null },
  ...{ requestsPerSecond: 1, requests: 60, refused: 0, errors: 0, errorShare: 0, p50Ms: 1, p99Ms: 2 },
  ...more,
})
const reading = (more: Partial<ProblemFacts['reading']>) => ({ reading: { ...NOTHING_READ, ...more } })
const gauges = (more: Partial<Gauges>) => ({ gauges: { ...GAUGES, ...more } })

/** What is found wrong, as `severity subject: message`. */
function found(facts: Partial<ProblemFacts>): string[] {
  return findProblems({ ...QUIET, ...facts }).map(({ severity, subject, message, action }) => {
    assert.ok(action.length > 10, 'an operator is told what to do')
    return `${severity} ${subject}: ${message}`
  })
}

describe('what the console finds wrong', () => {
  test('nothing, where nothing is', () => {
    assert.deepEqual(found({}), [])
    assert.deepEqual(found({ routes: [route({}), route({ state: 'idle' })] }), [])
    assert.deepEqual(found({ clock: { offsetSeconds: null, toleranceMs: 0 } }), [])
  })

  for (const [what, facts, expected] of [
    [
      'a store that has never worked',
      {
        readiness: {
          ready: false,
          draining: false,
          dependencies: { store: 'unavailable' },
          reasons: { store: 'NOAUTH' },
        },
      },
      /^error session store: NOAUTH; this replica is not ready and gets no users$/,
    ],
    [
      'a clock that is fast',
      { clock: { offsetSeconds: 61, toleranceMs: 60_000 } },
      /^error clock: this machine's is 61 s ahead of the provider's, and provider\.clockTolerance is 60 s$/,
    ],
    [
      'a clock that begins to be slow',
      { clock: { offsetSeconds: -31, toleranceMs: 60_000 } },
      /^warning clock: this machine's is 31 s behind the provider's/,
    ],
    [
      'a store that is full',
      reading({
        store: { ...NOTHING, count: 100, failed: 40 },
        storeErrors: new Map([['out_of_memory', { out_of_memory: 40 }]]),
      }),
      /^error session store: it answers, but 40 of 100 commands failed in the last minutes: out_of_memory 40$/,
    ],
    [
      'a channel that is not heard',
      { isInvalidationLive: false },
      /^warning session store: this replica does not hear/,
    ],
    [
      'a provider that cannot be discovered',
      { readiness: { ready: true, draining: false, dependencies: { store: 'ok', provider: 'unavailable' } } },
      /^error provider https:\/\/id\.example\.com: it cannot be discovered: ECONNREFUSED$/,
    ],
    [
      'a token endpoint whose circuit is open',
      gauges({ circuits: { ...GAUGES.circuits, tokens: 'open' } }),
      /^error provider .*the circuit for refreshes is open: ECONNREFUSED$/,
    ],
    [
      'a provider that is slow now and then',
      reading({ provider: { ...NOTHING, count: 50, failed: 3 } }),
      /^warning provider .*3 of 50 calls got no usable answer/,
    ],
    [
      'a client that the provider refuses',
      gauges({ configFaults: [{ resource: 'billing', error: 'invalid_client' }] }),
      /^error resource billing: .*invalid_client$/,
    ],
    [
      'sign-ins that fail at the code grant',
      reading({
        signIns: new Map([['failed', { failed: 5 }]]),
        signInFailures: new Map([['code', { invalid_client: 5 }]]),
      }),
      /^error sign-ins: 5 of 5 failed in the last minutes: code invalid_client 5$/,
    ],
    [
      'a clock that is wrong, with one sign-in of many',
      reading({
        signIns: new Map<string, Record<string, number>>([
          ['failed', { failed: 1 }],
          ['succeeded', { succeeded: 9 }],
        ]),
        signInFailures: new Map([['id_token', { iat: 1 }]]),
      }),
      /^error clock: 1 sign-ins failed .*: an iat 600 s in the future$/,
    ],
    [
      'ID tokens of refreshes that fail their checks',
      reading({ refreshes: new Map([['orders', { renewed: 9, id_token_ignored: 9 }]]) }),
      /^warning ID tokens: 9 refreshes .*: an iat 600 s in the future$/,
    ],
    [
      'a consent that was withdrawn',
      reading({ refreshes: new Map([['billing', { renewed: 9, consent: 2, user_must_act: 1 }]]) }),
      /^warning resource billing: the provider wants users' consent again: 3 refreshes/,
    ],
    [
      'a provider that is slow',
      reading({ provider: { ...NOTHING, count: 10, buckets: NOTHING.buckets.with(11, 10) } }),
      /^warning provider .*: one in 20 calls took longer than 4\.9 s/,
    ],
    [
      'a session key that was taken away too early',
      reading({ missingSessions: new Map([['key_gone', { key_gone: 12 }]]) }),
      /^error session keys: 12 requests/,
    ],
    [
      'an upstream that does not answer',
      { routes: [route({ state: 'down' })] },
      /^error upstream http:\/\/orders: .*route orders$/,
    ],
    [
      'an upstream whose certificate has expired',
      { routes: [route({ state: 'failing', upstreamErrors: 9, errorShare: 1, noAnswer: { tls: 9 } })] },
      /^error upstream http:\/\/orders: .*no answer: tls; route orders$/,
    ],
    [
      'a file that was refused',
      { lastReload: { at: '', outcome: 'refused', problems: [], problemCount: 3 } },
      /^warning configuration: .*refused \(3 problems\); the one before runs on$/,
    ],
    ['a change that waits', { restartRequired: ['limits'] }, /^warning configuration: .*restart: limits$/],
    [
      'a certificate that ends',
      gauges({ certificateEnds: new Map([['store', NOW + 3 * DAY_MS]]) }),
      /^warning client certificate for store: it ends in 3 days$/,
    ],
    ['lines that were dropped', gauges({ droppedLogLines: 7 }), /^warning log: 7 lines/],
  ] as const)
    test(what, () => {
      const problems = found(facts as Partial<ProblemFacts>)
      assert.equal(problems.length, 1)
      assert.match(problems[0]!, expected)
    })

  test('errors of our own are not put down to the upstream, and one user who fails is no news', () => {
    assert.deepEqual(found({ routes: [route({ state: 'failing', errorShare: 1, upstreamErrors: 0 })] }), [])
    assert.deepEqual(found(reading({ signIns: new Map([['failed', { failed: 1 }]]) })), [])
  })

  test('a thousand dead upstreams hide nothing else', () => {
    const routes = Array.from({ length: 1_000 }, (_, at) =>
      route({ state: 'down', upstream: `http://u${at}` }),
    )
    const problems = found({ routes, restartRequired: ['limits'] })
    assert.equal(problems.length, 12)
    assert.match(problems.at(-1)!, /limits/)
  })
})
