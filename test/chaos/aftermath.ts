import { setTimeout as delay } from 'node:timers/promises'
import type { TestRedis } from '../kit/store/redis.ts'
import type { Asked } from './asking.ts'
import type { Crowd } from './crowd.ts'
import type { Fleet } from './fleet.ts'
import { RESOURCES, type ResourceName } from './guarded-apis.ts'
import { heapAfterCollection, metric } from './replica-metrics.ts'
import type { Visitor } from './visitors.ts'

export type AftermathDeps = {
  readonly crowd: Crowd
  readonly fleet: Fleet
  readonly redis: TestRedis
  /** Life of an access token. */
  readonly tokenMs: number
  readonly violation: (text: string) => void
}

/** What was found when all was quiet again. */
export type Aftermath = {
  /** From the end of the disturbances until everybody had everything. */
  readonly recoveredMs: number
  /** Most bytes of heap that a replica has kept over its own start. */
  readonly heapGrowth: number
}

/** A circuit breaker that opened several times in a row pauses for 8 s or so. */
const RECOVERY_MS = 45_000
const QUIET_MS = 15_000
const ASKED_AT_ONCE = 8
const RETRY_MS = 500
/** Compiled code, copies of sessions, metrics; what leaks in a storm is more, or grows with its length. */
const HEAP_GROWTH_ALLOWED = 48 * 1024 * 1024
const GAUGES = ['cloakroom_provider_calls_in_flight', 'cloakroom_provider_queue']

/** Asks everything for everybody with tokens that have all expired, then looks for what was left behind. */
export async function examineAftermath(deps: AftermathDeps): Promise<Aftermath> {
  const startedAt = performance.now()
  await delay(deps.tokenMs)
  await askEverything(deps)
  const recoveredMs = performance.now() - startedAt
  await noneLeft(deps, 'refresh locks', () => deps.redis.cli('KEYS', '*:refresh-lock'))
  await noneLeft(deps, 'spend marks', () => spendMarks(deps))
  for (const gauge of GAUGES) {
    await noneLeft(deps, gauge, async () => {
      const levels = await Promise.all(deps.fleet.up.map(({ replica }) => metric(replica, gauge)))
      return levels.flatMap((level) => [...level.values()].filter((value) => value !== 0))
    })
  }
  return { recoveredMs, heapGrowth: await heapGrowth(deps) }
}

async function askEverything({ crowd, violation }: AftermathDeps): Promise<void> {
  const deadline = performance.now() + RECOVERY_MS
  const wishes = crowd.present.flatMap((visitor) => RESOURCES.map((resource) => ({ visitor, resource })))
  const work = async () => {
    for (let wish = wishes.shift(); wish; wish = wishes.shift()) {
      const last = await askUntilServed(crowd, wish, deadline)
      if (last) violation(`${wish.visitor.user} is not served ${wish.resource} when all is quiet: ${last}`)
    }
  }
  await Promise.all(Array.from({ length: ASKED_AT_ONCE }, work))
}

/** Resolves with undefined, or with the last answer that was not the right one. */
async function askUntilServed(
  crowd: Crowd,
  { visitor, resource }: { visitor: Visitor; resource: ResourceName },
  deadline: number,
): Promise<string | undefined> {
  for (;;) {
    if (visitor.lost) return undefined
    const asked = await crowd.askOnce(visitor, resource)
    if (asked.kind === 'answered' && asked.status === 200) return undefined
    if (performance.now() > deadline) return describe(asked)
    if (!visitor.lost) await delay(RETRY_MS)
  }
}

function describe(asked: Asked): string {
  if (asked.kind === 'answered') return `${asked.status} ${asked.code}`
  return asked.kind === 'broken' ? asked.error : asked.kind
}

async function spendMarks({ crowd, redis }: AftermathDeps): Promise<string[]> {
  const marks: string[] = []
  for (const { user, hash } of crowd.present) {
    const [mark] = await redis.cli('hget', `cloakroom:{${hash}}:tokens`, 'spend')
    if (mark) marks.push(`${user} ${mark}`)
  }
  return marks
}

/** Locks end by themselves, and writes are tried again: what is still there later has been forgotten. */
async function noneLeft(
  { violation }: AftermathDeps,
  what: string,
  look: () => Promise<readonly unknown[]>,
): Promise<void> {
  const deadline = performance.now() + QUIET_MS
  for (;;) {
    const left = await look()
    if (left.length === 0) return
    if (performance.now() > deadline) return violation(`${what} are left: ${left.slice(0, 5).join(', ')}`)
    await delay(RETRY_MS)
  }
}

async function heapGrowth({ fleet, violation }: AftermathDeps): Promise<number> {
  const grown = await Promise.all(
    fleet.up.map(async ({ label, replica, baseHeap }) => {
      const growth = (await heapAfterCollection(replica)) - baseHeap
      if (!(growth <= HEAP_GROWTH_ALLOWED)) violation(`${label} keeps ${growth} bytes of heap`)
      return growth
    }),
  )
  return Math.max(...grown)
}
