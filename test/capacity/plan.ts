import type { UnitCosts } from './unit-costs.ts'

/** What users do. */
export type Demand = { readonly sessions: number }

/** How many of everything that takes. Bytes; rates per second. */
export type Plan = {
  readonly sessions: number
  readonly requests: number
  readonly replicas: number
  /** All replicas together, in cores: in the mean, and while everybody signs in. */
  readonly cores: number
  readonly peakCores: number
  /** The share of `cores` that goes into hearing of changed sessions. */
  readonly heardShare: number
  readonly memoryRequest: number
  readonly redisBytes: number
  readonly redisCores: number
  readonly shards: number
  readonly providerCalls: number
  /** Messages on the channel, each of which every replica hears. */
  readonly messages: number
}

/** What a user is like. Change it, and the table with it: `npm run capacity -- --tables`. */
export const ASSUMED = {
  resources: 4,
  /** 50,000 a second for ten million sessions. */
  requestsPerSession: 1 / 200,
  /** Requests that come together, such as those of one page, each to any replica. */
  burst: 5,
  /** Entra's access tokens live for 75 minutes in the mean, and their last five are for renewing them. */
  renewableAfterS: 70 * 60,
  /** From sign-in to sign-out. */
  stayS: 8 * 3_600,
  /** So busy may a replica be, and a Redis, in the mean of the day, and while everybody signs in. */
  ...{ busy: 0.5, busyAtPeak: 0.9 },
  /** Half of all users sign in within 27 minutes: a bell of this deviation. */
  signInDeviationS: 20 * 60,
  /** A copy is held for 5 s and swept within as long. */
  copyS: 10,
  /** For fragmentation and the buffers of replication. */
  redisSpare: 1.25,
  shardBytes: 25e9,
} as const

const MIB = 2 ** 20
/** Of the heap, that copies of sessions and tokens may take (src/app/config-scope.ts). */
const COPIES_PART = 1 / 6

/** What all users together ask for, per second. */
type Rates = { readonly requests: number; readonly refreshes: number; readonly signIns: number }

/** Seconds from one renewal of a token to the next: the first request after it may be renewed does it. */
export const RENEWED_EVERY_S = ASSUMED.renewableAfterS + ASSUMED.resources / ASSUMED.requestsPerSession

function ratesOf(sessions: number): { readonly mean: Rates; readonly peak: Rates } {
  const { resources, requestsPerSession, stayS, signInDeviationS } = ASSUMED
  const requests = sessions * requestsPerSession
  const signInsAtPeak = sessions / (signInDeviationS * Math.sqrt(2 * Math.PI))
  return {
    mean: { requests, refreshes: (sessions * resources) / RENEWED_EVERY_S, signIns: sessions / stayS },
    // Half of all are there, and have all their tokens renewed at their sign-in.
    peak: { requests: requests / 2, refreshes: signInsAtPeak * resources, signIns: signInsAtPeak },
  }
}

/** A burst of requests meets as many replicas as chance has it; each of them has no copy of the session. */
function coldOf({ requests }: Rates, replicas: number): number {
  const { burst } = ASSUMED
  return (requests * replicas * (1 - (1 - 1 / replicas) ** burst)) / burst
}

/** Messages that every replica hears; the end of a session is one, too. */
function messagesOf({ commands }: UnitCosts, { refreshes, signIns }: Rates): number {
  return refreshes * (commands.refresh.published ?? 0) + signIns * ((commands.signIn.published ?? 0) + 1)
}

/** Cores of all replicas for what users ask for, and of each for what it hears. */
function coresOf(costs: UnitCosts, rates: Rates, replicas: number) {
  const { cpuUs } = costs
  const own =
    rates.requests * cpuUs.warm +
    coldOf(rates, replicas) * (cpuUs.cold4 - cpuUs.warm) +
    rates.refreshes * cpuUs.refresh +
    rates.signIns * cpuUs.signIn
  return { own: own / 1e6, heardByEach: (messagesOf(costs, rates) * cpuUs.heard) / 1e6 }
}

const MANY = 1e6

/** Sizes an installation. Where no number of replicas is enough, because hearing of changes takes all of each, it is infinite. */
export function planOf(costs: UnitCosts, { sessions }: Demand): Plan {
  const { busy, busyAtPeak, copyS, redisSpare, shardBytes } = ASSUMED
  const { mean, peak } = ratesOf(sessions)
  const needed = [
    [mean, busy],
    [peak, busyAtPeak],
  ] as const
  // With one more for the one that is away.
  const replicas = Math.max(
    2,
    ...needed.map(([rates, part]) => {
      const { own, heardByEach } = coresOf(costs, rates, MANY)
      return heardByEach >= part ? Number.POSITIVE_INFINITY : Math.ceil(own / (part - heardByEach)) + 1
    }),
  )
  const messages = messagesOf(costs, mean)
  const cold = coldOf(mean, replicas)
  const heldBytes = Math.min((cold / replicas) * copyS * costs.copy['4'], COPIES_PART * costs.heapLimit)
  const { redisCpuUs } = costs
  const redisCores =
    (cold * redisCpuUs.cold +
      mean.refreshes * redisCpuUs.refresh +
      mean.signIns * redisCpuUs.signIn +
      messages * replicas * redisCpuUs.delivered) /
    1e6
  const redisBytes = sessions * costs.redisUsedBytes * redisSpare
  const { own, heardByEach } = coresOf(costs, mean, replicas)
  const atPeak = coresOf(costs, peak, replicas)
  return {
    ...{ sessions, replicas, messages, redisBytes, redisCores, requests: mean.requests },
    cores: own + replicas * heardByEach,
    peakCores: atPeak.own + replicas * atPeak.heardByEach,
    heardShare: (replicas * heardByEach) / (own + replicas * heardByEach),
    memoryRequest: Math.ceil((costs.warm.rss + heldBytes) / (32 * MIB)) * 32 * MIB,
    shards: Math.max(1, Math.ceil(redisBytes / shardBytes), Math.ceil(redisCores / busy)),
    providerCalls: mean.refreshes + mean.signIns,
  }
}

/** Sessions that one limit of a provider is enough for, when every token of them is in use. */
export function sessionsWithin(callsPerSecond: number): number {
  return Math.floor(callsPerSecond / (ASSUMED.resources / RENEWED_EVERY_S + 1 / ASSUMED.stayS))
}

/** Sessions of the rows. */
export const SIZES = [1_000, 10_000, 100_000, 1_000_000, 10_000_000]
