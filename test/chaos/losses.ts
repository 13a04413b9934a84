import type { Sealing } from '../../src/tokens/record/sealing.ts'
import type { WrittenCommand } from './append-only-file.ts'
import type { StoreOutage } from './disturbances.ts'
import type { Member } from './fleet.ts'
import type { Presentation, RefreshLedger } from './refresh-ledger.ts'
import { timelineOf } from './timeline.ts'
import type { Visitor } from './visitors.ts'

/** Why something was lost, or what makes it a defect. */
export type Explanation = { readonly cause: string; readonly isExplained: boolean }

/** The evidence: what the provider saw, what Redis wrote, whom we killed when. */
export type Evidence = {
  readonly ledger: RefreshLedger
  readonly written: readonly WrittenCommand[]
  readonly visitors: readonly Visitor[]
  /** Opens what Redis holds. */
  readonly sealing: Sealing
  readonly lives: readonly Member[]
  readonly outages: readonly StoreOutage[]
  /** How long a replica waits for the provider. */
  readonly providerTimeoutMs: number
}

/** What can be said about the end of grants and sessions. */
export type Inquest = {
  /** Every refresh token that was used twice. */
  readonly reuses: readonly Finding[]
  /** Every session that ended by itself. */
  readonly losses: readonly Finding[]
}

/** Who lost what. */
export type Finding = {
  readonly visitor: Visitor
  readonly explanation: Explanation
  /** What happened before it, one line each. */
  readonly timeline: readonly string[]
}

/** From a request on the wire to its arrival, and from its answer to the write: long, for the machine may be slow. */
const WRITE_MS = 1_500

/** Explains every reuse and every loss. */
export function holdInquest(evidence: Evidence): Inquest {
  const { ledger, visitors } = evidence
  const stored = storedRefreshTokens(evidence)
  const byUser = new Map(visitors.map((visitor) => [visitor.user, visitor]))
  const found = (visitor: Visitor, explanation: Explanation, moment: number): Finding => ({
    ...{ visitor, explanation, timeline: timelineOf(evidence, visitor, moment) },
  })
  const reuses = ledger.presentations
    .filter(({ verdict }) => verdict === 'reuse')
    .map((event) => {
      const visitor = byUser.get(ledger.userOf(event.token) ?? '')
      if (!visitor) throw new Error('a refresh token of nobody')
      return found(visitor, explainReuse(evidence, stored, event), event.receivedAt)
    })
  const losses = visitors.flatMap((visitor) => {
    if (!visitor.lost) return []
    const reuse = reuses.find((one) => one.visitor === visitor)
    const explanation = reuse?.explanation ?? explainDoubt(evidence, stored, visitor)
    return found(visitor, explanation, visitor.lost.at)
  })
  return { reuses, losses }
}

/** Every refresh token that Redis has ever held, opened with what only their visitors and we know. */
function storedRefreshTokens({ written, visitors, sealing }: Evidence): ReadonlySet<string> {
  const owners = new Map(visitors.map(({ hash, id }) => [`cloakroom:{${hash}}:tokens`, id]))
  const stored = new Set<string>()
  for (const { words } of written) {
    const id = words[0]?.toUpperCase() === 'HSET' ? owners.get(words[1]!) : undefined
    if (id === undefined) continue
    for (let n = 2; n < words.length; n += 2) {
      if (words[n] !== 'rt') continue
      const token = sealing.open({ id, kind: 'refresh_token' }, words[n + 1]!)
      if (token === undefined) throw new Error('a stored refresh token does not open')
      stored.add(token)
    }
  }
  return stored
}

function explainReuse(evidence: Evidence, stored: ReadonlySet<string>, event: Presentation): Explanation {
  const before = evidence.ledger.presentationsOf(event.token)
  const spender = before.slice(0, before.indexOf(event)).find(({ verdict }) => verdict === 'rotated')
  if (!spender) return defect('two were on their way at once')
  return explainLostAnswer(evidence, stored, { spender, until: event.receivedAt })
}

/** @param spender the presentation whose answer brought the next token. */
function explainLostAnswer(
  evidence: Evidence,
  stored: ReadonlySet<string>,
  { spender, until }: { spender: Presentation; until: number },
): Explanation {
  const { lives, outages, providerTimeoutMs } = evidence
  if (spender.successor && stored.has(spender.successor)) return defect('the next token was in the store')
  const { receivedAt, endedAt = Number.POSITIVE_INFINITY, fate } = spender
  const killedAt = lives.find(({ label }) => label === spender.replica)?.killedAt
  const isStoreAway = (from: number, to: number) =>
    outages.some((outage) => outage.from <= to + WRITE_MS && outage.to >= from - WRITE_MS)
  // What it sent may reach the provider after its end.
  if (killedAt !== undefined && killedAt >= receivedAt - WRITE_MS && killedAt <= until) {
    if (killedAt <= endedAt + WRITE_MS) return known('replica killed before its write')
    if (isStoreAway(endedAt, killedAt)) return known('replica killed while the store was away')
  }
  if (fate === 'dropped') return known('answer dropped')
  if (endedAt > until) return defect('two were on their way at once')
  if (fate === 'cut' || endedAt - receivedAt > providerTimeoutMs / 2) return known('answer after the timeout')
  if (isStoreAway(receivedAt, until)) return known('write lost with the store')
  return defect('an answer that arrived was not stored')
}

/** A session that ended without a reuse: Cloakroom itself would not offer its refresh token again. */
function explainDoubt(evidence: Evidence, stored: ReadonlySet<string>, visitor: Visitor): Explanation {
  const { ledger, lives, written, outages } = evidence
  const { reason, at: until } = visitor.lost!
  if (reason !== 'refresh_token_uncertain') return defect(`ended for no reason that we know: ${reason}`)
  const last = ledger.presentations.findLast(
    ({ token, receivedAt }) => ledger.userOf(token) === visitor.user && receivedAt <= until,
  )
  if (last && last.verdict === 'undecided' && last.fate !== 'delivered') return known('request dropped')
  const isKept = last?.successor !== undefined && stored.has(last.successor)
  if (last && !isKept) return explainLostAnswer(evidence, stored, { spender: last, until })
  const mark = written.findLast(({ words, at }) => isOpenMark(words, visitor) && at <= until)
  if (!mark) return defect('in doubt without a mark')
  const near = (moment: number) => moment >= mark.at - WRITE_MS && moment <= mark.at + 1_000 + WRITE_MS
  if (lives.some(({ killedAt }) => killedAt !== undefined && near(killedAt)))
    return known('replica killed between mark and request')
  // What a replica sent to a frozen Redis is served when that goes on, whether the replica still lives or not.
  const isServedLate = outages.some(
    ({ from, to }) =>
      mark.at >= from - WRITE_MS &&
      mark.at <= to + 1_000 + WRITE_MS &&
      lives.some(({ killedAt = 0 }) => killedAt >= from - WRITE_MS && killedAt <= to + WRITE_MS),
  )
  if (isServedLate) return known('replica killed with its mark on the way to a store that was away')
  if (outages.some(({ from, to }) => near(from) || near(to)))
    return defect('marked in a store outage, never offered')
  return defect('marked and never offered')
}

function isOpenMark(words: readonly string[], { hash }: Visitor): boolean {
  return words[1] === `cloakroom:{${hash}}:tokens` && words.some((word) => word.startsWith('open:'))
}

function known(cause: string): Explanation {
  return { cause, isExplained: true }
}

function defect(cause: string): Explanation {
  return { cause: `UNEXPLAINED: ${cause}`, isExplained: false }
}
