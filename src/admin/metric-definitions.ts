/** One metric: what Prometheus calls it, and its labels, in the order of the text format. */
export type MetricDefinition = {
  readonly type: 'counter' | 'gauge' | 'histogram'
  readonly name: `cloakroom_${string}`
  readonly help: string
  readonly labels?: readonly string[]
}

/** Upper bounds of all durations, in seconds. */
export const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30] as const

const counter = <L extends string>(name: `cloakroom_${string}_total`, help: string, labels: readonly L[]) =>
  ({ type: 'counter', name, help, labels }) as const
const gauge = <L extends string = never>(
  name: `cloakroom_${string}`,
  help: string,
  labels: readonly L[] = [],
) => ({ type: 'gauge', name, help, labels }) as const
const histogram = <L extends string>(
  name: `cloakroom_${string}_seconds`,
  help: string,
  labels: readonly L[],
) => ({ type: 'histogram', name, help, labels }) as const

/** Every metric of our own. Labels are route ids, resource names, origins of upstreams and closed lists: never a path or a user. */
export const METRICS = {
  buildInfo: gauge('cloakroom_build_info', 'Always 1; the label says which version runs', ['version']),

  requests: histogram(
    'cloakroom_request_duration_seconds',
    'Requests on the public listener from their head to the last byte of their answer, by route id',
    ['route', 'method', 'status', 'code'],
  ),
  firstBytes: histogram(
    'cloakroom_request_time_to_first_byte_seconds',
    'From the head of a request to the head of its answer, by route id; requests without an answer are not in it',
    ['route', 'method', 'code'],
  ),
  requestsInFlight: gauge(
    'cloakroom_requests_in_flight',
    'Requests on the public listener whose answer has not ended, streams included',
  ),
  streamsInFlight: gauge(
    'cloakroom_streams_in_flight',
    'Open WebSockets, and answers of a type without an end of its own (event streams)',
    ['kind'],
  ),
  refusals: counter(
    'cloakroom_refusals_total',
    'Requests that Cloakroom itself refused, by problem code; internal_error is a defect of its own',
    ['code'],
  ),
  csrfRefusals: counter(
    'cloakroom_csrf_refusals_total',
    'Requests refused because the CSRF header is missing, or their origin is a foreign one',
    ['route', 'code'],
  ),
  rateLimited: counter(
    'cloakroom_rate_limited_total',
    'Requests that came more often than their client address may, by endpoint',
    ['endpoint'],
  ),
  refusedConnections: counter(
    'cloakroom_connections_refused_total',
    'Connections closed at once because too many were open: in all (limit), or of one client (client_limit)',
    ['reason'],
  ),

  upstreamResponses: histogram(
    'cloakroom_upstream_response_seconds',
    'From the request to an upstream, its connection included, to the head of its answer',
    ['route', 'upstream'],
  ),
  upstreamErrors: counter(
    'cloakroom_upstream_errors_total',
    'Requests that got no answer, or no whole one, from their upstream, by reason',
    ['route', 'upstream', 'reason'],
  ),
  upstreamBreaker: gauge(
    'cloakroom_upstream_breaker_open',
    '1 while the circuit of the upstream is open because it does not answer',
    ['upstream'],
  ),

  refreshes: counter(
    'cloakroom_refreshes_total',
    'Requests to the provider for an access token, by resource and what was done about the answer',
    ['resource', 'outcome'],
  ),
  tokenLifetimes: gauge(
    'cloakroom_access_token_lifetime_seconds',
    'How long the last access token for the resource was good for when it came',
    ['resource'],
  ),
  lockOutcomes: counter(
    'cloakroom_refresh_turns_total',
    'Callers who needed a fresh token: who did the work, who shared or found it',
    ['outcome', 'resource'],
  ),
  lockWaits: histogram('cloakroom_refresh_lock_wait_seconds', 'Wait for the refresh lock of a session', []),
  providerCalls: histogram(
    'cloakroom_provider_call_duration_seconds',
    "Calls to the provider's token endpoint",
    ['grant', 'outcome'],
  ),
  providerInFlight: gauge(
    'cloakroom_provider_calls_in_flight',
    "Calls to the provider's token endpoint that have no answer yet",
  ),
  providerQueue: gauge(
    'cloakroom_provider_queue',
    'Callers that wait until fewer calls to the provider are in flight',
  ),
  providerBreaker: gauge(
    'cloakroom_provider_breaker_state',
    '0 closed: calls pass; 1 half-open: one probe is in flight; 2 open: no call is made',
  ),
  configFaults: gauge(
    'cloakroom_provider_config_fault',
    '1 while the provider rejects how we are configured for this resource: sessions stay, the operator must act',
    ['resource', 'error'],
  ),
  clockOffset: gauge(
    'cloakroom_provider_clock_offset_seconds',
    "How far this machine's clock is ahead of the provider's (negative: behind) by the Date of its answers, to a second; absent until two of them agree on it",
  ),
  certificateEnd: gauge(
    'cloakroom_client_certificate_expiry_seconds',
    'End of the certificate that the client authenticates with, as seconds since the epoch; 0 without one',
  ),
  tlsCertificateEnds: gauge(
    'cloakroom_tls_certificate_expiry_seconds',
    'End of each TLS client certificate of the configuration, as seconds since the epoch, by who is shown it',
    ['peer'],
  ),

  signIns: counter(
    'cloakroom_sign_ins_total',
    'Sign-ins by what became of them: begun at the provider, succeeded, failed, or not possible without the user (prompt=none)',
    ['outcome'],
  ),
  signInFailures: counter(
    'cloakroom_sign_in_failures_total',
    'Sign-ins that failed, by step and error; a user can forge those of step "authorization" for a sign-in that has begun',
    ['step', 'error'],
  ),
  signInCallsInFlight: gauge(
    'cloakroom_sign_in_calls_in_flight',
    'Code grants (call="code") and pushed authorization requests (call="par") that have no answer yet',
    ['call'],
  ),
  signInQueue: gauge(
    'cloakroom_sign_in_queue',
    'Sign-ins that wait until fewer of their calls to the provider are in flight',
    ['call'],
  ),
  signInBreaker: gauge(
    'cloakroom_sign_in_breaker_state',
    '0 closed; 1 half-open; 2 open: sign-ins make no call, while refreshes go on',
    ['call'],
  ),
  sessions: counter('cloakroom_sessions_total', 'Sessions started and ended, by reason', ['event', 'reason']),
  missingSessions: counter(
    'cloakroom_sessions_missing_total',
    'Requests refused because they have no session: cookie absent, repeated or forged; session expired, unknown or under a key that is gone',
    ['reason'],
  ),
  decryptFailures: counter(
    'cloakroom_decrypt_failures_total',
    'Texts of the store that did not open: their session key is gone, or they were sealed for something else or tampered with',
    ['kind', 'reason'],
  ),

  storeUp: gauge(
    'cloakroom_store_up',
    '1 while the store answers commands; 0 since the last one got no answer, or until the first',
  ),
  storeCommands: histogram('cloakroom_store_command_duration_seconds', 'Commands to the session store', [
    'command',
    'outcome',
  ]),
  storeErrors: counter(
    'cloakroom_store_errors_total',
    'Commands that the session store did not serve, by kind of error',
    ['kind'],
  ),
  unreplicatedWrites: counter(
    'cloakroom_store_unreplicated_writes_total',
    'Rotated refresh tokens that no replica of Redis confirmed in time (session.store.durability: replica): used all the same',
    [],
  ),
  invalidationLive: gauge(
    'cloakroom_invalidation_live',
    '1 while this replica hears of sessions that change or end elsewhere, so that its copies may be trusted',
  ),

  configInfo: gauge(
    'cloakroom_config_info',
    'Always 1; the label is a hash of the configuration that runs, without its secrets: replicas with one configuration have one hash',
    ['hash'],
  ),
  reloads: counter(
    'cloakroom_config_reloads_total',
    'Configurations read while running: applied, or refused while the one before runs on',
    ['outcome'],
  ),
  reloadSeconds: gauge(
    'cloakroom_config_last_reload_duration_seconds',
    'How long the last reload took, applied or refused, discovery of the provider included; 0 before the first',
  ),
  reloadSuccess: gauge('cloakroom_config_last_reload_success', '1 unless the last reload was refused'),
  reloadedAt: gauge(
    'cloakroom_config_last_reload_success_timestamp_seconds',
    'When the configuration that runs was read, as seconds since the epoch',
  ),
  restartRequired: gauge(
    'cloakroom_config_restart_required',
    '1 while a change in the file waits for a restart',
  ),
  configCurrent: gauge(
    'cloakroom_config_current',
    '1 while the configuration that runs is the one in the file; 0 after the file was refused, and while a change in it waits for a restart',
  ),
  droppedLogLines: counter(
    'cloakroom_log_lines_dropped_total',
    'Log lines that standard output did not take, because its reader is gone or its disk is full',
    [],
  ),
} as const satisfies Record<string, MetricDefinition>
