import { type CircuitBreaker, createCircuitBreaker } from '../../src/async/circuit-breaker.ts'
import type { Pace } from '../../src/async/pace.ts'
import { createPacing, type Pacing } from '../../src/oidc/token-endpoint/limiter.ts'
import { storedAccessToken } from '../../src/tokens/record/sealing.ts'
import { type SeededRandom, seededRandom } from '../chaos/seeded-random.ts'
import { createAgenda } from './agenda.ts'

/** A day at the token endpoint. Times in ms from its beginning. */
export type LoadCase = {
  readonly name: string
  readonly seed: number
  readonly sessions: number
  readonly replicas: number
  /** So many of the replicas are played, with their part of the sessions and of what the provider allows. */
  readonly played: number
  readonly resources: number
  /** Sign-ins are spread around a moment, as a bell. */
  readonly signIn: { readonly atMs: number; readonly deviationMs: number }
  /** How long users stay after their sign-in. */
  readonly stayMs: number
  /** Mean time between two requests of a session that need the same resource. */
  readonly gapMs: number
  /** Life of access tokens, evenly between the two. */
  readonly lifeMs: readonly [shortest: number, longest: number]
  /** Renewals begin earlier by a random part of this; Cloakroom has no such jitter, which is 0. */
  readonly jitterMs: number
  readonly provider: {
    readonly latencyMs: number
    /** Requests that it takes in a second, of all replicas; more is answered 429. */
    readonly ratePerSecond: number
    readonly retryAfterSeconds: number
    /** It answers nothing but 503 meanwhile. */
    readonly outage?: { readonly fromMs: number; readonly untilMs: number }
  }
  /** `provider.concurrency` of each replica. */
  readonly concurrency: number
  readonly untilMs: number
}

/** What happened in one stretch of time, for all replicas; rates per second. */
export type Stretch = {
  readonly atMs: number
  /** Requests that reached the provider: refreshes, and codes of sign-ins. */
  calls: number
  /** Refreshes that it answered 429 or 503. */
  failed: number
  /** Requests of users that were answered 503, because their token had ended. */
  unserved: number
  /** Most refreshes that waited for a permit at one time. */
  queued: number
}

/** What became of all refreshes that were asked for, and how it looked over time. */
export type LoadReport = {
  readonly asked: number
  readonly served: number
  /** Got no new token: by the provider, in the queue, or by an open circuit. */
  readonly refused: number
  /** In flight or in the queue at the end. */
  readonly waiting: number
  /** Refreshes that a user waited for, of those that were served. */
  readonly waitedFor: number
  readonly p99WaitMs: number
  readonly unserved: number
  readonly signIns: number
  readonly peakCalls: number
  /** The same, from 50 minutes after the middle of the sign-ins on: their tokens are renewed for the first time. */
  readonly peakRenewals: number
  /** Of the stretches in which there were any. */
  readonly meanCalls: number
  readonly mostQueued: number
  readonly stretches: readonly Stretch[]
}

/** What the limiter of the token endpoint has (src/oidc/token-endpoint/limiter.ts), with `provider.timeout` 5 s. */
const WAIT_MS = 5_000
/** A refresh waits no longer for those of its session before it, and is told to come back (src/tokens/refresh/refresh-lock.ts). */
const LOCK_TTL_MS = 8_000
const BUSY_MS = 2_000
const FAULTS_TO_OPEN = 5
const OPEN_MS = { first: 2_000, most: 30_000, mostAsked: 300_000 }
const JITTER = { share: 0.1, mostMs: 5_000 }
/** How long a failure is remembered that names no time (src/tokens/recent-refusals.ts). */
const REMEMBERED_MS = 5_000
/** The first page of an application asks all its APIs within so long. */
const FIRST_PAGE_MS = 3_000
/** Length of a stretch. */
export const STRETCH_MS = 10_000

const NEEDED = 0
const ANSWERED = 1
const FAILED = 2
const GIVEN_UP = 3
const SIGNED_IN = 4
/** Of the first in line of a replica, which stands in the place of a token. */
const TURN = 5
const KINDS = 6

type Replica = {
  free: number
  /** Tokens whose refresh waits for a permit, in order of arrival. */
  readonly line: Set<number>
  readonly circuit: CircuitBreaker
  readonly pacing: Pacing
  pace: Pace | undefined
  isTurnPlanned: boolean
  askedUntil: number
}

/**
 * Plays a day event by event. Requests that need a resource come at random (a Poisson process for each session and
 * resource), and a token is renewed by the first of them in its renewal window, as in src/tokens; what the requests in
 * between do is of no matter to the provider. The same case always gives the same report.
 */
export function playRefreshLoad(load: LoadCase): LoadReport {
  const share = load.played / load.replicas
  const sessions = Math.round(load.sessions * share)
  const tokens = sessions * load.resources
  const random = seededRandom(load.seed)
  let now = 0
  const agenda = createAgenda()
  const plan = (at: number, kind: number, token: number) => agenda.add(at, token * KINDS + kind)
  const replicas = Array.from({ length: load.played }, () => createReplica(load.concurrency, () => now))
  const provider = createProvider(load, share, random.branch('provider'))
  const books = createBooks(load, share)
  const renewAt = new Float64Array(tokens).fill(-1)
  const expiresAt = new Float64Array(tokens).fill(-1)
  const refusedUntil = new Float64Array(tokens).fill(-1)
  const askedAt = new Float64Array(tokens)
  const calledAt = new Float64Array(tokens)
  const calledIn = new Int32Array(tokens)
  const waitsUntil = new Float64Array(tokens)
  const leavesAt = new Float64Array(sessions)
  const isRefreshing = new Uint8Array(sessions)
  /** A session's refreshes go one after the other. */
  const behind = new Map<number, number[]>()
  const sessionOf = (token: number) => Math.floor(token / load.resources)
  const replicaOf = (token: number) => replicas[sessionOf(token) % load.played]!
  const arrivals = random.branch('requests')
  const nextRequest = (from: number) => from + exponential(arrivals) * load.gapMs

  function planNeed(token: number, from: number): void {
    const at = nextRequest(from)
    if (at < leavesAt[sessionOf(token)]!) plan(at, NEEDED, token)
  }

  function grantToken(token: number): void {
    const lifeMs = random.between(...load.lifeMs)
    const stored = storedAccessToken({ accessToken: '', obtainedAt: now, expiresAt: now + lifeMs })
    renewAt[token] = stored.renewAt - (load.jitterMs === 0 ? 0 : random.between(0, load.jitterMs))
    expiresAt[token] = stored.expiresAt
    planNeed(token, renewAt[token]!)
  }

  /** A request needs a token that is in its renewal window, or over. */
  function needed(token: number): void {
    const session = sessionOf(token)
    const replica = replicaOf(token)
    const isOver = now >= expiresAt[token]!
    if (now < refusedUntil[token]!) {
      if (isOver) books.unserved(now)
      planNeed(token, now)
      return
    }
    books.asked()
    askedAt[token] = now
    if (isRefreshing[session]) {
      const line = behind.get(session)
      if (line) line.push(token)
      else behind.set(session, [token])
      return
    }
    isRefreshing[session] = 1
    admit(replica, token)
  }

  function admit(replica: Replica, token: number): void {
    if (!replica.circuit.isPassable()) refuse(token, circuitLeftMs(replica))
    else if (replica.free > 0 && replica.line.size === 0 && (replica.pace?.delayMs() ?? 0) <= 0) {
      begin(replica, token)
    } else {
      replica.line.add(token)
      waitsUntil[token] = now + WAIT_MS
      books.queued(now, replica.line.size)
      plan(now + WAIT_MS, GIVEN_UP, token)
      serveLine(replica)
    }
  }

  function begin(replica: Replica, token: number): void {
    const period = replica.circuit.enter()
    if (period === undefined) {
      refuse(token, circuitLeftMs(replica))
      return
    }
    replica.free--
    replica.pace?.began()
    replica.pacing.begun(now)
    calledAt[token] = now
    calledIn[token] = replica.circuit.period()
    const { ok, afterMs } = provider.ask(now)
    books.called(now, ok)
    plan(now + afterMs, ok ? ANSWERED : FAILED, token)
  }

  function answered(token: number): void {
    const replica = replicaOf(token)
    if (!replica.circuit.isOpen()) replica.pacing.ended({ kind: 'ok' }, calledAt[token]!)
    if (calledIn[token] === replica.circuit.period()) {
      replica.askedUntil = 0
      replica.circuit.succeeded()
    }
    replica.circuit.ended(calledIn[token]!)
    books.served(now - askedAt[token]!, askedAt[token]! >= expiresAt[token]!)
    grantToken(token)
    release(replica)
    nextOfSession(token)
  }

  function failed(token: number): void {
    const replica = replicaOf(token)
    const asked = Math.min(OPEN_MS.mostAsked, provider.retryAfterMs(now))
    const retryAfterSeconds = asked > 0 ? asked / 1_000 : undefined
    if (!replica.circuit.isOpen())
      replica.pacing.ended({ kind: 'fault', retryAfterSeconds }, calledAt[token]!)
    const jitter = random.between(0, Math.min(JITTER.share * asked, JITTER.mostMs))
    replica.askedUntil = Math.max(replica.askedUntil, now + asked + jitter)
    const wasOpen = replica.circuit.isOpen()
    replica.circuit.failed(calledIn[token]!)
    replica.circuit.ended(calledIn[token]!)
    if (!wasOpen && replica.circuit.isOpen()) refuseLine(replica)
    replica.free++
    refuse(token, asked)
    serveLine(replica)
  }

  /** The caller gets the old token while that lives, else 503; nobody asks again for a while. */
  function refuse(token: number, forMs: number): void {
    books.refused()
    if (now >= expiresAt[token]!) books.unserved(now)
    refusedUntil[token] = now + (forMs > 0 ? Math.ceil(forMs / 1_000) * 1_000 : REMEMBERED_MS)
    planNeed(token, now)
    nextOfSession(token)
  }

  /** What the limiter says while the circuit is open: a second at least. */
  const circuitLeftMs = ({ circuit }: Replica) => Math.max(1_000, circuit.openLeftMs())

  function refuseLine(replica: Replica): void {
    const all = [...replica.line]
    replica.line.clear()
    for (const token of all) refuse(token, circuitLeftMs(replica))
  }

  function release(replica: Replica): void {
    replica.free++
    serveLine(replica)
  }

  function serveLine(replica: Replica): void {
    while (replica.free > 0 && replica.line.size > 0) {
      const ms = replica.pace?.delayMs() ?? 0
      if (ms > 0) {
        if (!replica.isTurnPlanned) plan(now + ms, TURN, replicas.indexOf(replica))
        replica.isTurnPlanned = true
        return
      }
      const [first] = replica.line
      replica.line.delete(first!)
      begin(replica, first!)
    }
  }

  function nextOfSession(token: number): void {
    const session = sessionOf(token)
    const next = behind.get(session)?.shift()
    if (next === undefined) {
      behind.delete(session)
      isRefreshing[session] = 0
    } else if (now - askedAt[next]! > LOCK_TTL_MS) refuse(next, BUSY_MS)
    else admit(replicaOf(next), next)
  }

  function signedIn(session: number): void {
    books.signedIn(now)
    provider.ask(now)
    for (let resource = 0; resource < load.resources; resource += 1)
      plan(now + random.between(0, FIRST_PAGE_MS), NEEDED, session * load.resources + resource)
  }

  const bell = random.branch('sign-ins')
  for (let session = 0; session < sessions; session += 1) {
    const at = Math.abs(load.signIn.atMs + gaussian(bell) * load.signIn.deviationMs)
    leavesAt[session] = at + load.stayMs
    plan(at, SIGNED_IN, session)
  }
  for (let entry = agenda.take(); entry && entry.at < load.untilMs; entry = agenda.take()) {
    now = entry.at
    const kind = entry.what % KINDS
    const subject = (entry.what - kind) / KINDS
    if (kind === NEEDED) needed(subject)
    else if (kind === ANSWERED) answered(subject)
    else if (kind === FAILED) failed(subject)
    else if (kind === SIGNED_IN) signedIn(subject)
    else if (kind === TURN) {
      replicas[subject]!.isTurnPlanned = false
      serveLine(replicas[subject]!)
    } else if (waitsUntil[subject] === now && replicaOf(subject).line.delete(subject))
      refuse(subject, WAIT_MS)
  }
  return books.report()
}

function createReplica(concurrency: number, now: () => number): Replica {
  const replica: Replica = {
    free: concurrency,
    line: new Set(),
    askedUntil: 0,
    ...{ pace: undefined, isTurnPlanned: false },
    pacing: createPacing(now, (pace) => {
      replica.pace = pace
    }),
    circuit: createCircuitBreaker({
      failures: FAULTS_TO_OPEN,
      openMs: (times) =>
        Math.max(Math.min(OPEN_MS.most, OPEN_MS.first * 2 ** (times - 1)), replica.askedUntil - now()),
      now,
      observe(change) {
        if (change === 'closed') replica.pacing.reopened()
      },
    }),
  }
  return replica
}

/** A provider that takes so many requests in each second, and says when to come back. */
function createProvider({ provider }: LoadCase, share: number, random: SeededRandom) {
  const { latencyMs, ratePerSecond, retryAfterSeconds, outage } = provider
  const perSecond = ratePerSecond * share
  let allowance = perSecond
  let filledAt = 0
  const isAway = (now: number) => outage !== undefined && now >= outage.fromMs && now < outage.untilMs
  return {
    ask(now: number): { readonly ok: boolean; readonly afterMs: number } {
      // Half of the latency is the way, the rest differs from call to call.
      const afterMs = latencyMs * (0.5 + 0.5 * exponential(random))
      if (isAway(now)) return { ok: false, afterMs }
      allowance = Math.min(Math.max(1, perSecond), allowance + ((now - filledAt) / 1_000) * perSecond)
      filledAt = now
      if (allowance < 1) return { ok: false, afterMs: latencyMs / 2 }
      allowance -= 1
      return { ok: true, afterMs }
    },
    retryAfterMs: (now: number) => (isAway(now) ? 0 : retryAfterSeconds * 1_000),
  }
}

/** Counts what happens to the replicas that are played; the report is about all. */
function createBooks(load: LoadCase, share: number) {
  const stretches: Stretch[] = Array.from({ length: Math.ceil(load.untilMs / STRETCH_MS) }, (_, n) => ({
    ...{ atMs: n * STRETCH_MS, calls: 0, failed: 0, unserved: 0, queued: 0 },
  }))
  const counts = { asked: 0, served: 0, refused: 0, waitedFor: 0, unserved: 0, signIns: 0 }
  const waits: number[] = []
  const at = (now: number) => stretches[Math.floor(now / STRETCH_MS)]!
  const perSecond = 1_000 / STRETCH_MS / share
  return {
    asked: () => void counts.asked++,
    called(now: number, ok: boolean) {
      at(now).calls += perSecond
      if (!ok) at(now).failed += perSecond
    },
    served(waitMs: number, isWaitedFor: boolean) {
      counts.served++
      if (!isWaitedFor) return
      counts.waitedFor++
      waits.push(waitMs)
    },
    refused: () => void counts.refused++,
    unserved(now: number) {
      counts.unserved++
      at(now).unserved += perSecond
    },
    signedIn(now: number) {
      counts.signIns++
      at(now).calls += perSecond
    },
    queued(now: number, length: number) {
      at(now).queued = Math.max(at(now).queued, length)
    },
    report(): LoadReport {
      const scaled = Object.fromEntries(
        Object.entries(counts).map(([name, n]) => [name, Math.round(n / share)]),
      ) as typeof counts
      const sorted = Float64Array.from(waits).sort()
      const busy = stretches.filter(({ calls }) => calls > 0)
      return {
        ...{ ...scaled, stretches },
        waiting: Math.round((counts.asked - counts.served - counts.refused) / share),
        p99WaitMs: sorted[Math.floor(sorted.length * 0.99)] ?? 0,
        peakCalls: Math.max(...stretches.map(({ calls }) => calls)),
        peakRenewals: Math.max(
          0,
          ...stretches.flatMap(({ atMs, calls }) => (atMs >= load.signIn.atMs + 3_000_000 ? [calls] : [])),
        ),
        meanCalls: busy.reduce((sum, { calls }) => sum + calls, 0) / Math.max(1, busy.length),
        mostQueued: Math.max(...stretches.map(({ queued }) => queued)),
      }
    },
  }
}

const exponential = (random: SeededRandom) => -Math.log(1 - random.between(0, 1))

/** Box and Muller. */
function gaussian(random: SeededRandom): number {
  return Math.sqrt(2 * exponential(random)) * Math.cos(2 * Math.PI * random.between(0, 1))
}
