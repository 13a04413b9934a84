import type { IncomingMessage, ServerResponse } from 'node:http'
import { createConsole } from '../admin/console/console.ts'
import { createAdminServer, type Readiness } from '../admin/server.ts'
import { createStoreReadiness, reasonOf, type StoreReadiness } from '../admin/store-readiness.ts'
import type { Config } from '../config/config.ts'
import { withoutRestartFields } from '../config/restart-fields.ts'
import { problemAnswer } from '../http/problem.ts'
import { createServerObjects } from '../http/server/express-objects.ts'
import { createListeners } from '../http/server/listeners.ts'
import { createPublicServer } from '../http/server/public-server.ts'
import { version } from '../version.ts'
import { reloadOf } from './audit.ts'
import { type ConfigScope, createConfigScope } from './config-scope.ts'
import { createExplanations } from './explanation.ts'
import { createGenerations } from './generations.ts'
import { openProcessScope, type ProcessDeps, type ProcessScope } from './process-scope.ts'

/** A composed Cloakroom: two listeners, not yet open. */
export type Cloakroom = {
  /** Opens both listeners; rejects with a ListenError when a port cannot be had. */
  listen(): Promise<{ publicPort: number; adminPort: number }>
  /**
   * Serves all new requests under the configuration that `read` returns. Requests in flight end under the configuration
   * they began with. Resolves with the changed fields that need a restart. Rejects with what `read` throws, and changes
   * nothing then. `reason`: why, for the audit stream.
   */
  reload(read: () => Config, reason?: string): Promise<{ needRestart: readonly string[] }>
  /** Drains: not ready; after `drainDelay` no new connections, running requests finish, tunnels and store close. */
  close(): Promise<void>
  /** While it drains: ends the delay, or else cuts what still runs. Refreshes in flight are stored all the same. */
  hurry(): void
}

/** What a test or a development server may put in place of the real thing. Times in ms. */
export type BuildDeps = ProcessDeps & {
  /** Answers a request in place of Cloakroom, once the guard has let it in; false leaves it to Cloakroom. */
  readonly answerFirst?: (req: IncomingMessage, res: ServerResponse) => boolean
  readonly drainMs?: number
  readonly idleGraceMs?: number
}

const DRAIN_MS = 25_000
/** At the end, a refresh in flight may take this long beside its call to the provider: for its writes to the store. */
const STORING_MS = 3_000
/** Upper bound of that call, even with a longer `provider.timeout`: a pod has only so much time to end. */
const MOST_FOR_CALL_MS = 10_000

/** Composes a Cloakroom from a configuration: the process scope, a first configuration scope, and the two listeners. */
export async function build(config: Config, deps: BuildDeps = {}): Promise<Cloakroom> {
  const scope = await openProcessScope(config, deps)
  const { log, metrics, store } = scope
  const storeReadiness = createStoreReadiness({ tryOut: store.tryOut, log })
  await storeReadiness.tried
  const generations = createGenerations(startConfigScope(config, scope))
  const { objects, adopt } = createServerObjects()
  adopt(generations.current().edge)
  const { answerFirst } = deps
  let draining = false
  const readiness = () => readinessOf(generations.current(), { store, storeReadiness, draining })
  const adminConsole = createConsole({
    ...{ version: version(), clock: scope.clock, metrics, readiness, inUse: generations.current },
    ...{ troubles: scope.troubles, isInvalidationLive: store.invalidations.isLive },
    explain: createExplanations(() => generations.current().config),
  })
  const listeners = createListeners({
    publicServer: createPublicServer({
      ...{ objects, limits: config.limits, log, observeRefused: metrics.connectionRefused },
      guard: generations.guard,
      request: answerFirst
        ? (req, res) => void (answerFirst(req, res) || generations.request(req, res))
        : generations.request,
      upgrade: generations.upgrade,
      isTrustedPeer: (peer) => generations.current().isTrustedPeer(peer),
    }),
    adminServer: createAdminServer({
      ...{ metrics, problemAnswer, log, readiness, console: adminConsole },
      hosts: () => generations.current().config.admin.hosts,
    }),
    addresses: { public: config.listen, admin: config.admin.listen },
    drainMs: deps.drainMs ?? DRAIN_MS,
    idleGraceMs: deps.idleGraceMs,
    delayMs: () => generations.current().config.drainDelayMs,
    onStop() {
      draining = true
    },
    onDrain: generations.closeStreams,
    async release() {
      storeReadiness.close()
      adminConsole.close()
      const callMs = Math.min(scope.longestCallMs(), MOST_FOR_CALL_MS)
      const unstored = await scope.refreshes.end(callMs + STORING_MS)
      if (unstored > 0) log.error({ count: unstored }, 'stopped before these refreshes were stored')
      await Promise.all([generations.releaseAll(), store.close()])
      await scope.trace?.close()
    },
  })

  async function reload(read: () => Config, reason?: string): Promise<{ needRestart: readonly string[] }> {
    const current = generations.current()
    const startedAt = scope.monotonicNow()
    const seconds = () => (scope.monotonicNow() - startedAt) / 1000
    try {
      const { config: next, needRestart } = withoutRestartFields(read(), current.config)
      const generation = startConfigScope(next, scope)
      // Endpoints known before the first request needs them; a provider that is away does not refuse a good file.
      await generation.provider.discovered()
      scope.changeTo(next, current.config)
      generation.provider.succeed(current.provider)
      adopt(generation.edge)
      generations.succeed(generation)
      metrics.reload('applied', { seconds: seconds(), needRestart })
      log.audit?.('config_reloaded', reloadOf(reason, { hash: scope.configHash() }))
      adminConsole.reloads.applied(needRestart)
      return { needRestart }
    } catch (error) {
      metrics.reload('refused', { seconds: seconds() })
      log.audit?.('config_reloaded', reloadOf(reason, { hash: scope.configHash(), error }))
      adminConsole.reloads.refused(error)
      throw error
    }
  }
  return { ...listeners, reload }
}

function startConfigScope(config: Config, scope: ProcessScope): ConfigScope {
  const generation = createConfigScope(config, scope)
  // Begins discovery and does not wait for it: living sessions are served while the provider is away.
  generation.provider.state()
  return generation
}

/**
 * Ready means able to answer, if only that the store is away: one dependency must not take every replica out at once. A
 * store that has not worked since the start is no outage but a fault of this replica, which then must get no users.
 */
async function readinessOf(
  { config, provider }: ConfigScope,
  { store, storeReadiness, draining }: Pick<ProcessScope, 'store'> & Standing,
): Promise<Readiness> {
  const neverWorked = storeReadiness.problem()
  const problem = neverWorked ?? (await store.ping().then(() => undefined, reasonOf))
  const dependencies = {
    store: problem === undefined ? 'ok' : 'unavailable',
    provider: provider.state(),
  } as const
  const isWhole = problem === undefined && dependencies.provider === 'ok'
  const ready = !draining && neverWorked === undefined && (isWhole || !config.admin.strictReadiness)
  return { ready, draining, dependencies, ...(problem === undefined ? {} : { reasons: { store: problem } }) }
}

type Standing = { readonly storeReadiness: StoreReadiness; readonly draining: boolean }
