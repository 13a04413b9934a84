// Over 400 lines, because it is one list: each kind of problem with its words and its cure.

import type { Readiness } from '../server.ts'
import { type Counts, countIn, type Gauges, quantileMs, type Reading } from './readings.ts'
import type { ReloadStatus } from './reloads.ts'
import type { ResourceStatus } from './resource-states.ts'
import type { RouteStatus } from './route-states.ts'

/** Something that is wrong now, and what an operator can do about it. */
export type Problem = {
  /** `error`: users are refused because of it. */
  readonly severity: 'error' | 'warning'
  readonly subject: string
  readonly message: string
  readonly action: string
}

/** What the problems are found in. */
export type ProblemFacts = {
  readonly readiness: Readiness
  readonly isInvalidationLive: boolean
  readonly issuer: string
  readonly providerCause: string | undefined
  /** How many seconds our clock is ahead of the provider's; null: not known. */
  readonly clock: { readonly offsetSeconds: number | null; readonly toleranceMs: number }
  readonly gauges: Gauges
  /** What came in the last minutes. */
  readonly reading: Reading
  /** Why the last ID token was refused. */
  readonly idTokenCause: string | undefined
  readonly routes: readonly RouteStatus[]
  readonly resources: readonly ResourceStatus[]
  readonly restartRequired: readonly string[]
  readonly lastReload: ReloadStatus | undefined
  /** Epoch ms. */
  readonly now: number
}

/** No more than so many of one kind: with 1,000 routes on one dead upstream, the list still shows the rest. */
const MOST_ALIKE = 10

/** Lists what is wrong now, the worst first. */
export function findProblems(facts: ProblemFacts): Problem[] {
  const all = [
    ...storeProblems(facts),
    ...providerProblems(facts),
    ...upstreamProblems(facts.routes),
    ...resourceProblems(facts),
    ...consentProblems(facts.reading),
    ...signInProblems(facts.reading),
    ...clockProblems(facts.clock),
    ...idTokenProblems(facts),
    ...keyProblems(facts.reading),
    ...configProblems(facts),
    ...certificateProblems(facts),
    ...logProblems(facts),
  ]
  return all.toSorted((a, b) => rank(a) - rank(b))
}

function rank({ severity }: Problem): number {
  return severity === 'error' ? 0 : 1
}

function storeProblems({ readiness, isInvalidationLive, reading }: ProblemFacts): Problem[] {
  const { ready, draining, dependencies, reasons } = readiness
  const list: Problem[] = []
  if (draining) {
    list.push({
      ...{ severity: 'warning', subject: 'process' },
      message: 'it drains: requests in flight end, new ones are for the other replicas',
      action: 'Nothing, if you are stopping it.',
    })
  }
  if (dependencies.store !== 'ok') {
    list.push({
      ...{ severity: 'error', subject: 'session store' },
      message: `${reasons?.store ?? 'it does not answer'}${ready || draining ? '' : '; this replica is not ready and gets no users'}`,
      action: `Signed-in users get 503 store_unavailable until it is back; they stay signed in. ${storeCure(reading, 'Look at Redis.')}`,
    })
  } else if (!isInvalidationLive) {
    list.push({
      ...{ severity: 'warning', subject: 'session store' },
      message:
        'this replica does not hear of sessions that change elsewhere, and reads the store for each request',
      action: 'Look at the Redis connection for pub/sub (ACL: the channel), and at its latency.',
    })
  }
  // It may answer and serve some commands only: memory is full, a right was taken away, it is a replica now.
  const { failed, count } = reading.store
  if (dependencies.store === 'ok' && failed > 0) {
    list.push({
      ...{ severity: isFailing(failed, count) ? 'error' : 'warning', subject: 'session store' },
      message: `it answers, but ${failed} of ${count} commands failed in the last minutes: ${named(reading.storeErrors)}`,
      action: storeCure(reading, 'Look at its failover and its latency.'),
    })
  }
  return list
}

const STORE_CURES: Readonly<Record<string, string>> = {
  permission: 'Compare password and ACL rule of this user at Redis with what is configured.',
  out_of_memory: 'Redis is full: raise maxmemory. maxmemory-policy must be noeviction.',
  read_only: 'It is a replica: name the primary, or the sentinels.',
  moved: 'It is a node of a cluster: name it under session.store.cluster.',
}

/** The cure of the most frequent error that has one of its own. */
function storeCure({ storeErrors }: Reading, otherwise: string): string {
  const kinds = Object.keys(STORE_CURES).filter((kind) => countIn(storeErrors, kind) > 0)
  const [worst] = kinds.toSorted((a, b) => countIn(storeErrors, b) - countIn(storeErrors, a))
  return STORE_CURES[worst ?? ''] ?? otherwise
}

/** One in a hundred, as for routes. */
function isFailing(failed: number, count: number): boolean {
  return failed / Math.max(1, count) >= 0.01
}

/** The innermost names of some counts, the most frequent first. */
function named(counts: Counts): string {
  const all = [...counts].flatMap(([outer, inner]) =>
    Object.entries(inner).map(([name, count]) => ({
      name: name === outer ? name : `${outer} ${name}`,
      count,
    })),
  )
  const sorted = all.toSorted((a, b) => b.count - a.count).slice(0, 5)
  return sorted.map(({ name, count }) => `${name} ${count}`).join(', ')
}

function signInProblems({ signIns, signInFailures }: Reading): Problem[] {
  const failed = countIn(signIns, 'failed') - refusedForTime(signInFailures)
  const succeeded = countIn(signIns, 'succeeded')
  // A single one can be a stranger who made it fail.
  if (failed < 2 || failed <= succeeded) return []
  return [
    {
      ...{ severity: succeeded === 0 ? 'error' : 'warning', subject: 'sign-ins' },
      message: `${failed} of ${failed + succeeded} failed in the last minutes: ${named(signInFailures)}`,
      action: 'The warnings below have the reason.',
    },
  ]
}

/** Claims that only a clock makes wrong. */
const TIME_CLAIMS = ['iat', 'nbf', 'exp']
const CLOCK_CURE =
  'The clocks of this machine and the provider differ: repair time synchronisation. doctor compares them.'

/** As for the alert. */
const NOTABLE_OFFSET_SECONDS = 30

function clockProblems({ offsetSeconds, toleranceMs }: ProblemFacts['clock']): Problem[] {
  const apart = Math.abs(offsetSeconds ?? 0)
  const isOff = apart * 1000 > toleranceMs
  if (!isOff && apart <= NOTABLE_OFFSET_SECONDS) return []
  const side = Number(offsetSeconds) > 0 ? 'ahead of' : 'behind'
  return [
    {
      ...{ severity: isOff ? 'error' : 'warning', subject: 'clock' },
      message: `this machine's is ${apart} s ${side} the provider's, and provider.clockTolerance is ${toleranceMs / 1000} s`,
      action: CLOCK_CURE,
    },
  ]
}

/** Of a sign-in, which fails with it, and of a refresh, which goes on with the claims of before. */
function idTokenProblems({ reading: { signInFailures, refreshes }, idTokenCause }: ProblemFacts): Problem[] {
  const refused = refusedForTime(signInFailures)
  const ignored = [...refreshes.values()].reduce((sum, { id_token_ignored = 0 }) => sum + id_token_ignored, 0)
  const cause = idTokenCause === undefined ? '' : `: ${idTokenCause}`
  const list: Problem[] = []
  if (refused > 0) {
    list.push({
      ...{ severity: 'error', subject: 'clock' },
      message: `${refused} sign-ins failed in the last minutes because of the times in their ID tokens${cause}`,
      action: CLOCK_CURE,
    })
  }
  if (ignored > 0) {
    list.push({
      ...{ severity: 'warning', subject: 'ID tokens' },
      message: `${ignored} refreshes in the last minutes brought an ID token that failed its checks; claims stay as they were${cause}`,
      action: `Claims iat, nbf or exp: ${CLOCK_CURE} Others: what changed at the provider?`,
    })
  }
  return list
}

function refusedForTime(signInFailures: Counts): number {
  return TIME_CLAIMS.reduce((sum, claim) => sum + countIn(signInFailures, 'id_token', claim), 0)
}

function consentProblems({ refreshes }: Reading): Problem[] {
  const wanted = [...refreshes].map(([resource, counts]) => ({ resource, count: consentsIn(counts) }))
  return bounded(
    wanted.filter(({ count }) => count > 0),
    ({ resource, count }) => ({
      ...{ severity: 'warning', subject: `resource ${resource}` },
      message: `the provider wants users' consent again: ${count} refreshes in the last minutes`,
      action:
        'Ask at the provider who withdrew it, and give it again, for all users if they must not be asked. They stay signed in, and are asked at a sign-in.',
    }),
  )
}

function consentsIn({ consent = 0, user_must_act = 0 }: Readonly<Record<string, number>> = {}): number {
  return consent + user_must_act
}

function keyProblems({ missingSessions }: Reading): Problem[] {
  const lost = countIn(missingSessions, 'key_gone')
  if (lost === 0) return []
  return [
    {
      ...{ severity: 'error', subject: 'session keys' },
      message: `${lost} requests in the last minutes had a session under a key that is no longer configured`,
      action: 'Put the key back, as the last of session.keys: these sessions are good again.',
    },
  ]
}

function providerProblems({ readiness, issuer, providerCause, gauges, reading }: ProblemFacts): Problem[] {
  const list: Problem[] = []
  const subject = `provider ${issuer}`
  const cause = providerCause === undefined ? '' : `: ${providerCause}`
  if (readiness.dependencies.provider === 'unavailable') {
    list.push({
      ...{ severity: 'error', subject },
      message: `it cannot be discovered${cause}`,
      action:
        'Nobody can sign in; living access tokens are used on. Look at DNS, egress, proxy and certificates.',
    })
  }
  const { failed, count } = reading.provider
  if (failed > 0 && gauges.circuits.tokens === 'closed') {
    list.push({
      ...{ severity: 'warning', subject },
      message: `${failed} of ${count} calls got no usable answer in the last minutes${cause}`,
      action: 'Look at its latency below, at its own status page and at provider.timeout.',
    })
  }
  const p95Ms = quantileMs(reading.provider, 0.95) ?? 0
  if (p95Ms > SLOW_MS) {
    list.push({
      ...{ severity: 'warning', subject },
      message: `one in 20 calls took longer than ${(p95Ms / 1000).toFixed(1)} s in the last minutes`,
      action:
        'Users wait for each of them; at provider.timeout it fails. Look at its status page, and at a proxy on the way.',
    })
  }
  const { tokens, code, par } = gauges.circuits
  if (tokens !== 'closed') {
    list.push({
      ...{ severity: 'error', subject },
      message: `its token endpoint fails again and again, the circuit for refreshes is ${tokens}${cause}`,
      action:
        'Requests whose access token has expired get 503. It closes by itself when the provider answers.',
    })
  }
  for (const [what, state] of [
    ['code grants', code],
    ['pushed authorization requests', par],
  ] as const) {
    if (state === 'closed') continue
    list.push({
      ...{ severity: 'error', subject },
      message: `the circuit for ${what} is ${state}${cause}`,
      action: 'Sign-ins fail. It closes by itself when the provider answers.',
    })
  }
  for (const { resource, error } of gauges.configFaults) {
    list.push({
      ...{ severity: 'error', subject: resource.startsWith('(') ? subject : `resource ${resource}` },
      message: `the provider rejects how this client is configured: ${error}${resource.startsWith('(') ? ` ${resource}` : ''}`,
      action: 'Sessions stay. Correct the client at the provider, or the configuration here.',
    })
  }
  return list
}

/** As for the alert. */
const SLOW_MS = 2_000

function upstreamProblems(routes: readonly RouteStatus[]): Problem[] {
  const down = grouped(routes.filter(({ state }) => state === 'down'))
  const failing = grouped(
    routes.filter(({ state, upstreamErrors }) => state === 'failing' && upstreamErrors > 0),
  )
  return [
    ...bounded(down, ([upstream, list]) => ({
      ...{ severity: 'error', subject: `upstream ${upstream}` },
      message: `it does not answer, its circuit is open; ${routesIn(list)}`,
      action: 'Users get 502 upstream_unreachable. A probe goes now and then; it closes by itself.',
    })),
    ...bounded(failing, ([upstream, list]) => ({
      severity: list.some(({ errorShare }) => errorShare >= 0.5) ? 'error' : 'warning',
      subject: `upstream ${upstream}`,
      message: `server errors in the last minutes${reasonsIn(list)}; ${routesIn(list)}`,
      action: upstreamCure(list),
    })),
  ]
}

function grouped(routes: readonly RouteStatus[]): [upstream: string, routes: RouteStatus[]][] {
  const groups = new Map<string, RouteStatus[]>()
  for (const route of routes) groups.set(route.upstream, [...(groups.get(route.upstream) ?? []), route])
  return [...groups]
}

/** Why there was no answer; nothing for an upstream that answers with errors. */
function reasonsIn(list: readonly RouteStatus[]): string {
  const reasons = new Set(list.flatMap(({ noAnswer = {} }) => Object.keys(noAnswer)))
  return reasons.size === 0 ? ', answered by itself' : `, no answer: ${[...reasons].join(', ')}`
}

const UPSTREAM_CURES: Readonly<Record<string, string>> = {
  tls: 'Its certificate is not accepted; the warnings below have the code. Renew it, or name its authority in routes[].tls.ca.',
  connect: 'Nothing takes connections there: look at that service, its endpoints and its network policy.',
  dns: 'Its name is not known: look at the service, and at DNS.',
  timeout: 'It does not answer in time: look at that service, and at routes[].timeout.',
}

function upstreamCure(list: readonly RouteStatus[]): string {
  const reasons = new Set(list.flatMap(({ noAnswer = {} }) => Object.keys(noAnswer)))
  const [only] = reasons.size === 1 ? reasons : []
  return (
    UPSTREAM_CURES[only ?? ''] ??
    'Look at the upstream. What it answers itself is passed on; no answer is 502 or 504.'
  )
}

function routesIn(list: readonly RouteStatus[]): string {
  const [first] = list
  return list.length === 1 ? `route ${first!.id}` : `${list.length} routes, among them ${first!.id}`
}

function bounded<Item>(
  items: readonly Item[],
  problemOf: (item: Item) => { severity: string } & Omit<Problem, 'severity'>,
): Problem[] {
  const shown = items.slice(0, MOST_ALIKE).map((item) => problemOf(item) as Problem)
  const more = items.length - shown.length
  if (more === 0) return shown
  return [...shown, { ...shown[0]!, subject: 'and more', message: `${more} more of the same kind` }]
}

/** What has a line of its own is left out: a fault of the configuration, and consents. */
function resourceProblems({ resources, reading, gauges: { configFaults } }: ProblemFacts): Problem[] {
  const faulty = new Set(configFaults.map(({ resource }) => resource))
  const unexplained = resources
    .filter(({ name }) => !faulty.has(name))
    .map(({ recent, ...resource }) => ({
      ...{ ...resource, renewed: recent.renewed },
      failed: recent.failed - consentsIn(reading.refreshes.get(resource.name)),
    }))
  const failing = unexplained.filter(({ failed, renewed }) => failed > renewed && failed > 1)
  return bounded(failing, ({ name, failed, renewed, lastError }) => {
    const word = lastError?.oauthError ?? lastError?.reason ?? lastError?.outcome ?? lastError?.code
    return {
      ...{ severity: 'warning', subject: `resource ${name}` },
      message: `${failed} of ${failed + renewed} token requests failed in the last minutes${word === undefined ? '' : `, the last with ${word}`}`,
      action:
        'Compare the resource with what the provider has registered; the refusals below have its words.',
    }
  })
}

function configProblems({ restartRequired, lastReload }: ProblemFacts): Problem[] {
  const list: Problem[] = []
  if (lastReload?.outcome === 'refused') {
    list.push({
      ...{ severity: 'warning', subject: 'configuration' },
      message: `the file was changed and refused (${lastReload.problemCount} problems); the one before runs on`,
      action: 'Correct the file: cloakroom check tells the same. A restart with it would fail.',
    })
  }
  if (restartRequired.length > 0) {
    list.push({
      ...{ severity: 'warning', subject: 'configuration' },
      message: `changed, but in use only after a restart: ${restartRequired.join(', ')}`,
      action: 'Restart the replicas one after the other.',
    })
  }
  return list
}

const WARN_DAYS = 14
const DAY_MS = 86_400_000

function certificateProblems({ gauges: { certificateEnds }, now }: ProblemFacts): Problem[] {
  const ending = [...certificateEnds].map(([peer, end]) => ({ peer, days: Math.floor((end - now) / DAY_MS) }))
  return bounded(
    ending.filter(({ days }) => days < WARN_DAYS),
    ({ peer, days }) => ({
      ...{ severity: days < 0 ? 'error' : 'warning', subject: `client certificate for ${peer}` },
      message: days < 0 ? 'it has ended' : `it ends in ${days} days`,
      action: 'Have a new one accepted there, then replace the files.',
    }),
  )
}

function logProblems({ gauges: { droppedLogLines } }: ProblemFacts): Problem[] {
  if (droppedLogLines === 0) return []
  return [
    {
      ...{ severity: 'warning', subject: 'log' },
      message: `${droppedLogLines} lines were dropped since the start: standard output is not read, or its disk is full`,
      action: 'Look at the log collector.',
    },
  ]
}
