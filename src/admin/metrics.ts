import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import type { GrantObserver, GrantOutcome } from '../oidc/grants/config-faults.ts'
import type { LimiterObserver, SignInObserver } from '../oidc/token-endpoint/limiter.ts'

/** What the program counts and times. Labels are route ids, resource names and closed lists, never a path or a user. */
export type Metrics = {
  request(route: string, method: string, status: number, seconds: number): void
  /** `uncertain`: the refresh token was not offered, because it may have been used already. */
  refresh(resource: string, outcome: GrantOutcome | 'uncertain'): void
  /** One caller that needed a fresh token, and how long it waited for the refresh lock. */
  refreshLock(outcome: string, resource: string, waitedMs: number): void
  storeCommand(command: string, seconds: number, outcome: 'ok' | 'error'): void
  session(event: 'started' | 'ended', reason: string): void
  /** One sign-in that failed: the step, and the error as a word of a closed list. */
  signInFailed(step: string, error: string): void
  /** One request that was refused because it has no session. */
  sessionMissing(reason: string): void
  /** One request that was answered with `rate_limited`. */
  rateLimited(endpoint: string): void
  /** A client's connection that was closed at once. */
  connectionRefused(reason: 'limit' | 'client_limit'): void
  /** Calls to the provider's token endpoint, and what came of them. */
  readonly provider: LimiterObserver & GrantObserver & { clientCertificate(notAfter: number): void }
  /** The limiters of sign-ins, apart from those of refreshes. */
  readonly signInLimiters: SignInObserver
  /** `upstream`: its origin. */
  upstreamBreaker(upstream: string, isOpen: boolean): void
  /** A configuration file was read again. `needRestart`: its fields that are not in use yet. */
  reload(outcome: 'applied' | 'refused', needRestart?: readonly string[]): void
  /** Forgets the faults of a configuration that is no longer used. */
  forgetFaults(): void
  /** Prometheus text format 0.0.4, with its content type. */
  render(): Promise<{ contentType: string; text: string }>
}

const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]
const METHODS = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'])

/** The only file that imports prom-client. Each call makes a registry of its own, so that two in one process do not meet. */
export function createMetrics(options: {
  version: string
  isStoreLive: () => boolean
  droppedLogLines: () => number
}): Metrics {
  const registers = [new Registry()]
  const [registry] = registers as [Registry]
  collectDefaultMetrics({ register: registry })
  new Gauge({
    name: 'cloakroom_build_info',
    help: 'Always 1; the label says which version runs',
    labelNames: ['version'],
    registers,
  }).set({ version: options.version }, 1)
  new Gauge({
    name: 'cloakroom_invalidation_live',
    help: '1 while this replica hears of sessions that change or end elsewhere, so that its copies may be trusted',
    registers,
    collect() {
      this.set(options.isStoreLive() ? 1 : 0)
    },
  })
  const requests = new Histogram({
    name: 'cloakroom_request_duration_seconds',
    help: 'Requests on the public listener, by route id',
    labelNames: ['route', 'method', 'status'],
    buckets: SECONDS,
    registers,
  })
  const refreshes = new Counter({
    name: 'cloakroom_refreshes_total',
    help: 'Requests to the provider for an access token, by resource and what was done about the answer',
    labelNames: ['resource', 'outcome'],
    registers,
  })
  const lockOutcomes = new Counter({
    name: 'cloakroom_refresh_turns_total',
    help: 'Callers who needed a fresh token: who did the work, who shared or found it',
    labelNames: ['outcome', 'resource'],
    registers,
  })
  const lockWaits = new Histogram({
    name: 'cloakroom_refresh_lock_wait_seconds',
    help: 'Wait for the refresh lock of a session',
    buckets: SECONDS,
    registers,
  })
  const store = new Histogram({
    name: 'cloakroom_store_command_duration_seconds',
    help: 'Commands to the session store',
    labelNames: ['command', 'outcome'],
    buckets: SECONDS,
    registers,
  })
  const sessions = new Counter({
    name: 'cloakroom_sessions_total',
    help: 'Sessions started and ended, by reason',
    labelNames: ['event', 'reason'],
    registers,
  })
  const reloads = new Counter({
    name: 'cloakroom_config_reloads_total',
    help: 'Configurations read while running: applied, or refused while the one before runs on',
    labelNames: ['outcome'],
    registers,
  })
  const lastReload = new Gauge({
    name: 'cloakroom_config_current',
    help: '1 while the configuration that runs is the one in the file; 0 after the file was refused, and while a change in it waits for a restart',
    registers,
  })
  lastReload.set(1)
  const { forgetFaults, ...provider } = providerMetrics(registers)
  const upstreamBreaker = new Gauge({
    name: 'cloakroom_upstream_breaker_open',
    help: '1 while the circuit of the upstream is open because it does not answer',
    labelNames: ['upstream'],
    registers,
  })
  const rateLimited = new Counter({
    name: 'cloakroom_rate_limited_total',
    help: 'Requests that came more often than their client address may, by endpoint',
    labelNames: ['endpoint'],
    registers,
  })
  const refusedConnections = new Counter({
    name: 'cloakroom_connections_refused_total',
    help: 'Connections closed at once because too many were open: in all (limit), or of one client (client_limit)',
    labelNames: ['reason'],
    registers,
  })
  new Counter({
    name: 'cloakroom_log_lines_dropped_total',
    help: 'Log lines that standard output did not take, because its reader is gone or its disk is full',
    registers,
    collect() {
      this.reset()
      this.inc(options.droppedLogLines())
    },
  })
  const signInFailures = new Counter({
    name: 'cloakroom_sign_in_failures_total',
    help: 'Sign-ins that failed, by step and error; a user can forge those of step "authorization" for a sign-in that has begun',
    labelNames: ['step', 'error'],
    registers,
  })
  const missingSessions = new Counter({
    name: 'cloakroom_sessions_missing_total',
    help: 'Requests refused because they have no session: cookie absent, repeated or forged; session expired, unknown or under a key that is gone',
    labelNames: ['reason'],
    registers,
  })
  // One label set per (route, method, status) is looked up once, not per request.
  const requestSeries = new Map<string, { observe(seconds: number): void }>()
  return {
    request(route, rawMethod, status, seconds) {
      const method = METHODS.has(rawMethod) ? rawMethod : 'OTHER'
      const key = `${status} ${method} ${route}`
      let series = requestSeries.get(key)
      if (!series) {
        series = requests.labels({ route, method, status: String(status) })
        requestSeries.set(key, series)
      }
      series.observe(seconds)
    },
    refresh: (resource, outcome) => refreshes.inc({ resource, outcome }),
    refreshLock(outcome, resource, waitedMs) {
      lockOutcomes.inc({ outcome, resource })
      if (outcome !== 'coalesced') lockWaits.observe(waitedMs / 1000)
    },
    storeCommand: (command, seconds, outcome) => store.observe({ command, outcome }, seconds),
    session: (event, reason) => sessions.inc({ event, reason }),
    signInFailed: (step, error) => signInFailures.inc({ step, error }),
    sessionMissing: (reason) => missingSessions.inc({ reason }),
    rateLimited: (endpoint) => rateLimited.inc({ endpoint }),
    connectionRefused: (reason) => refusedConnections.inc({ reason }),
    provider: {
      ...provider,
      grant: (resource, outcome) => refreshes.inc({ resource, outcome }),
    },
    signInLimiters: signInMetrics(registers),
    reload(outcome, needRestart = []) {
      reloads.inc({ outcome })
      lastReload.set(outcome === 'applied' && needRestart.length === 0 ? 1 : 0)
    },
    upstreamBreaker: (upstream, isOpen) => upstreamBreaker.set({ upstream }, isOpen ? 1 : 0),
    forgetFaults() {
      forgetFaults()
      upstreamBreaker.reset()
    },
    render: async () => ({ contentType: registry.contentType, text: await registry.metrics() }),
  }
}

const BREAKER_STATES = { closed: 0, 'half-open': 1, open: 2 } as const

function providerMetrics(
  registers: Registry[],
): Omit<Metrics['provider'], 'grant'> & Pick<Metrics, 'forgetFaults'> {
  const inFlight = new Gauge({
    name: 'cloakroom_provider_calls_in_flight',
    help: "Calls to the provider's token endpoint that have no answer yet",
    registers,
  })
  const queue = new Gauge({
    name: 'cloakroom_provider_queue',
    help: 'Callers that wait until fewer calls to the provider are in flight',
    registers,
  })
  const breaker = new Gauge({
    name: 'cloakroom_provider_breaker_state',
    help: '0 closed: calls pass; 1 half-open: one probe is in flight; 2 open: no call is made',
    registers,
  })
  const configFaults = new Gauge({
    name: 'cloakroom_provider_config_fault',
    help: '1 while the provider rejects how we are configured for this resource: sessions stay, the operator must act',
    labelNames: ['resource', 'error'],
    registers,
  })
  const certificateEnd = new Gauge({
    name: 'cloakroom_client_certificate_expiry_seconds',
    help: 'End of the certificate that the client authenticates with, as seconds since the epoch; 0 without one',
    registers,
  })
  const calls = new Histogram({
    name: 'cloakroom_provider_call_duration_seconds',
    help: "Calls to the provider's token endpoint",
    labelNames: ['grant', 'outcome'],
    buckets: SECONDS,
    registers,
  })
  return {
    inFlight: (count) => inFlight.set(count),
    queue: (waiting) => queue.set(waiting),
    breaker: (state) => breaker.set(BREAKER_STATES[state]),
    forgetFaults: () => configFaults.reset(),
    configFault: (resource, error, isFault) => configFaults.set({ resource, error }, isFault ? 1 : 0),
    clientCertificate: (notAfter) => certificateEnd.set(Math.floor(notAfter / 1000)),
    call: (grant, outcome, seconds) => calls.observe({ grant, outcome }, seconds),
  }
}

/** The same gauges as for refreshes, for calls that anyone can cause by signing in. */
function signInMetrics(registers: Registry[]): SignInObserver {
  const gauge = (name: string, help: string) => new Gauge({ name, help, labelNames: ['call'], registers })
  const inFlight = gauge(
    'cloakroom_sign_in_calls_in_flight',
    'Code grants (call="code") and pushed authorization requests (call="par") that have no answer yet',
  )
  const queue = gauge(
    'cloakroom_sign_in_queue',
    'Sign-ins that wait until fewer of their calls to the provider are in flight',
  )
  const breaker = gauge(
    'cloakroom_sign_in_breaker_state',
    '0 closed; 1 half-open; 2 open: sign-ins make no call, while refreshes go on',
  )
  for (const call of ['code', 'par']) for (const one of [inFlight, queue, breaker]) one.set({ call }, 0)
  return {
    inFlight: (call, calls) => inFlight.set({ call }, calls),
    queue: (call, waiting) => queue.set({ call }, waiting),
    breaker: (call, state) => breaker.set({ call }, BREAKER_STATES[state]),
  }
}
