import { randomUUID } from 'node:crypto'
import type { ServerResponse } from 'node:http'
import { createSigner, type Signer } from '../../../src/demo/scripted/signing.ts'
import { type RecordedRequest, sendJson, startLocalServer } from '../local-server.ts'

const CAEP = 'https://schemas.openid.net/secevent/caep/event-type/'
const RISC = 'https://schemas.openid.net/secevent/risc/event-type/'
const SSF = 'https://schemas.openid.net/secevent/ssf/event-type/'

/** The event types that transmitters send. */
export const EVENT = {
  sessionRevoked: `${CAEP}session-revoked`,
  credentialChange: `${CAEP}credential-change`,
  tokenClaimsChange: `${CAEP}token-claims-change`,
  assuranceLevelChange: `${CAEP}assurance-level-change`,
  deviceComplianceChange: `${CAEP}device-compliance-change`,
  accountDisabled: `${RISC}account-disabled`,
  accountPurged: `${RISC}account-purged`,
  credentialCompromise: `${RISC}credential-compromise`,
  sessionsRevoked: `${RISC}sessions-revoked`,
  verification: `${SSF}verification`,
  streamUpdated: `${SSF}stream-updated`,
} as const

/** One security event token in the making; members that are given replace what a sound one has. */
export type SetParts = {
  /** Merged into the event; `event_timestamp` is now unless given. */
  readonly event?: Record<string, unknown>
  /** Merged into the claims; `undefined` removes one. */
  readonly claims?: Record<string, unknown>
  readonly header?: Record<string, string>
  readonly signer?: Signer
}

/** How a push is made. */
export type PushOptions = { readonly authorization?: string | undefined; readonly type?: string }

/** The answer to a push. */
export type PushAnswer = { readonly status: number; readonly headers: Headers; readonly text: string }

/** A transmitter of Shared Signals (SSF 1.0) with metadata, keys and a push, which misbehaves when told. */
export type SsfTransmitter = {
  readonly issuer: string
  readonly audience: string
  readonly signer: Signer
  readonly requests: RecordedRequest[]
  /** Answers in place of the transmitter; false leaves it to that. */
  intercept?: (request: RecordedRequest, res: ServerResponse) => boolean
  /** Members of the metadata that differ. */
  metadata: Record<string, unknown>
  /** A sound security event token of one type about one subject, unless `parts` say otherwise. */
  set(type: string, subject: object | undefined, parts?: SetParts): Promise<string>
  /** RFC 8935 §2.1. */
  push(url: string, body: string, options?: PushOptions): Promise<PushAnswer>
  close(): Promise<void>
}

const AUTHORIZATION = 'Bearer push-secret-0123456789'

/** What a receiver is told to expect. */
export const PUSH_AUTHORIZATION = AUTHORIZATION

/** Starts a transmitter whose issuer has a path, as Keycloak's has. */
export async function startSsfTransmitter({
  audience = 'https://app.example.test',
  now = Date.now,
}: {
  audience?: string
  /** Epoch ms. */
  now?: () => number
} = {}): Promise<SsfTransmitter> {
  const signer = await createSigner({ ownKey: true })
  const server = await startLocalServer((request, res) => {
    if (self.intercept?.(request, res)) return
    if (request.path === '/.well-known/ssf-configuration/realms/shop') {
      const sound = { issuer, jwks_uri: `${issuer}/keys`, spec_version: '1_0' }
      return sendJson(res, 200, { ...sound, ...self.metadata })
    }
    if (request.path === '/realms/shop/keys') return sendJson(res, 200, signer.jwks())
    return sendJson(res, 404, {})
  })
  const issuer = `${server.origin}/realms/shop`
  const self: SsfTransmitter = {
    ...{ issuer, audience, signer, requests: server.requests, metadata: {} },
    set(type, subject, { event = {}, claims = {}, header = {}, signer: by = signer } = {}) {
      const seconds = Math.floor(now() / 1000)
      const sound = {
        ...{ iss: issuer, aud: audience, jti: randomUUID(), iat: seconds, txn: randomUUID() },
        ...(subject === undefined ? {} : { sub_id: subject }),
        events: { [type]: { event_timestamp: seconds, ...event } },
        ...claims,
      }
      return by.sign(JSON.parse(JSON.stringify(sound)), { typ: 'secevent+jwt', ...header })
    },
    async push(url, body, options = {}) {
      const { type = 'application/secevent+jwt' } = options
      const authorization = 'authorization' in options ? options.authorization : AUTHORIZATION
      const headers = { 'content-type': type, ...(authorization === undefined ? {} : { authorization }) }
      const answer = await fetch(url, { method: 'POST', headers, body })
      return { status: answer.status, headers: answer.headers, text: await answer.text() }
    },
    close: () => server.close(),
  }
  return self
}

/** A subject by issuer and `sub` (RFC 9493 §3.2.3). */
export const issSub = (iss: string, sub: string) => ({ format: 'iss_sub', iss, sub })

/** A complex subject as Keycloak writes it (SSF 1.0 §3.3). */
export const complex = (user: object | undefined, session?: string) => ({
  format: 'complex',
  ...(user === undefined ? {} : { user }),
  ...(session === undefined ? {} : { session: { format: 'opaque', id: session } }),
})
