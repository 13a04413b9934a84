import { readFileSync } from 'node:fs'
import { createMetrics, type Metrics } from '../admin/metrics.ts'
import { createAdminServer, type Readiness } from '../admin/server.ts'
import { createStoreReadiness, reasonOf, type StoreReadiness } from '../admin/store-readiness.ts'
import { createUnderWay } from '../async/in-flight.ts'
import type { Config } from '../config/config.ts'
import { withoutRestartFields } from '../config/restart-fields.ts'
import { describeError } from '../errors.ts'
import { problemAnswer } from '../http/problem.ts'
import { createServerObjects } from '../http/server/express-objects.ts'
import { createListeners } from '../http/server/listeners.ts'
import { createPublicServer } from '../http/server/public-server.ts'
import { createLogger, droppedLogLines, type Logger } from '../log.ts'
import { createProviderGates } from '../oidc/token-endpoint/limiters.ts'
import { createLiveConnections } from '../proxy/session-end/live-connections.ts'
import { createMemoryStore } from '../store/memory/memory-store.ts'
import type { Store, StoreTimes } from '../store/port.ts'
import { createRedisStore } from '../store/redis/redis-store.ts'
import { composeRooms, type Ground, type Rooms } from './config-scope.ts'
import { createGenerations } from './generations.ts'
import { composePublic } from './public-scope.ts'

/** A composed Cloakroom: two listeners, not yet open. */
export type Cloakroom = {
  /** Opens both listeners; rejects when a port is taken. */
  listen(): Promise<{ publicPort: number; adminPort: number }>
  /**
   * Serves everything that comes from now on under the configuration that `read` gives; what is under way ends under the
   * one it began with. Resolves with the fields whose change takes effect at the next start only; rejects with what
   * `read` throws, and nothing has changed then.
   */
  reload(read: () => Config): Promise<{ needRestart: readonly string[] }>
  /** Drains: not ready, no new connections, running requests finish, tunnels and store close. */
  close(): Promise<void>
}

/** What a test may put in place of the real thing. Times in ms. */
export type BuildDeps = {
  readonly log?: Logger
  /** Epoch ms. */
  readonly now?: () => number
  /** That of `now` unless given: a test that moves one moves both. */
  readonly monotonicNow?: () => number
  readonly drainMs?: number
  readonly idleGraceMs?: number
}

const DRAIN_MS = 25_000
/** For so long the store keeps a session that is over, so that it is told apart from one that it never had. */
const TOLD_APART_MS = 600_000
/** Beside its call to the provider, what a refresh under way may take at the end: its writes, once the store is there. */
const STORING_MS = 3_000
/** Whatever `provider.timeout` says: with the drain it must fit into the time that a pod has to end. */
const MOST_FOR_CALL_MS = 10_000

/** Composition root: with app-rooms and app-edge the only file that sees every room. */
export async function build(config: Config, deps: BuildDeps = {}): Promise<Cloakroom> {
  const ground = await prepareGround(config, deps)
  const storeReadiness = createStoreReadiness({ tryOut: ground.store.tryOut, log: ground.log })
  await storeReadiness.tried
  const generations = createGenerations(generationOf(config, ground))
  const { objects, adopt } = createServerObjects()
  adopt(generations.current().edge)
  let draining = false
  const listeners = createListeners({
    publicServer: createPublicServer({
      objects,
      limits: config.limits,
      front: () => generations.current().front,
      request: generations.request,
      upgrade: generations.upgrade,
      isTrustedPeer: (peer) => generations.current().isTrustedPeer(peer),
      observeRefused: ground.metrics.connectionRefused,
      log: ground.log,
    }),
    adminServer: createAdminServer({
      metrics: ground.metrics,
      readiness: () => readinessOf(generations.current().rooms, { storeReadiness, draining }),
      hosts: () => generations.current().rooms.config.admin.hosts,
      problemAnswer,
      log: ground.log,
    }),
    addresses: { public: config.listen, admin: config.admin.listen },
    drainMs: deps.drainMs ?? DRAIN_MS,
    idleGraceMs: deps.idleGraceMs,
    onDrain() {
      draining = true
      generations.closeStreams()
    },
    async release() {
      storeReadiness.close()
      const callMs = Math.min(ground.longestCallMs(), MOST_FOR_CALL_MS)
      const unstored = await ground.refreshes.end(callMs + STORING_MS)
      if (unstored > 0) ground.log.error({ count: unstored }, 'stopped before these refreshes were stored')
      await Promise.all([generations.releaseAll(), ground.store.close()])
    },
  })

  async function reload(read: () => Config): Promise<{ needRestart: readonly string[] }> {
    const { rooms } = generations.current()
    try {
      const { config: next, needRestart } = withoutRestartFields(read(), rooms.config)
      const generation = generationOf(next, ground)
      // Endpoints known before the first request needs them; a provider that is away keeps no good file out.
      await generation.rooms.provider.discovered()
      ground.changeTo(next, rooms.config)
      generation.rooms.provider.succeed(rooms.provider)
      adopt(generation.edge)
      generations.succeed(generation)
      ground.metrics.reload('applied', needRestart)
      return { needRestart }
    } catch (error) {
      ground.metrics.reload('refused')
      throw error
    }
  }
  return { ...listeners, reload }
}

/** What outlives a configuration, and how it follows the change to the next one. */
async function prepareGround(
  config: Config,
  deps: BuildDeps,
): Promise<Ground & { changeTo(next: Config, before: Config): void; longestCallMs(): number }> {
  const now = deps.now ?? Date.now
  const monotonicNow = deps.monotonicNow ?? deps.now ?? (() => performance.now())
  const log = deps.log ?? createLogger()
  const retiredResources = new Set<string>()
  let { idleTimeoutMs, absoluteTimeoutMs } = config.session
  let { timeoutMs: longestCallMs } = config.provider
  let isLive = () => false
  const metrics = createMetrics({ version: version(), isStoreLive: () => isLive(), droppedLogLines })
  const store = await openStore(config, {
    ...{ log, metrics, monotonicNow },
    idleTimeoutMs: () => idleTimeoutMs,
    absoluteTimeoutMs: () => absoluteTimeoutMs + TOLD_APART_MS,
  })
  isLive = store.invalidations.isLive

  function changeTo(next: Config, before: Config): void {
    ;({ idleTimeoutMs, absoluteTimeoutMs } = next.session)
    longestCallMs = Math.max(longestCallMs, next.provider.timeoutMs)
    for (const name of Object.keys(before.resources)) retiredResources.add(name)
    for (const name of Object.keys(next.resources)) retiredResources.delete(name)
    metrics.forgetFaults()
  }
  const lasting = {
    ...{ tunnels: createLiveConnections(), retiredResources, refreshes: createUnderWay() },
    offlineConsent: new Map(),
  }
  const gates = createProviderGates({
    ...{ log, now: monotonicNow, observe: metrics.provider, observeSignIn: metrics.signInGates },
  })
  return {
    ...{ log, now, monotonicNow, metrics, store, gates },
    ...lasting,
    changeTo,
    longestCallMs: () => longestCallMs,
  }
}

function generationOf(config: Config, ground: Ground) {
  const rooms = composeRooms(config, ground)
  const { unsubscribe, ...publicParts } = composePublic(rooms)
  // Not awaited: a provider that is away must not keep living sessions from being served.
  rooms.provider.state()
  async function release(): Promise<void> {
    unsubscribe()
    rooms.close()
    await publicParts.upstreams
      .close()
      .catch((error) => ground.log.warn({ err: describeError(error) }, 'not closed cleanly'))
  }
  return { rooms, ...publicParts, release }
}

/**
 * Ready means able to answer, if only that the store is away: one dependency must not take every replica out at once. But a
 * store that has not worked since the start is more than away, and this replica less than the ones before it.
 */
async function readinessOf(
  { config, provider, store }: Rooms,
  { storeReadiness, draining }: { storeReadiness: StoreReadiness; draining: boolean },
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

function version(): string {
  const manifest = readFileSync(new URL('../../package.json', import.meta.url), 'utf8')
  return (JSON.parse(manifest) as { version: string }).version
}

async function openStore(
  config: Config,
  { log, metrics, ...times }: { log: Logger; metrics: Metrics } & StoreTimes,
): Promise<Store> {
  const { store } = config.session
  if (store.type === 'redis') {
    return createRedisStore(store, times, { log, observe: metrics.storeCommand })
  }
  log.warn({}, 'sessions are kept in memory: for one replica only, and lost when it ends')
  return createMemoryStore(times)
}
