import { rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { LogFields } from '../../src/log.ts'
import { sessionKey } from '../kit/config/cloakroom-config.ts'
import { BILLING, type Scene } from './scene.ts'

/** What a fault is told by, at which places. */
export type Fault = {
  readonly name: string
  /** Whose refusals are needed; the rotating one unless given. */
  readonly provider?: 'entra'
  inject(scene: Scene): unknown
  /** For the next fault, which shares the stage. */
  cure?(scene: Scene): unknown
  /** Status and code of a user's request for each path, in the last minute. */
  readonly users: { readonly orders: string; readonly billing: string }
  /** Every alert that fires in the first six minutes, and after how many. The first one names the cause. */
  readonly alerts: Readonly<Record<string, number>>
  readonly log: {
    readonly level: 'info' | 'warn' | 'error'
    readonly message: string
    /** What names the cause. */
    readonly fields: LogFields
  }
  /** `…` stands for what differs from time to time. */
  readonly console: { readonly severity: 'error' | 'warning'; readonly says: string; readonly cure: string }
  /** Part of the runbook's line of that alert. */
  readonly runbook: string
}

const WELL = { orders: '200', billing: '200' }
const BAD_FILE = join(tmpdir(), `cloakroom-drill-${process.pid}.yaml`)

/** Eleven nights. */
export const FAULTS: readonly Fault[] = [
  {
    name: 'wrong client secret',
    inject: ({ cloakroom, rotating: { settings } }) =>
      cloakroom.reload({
        provider: { ...settings, clientAuth: { ...settings.clientAuth, secret: 'the-secret-of-last-year' } },
      }),
    users: { orders: '502 provider_rejected', billing: '502 provider_rejected' },
    alerts: { CloakroomProviderConfigFault: 2, CloakroomErrorBudgetBurn: 4, CloakroomRefreshesFail: 6 },
    log: {
      level: 'error',
      message: 'no token for this resource: the provider rejects how we are configured',
      fields: {
        ...{ resource: 'orders', oauthError: 'invalid_client', clientAuth: 'client_secret_post' },
        cure: 'put the secret that the provider shows for this client into provider.clientAuth',
      },
    },
    console: {
      severity: 'error',
      says: 'resource orders: the provider rejects how this client is configured: invalid_client',
      cure: 'Correct the client at the provider, or the configuration here',
    },
    runbook: '`invalid_client`: renew the secret',
  },
  {
    name: 'revoked consent',
    provider: 'entra',
    inject({ entra }) {
      entra.policy.resources = { [BILLING]: { outcome: 'consent' } }
    },
    cure({ entra }) {
      entra.policy.resources = {}
    },
    users: { orders: '200', billing: '401 reauthentication_required' },
    alerts: { CloakroomConsentWithdrawn: 2 },
    log: {
      level: 'warn',
      message: 'a refresh was refused',
      fields: { resource: 'billing', outcome: 'consent', suberror: 'consent_required', errorCodes: '65001' },
    },
    console: {
      severity: 'warning',
      says: "resource billing: the provider wants users' consent again: … refreshes in the last minutes",
      cure: 'Ask at the provider who withdrew it, and give it again',
    },
    runbook: 'give the consent again',
  },
  {
    name: 'Redis is full',
    inject: ({ redis }) => redis.cli('CONFIG', 'SET', 'maxmemory', '1'),
    cure: ({ redis }) => redis.cli('CONFIG', 'SET', 'maxmemory', '0'),
    users: { orders: '503 store_unavailable', billing: '503 store_unavailable' },
    alerts: { CloakroomStoreRefuses: 2, CloakroomErrorBudgetBurn: 4 },
    log: {
      level: 'warn',
      message: 'redis did not serve lock',
      fields: { code: 'store_unavailable', err: { name: 'ReplyError', message: '…maxmemory…', code: 'OOM' } },
    },
    console: {
      severity: 'error',
      says: 'session store: it answers, but … commands failed in the last minutes: out_of_memory …',
      cure: 'Redis is full: raise maxmemory',
    },
    runbook: '`out_of_memory`: raise `maxmemory`',
  },
  {
    name: 'Redis ACL lost',
    // As when it starts again without its ACL file.
    inject: ({ redis }) => redis.cli('ACL', 'DELUSER', 'cloakroom'),
    users: { orders: '503 store_unavailable', billing: '503 store_unavailable' },
    alerts: { CloakroomStoreRefuses: 2, CloakroomInvalidationDeaf: 2, CloakroomErrorBudgetBurn: 4 },
    log: {
      level: 'warn',
      message: 'redis did not serve readSession',
      fields: { code: 'store_unavailable', err: { name: 'ReplyError', message: '…', code: 'WRONGPASS' } },
    },
    console: {
      severity: 'error',
      says: 'session store: redis did not serve ping: WRONGPASS …',
      cure: 'Compare password and ACL rule of this user at Redis with what is configured',
    },
    runbook: '`permission`: [the ACL rule](#redis), the password file',
  },
  {
    name: 'clock 10 minutes slow',
    inject({ provider }) {
      provider.aheadMs = 600_000
    },
    cure({ provider }) {
      provider.aheadMs = 0
    },
    users: WELL,
    alerts: { CloakroomClockWrong: 2, CloakroomClockOffset: 2, CloakroomIdTokensIgnored: 2 },
    log: {
      level: 'warn',
      message: 'a sign-in failed: the sign-in could not be completed',
      fields: { step: 'id_token', claim: 'iat', offsetSeconds: 600 },
    },
    console: {
      severity: 'error',
      says: 'clock: … sign-ins failed in the last minutes because of the times in their ID tokens: the ID token has an iat … s in the future, and provider.clockTolerance is 60 s',
      cure: 'repair time synchronisation',
    },
    runbook: 'time synchronisation of the node',
  },
  {
    name: 'clock 10 minutes fast',
    inject({ provider }) {
      provider.aheadMs = -600_000
    },
    cure({ provider }) {
      provider.aheadMs = 0
    },
    users: WELL,
    alerts: { CloakroomClockOffset: 2 },
    log: {
      level: 'warn',
      message:
        "this machine's clock is … s ahead of the provider's, more than provider.clockTolerance (60 s): the times in tokens are misjudged",
      fields: { clockOffsetSeconds: 600, cure: 'synchronise both with NTP' },
    },
    console: {
      severity: 'error',
      says: "clock: this machine's is … s ahead of the provider's, and provider.clockTolerance is 60 s",
      cure: 'repair time synchronisation',
    },
    runbook: 'time synchronisation of the node',
  },
  {
    name: 'upstream certificate expired',
    inject: ({ orders }) => orders.show('expired'),
    cure: ({ orders }) => orders.show('good'),
    users: { orders: '502 upstream_unreachable', billing: '200' },
    alerts: { CloakroomUpstreamCertificate: 2, CloakroomUpstreamErrors: 6 },
    log: {
      level: 'warn',
      message: 'the upstream gave no usable answer',
      fields: {
        route: 'orders',
        err: { name: 'Error', message: 'certificate has expired', code: 'CERT_HAS_EXPIRED' },
      },
    },
    console: {
      severity: 'error',
      says: 'upstream …: server errors in the last minutes, no answer: tls; route orders',
      cure: 'Its certificate is not accepted',
    },
    runbook: 'renew it; a private authority: `routes[].tls.ca`',
  },
  {
    name: 'session key removed too early',
    inject: ({ cloakroom, session }) => cloakroom.reload({ session: { ...session, keys: [sessionKey()] } }),
    users: { orders: '401 session_required', billing: '401 session_required' },
    alerts: { CloakroomSessionKeyGone: 1 },
    log: {
      level: 'warn',
      message: 'a session is sealed with a key that is not in session.keys: its user is signed out',
      fields: {
        reason: 'key_gone',
        cure: 'put the key back as the last of session.keys, until session.absoluteTimeout is over',
      },
    },
    console: {
      severity: 'error',
      says: 'session keys: … requests in the last minutes had a session under a key that is no longer configured',
      cure: 'Put the key back, as the last of session.keys',
    },
    runbook: 'put the key back as the last one',
  },
  {
    name: 'provider slow',
    inject({ rotating, clock }) {
      rotating.control.latencyFor = () => {
        clock.advance(4_000)
        return 0
      }
    },
    cure({ rotating }) {
      delete rotating.control.latencyFor
    },
    users: WELL,
    alerts: { CloakroomProviderSlow: 4 },
    log: {
      level: 'warn',
      message: 'the provider takes long to answer',
      fields: { reason: 'refresh_token' },
    },
    console: {
      severity: 'warning',
      says: 'provider …: one in 20 calls took longer than … s in the last minutes',
      cure: 'Look at its status page, and at a proxy on the way',
    },
    runbook: "the provider's own status; a proxy on the way",
  },
  {
    name: 'one upstream down',
    inject: ({ billing }) => billing.stop(),
    cure: ({ billing }) => billing.start(),
    users: { orders: '200', billing: '502 upstream_unreachable' },
    alerts: { CloakroomUpstreamDown: 4, CloakroomUpstreamErrors: 6 },
    log: {
      level: 'warn',
      message: 'the upstream gave no usable answer',
      fields: {
        route: 'billing',
        err: { name: 'Error', message: 'connect ECONNREFUSED …', code: 'ECONNREFUSED' },
      },
    },
    console: {
      severity: 'error',
      says: 'upstream …: server errors in the last minutes, no answer: connect; route billing',
      cure: 'look at that service, its endpoints and its network policy',
    },
    runbook: 'repair that service; it is asked again by itself',
  },
  {
    name: 'bad reload',
    async inject({ cloakroom }) {
      writeFileSync(BAD_FILE, 'publicUrl: https://app.example.test\nroute: []\n')
      await cloakroom.reloadFile(BAD_FILE)
      rmSync(BAD_FILE)
    },
    users: WELL,
    alerts: { CloakroomConfigReloadFailed: 2 },
    log: {
      level: 'error',
      message: 'the new configuration is refused; the one before runs on',
      fields: {
        reason: 'SIGHUP',
        count: 3,
        cure: 'correct the file; `cloakroom check` shows each problem in its line',
      },
    },
    console: {
      severity: 'warning',
      says: 'configuration: the file was changed and refused (3 problems); the one before runs on',
      cure: 'Correct the file: cloakroom check tells the same',
    },
    runbook: 'correct the file (`cloakroom check`), or roll it back',
  },
]

/** Whether a text is as said; `…` stands for anything. */
export function isAsSaid(text: string, said: string): boolean {
  const parts = said.split('…').map((part) => part.replaceAll(/[\\^$.*+?()[\]{}|]/g, '\\$&'))
  return new RegExp(`^${parts.join('.*')}$`).test(text)
}

/** The drill as the table of helm/README.md. */
export function drillTable(): string {
  const rows = FAULTS.map(({ name, alerts, log, console: { severity, says }, runbook }) => {
    const [[alert, minutes] = ['', 0], ...besides] = Object.entries(alerts)
    const others = besides.map(([other, after]) => `, \`${other}\` ${after}`).join('')
    const named = Object.entries(log.fields).filter(([field]) => field !== 'cure')
    const fields = named.map(([field, value]) => `\`${field}\` ${wordOf(value)}`).join(', ')
    return [
      name,
      `\`${alert}\` ${minutes}${others}`,
      `${log.level}: ${log.message}; ${fields}`,
      `${severity}: ${says}`,
      runbook,
    ]
  })
  return [
    ['fault', 'alerts, after minutes', 'log', 'console', 'cure'],
    ['---', '---', '---', '---', '---'],
    ...rows,
  ]
    .map((cells) => `| ${cells.join(' | ')} |`)
    .join('\n')
}

function wordOf(value: unknown): string {
  return String((value as { code?: string } | undefined)?.code ?? value)
}
