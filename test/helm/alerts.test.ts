import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { parse } from 'yaml'
import { METRICS, type MetricDefinition } from '../../src/admin/metric-definitions.ts'
import { CODES } from '../../src/admin/metric-labels.ts'
import { chartFile } from '../kit/chart.ts'
import { assertRules, skipWithoutPromtool } from '../kit/promtool.ts'

type Rule = {
  readonly alert: string
  readonly expr: string
  readonly labels: { readonly severity: string }
  readonly annotations: Readonly<Record<string, string>>
}

/** Series as promtool writes them: `0x10` eleven zeros, `0+5x10` five more each time; one value a minute. */
type Scenario = {
  readonly tells: string
  readonly series: Readonly<Record<string, string>>
  /** How long a fault has lasted when it must have been told, and before when it must not, in minutes. */
  readonly firesBy: number
  readonly alerts: readonly string[]
}

const rulesFile = fileURLToPath(new URL('../../helm/cloakroom/files/alerts.yaml', import.meta.url))
const dashboardFile = fileURLToPath(new URL('../../helm/cloakroom/files/dashboard.json', import.meta.url))
const readme = readFileSync(new URL('../../helm/README.md', import.meta.url), 'utf8')
const rules: readonly Rule[] = chartFile('files/alerts.yaml').groups.flatMap(
  (group: { rules: Rule[] }) => group.rules,
)
const missing = skipWithoutPromtool('the alerting rules were NOT run')

const POD = 'job="c",instance="a"'
const seconds = (name: string, labels: string, le: string) =>
  `cloakroom_${name}_bucket{${POD},${labels},le="${le}"}`
const requests = (labels: string) => `cloakroom_request_duration_seconds_count{${POD},${labels}}`
const counter = (name: string, labels: string) => `cloakroom_${name}{${POD}${labels && `,${labels}`}}`

/** A replica that is well: there, and with requests. */
const WELL = {
  [counter('build_info', 'version="1"')]: '1x200',
  [counter('store_up', '')]: '1x200',
  [counter('invalidation_live', '')]: '1x200',
  [counter('config_last_reload_success', '')]: '1x200',
  [counter('config_restart_required', '')]: '0x200',
  [counter('config_info', 'hash="one"')]: '1x200',
  [counter('provider_breaker_state', '')]: '0x200',
  [counter('sign_in_breaker_state', 'call="code"')]: '0x200',
  [counter('upstream_breaker_open', 'upstream="http://orders"')]: '0x200',
  [counter('client_certificate_expiry_seconds', '')]: '0x200',
  [counter('provider_clock_offset_seconds', '')]: '-1x200',
  [counter('store_errors_total', 'kind="permission"')]: '0x200',
  [counter('refreshes_total', 'resource="orders",outcome="renewed"')]: '0+60x200',
  [counter('refreshes_total', 'resource="orders",outcome="dead_grant"')]: '0+1x200',
  [counter('sign_ins_total', 'outcome="succeeded"')]: '0+10x200',
  [counter('sign_ins_total', 'outcome="failed"')]: '0+1x200',
  [counter('sign_in_failures_total', 'step="authorization",error="access_denied"')]: '0+20x200',
  [counter('sign_in_failures_total', 'step="id_token",error="nonce"')]: '0+1x200',
  [requests('route="orders",method="GET",status="200",code="none"')]: '0+6000x200',
  [counter('refusals_total', 'code="internal_error"')]: '0x200',
  [`nodejs_eventloop_lag_p99_seconds{${POD}}`]: '0.01x200',
}

const SCENARIOS: readonly Scenario[] = [
  { tells: 'a replica that is well', series: {}, firesBy: 62, alerts: [] },
  {
    tells: 'no replica at all',
    series: { [counter('build_info', 'version="1"')]: '_x200' },
    firesBy: 6,
    alerts: ['CloakroomAbsent'],
  },
  {
    tells: 'one request in 20 refused for the store',
    series: { [requests('route="orders",method="GET",status="503",code="store_unavailable"')]: '0+300x200' },
    firesBy: 5,
    alerts: ['CloakroomErrorBudgetBurn'],
  },
  {
    tells: 'one request in 100 refused for the provider, for an hour',
    series: {
      [requests('route="orders",method="GET",status="503",code="provider_unavailable"')]: '0+60x200',
    },
    firesBy: 60,
    alerts: ['CloakroomErrorBudgetSlowBurn'],
  },
  {
    tells: 'a defect',
    series: { [counter('refusals_total', 'code="internal_error"')]: '0x3 1x20' },
    firesBy: 5,
    alerts: ['CloakroomInternalErrors'],
  },
  {
    tells: 'Redis that answers no replica',
    series: { [counter('store_up', '')]: '1x2 0x20' },
    firesBy: 5,
    alerts: ['CloakroomStoreDown'],
  },
  {
    tells: 'Redis that answers one replica of two',
    series: { 'cloakroom_store_up{job="c",instance="b"}': '1x2 0x20' },
    firesBy: 6,
    alerts: ['CloakroomStoreUnreachable'],
  },
  ...['permission', 'out_of_memory', 'read_only', 'moved'].map((kind) => ({
    tells: `Redis that refuses commands: ${kind}`,
    series: { [counter('store_errors_total', `kind="${kind}"`)]: '0x2 0+5x20' },
    firesBy: 5,
    alerts: ['CloakroomStoreRefuses'],
  })),
  {
    tells: 'a replica that does not hear of ended sessions',
    series: { [counter('invalidation_live', '')]: '1x2 0x20' },
    firesBy: 5,
    alerts: ['CloakroomInvalidationDeaf'],
  },
  {
    tells: 'replicas of Redis that confirm nothing',
    series: { [counter('store_unreplicated_writes_total', '')]: '0+3x20' },
    firesBy: 8,
    alerts: ['CloakroomUnreplicatedWrites'],
  },
  {
    tells: 'a client secret that the provider refuses',
    series: { [counter('provider_config_fault', 'resource="orders",error="invalid_client"')]: '0x2 1x20' },
    firesBy: 5,
    alerts: ['CloakroomProviderConfigFault'],
  },
  {
    tells: 'a provider whose circuit is open, and probed in between',
    series: { [counter('provider_breaker_state', '')]: '0x2 2 1 2 1 2 1 2 2 1' },
    firesBy: 6,
    alerts: ['CloakroomProviderDown'],
  },
  {
    tells: 'code grants whose circuit is open',
    series: { [counter('sign_in_breaker_state', 'call="code"')]: '0x2 2x20' },
    firesBy: 6,
    alerts: ['CloakroomProviderDown'],
  },
  {
    tells: 'a slow provider',
    series: {
      [seconds('provider_call_duration_seconds', 'grant="refresh_token",outcome="ok"', '2.5')]: '0+0x20',
      [seconds('provider_call_duration_seconds', 'grant="refresh_token",outcome="ok"', '5')]: '0+60x20',
      [seconds('provider_call_duration_seconds', 'grant="refresh_token",outcome="ok"', '+Inf')]: '0+60x20',
    },
    firesBy: 6,
    alerts: ['CloakroomProviderSlow'],
  },
  {
    tells: 'refreshes that bring a token for somebody else',
    series: { [counter('refreshes_total', 'resource="orders",outcome="wrong_audience"')]: '0+10x20' },
    firesBy: 8,
    alerts: ['CloakroomRefreshesFail'],
  },
  {
    tells: 'a consent that was withdrawn',
    series: { [counter('refreshes_total', 'resource="orders",outcome="consent"')]: '0x2 1x20' },
    firesBy: 5,
    alerts: ['CloakroomConsentWithdrawn'],
  },
  {
    tells: 'ten times as many dead grants as last week',
    series: {
      [counter('refreshes_total', 'resource="orders",outcome="dead_grant"')]: '0+1x45 45+20x60',
    },
    firesBy: 75,
    alerts: ['CloakroomGrantsEndInNumbers'],
  },
  {
    tells: 'dead grants in numbers, without data of last week',
    series: {
      [counter('refreshes_total', 'resource="orders",outcome="dead_grant"')]: '0+1x10 10+30x20',
    },
    firesBy: 25,
    alerts: ['CloakroomGrantsEndInNumbers'],
  },
  {
    tells: 'a refresh whose replica died',
    series: { [counter('refreshes_total', 'resource="orders",outcome="uncertain"')]: '0x2 1x20' },
    firesBy: 5,
    alerts: ['CloakroomUncertainRefreshes'],
  },
  {
    tells: 'sign-ins that fail at the code grant',
    series: {
      [counter('sign_in_failures_total', 'step="code",error="invalid_client"')]: '0+8x20',
      [counter('sign_ins_total', 'outcome="failed"')]: '0+8x20',
    },
    firesBy: 9,
    alerts: ['CloakroomSignInsFail'],
  },
  {
    tells: 'no sign-in where there were many last week',
    series: { [counter('sign_ins_total', 'outcome="succeeded"')]: '0+10x35 350x100' },
    firesBy: 98,
    alerts: ['CloakroomNoSignIns'],
  },
  {
    tells: 'a clock that is wrong',
    series: { [counter('sign_in_failures_total', 'step="id_token",error="iat"')]: '0x2 1x20' },
    firesBy: 5,
    alerts: ['CloakroomClockWrong'],
  },
  {
    tells: 'a clock that is ten minutes fast',
    series: { [counter('provider_clock_offset_seconds', '')]: '0x2 600x20' },
    firesBy: 5,
    alerts: ['CloakroomClockOffset'],
  },
  {
    tells: 'a clock that is ten minutes slow',
    series: { [counter('provider_clock_offset_seconds', '')]: '_x2 -600x20' },
    firesBy: 5,
    alerts: ['CloakroomClockOffset'],
  },
  {
    tells: 'ID tokens of refreshes that fail their checks',
    series: { [counter('refreshes_total', 'resource="orders",outcome="id_token_ignored"')]: '0x2 1x20' },
    firesBy: 5,
    alerts: ['CloakroomIdTokensIgnored'],
  },
  {
    tells: 'an upstream that answers nobody, with too few requests for its circuit',
    series: {
      [counter('upstream_errors_total', 'route="orders",upstream="http://orders",reason="connect"')]:
        '0x5 0+2x20',
      [counter('upstream_response_seconds_count', 'route="orders",upstream="http://orders"')]: '0+2x5 10x20',
    },
    firesBy: 11,
    alerts: ['CloakroomUpstreamDown'],
  },
  {
    tells: 'an upstream whose circuit is open',
    series: { [counter('upstream_breaker_open', 'upstream="http://orders"')]: '0x2 1x20' },
    firesBy: 5,
    alerts: ['CloakroomUpstreamDown'],
  },
  {
    tells: 'an upstream whose certificate has expired',
    series: {
      [counter('upstream_errors_total', 'route="orders",upstream="http://orders",reason="tls"')]: '0x2 1x20',
      [counter('upstream_response_seconds_count', 'route="orders",upstream="http://orders"')]: '0+60x20',
    },
    firesBy: 5,
    alerts: ['CloakroomUpstreamCertificate'],
  },
  {
    tells: 'an upstream that drops one request in ten',
    series: {
      [counter('upstream_errors_total', 'route="orders",upstream="http://orders",reason="reset"')]: '0+10x20',
      [counter('upstream_response_seconds_count', 'route="orders",upstream="http://orders"')]: '0+90x20',
    },
    firesBy: 8,
    alerts: ['CloakroomUpstreamErrors'],
  },
  {
    tells: "an upstream's own errors, which are not Cloakroom's",
    series: { [requests('route="orders",method="GET",status="503",code="none"')]: '0+1000x40' },
    firesBy: 14,
    alerts: ['CloakroomUpstreamAnswers5xx'],
  },
  {
    tells: 'a route that waits',
    series: {
      [seconds('request_time_to_first_byte_seconds', 'route="orders",method="GET",code="none"', '5')]:
        '0+900x40',
      [seconds('request_time_to_first_byte_seconds', 'route="orders",method="GET",code="none"', '10')]:
        '0+1000x40',
      [seconds('request_time_to_first_byte_seconds', 'route="orders",method="GET",code="none"', '+Inf')]:
        '0+1000x40',
    },
    firesBy: 14,
    alerts: ['CloakroomSlow'],
  },
  {
    tells: 'a file that was refused',
    series: { [counter('config_last_reload_success', '')]: '1x2 0x20' },
    firesBy: 5,
    alerts: ['CloakroomConfigReloadFailed'],
  },
  {
    tells: 'a change that waits for a restart',
    series: { [counter('config_restart_required', '')]: '1x20' },
    firesBy: 11,
    alerts: ['CloakroomConfigNeedsRestart'],
  },
  {
    tells: 'two configurations at once',
    series: { 'cloakroom_config_info{job="c",instance="b",hash="two"}': '1x20' },
    firesBy: 11,
    alerts: ['CloakroomConfigSkew'],
  },
  {
    tells: 'a session key that was taken away',
    series: { [counter('sessions_missing_total', 'reason="key_gone"')]: '0x2 3x20' },
    firesBy: 4,
    alerts: ['CloakroomSessionKeyGone'],
  },
  {
    tells: 'records that somebody else has written',
    series: { [counter('decrypt_failures_total', 'kind="session",reason="rejected"')]: '0x2 3x20' },
    firesBy: 5,
    alerts: ['CloakroomDecryptFailures'],
  },
  {
    tells: 'a client certificate that ends soon',
    series: { [counter('tls_certificate_expiry_seconds', 'peer="store"')]: '90000x120' },
    firesBy: 62,
    alerts: ['CloakroomCredentialExpires'],
  },
  {
    tells: 'a process that is too busy',
    series: { [`nodejs_eventloop_lag_p99_seconds{${POD}}`]: '0.5x20' },
    firesBy: 11,
    alerts: ['CloakroomEventLoopLag'],
  },
  {
    tells: 'connections that are closed at once',
    series: { [counter('connections_refused_total', 'reason="client_limit"')]: '0+2x20' },
    firesBy: 8,
    alerts: ['CloakroomRefusesConnections'],
  },
  {
    tells: 'log lines that were lost',
    series: { [counter('log_lines_dropped_total', '')]: '0x2 7x20' },
    firesBy: 5,
    alerts: ['CloakroomLogLinesDropped'],
  },
]

describe('alerting rules', () => {
  test('fire for what they are there for, and nothing else fires beside them', { skip: missing }, () => {
    // A week is 45 minutes here, because promtool evaluates every rule for every minute of it.
    const shortened = readFileSync(rulesFile, 'utf8').replaceAll('offset 1w', 'offset 45m')
    assertRules(shortened, SCENARIOS.map(asRuleTest))
  })

  test('each has a scenario, and says what happened, what that means and what to do', () => {
    const told = new Set(SCENARIOS.flatMap(({ alerts }) => alerts))
    for (const { alert, labels, annotations } of rules) {
      assert.ok(told.has(alert), `${alert} has no scenario`)
      assert.match(labels.severity, /^(critical|warning)$/, alert)
      assert.deepEqual(Object.keys(annotations), ['summary', 'consequence', 'action'], alert)
    }
  })

  test('each has a line of its own in the runbook, and so has each problem code', () => {
    for (const { alert } of rules)
      assert.ok(readme.includes(`<a id="${alert.toLowerCase()}"></a>\`${alert}\``), alert)
    const runbook = readme.slice(readme.indexOf('### Problem codes'))
    for (const code of CODES) assert.ok(runbook.includes(`| \`${code}\``), code)
  })
})

describe('what alerting rules and dashboard read', () => {
  for (const [name, text] of [
    ['alerts.yaml', rules.map(({ expr }) => expr).join('\n')],
    ['dashboard.json', JSON.stringify(parse(readFileSync(dashboardFile, 'utf8')))],
  ] as const) {
    test(`${name}: each metric exists, with the labels that are asked for`, () => {
      const used = [...text.matchAll(/\b(cloakroom_[a-z_]+)(?:\{([^}]*)\})?/g)]
      assert.ok(used.length > 30)
      for (const [, metric, selector = ''] of used) {
        const definition = definitionOf(metric!)
        assert.ok(definition, `${metric} is no metric`)
        const known = new Set([...(definition.labels ?? []), 'le', 'job', 'instance', 'namespace', 'pod'])
        for (const [, label] of selector.matchAll(/([a-z_]+)\s*(?:=~|!~|!=|=)/g)) {
          assert.ok(known.has(label!), `${metric} has no label ${label}`)
        }
      }
    })
  }
})

function definitionOf(metric: string): MetricDefinition | undefined {
  return (Object.values(METRICS) as readonly MetricDefinition[]).find(
    ({ name, type }) =>
      name === metric || (type === 'histogram' && metric.replace(/_(bucket|count|sum)$/, '') === name),
  )
}

/** Quiet at the minute before anything has happened; at `firesBy`, these alerts and no others. */
function asRuleTest({ tells, series, firesBy, alerts }: Scenario): object {
  const samples = alerts.map((alertname) => ({ labels: `{alertname="${alertname}"}`, value: 1 }))
  const expr = 'max by (alertname) (ALERTS{alertstate="firing"})'
  return {
    name: tells,
    interval: '1m',
    input_series: Object.entries({ ...WELL, ...series }).map(([key, values]) => ({ series: key, values })),
    promql_expr_test: [{ expr, eval_time: `${firesBy}m`, exp_samples: samples }],
  }
}
