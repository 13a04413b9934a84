import { setTimeout as delay } from 'node:timers/promises'
import type { Field } from '../case.ts'
import { openCloakroom } from '../contenders/cloakroom.ts'
import { requestText, type Scope } from '../contenders/contender.ts'
import { askSteadily, type CrowdResult, gather } from '../load/load-order.ts'
import { warmUp } from '../measure.ts'
import { requireOpenFiles } from '../process/open-files.ts'
import { steady } from '../request-cases.ts'
import type { Growth } from './points.ts'
import { sessionSeeder } from './seed.ts'

const PROVIDER_LATENCY_MS = 50
/** What `provider.concurrency` is unless configured. */
const MOST_IN_FLIGHT = 32
const PER_SECOND = 150
const BYSTANDERS = 100
const BYSTANDER_REQUESTS_PER_SECOND = 200
const WARM_UP_SIZE = 300
const BEFORE_MS = 3_000

type Storm = {
  readonly size: number
  readonly seconds: number
  readonly inFlight: number
  /** By status and code. */
  readonly answers: Readonly<Record<string, number>>
  readonly meanwhileMs: readonly number[]
}

/**
 * Sessions whose access tokens have all expired, each asked with by a client of its own, beside users whose tokens are
 * good. A client that gets 503 asks again after Retry-After. Rejects unless the provider saw one refresh of each session, no
 * refresh token twice, no more calls at a time than it is configured to get, and all were served in the end.
 */
export async function storms(field: Field, t: Scope, sizes: readonly number[]): Promise<Growth[]> {
  const [{ dir } = { dir: '' }] = field.cloakrooms
  const cloakroom = await openCloakroom(t, field.world, { name: 'storms', dir })
  const { port } = cloakroom
  const { provider } = field.world
  const seed = sessionSeeder(t, field.world, cloakroom)
  await warmUp(steady(field, cloakroom, 'small', { warmUpRequests: 30_000 }))
  const requestsOf = async (...order: Parameters<typeof seed>) =>
    (await seed(...order)).map(({ fields }) => requestText('small', fields))

  async function storm(size: number, perSecond?: number): Promise<Storm> {
    requireOpenFiles(`a storm of ${size}`, size)
    const requests = await requestsOf(size, provider.refreshTokenFor)
    const crowd = await gather(t, { port, requests, ...(perSecond && { perSecond }) })
    await bystanders.look()
    provider.control.latencyMs = PROVIDER_LATENCY_MS
    provider.counters.mostConcurrentRefreshes = 0
    const before = { ...provider.counters }
    const result = await crowd.ask()
    const { ms, refusal } = await bystanders.look()
    await crowd.leave()
    provider.control.latencyMs = 0
    requireServed(size, result)
    if (refusal) throw new Error(`a user with a good token got ${refusal}`)
    const { refreshCalls, reuseDetected, mostConcurrentRefreshes: inFlight } = provider.counters
    if (refreshCalls - before.refreshCalls !== size || reuseDetected > 0 || inFlight > MOST_IN_FLIGHT) {
      throw new Error(
        `${size} sessions: ${refreshCalls - before.refreshCalls} refreshes, ${inFlight} at a time, ${reuseDetected} tokens used twice`,
      )
    }
    return { size, seconds: result.elapsedMs / 1_000, inFlight, answers: result.answers, meanwhileMs: ms }
  }

  const bystanders = askSteadily(t, {
    ...{ port, requests: await requestsOf(BYSTANDERS), perSecond: BYSTANDER_REQUESTS_PER_SECOND },
  })
  // What only a storm needs is compiled, and the bystanders' sessions are in the copies.
  await storm(WARM_UP_SIZE)
  await bystanders.look()
  await delay(BEFORE_MS)
  const { ms: aloneMs } = await bystanders.look()
  const atOnce = { what: 'sessions to refresh, all at once', storms: [] as Storm[] }
  const paced = { what: `sessions to refresh, ${PER_SECOND} a second`, storms: [] as Storm[] }
  for (const size of sizes) {
    atOnce.storms.push(await storm(size))
    paced.storms.push(await storm(size, PER_SECOND))
  }
  await bystanders.stop()

  const alone = (part: number) => `(before: ${quantile(aloneMs, part).toFixed(1)})`
  return [atOnce, paced].flatMap(({ what, storms }) => {
    const row = (measures: string, costOf: (of: Storm) => number): Growth => ({
      ...{ what, measures },
      points: storms.map((of) => ({ size: of.size, cost: costOf(of) })),
    })
    return [
      row('s until all are served', ({ seconds }) => seconds),
      row('calls in flight at most, seen by the provider', ({ inFlight }) => inFlight),
      row('answers 503 with Retry-After, or closed connections', ({ answers, size }) => sum(answers) - size),
      row(`ms, p99 of others’ GETs meanwhile ${alone(0.99)}`, ({ meanwhileMs }) =>
        quantile(meanwhileMs, 0.99),
      ),
      row(`ms, longest of them ${alone(1)}`, ({ meanwhileMs }) => quantile(meanwhileMs, 1)),
    ]
  })
}

const sum = (counts: Readonly<Record<string, number>>) =>
  Object.values(counts).reduce((total, count) => total + count, 0)

function requireServed(size: number, { answers, refusal }: CrowdResult): void {
  if (answers[200] === size && refusal === undefined) return
  throw new Error(`of ${size} sessions not all were served: ${JSON.stringify(answers)}\n${refusal ?? ''}`)
}

function quantile(values: readonly number[], part: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil(sorted.length * part) - 1)] ?? Number.NaN
}
