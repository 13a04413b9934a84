import { ASSUMED } from './plan.ts'
import type { LoadCase } from './refresh-load.ts'

const MINUTE = 60_000
const HOUR = 60 * MINUTE

/** Monday at nine: ten million users, half of them within 27 minutes, each with four APIs. */
const MONDAY: LoadCase = {
  name: '10 million users, tokens of 60 to 90 minutes (Entra ID)',
  ...{ seed: 1, sessions: 10_000_000, replicas: 160, played: 1, resources: ASSUMED.resources },
  signIn: { atMs: HOUR, deviationMs: ASSUMED.signInDeviationS * 1_000 },
  gapMs: (1_000 * ASSUMED.resources) / ASSUMED.requestsPerSession,
  ...{ stayMs: ASSUMED.stayS * 1_000, lifeMs: [60 * MINUTE, 90 * MINUTE], jitterMs: 0 },
  provider: { latencyMs: 150, ratePerSecond: Number.POSITIVE_INFINITY, retryAfterSeconds: 60 },
  ...{ concurrency: 32, untilMs: 5 * HOUR },
}

const FIXED: LoadCase = {
  ...MONDAY,
  name: '10 million users, tokens of 60 minutes',
  lifeMs: [60 * MINUTE, 60 * MINUTE],
}

/** As many sessions as an external tenant's 200 requests a second are nearly enough for, by the mean of the day. */
const TENANT: LoadCase = {
  ...MONDAY,
  name: '180,000 users, provider takes 200 calls/s, Retry-After 1 s',
  ...{ sessions: 180_000, replicas: 6, untilMs: 4 * HOUR },
  provider: { latencyMs: 150, ratePerSecond: 200, retryAfterSeconds: 1 },
}

/** What `npm run refresh-load` plays, in its order. */
export const CASES: readonly LoadCase[] = [
  MONDAY,
  FIXED,
  {
    ...FIXED,
    name: '10 million users, tokens of 60 minutes, renewed up to 20 minutes earlier (Cloakroom does not)',
    jitterMs: 20 * MINUTE,
  },
  {
    ...MONDAY,
    name: '10 million users, tokens of 60 to 90 minutes, provider away from 11:00 to 11:30',
    provider: { ...MONDAY.provider, outage: { fromMs: 3 * HOUR, untilMs: 3.5 * HOUR } },
  },
  TENANT,
  {
    ...TENANT,
    name: '180,000 users, provider takes 200 calls/s, Retry-After 60 s',
    provider: { ...TENANT.provider, retryAfterSeconds: 60 },
  },
  {
    ...TENANT,
    name: '180,000 users, provider takes 200 calls/s, Retry-After 60 s, concurrency 4',
    concurrency: 4,
    provider: { ...TENANT.provider, retryAfterSeconds: 60 },
  },
]

/** The time of day at which a case begins. */
export const BEGINS_AT_HOUR = 8
