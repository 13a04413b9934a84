import assert from 'node:assert/strict'
import { setTimeout as delay } from 'node:timers/promises'
import { cpuTimeUs } from '../bench/process/cpu-time.ts'
import { complex, EVENT, issSub } from '../kit/provider/ssf-transmitter.ts'
import { eventually } from '../kit/shops/deadline.ts'
import { APP, type Scope } from '../kit/shops/shop.ts'
import { type Kind, type OpenSession, type Replicas, type Scene, startScene } from './scene.ts'

/** How large a storm is. */
export type StormSize = Replicas & {
  /** Each has three sessions, and is signed out by a logout token and by an event. */
  readonly users: number
  /** They have three sessions too, and nothing is said about them. */
  readonly bystanders: number
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
  /** What processes spent of a processor meanwhile, in ms: on a busy machine the times above are those of its queue. */
  readonly processorMs: Readonly<Record<keyof Scene['pids'], number>>
}

/** One message of the provider, and the sessions that it ends. */
type StormEvent = {
  readonly ends: readonly OpenSession[]
  /** The status that says that it was done. */
  readonly status: number
  /** Sends it, and resolves with the status of the answer. */
  send(): Promise<number>
}

const SESSIONS_OF_ONE = 3
/** A download is watched after 2 to 4 s. */
const WATCHED_MS = 5_000
/** What is touched by mistake shows within this time. */
const AFTERMATH_MS = 1_500

/**
 * Everybody has three sessions, each with an answer open at another replica than the one that it began at. Then the provider
 * says all at once of each user, by a logout token and by a security event, that he or one of his sessions is signed out.
 */
export async function runStorm(t: Scope, size: StormSize): Promise<StormReport> {
  const { users, bystanders, downloads } = size
  const scene = await startScene(t, size)
  const sessions: OpenSession[] = []
  for (let at = 0; at < (users + bystanders) * SESSIONS_OF_ONE; at += 1) {
    sessions.push(await scene.open(`user-${Math.floor(at / SESSIONS_OF_ONE)}`, at, kindOf(at, downloads)))
  }
  if (downloads) await delay(WATCHED_MS)
  assert.deepEqual(alive(sessions).length, sessions.length, 'everything is open before the storm')

  const made = Array.from({ length: users }, (_, index) => {
    const own = sessions.slice(index * SESSIONS_OF_ONE, (index + 1) * SESSIONS_OF_ONE)
    return [logoutOf(scene, own, index), signalOf(scene, own, index)]
  })
  const events = await Promise.all(made.flat())
  const before = processorMsOf(scene)
  const startedAt = performance.now()
  const answers = await Promise.all(
    events.map(async ({ ends, status, send }) => {
      const sentAt = performance.now()
      assert.equal(await send(), status)
      return { ends, sentAt }
    }),
  )
  const answersMs = performance.now() - startedAt

  const ending = new Set(events.flatMap(({ ends }) => ends))
  await eventually('all that was signed out has ended', () => alive([...ending]).length === 0)
  const after = processorMsOf(scene)
  const spent = (of: keyof Scene['pids']) => after[of] - before[of]
  const others = sessions.filter((session) => !ending.has(session))
  await requireUntouched(others)
  await requireStatus([...ending], 401)
  return {
    ...{ sessions: sessions.length, events: events.length, answersMs, untouched: others.length },
    processorMs: { test: spent('test'), redis: spent('redis'), replicas: spent('replicas') },
    endings: [...firstSent(answers)].map(([one, sentAt]) => one.endedAt()! - sentAt).sort((a, b) => a - b),
  }
}

/** Of the events about one session, the first one is to end it. */
function firstSent(
  answers: readonly { readonly ends: readonly OpenSession[]; readonly sentAt: number }[],
): Map<OpenSession, number> {
  const first = new Map<OpenSession, number>()
  for (const { ends, sentAt } of answers) {
    for (const one of ends) first.set(one, Math.min(sentAt, first.get(one) ?? sentAt))
  }
  return first
}

function kindOf(at: number, downloads: boolean): Kind {
  if (at % 6 === 0) return 'websocket'
  return at % 6 === 4 && downloads ? 'download' : 'events'
}

function processorMsOf({ pids }: Scene): StormReport['processorMs'] {
  const sum = (of: number | readonly number[]) =>
    process.platform === 'linux'
      ? [of].flat().reduce((total, pid) => total + cpuTimeUs(pid) / 1000, 0)
      : Number.NaN
  return { test: sum(pids.test), redis: sum(pids.redis), replicas: sum(pids.replicas) }
}

const alive = (sessions: readonly OpenSession[]) =>
  sessions.filter((session) => session.endedAt() === undefined)

/** The logout token of one user, in each of the three forms that a provider may send, at each replica in turn. */
async function logoutOf(
  { provider, fleet }: Scene,
  own: readonly OpenSession[],
  index: number,
): Promise<StormEvent> {
  const [{ user: sub, sid }] = own as [OpenSession]
  const isWhole = index % 4 === 0
  const claims = isWhole ? { sub } : index % 4 === 1 ? { sub, sid } : { sid }
  const { listenUrl } = fleet[index % fleet.length]!
  const body = new URLSearchParams({ logout_token: await provider.logoutToken(claims) })
  return {
    ends: isWhole ? own : own.slice(0, 1),
    status: 200,
    async send() {
      const headers = { host: new URL(APP).host }
      return (await fetch(`${listenUrl}/bff/backchannel-logout`, { method: 'POST', body, headers })).status
    },
  }
}

/** The security event about the same user at the next replica: about him, or about another one of his sessions. */
async function signalOf(
  { provider, transmitter, fleet }: Scene,
  own: readonly OpenSession[],
  index: number,
): Promise<StormEvent> {
  const [{ user: sub }, { sid }] = own as [OpenSession, OpenSession]
  const user = issSub(provider.issuer, sub)
  const isWhole = index % 2 === 0
  const [type, subject] = isWhole
    ? ([index % 4 === 0 ? EVENT.accountDisabled : EVENT.credentialChange, user] as const)
    : ([EVENT.sessionRevoked, complex(index % 4 === 1 ? user : undefined, sid)] as const)
  const token = await transmitter.set(type, subject)
  const { listenUrl } = fleet[(index + 1) % fleet.length]!
  return {
    ends: isWhole ? own : own.slice(1, 2),
    status: 202,
    send: async () => (await transmitter.push(`${listenUrl}/bff/ssf/events`, token)).status,
  }
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
