import type { WrittenCommand } from './append-only-file.ts'
import type { Evidence } from './losses.ts'
import type { Visitor } from './visitors.ts'

/** Before the moment that is looked at. */
const BEFORE_MS = 20_000
const AFTER_MS = 1_000

type Moment = { readonly at: number; readonly text: string }

/**
 * What happened to one session before it was lost, one line each, in seconds before `moment` (epoch ms): what the
 * provider saw, what Redis wrote (known to the second only), what we broke. No token is in it.
 */
export function timelineOf(evidence: Evidence, visitor: Visitor, moment: number): string[] {
  const { ledger, written, lives, outages } = evidence
  const moments: Moment[] = [
    ...ledger.presentations
      .filter(({ token }) => ledger.userOf(token) === visitor.user)
      .map((one) => ({
        at: one.receivedAt,
        text: `${one.replica} presents ${short(one.token)}: ${one.verdict} ${short(one.successor)} ${one.fault ?? ''}, ${one.fate} after ${(one.endedAt ?? Number.NaN) - one.receivedAt} ms`,
      })),
    ...written
      .filter(({ words }) => words[1]?.startsWith(`cloakroom:{${visitor.hash}}:`))
      .map((command) => ({ at: command.at, text: `  Redis: ${describe(command)}` })),
    ...lives.flatMap(({ label, killedAt }) =>
      killedAt === undefined ? [] : [{ at: killedAt, text: `    ${label} killed` }],
    ),
    ...outages.flatMap(({ kind, from, to }) => [
      { at: from, text: `    Redis gone (${kind})` },
      { at: to, text: '    Redis back' },
    ]),
  ]
  return moments
    .filter(({ at }) => at >= moment - BEFORE_MS && at <= moment + AFTER_MS)
    .sort((a, b) => a.at - b.at)
    .map(({ at, text }) => `${((at - moment) / 1000).toFixed(3).padStart(9)}  ${text}`)
}

/** Sealed texts are left out, names, owners and versions are not. */
function describe({ words }: WrittenCommand): string {
  const [command = '', key = '', ...rest] = words
  const shown = rest.map((word) => (/^\d\.[\w-]+\.[\w-]{20,}$/.test(word) ? '…' : word))
  return [command, key.replace(/^.*:/, ''), ...shown].join(' ')
}

function short(token: string | undefined): string {
  return token === undefined ? '' : token.slice(0, 9)
}
