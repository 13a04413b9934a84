import type { LogFields, Logger } from '../../log.ts'
import type { ActOnce } from './event-token.ts'
import { type SecurityEvent, type SetRules, verifySet } from './security-event-token.ts'
import type { SignalSubject } from './subjects.ts'

/** What events do to sessions. Both resolve with how many sessions they met, and reject with `store_unavailable`. */
export type SignalActions = {
  /**
   * Ends the sessions of a subject.
   *
   * @param startedBefore epoch ms: a session that began later is another sign-in than the event was about.
   */
  endSessions(
    of: SignalSubject,
    how: { readonly reason: string; readonly startedBefore: number },
  ): Promise<number>
  /** Makes the next request of each session of a subject get new tokens, and with them new claims. */
  renewTokens(of: SignalSubject): Promise<number>
}

export type SignalsReceiverDeps = {
  readonly rules: SetRules
  readonly actOnce: ActOnce
  readonly actions: SignalActions
  readonly log: Logger
}

/**
 * Takes one security event token and acts on it before it resolves, so that what is acknowledged is done. Throws an
 * EventTokenError for a token that is refused; `provider_unavailable` or `store_unavailable` for one that must be sent again.
 */
export type ReceiveSet = (set: string) => Promise<void>

/** Makes the receiver of Shared Signals: verify, once over all replicas, act on each event. */
export function createSignalsReceiver(deps: SignalsReceiverDeps): ReceiveSet {
  const { rules, log } = deps

  return async function receiveSet(set) {
    const { jti, events, goodForMs } = await verifySet(set, rules)
    const message = { kind: 'ssf', id: JSON.stringify([rules.issuer, jti]), goodForMs }
    const isFirst = await deps.actOnce(message, async () => {
      for (const event of events) await act(event, deps)
    })
    // RFC 8935 §2: it is answered as at the first time, because the transmitter may have missed that answer.
    if (!isFirst) log.info({ outcome: 'repeated' }, 'a security event came again, and nothing was done')
  }
}

const CAEP = 'https://schemas.openid.net/secevent/caep/event-type/'
const RISC = 'https://schemas.openid.net/secevent/risc/event-type/'
const SSF = 'https://schemas.openid.net/secevent/ssf/event-type/'

type Action = (event: SecurityEvent, deps: SignalsReceiverDeps) => Promise<LogFields>

/** What of a time in whole seconds may be missing, in ms. */
const ROUNDING_MS = 1_000

/**
 * Ends sessions for `reason`, those of the whole user unless the event is about one session. They must have begun before
 * the event, as far as the clocks of both sides tell.
 */
function ends(
  reason: string,
  { scope = 'user', isExact = false }: { scope?: 'session' | 'user'; isExact?: boolean } = {},
): Action {
  return async ({ subject, occurredAt }, { actions, rules }) => {
    const of = scope === 'session' ? subject : (withoutSession(subject) ?? subject)
    if (!of) return UNKNOWN_SUBJECT
    const startedBefore = occurredAt + (isExact ? ROUNDING_MS : rules.clockToleranceMs + ROUNDING_MS)
    return { outcome: 'ended', count: await actions.endSessions(of, { reason, startedBefore }) }
  }
}

function withoutSession(subject: SignalSubject | undefined): SignalSubject | undefined {
  if (!subject?.user && subject?.email === undefined) return undefined
  const { idpSid: _one, ...user } = subject
  return user
}

const renews: Action = async ({ subject }, { actions }) => {
  if (!subject) return UNKNOWN_SUBJECT
  return { outcome: 'renewed', count: await actions.renewTokens(subject) }
}

const UNKNOWN_SUBJECT: LogFields = { outcome: 'ignored', reason: 'unknown_subject' }

/**
 * What each type of event does. Every change of a credential ends sessions, its creation too: an attacker who has a session
 * makes credentials of his own, and a user who has made one only passes the provider once more.
 */
const ACTIONS: ReadonlyMap<string, Action> = new Map([
  [`${CAEP}session-revoked`, ends('session_revoked', { scope: 'session' })],
  // People change passwords on the way to a sign-in ("forgot password"), and are signed in a second later: that session
  // is to stay, so no tolerance.
  [`${CAEP}credential-change`, ends('credential_change', { isExact: true })],
  [`${CAEP}token-claims-change`, renews],
  [`${CAEP}assurance-level-change`, renews],
  [`${RISC}account-disabled`, ends('account_disabled')],
  [`${RISC}account-purged`, ends('account_purged')],
  [`${RISC}credential-compromise`, ends('credential_compromise')],
  [`${RISC}sessions-revoked`, ends('sessions_revoked')],
  [`${SSF}verification`, async () => ({ outcome: 'verified' })],
  [`${SSF}stream-updated`, async ({ details: { status } }) => ({ outcome: streamStatus(status) })],
])

/** SSF 1.0 §8.1.2. */
function streamStatus(status: unknown): string {
  return status === 'enabled' || status === 'paused' || status === 'disabled' ? status : 'unknown'
}

/** One line tells what an event did. Types that nothing is done about are acknowledged (SSF 1.0 §8.1.1). */
async function act(event: SecurityEvent, deps: SignalsReceiverDeps): Promise<void> {
  const action = ACTIONS.get(event.type)
  const did: LogFields = action ? await action(event, deps) : { outcome: 'ignored', reason: 'unknown_type' }
  const fields = { event: nameOf(event.type), ...did }
  if (did.outcome === 'paused' || did.outcome === 'disabled') {
    deps.log.warn(
      fields,
      'the transmitter stopped the stream of security events: sessions end no more by them',
    )
  } else if (did.reason === 'unknown_subject') {
    deps.log.warn(
      fields,
      'a security event is about nobody whom it may name here; see provider.sharedSignals.subjects',
    )
  } else {
    deps.log.info(fields, 'a security event was received')
  }
}

/** The last part of an event type, if it may be logged. */
function nameOf(type: string): string {
  const name = type.slice(type.lastIndexOf('/') + 1)
  return ACTIONS.has(type) || /^[\w-]{1,64}$/.test(name) ? name : 'unknown'
}
