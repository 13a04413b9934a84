import type { Metrics } from '../admin/metrics.ts'
import { heapShare } from '../async/expiring-map.ts'
import type { UnderWay } from '../async/in-flight.ts'
import type { Config } from '../config/config.ts'
import { describeError } from '../errors.ts'
import type { Logger } from '../log.ts'
import { reusesRefreshTokens } from '../oidc/grants/refresh-token-reuse.ts'
import { createProvider } from '../oidc/provider.ts'
import type { OfflineConsentMemory } from '../oidc/sign-in/offline-consent.ts'
import type { ProviderGates } from '../oidc/token-endpoint/limiters.ts'
import type { LiveConnections } from '../proxy/session-end/live-connections.ts'
import { type BffSession, sessionHash } from '../session/bff-session.ts'
import { createFollowClaims } from '../session/follow-claims.ts'
import { createMissingSessions, type MissingSessions } from '../session/missing-session.ts'
import { createSessions } from '../session/session.ts'
import { createBelievedCache } from '../session/session-cache.ts'
import type { Store } from '../store/port.ts'
import { createSessionStore } from '../store/session-store.ts'
import { type ClientTokenShelf, createClientTokenShelf } from '../tokens/client/shared-client-tokens.ts'
import { bindToGrants } from '../tokens/record/bound-sealing.ts'
import { cookieSigningSecrets, createSealing, type Sealing } from '../tokens/record/sealing.ts'
import type { OpenedTokens } from '../tokens/record/token-record.ts'
import { createTokens } from '../tokens/tokens.ts'

/** What outlives a configuration. */
export type Ground = {
  readonly log: Logger
  /** The time of day, epoch ms: for what is compared with other machines, and the ends of tokens and sessions. */
  readonly now: () => number
  /** Ms since some moment, which nobody can set: for whatever lasts so long from now on. */
  readonly monotonicNow: () => number
  readonly metrics: Metrics
  readonly store: Store
  /** The open WebSockets, under whatever configuration they began: a session has so many in all. */
  readonly tunnels: LiveConnections
  /** Names of resources that a reload took away. */
  readonly retiredResources: ReadonlySet<string>
  /** The refreshes that have begun, under whatever configuration. */
  readonly refreshes: UnderWay
  /** The throttle and breaker towards the provider, for as long as their settings stay the same. */
  readonly gates: ProviderGates
  /** What is known of providers and consent. */
  readonly offlineConsent: OfflineConsentMemory
}

/** What the rooms behind the public listener have to offer, under one configuration. */
export type Rooms = Ground & {
  readonly config: Config
  readonly sealing: Sealing
  readonly provider: ReturnType<typeof createProvider>
  readonly sessions: ReturnType<typeof createSessions>
  /** Why a request has no session. */
  readonly missing: MissingSessions
  readonly tokens: ReturnType<typeof createTokens>
  /** Drops what is held in this process. */
  close(): void
}

/** Longest time a copy of a session or token is believed without a look at the store. */
const COPIES_BELIEVED_MS = 5_000
const COPIES_HELD = 20_000
/** The part of the heap that the copies of one kind may take: of both kinds, with those of a configuration before, a third. */
const COPIES_SHARE = 1 / 12

/** Furnishes the rooms for one configuration. */
export function composeRooms(config: Config, ground: Ground): Rooms {
  const { log, metrics, now, monotonicNow, store, gates, offlineConsent } = ground
  const sealing = bindToGrants(createSealing(config.session.keys), config)
  const copies = openCopies(config, ground)
  const clocks = { now, monotonicNow }
  const provider = createProvider({
    ...{ config, log, gates, offlineConsent, observe: metrics.provider },
    ...clocks,
  })
  const { sessions, missing, followClaims } = composeSessions(config, {
    ...{ store, sealing, copy: copies.sessions, log },
    ...clocks,
  })
  const tokens = createTokens({
    store,
    sealing,
    copy: copies.tokens,
    provider,
    resources: config.resources,
    retiredResources: ground.retiredResources,
    clientTokenShelf: openClientTokenShelf(config, { store, sealing, now }),
    reusesRefreshTokens: reusesRefreshTokens(config.provider),
    underWay: ground.refreshes,
    followClaims: (holder, claimsAfter) =>
      // The token is good all the same; the next refresh brings them again.
      followClaims(holder, claimsAfter).catch((error) =>
        log.warn({ err: describeError(error) }, 'the claims of a refreshed ID token could not be stored'),
      ),
    providerTimeoutMs: config.provider.timeoutMs,
    now,
    monotonicNow,
    observe: {
      refresh: (resource, outcome) =>
        outcome === 'no_refresh_token'
          ? provider.noRefreshToken(resource)
          : metrics.refresh(resource, outcome),
      turn: metrics.refreshTurn,
      sessionEnded: (_, reason) => metrics.session('ended', reason),
    },
  })
  return { ...ground, config, sealing, provider, sessions, missing, tokens, close: copies.close }
}

/** The copies that make a proxied request cost no round trip; a short idle timeout must still be slid often enough. */
function openCopies(config: Config, { store, now, monotonicNow }: Ground) {
  const believeMs = Math.min(COPIES_BELIEVED_MS, config.session.idleTimeoutMs / 10)
  const { invalidations } = store
  const bounds = { max: COPIES_HELD, maxBytes: heapShare(COPIES_SHARE) }
  const common = { invalidations, believeMs, ...bounds, monotonicNow }
  const sessions = createBelievedCache<BffSession>({
    ...common,
    lifeMs: ({ expiresAt }) => expiresAt - now(),
  })
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
    log: Logger
    now: () => number
    monotonicNow: () => number
  },
) {
  const { sealing, log, now, monotonicNow, copy } = deps
  const { name: cookieName, ...attributes } = config.cookie
  const signingSecrets = cookieSigningSecrets(config.keys)
  const seal = (id: string, text: string) => sealing.seal({ id, kind: 'session' }, text)
  const open = (id: string, sealed: string) => sealing.open({ id, kind: 'session' }, sealed)
  const missing = createMissingSessions({
    ...{ cookieName, signingSecrets, records: deps.store.sessions, open, monotonicNow },
  })
  const storeOf = (slide: boolean) =>
    createSessionStore({
      records: deps.store.sessions,
      seal,
      open,
      expired: missing.noteExpired,
      hash: sessionHash,
      cookie: () => ({ ...attributes, httpOnly: true, path: '/' }),
      slide,
      absoluteTimeoutMs: config.absoluteTimeoutMs,
      now,
    })
  const sessions = createSessions({
    config,
    signingSecrets,
    store: storeOf(true),
    peekingStore: storeOf(false),
    copy,
    log,
    now,
    monotonicNow,
  })
  const followClaims = createFollowClaims({ records: deps.store.sessions, seal, open })
  return { sessions, missing, followClaims }
}
