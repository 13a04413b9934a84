import { setTimeout as delay } from 'node:timers/promises'
import { type Asked, ask } from './asking.ts'
import type { Fleet, Member } from './fleet.ts'
import { type ApiAnswer, RESOURCES, type ResourceName } from './guarded-apis.ts'
import type { SeededRandom } from './seeded-random.ts'
import { signIn, type Visitor } from './visitors.ts'

/** All visitors, and what they were answered. */
export type Crowd = {
  /** Those who are signed in. */
  readonly present: readonly Visitor[]
  /** Everybody who ever was. */
  readonly everybody: readonly Visitor[]
  readonly outcomes: Readonly<Record<string, number>>
  /** Of every answered request. */
  readonly latenciesMs: readonly number[]
  /** Fills up to the full number; whoever lost a session comes back as somebody else. Resolves after one attempt each. */
  fill(): Promise<void>
  /** Asks in bursts until `signal` ends it; resolves when the last answer is there. */
  roam(signal: AbortSignal): Promise<void>
  /** One request, counted and judged. */
  askOnce(visitor: Visitor, resource: ResourceName, abortAfterMs?: number): Promise<Asked>
}

export type CrowdDeps = {
  readonly size: number
  readonly requestsPerSecond: number
  /** Nothing may take longer. */
  readonly answerWithinMs: number
  readonly random: SeededRandom
  readonly fleet: Fleet
  readonly violation: (text: string) => void
}

const SIGN_INS_AT_ONCE = 4
const MOST_OPEN = 300
const ABORTED = 0.06
/** After this long a process that was killed is known to be. */
const DEATH_NOTICE_MS = 500
/** What Cloakroom may answer while store, provider or replicas are disturbed. */
const CODES_IN_A_STORM = new Set(['store_unavailable', 'provider_unavailable'])
const CODES_OF_LOSS = new Set(['session_required', 'reauthentication_required'])

/** Makes the crowd, empty. */
export function createCrowd({
  size,
  requestsPerSecond,
  answerWithinMs,
  random,
  fleet,
  violation,
}: CrowdDeps): Crowd {
  const present: Visitor[] = []
  const everybody: Visitor[] = []
  const outcomes: Record<string, number> = {}
  const latenciesMs: number[] = []
  const aborts = random.branch('aborts')
  const routes = random.branch('routes')
  let names = 0
  const count = (outcome: string) => {
    outcomes[outcome] = (outcomes[outcome] ?? 0) + 1
  }

  async function join(): Promise<void> {
    const member = fleet.up.length > 0 && routes.pick(fleet.up)
    if (!member) return
    const visitor = await signIn(`user-${++names}`, member.replica.listenUrl)
    if (!visitor) return count('sign-in failed')
    count('sign-in')
    present.push(visitor)
    everybody.push(visitor)
  }

  async function askOnce(visitor: Visitor, resource: ResourceName, abortAfterMs?: number): Promise<Asked> {
    const member = fleet.up.length > 0 ? routes.pick(fleet.up) : undefined
    if (!member) return { kind: 'broken', error: 'nobody is up', ms: 0 }
    const asked = await ask({ visitor, resource, member, abortAfterMs, timeoutMs: answerWithinMs })
    await judge(asked, { visitor, resource, member })
    return asked
  }

  type Asking = { visitor: Visitor; resource: ResourceName; member: Member }

  async function judge(asked: Asked, asking: Asking): Promise<void> {
    const { visitor, resource, member } = asking
    const who = `${visitor.user} at ${member.label} for ${resource}`
    if (asked.kind === 'aborted') return count('aborted by the client')
    if (asked.kind === 'broken') {
      if (member.killedAt === undefined) await delay(DEATH_NOTICE_MS)
      if (member.killedAt !== undefined) return count('replica killed meanwhile')
      count('broken')
      return violation(`${who}: ${asked.error} after ${asked.ms.toFixed(0)} ms from a replica that lives`)
    }
    latenciesMs.push(asked.ms)
    const { status, code } = asked
    count(code === undefined ? String(status) : `${status} ${code}: ${String(asked.body.detail)}`)
    if (status >= 500 && asked.setsCookie) violation(`${who}: ${status} touches the cookie`)
    if (status === 200) return judgeContent(asked.body as ApiAnswer, asking)
    if (status === 401 && code && CODES_OF_LOSS.has(code))
      return lose(asking.visitor, code, asked.body.reason)
    if (status === 503 && code && CODES_IN_A_STORM.has(code)) return
    violation(`${who}: unexpected ${status} ${code ?? 'not of Cloakroom'} ${String(asked.body.reason ?? '')}`)
  }

  function judgeContent(body: ApiAnswer, { visitor, resource, member }: Asking): void {
    if (body.resource === resource && body.sub === visitor.user) return
    violation(`${visitor.user} at ${member.label} asked for ${resource} and got ${JSON.stringify(body)}`)
  }

  function lose(visitor: Visitor, code: string, reason: unknown): void {
    visitor.lost ??= { at: Date.now(), code, reason: typeof reason === 'string' ? reason : undefined }
    const place = present.indexOf(visitor)
    if (place >= 0) present.splice(place, 1)
  }

  async function roam(signal: AbortSignal): Promise<void> {
    const open = new Set<Promise<unknown>>()
    const bursts = random.branch('bursts')
    const startedAt = performance.now()
    let sent = 0
    while (!signal.aborted) {
      const due = ((performance.now() - startedAt) / 1000) * requestsPerSecond
      for (; sent < due; ) {
        const burst = bursts.chance(0.6) ? 1 : Math.ceil(bursts.between(1, bursts.chance(0.2) ? 12 : 5))
        sent += burst
        if (present.length === 0 || open.size > MOST_OPEN) continue
        const visitor = bursts.pick(present)
        for (let n = 0; n < burst; n += 1) {
          const abortAfterMs = aborts.chance(ABORTED) ? aborts.between(0, 300) : undefined
          const asking = askOnce(visitor, bursts.pick(RESOURCES), abortAfterMs)
          open.add(asking)
          void asking.finally(() => open.delete(asking))
        }
      }
      await delay(10)
    }
    await Promise.all(open)
  }

  return {
    ...{ present, everybody, outcomes, latenciesMs, roam, askOnce },
    async fill() {
      let missing = size - present.length
      const work = async () => {
        while (missing-- > 0) await join()
      }
      await Promise.all(Array.from({ length: SIGN_INS_AT_ONCE }, work))
    },
  }
}
