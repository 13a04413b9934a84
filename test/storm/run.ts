import assert from 'node:assert/strict'
import { setTimeout as delay } from 'node:timers/promises'
import { cpuTimeUs } from '../bench/cpu-time.ts'
import { eventually } from '../kit/shops/deadline.ts'
import { APP, type Scope } from '../kit/shops/shop.ts'
import { type Kind, type OpenSession, type Replicas, type Scene, startScene } from './scene.ts'

/** How large a storm is. */
export type StormSize = Replicas & {
  /** Each has three sessions. */
  readonly users: number
  /** Whether some have a download open: it is watched only when it has run for some seconds. */
  readonly downloads: boolean
}

/** What a storm has shown. */
export type StormReport = {
  readonly sessions: number
  readonly events: number
  /** From the event to the last byte, in ms, in order. */
  readonly endings: readonly number[]
  /** Sessions that nothing was said about, all of them alive. */
  readonly untouched: number
  /** From the first event to the last answer, in ms. */
  readonly answersMs: number
  /** What all processes spent of a processor meanwhile, in ms: on a busy machine the times above are those of its queue. */
  readonly processorMs: number
}

/** One message of the provider, and the sessions that it ends. */
type StormEvent = { readonly ends: readonly OpenSession[]; readonly send: () => Promise<number> }

const SESSIONS_OF_ONE = 3
/** A download is watched after 2 to 4 s. */
const WATCHED_MS = 5_000
/** What is touched by mistake shows within this time. */
const AFTERMATH_MS = 1_500

/**
 * Everybody has three sessions, each with an answer open at another replica than the one that it began at. Then the provider
 * says all at once of half of the users that they are signed out, and of the others that one of their sessions is.
 */
export async function runStorm(t: Scope, size: StormSize): Promise<StormReport> {
  const { users, downloads } = size
  const scene = await startScene(t, size)
  const sessions: OpenSession[] = []
  for (let at = 0; at < users * SESSIONS_OF_ONE; at += 1) {
    sessions.push(await scene.open(`user-${Math.floor(at / SESSIONS_OF_ONE)}`, at, kindOf(at, downloads)))
  }
  if (downloads) await delay(WATCHED_MS)
  assert.deepEqual(alive(sessions).length, sessions.length, 'everything is open before the storm')

  const events = await Promise.all(
    Array.from({ length: users }, (_, index) => logoutOf(scene, sessions, index)),
  )
  const pids = [...new Set([process.pid, ...scene.pids])]
  const usedBefore = processorMsOf(pids)
  const startedAt = performance.now()
  const answers = await Promise.all(events.map(async (event) => ({ event, ...(await timed(event.send)) })))
  const answersMs = performance.now() - startedAt
  for (const { status } of answers) assert.equal(status, 200)

  const ending = new Set(events.flatMap(({ ends }) => ends))
  await eventually('all that was signed out has ended', () => alive([...ending]).length === 0)
  const processorMs = processorMsOf(pids) - usedBefore
  const endings = answers.flatMap(({ event, sentAt }) => event.ends.map((one) => one.endedAt()! - sentAt))
  const others = sessions.filter((session) => !ending.has(session))
  await requireUntouched(others)
  await requireStatus([...ending], 401)
  return {
    ...{ sessions: sessions.length, events: events.length, answersMs, processorMs, untouched: others.length },
    endings: endings.sort((a, b) => a - b),
  }
}

function kindOf(at: number, downloads: boolean): Kind {
  if (at % 6 === 0) return 'websocket'
  return at % 6 === 4 && downloads ? 'download' : 'events'
}

const processorMsOf = (pids: readonly number[]) =>
  process.platform === 'linux' ? pids.reduce((sum, pid) => sum + cpuTimeUs(pid) / 1000, 0) : Number.NaN

const alive = (sessions: readonly OpenSession[]) =>
  sessions.filter((session) => session.endedAt() === undefined)

/** The logout token of one user, in each of the three forms that a provider may send, at each replica in turn. */
async function logoutOf(
  { provider, fleet }: Scene,
  sessions: readonly OpenSession[],
  index: number,
): Promise<StormEvent> {
  const own = sessions.slice(index * SESSIONS_OF_ONE, (index + 1) * SESSIONS_OF_ONE)
  const [{ user: sub, sid }] = own as [OpenSession]
  const isWhole = index % 2 === 0
  const claims = isWhole ? { sub } : index % 4 === 1 ? { sid } : { sub, sid }
  const { listenUrl } = fleet[index % fleet.length]!
  const body = new URLSearchParams({ logout_token: await provider.logoutToken(claims) })
  return {
    ends: isWhole ? own : own.slice(0, 1),
    async send() {
      const headers = { host: new URL(APP).host }
      return (await fetch(`${listenUrl}/bff/backchannel-logout`, { method: 'POST', body, headers })).status
    },
  }
}

async function timed(send: () => Promise<number>): Promise<{ status: number; sentAt: number }> {
  const sentAt = performance.now()
  return { status: await send(), sentAt }
}

/** Nothing of anybody else: every answer goes on, and every session is alive at every replica. */
async function requireUntouched(others: readonly OpenSession[]): Promise<void> {
  const before = others.map((session) => session.received())
  await delay(AFTERMATH_MS)
  assert.equal(alive(others).length, others.length)
  for (const [index, session] of others.entries()) {
    assert.ok(session.received() > before[index]!, `${session.kind} of ${session.user} goes on`)
  }
  await requireStatus(others, 200)
}

async function requireStatus(sessions: readonly OpenSession[], status: number): Promise<void> {
  for (const session of sessions) {
    const seen = await session.look()
    assert.deepEqual([...new Set(seen)], [status], `${session.user} ${session.sid}`)
  }
}

/** The value below which so much of a list in order lies. */
export function quantile(sorted: readonly number[], part: number): number {
  return sorted[Math.min(sorted.length - 1, Math.ceil(sorted.length * part) - 1)] ?? Number.NaN
}
