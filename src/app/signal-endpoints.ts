import type { Config } from '../config/config.ts'
import type { BffRoutesDeps } from '../http/endpoints/bff-routes.ts'
import {
  createGlobalTokenRevocation,
  type GlobalTokenRevocationDeps,
} from '../http/endpoints/provider/global-token-revocation.ts'
import { createSecurityEvents } from '../http/endpoints/provider/security-events.ts'
import { createVerifyRevocationCaller } from '../oidc/events/revocation-caller.ts'
import { createSignalActions, type SignalActionsDeps } from '../oidc/events/signal-actions.ts'
import { createSignalsReceiver, type SignalsReceiverDeps } from '../oidc/events/signals-receiver.ts'
import type { createProvider } from '../oidc/provider.ts'
import type { UserSessions } from '../session/session-index.ts'

/** What the endpoints share with the rest of one configuration. */
export type SignalEndpointsDeps = Pick<SignalsReceiverDeps, 'actOnce' | 'log'> &
  Pick<SignalActionsDeps, 'forceRenewal'> &
  Pick<GlobalTokenRevocationDeps, 'refusedPushes'> & {
    readonly provider: Pick<
      ReturnType<typeof createProvider>,
      'isIssuer' | 'requireSigned' | 'requireSignedByTransmitter'
    >
    readonly userSessions: Pick<UserSessions, 'end' | 'find'>
    readonly requestLog: Pick<GlobalTokenRevocationDeps, 'factsOf'>
    /** Epoch ms. */
    readonly now: () => number
  }

/** Wires what the provider tells of users and sessions, as far as the configuration switches it on; by path below `basePath`. */
export function createSignalEndpoints(
  config: Config,
  deps: SignalEndpointsDeps,
): NonNullable<BffRoutesDeps['signals']> {
  const { issuer, sharedSignals, globalTokenRevocation, clockToleranceMs } = config.provider
  const { provider, userSessions, now, log } = deps
  const { authorization, subjects = ['iss_sub'] as const } = sharedSignals ?? {}
  const actions = createSignalActions({
    ...{ issuer, end: userSessions.end, find: userSessions.find, forceRenewal: deps.forceRenewal },
  })
  const common = {
    ...{ authorization, refusedPushes: deps.refusedPushes, log },
    ...{ factsOf: deps.requestLog.factsOf, bodyWithinMs: config.limits.headerTimeoutMs },
  }
  const endpoints: Record<string, NonNullable<BffRoutesDeps['signals']>[string]> = {}
  if (sharedSignals) {
    endpoints['/ssf/events'] = createSecurityEvents({
      ...common,
      receiveSet: createSignalsReceiver({
        rules: {
          ...{ ...sharedSignals, issuer: sharedSignals.transmitter, clockToleranceMs, now },
          // A session that began before is over by now.
          longestAgeMs: config.session.absoluteTimeoutMs,
          requireSigned: provider.requireSignedByTransmitter,
        },
        ...{ actOnce: deps.actOnce, actions, log },
      }),
    })
  }
  if (globalTokenRevocation) {
    const path = '/global-token-revocation'
    endpoints[path] = createGlobalTokenRevocation({
      ...{ ...common, issuer, subjects, endSessions: actions.endSessions },
      verifyCaller: createVerifyRevocationCaller({
        ...{ isIssuer: provider.isIssuer, endpoint: `${config.publicUrl}${config.basePath}${path}` },
        ...{ requireSigned: provider.requireSigned, clockToleranceMs, now },
      }),
    })
  }
  return endpoints
}
