import { readFileSync } from 'node:fs'
import { createMetrics, type Metrics } from './admin/metrics.ts'
import { createAdminServer, type Readiness } from './admin/server.ts'
import { composePublic, type Rooms } from './app-edge.ts'
import type { Config } from './config/config.ts'
import { createPublicServer } from './http/listener.ts'
import { createListeners } from './http/listeners.ts'
import { createLogger, type Logger } from './log.ts'
import { createProvider } from './oidc/provider.ts'
import { type BffSession, sessionHash } from './session/bff-session.ts'
import { createSessions } from './session/session.ts'
import { createBelievedCache } from './session/session-cache.ts'
import { createMemoryStore } from './store/memory/memory-store.ts'
import type { Store } from './store/port.ts'
import { createRedisStore } from './store/redis/redis-store.ts'
import { createSessionStore } from './store/session-store.ts'
import { bindToGrants } from './tokens/bound-sealing.ts'
import { type ClientTokenShelf, createClientTokenShelf } from './tokens/client-token-shelf.ts'
import { cookieSigningSecrets, createSealing, type Sealing } from './tokens/sealed.ts'
import type { OpenedTokens } from './tokens/token-record.ts'
import { createTokens } from './tokens/tokens.ts'

/** A composed Cloakroom: two listeners, not yet open. */
export type Cloakroom = {
  /** Opens both listeners; rejects when a port is taken. */
  listen(): Promise<{ publicPort: number; adminPort: number }>
  /** Drains: not ready, no new connections, running requests finish, tunnels and store close. */
  close(): Promise<void>
}

/** What a test may put in place of the real thing. Times in ms. */
export type BuildDeps = { readonly log?: Logger; readonly now?: () => number; readonly drainMs?: number }

/** Longest time a copy of a session or token is believed without a look at the store. */
const COPIES_BELIEVED_MS = 5_000
const COPIES_HELD = 20_000
const DRAIN_MS = 25_000
/** Composition root: the only file that sees every room. */
export async function build(config: Config, deps: BuildDeps = {}): Promise<Cloakroom> {
  const now = deps.now ?? Date.now
  const log = deps.log ?? createLogger()
  let isLive = () => false
  const metrics = createMetrics({ version: version(), isStoreLive: () => isLive() })
  const store = await openStore(config, { log, metrics, now })
  isLive = store.invalidations.isLive

  const sealing = bindToGrants(createSealing(config.session.keys), config)
  const copies = openCopies(config, store, now)
  const provider = createProvider({ config, log, now, observe: metrics.provider })
  const sessions = composeSessions(config, { store, sealing, copy: copies.sessions, now })
  const tokens = createTokens({
    store,
    sealing,
    copy: copies.tokens,
    provider,
    resources: config.resources,
    clientTokenShelf: openClientTokenShelf(config, { store, sealing, now }),
    offersUncertain: config.provider.reusesRefreshTokens !== false,
    providerTimeoutMs: config.provider.timeoutMs,
    now,
    observe: {
      refresh: metrics.refresh,
      turn: metrics.refreshTurn,
      sessionEnded: (_, reason) => metrics.session('ended', reason),
    },
  })
  // Not awaited: a provider that is away must not keep living sessions from being served.
  provider.state()
  const rooms = { config, log, now, metrics, store, sealing, provider, sessions, tokens }
  const { edge, tunnel, upstreams, unsubscribe } = composePublic(rooms)
  let draining = false
  return createListeners({
    publicServer: createPublicServer({ request: edge, upgrade: tunnel.upgrade }),
    adminServer: createAdminServer({ metrics, readiness: () => readinessOf(rooms, draining) }),
    addresses: { public: config.listen, admin: config.admin.listen },
    drainMs: deps.drainMs ?? DRAIN_MS,
    onDrain() {
      draining = true
      tunnel.closeAll()
    },
    async release() {
      unsubscribe()
      copies.close()
      await Promise.all([upstreams.close(), store.close()])
    },
  })
}

/** Ready means able to answer, if only that the store is away: one dependency must not take every replica out at once. */
async function readinessOf({ config, provider, store }: Rooms, draining: boolean): Promise<Readiness> {
  const isStoreThere = await store.ping().then(
    () => true,
    () => false,
  )
  const dependencies = { store: isStoreThere ? 'ok' : 'unavailable', provider: provider.state() } as const
  const isWhole = isStoreThere && dependencies.provider === 'ok'
  return { ready: !draining && (isWhole || !config.admin.strictReadiness), draining, dependencies }
}

function version(): string {
  const manifest = readFileSync(new URL('../package.json', import.meta.url), 'utf8')
  return (JSON.parse(manifest) as { version: string }).version
}

async function openStore(
  config: Config,
  { log, metrics, now }: { log: Logger; metrics: Metrics; now: () => number },
): Promise<Store> {
  const { store, idleTimeoutMs } = config.session
  if (store.type === 'redis') {
    return createRedisStore(store, { idleTimeoutMs }, { log, observe: metrics.storeCommand })
  }
  log.warn({}, 'sessions are kept in memory: for one replica only, and lost when it ends')
  return createMemoryStore({ idleTimeoutMs, now })
}

/** The copies that make a proxied request cost no round trip; a short idle timeout must still be slid often enough. */
function openCopies(config: Config, { invalidations }: Store, now: () => number) {
  const believeMs = Math.min(COPIES_BELIEVED_MS, config.session.idleTimeoutMs / 10)
  const common = { invalidations, believeMs, max: COPIES_HELD, now }
  const sessions = createBelievedCache<BffSession>({ ...common, expiresAt: (session) => session.expiresAt })
  const opened = createBelievedCache<OpenedTokens>(common)
  return {
    sessions,
    tokens: {
      peek: opened.peek as (hash: BffSession['hash']) => OpenedTokens | undefined,
      load: (hash: BffSession['hash'], read: () => Promise<OpenedTokens | undefined>) =>
        opened.load(hash, hash, read),
    },
    close() {
      sessions.close()
      opened.close()
    },
  }
}

/** Undefined for a client without a lasting credential: nothing else could seal its tokens for all replicas alone. */
function openClientTokenShelf(
  config: Config,
  { store, ...deps }: { store: Store; sealing: Sealing; now: () => number },
): ClientTokenShelf | undefined {
  const auth = config.provider.clientAuth
  const secret = 'secret' in auth ? auth.secret : 'key' in auth ? auth.key : undefined
  if (!secret) return undefined
  const credential = () => secret.reveal()
  return createClientTokenShelf({ ...deps, records: store.clientTokens, credential, grants: config })
}

function composeSessions(
  { session: config }: Config,
  deps: {
    store: Store
    sealing: Sealing
    copy: ReturnType<typeof openCopies>['sessions']
    now: () => number
  },
) {
  const { sealing, now, copy } = deps
  const { name: _, ...attributes } = config.cookie
  const storeOf = (slide: boolean) =>
    createSessionStore({
      records: deps.store.sessions,
      seal: (id, text) => sealing.seal({ id, kind: 'session' }, text),
      open: (id, sealed) => sealing.open({ id, kind: 'session' }, sealed),
      hash: sessionHash,
      cookie: () => ({ ...attributes, httpOnly: true, path: '/' }),
      slide,
      absoluteTimeoutMs: config.absoluteTimeoutMs,
      now,
    })
  const signingSecrets = cookieSigningSecrets(config.keys)
  return createSessions({
    config,
    signingSecrets,
    store: storeOf(true),
    peekingStore: storeOf(false),
    copy,
    now,
  })
}
