import type { KeyObject } from 'node:crypto'
import type { Clock } from '../async/clock.ts'
import { createSingleFlight } from '../async/single-flight.ts'
import { BffError } from '../errors.ts'
import type { TokenRecords } from '../store/port.ts'
import { createRecentRefusals } from './recent-refusals.ts'
import {
  type AccessToken,
  freshOrUndefined,
  type GrantedAccessToken,
  type RenewToken,
  storedAccessToken,
  type TokenHolder,
  type TokenSealer,
  type WantedToken,
} from './record/sealing.ts'

/** What the tokens room asks of the authorization server: one access token in exchange for another (RFC 8693). */
export type TokenExchangeGrant = (request: {
  /** Name of the resource in the config. */
  readonly resource: string
  /** A living access token of the same user. */
  readonly subjectToken: string
  /** The private key that it is bound to (RFC 9449). */
  readonly key?: KeyObject
  /** Tells one session from another. */
  readonly session?: string
  /** JSON text of the claims that a challenge asks for. */
  readonly claims?: string
}) => Promise<GrantedAccessToken>

export type TokenExchangeDeps = {
  readonly exchangeGrant: TokenExchangeGrant
  /** The access token that is exchanged for one of `resource`; renewed first when it has expired. */
  readonly subjectTokenFor: (holder: TokenHolder, resource: string) => AccessToken | Promise<AccessToken>
  readonly records: Pick<TokenRecords, 'read' | 'keep'>
  readonly sealer: Pick<TokenSealer, 'openAccessToken' | 'sealAccessToken'>
  readonly clock: Pick<Clock, 'now' | 'monotonicNow'>
}

/**
 * Gets a fresh access token in exchange for the session's own token of another resource. No refresh token is offered, so
 * two replicas that do it at once do no harm: there is one exchange at a time in this process, and no lock.
 */
export function createTokenExchange(deps: TokenExchangeDeps): RenewToken {
  const refusals = createRecentRefusals(deps.clock.monotonicNow)
  const flights = createSingleFlight<AccessToken>()

  async function renewed(wanted: WantedToken): Promise<AccessToken> {
    const key = wanted.holder.hash + wanted.resource
    refusals.throwIfRecent(key)
    try {
      return (await exchangedElsewhere(deps, wanted)) ?? (await exchange(deps, wanted))
    } catch (error) {
      refusals.remember(key, error)
      throw error
    }
  }

  return function renew(wanted) {
    const key = JSON.stringify([wanted.holder.hash, wanted.resource, wanted.rejected, wanted.claims])
    return flights.share(key, () => renewed(wanted))
  }
}

/** The token in the store, if another replica has brought a fresh one. */
async function exchangedElsewhere(
  { records, sealer, clock }: TokenExchangeDeps,
  { holder, resource, rejected }: WantedToken,
): Promise<AccessToken | undefined> {
  const record = await records.read(holder.hash, resource)
  if (!record) throw sessionEnded()
  return freshOrUndefined(sealer.openAccessToken(holder, resource, record), rejected, clock.now())
}

async function exchange(
  deps: TokenExchangeDeps,
  { holder, resource, rejected, claims }: WantedToken,
): Promise<AccessToken> {
  const subject = await deps.subjectTokenFor(holder, resource)
  const granted = await deps.exchangeGrant({
    ...{ resource, subjectToken: subject.value, claims },
    ...(subject.key && { key: subject.key }),
    session: holder.hash,
  })
  const token = storedAccessToken(granted, rejected === undefined ? undefined : deps.clock.now())
  const sealed = deps.sealer.sealAccessToken(holder, resource, token)
  // What cannot be kept can be had again: a store that is away costs another exchange, not this answer.
  const isKept = await deps.records.keep(holder.hash, { resource, sealed }).catch(() => true)
  if (!isKept) throw sessionEnded()
  return token
}

function sessionEnded(): BffError {
  return new BffError('session_required', 'the session ended while its token was exchanged')
}
