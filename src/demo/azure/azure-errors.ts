import { randomUUID } from 'node:crypto'

/** The ids and time that every Azure AD error repeats. */
export type AzureTrace = {
  readonly traceId: string
  readonly correlationId: string
  readonly timestamp: string
}

/** An answer of the token endpoint, ready to send; exactly one of `json`, `html` and `text`. */
export type AzureAnswer = {
  readonly status: number
  readonly json?: object
  readonly html?: string
  /** Sent as it is, as JSON unless `headers` say otherwise. */
  readonly text?: string
  readonly headers?: Record<string, string>
}

/** Everything an Azure AD error text mentions. */
export type AzureErrorContext = {
  readonly version: 'v1' | 'v2'
  readonly clientId: string
  readonly tenant: string
  readonly resource: string
  readonly trace: AzureTrace
  readonly claims?: string
  readonly retryAfterSeconds?: number
}

/** The claims challenge that comes with 50076 (Conditional Access). */
const STEP_UP_CLAIMS =
  '{"access_token":{"polids":{"essential":true,"Values":["9ab03e19-ed42-4168-b6b7-7001fb3e933a"]}}}'

/** A fresh trace, its correlation id taken from the caller's `client-request-id` as Azure AD does. */
export function azureTrace(clientRequestId: string | undefined, now: number): AzureTrace {
  const timestamp = `${new Date(now).toISOString().slice(0, 19).replace('T', ' ')}Z`
  return { traceId: randomUUID(), correlationId: clientRequestId ?? randomUUID(), timestamp }
}

/** An error body in Azure AD's own member order: text with CR LF, several codes, a timestamp that is not ISO 8601. */
export function azureErrorBody(
  trace: AzureTrace,
  error: string,
  text: string,
  codes: number[],
  more: { errorUri?: boolean; suberror?: string; claims?: string } = {},
): object {
  return {
    error,
    error_description: `${text}\r\nTrace ID: ${trace.traceId}\r\nCorrelation ID: ${trace.correlationId}\r\nTimestamp: ${trace.timestamp}`,
    error_codes: codes,
    timestamp: trace.timestamp,
    trace_id: trace.traceId,
    correlation_id: trace.correlationId,
    ...(more.errorUri ? { error_uri: `https://login.microsoftonline.com/error?code=${codes[0]}` } : {}),
    ...(more.suberror ? { suberror: more.suberror } : {}),
    ...(more.claims ? { claims: more.claims } : {}),
  }
}

type Template = (context: AzureErrorContext) => AzureAnswer

const rejected = (
  context: AzureErrorContext,
  error: string,
  code: number,
  text: string,
  more: { suberror?: string; claims?: string } = {},
): AzureAnswer => ({
  status: 400,
  json: azureErrorBody(context.trace, error, `AADSTS${code}: ${text}`, [code], { errorUri: true, ...more }),
})

/** How the token endpoint refuses, by name. Texts and members follow recorded answers. */
export const AZURE_ERRORS = {
  /** 50001, the documented v1 sample; v2 says 500011. */
  'invalid-resource': (c) =>
    c.version === 'v1'
      ? {
          status: 400,
          json: azureErrorBody(
            c.trace,
            'invalid_resource',
            `AADSTS50001: The application named ${c.resource} was not found in the tenant named ${c.tenant}.  This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant.  You might have sent your authentication request to the wrong tenant.`,
            [50001],
          ),
        }
      : rejected(
          c,
          'invalid_resource',
          500011,
          `The resource principal named ${c.resource} was not found in the tenant named ${c.tenant}. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You might have sent your authentication request to the wrong tenant.`,
        ),
  /** 50076: this resource needs multi-factor authentication; the refresh token lives on. */
  'step-up': (c) =>
    rejected(
      c,
      c.version === 'v1' ? 'interaction_required' : 'invalid_grant',
      50076,
      `Due to a configuration change made by your administrator, or because you moved to a new location, you must use multi-factor authentication to access '${c.resource}'.`,
      { suberror: 'basic_action', claims: c.claims ?? STEP_UP_CLAIMS },
    ),
  /** 65001: no consent was given for this resource; the refresh token lives on. */
  consent: (c) =>
    rejected(
      c,
      'invalid_grant',
      65001,
      `The user or administrator has not consented to use the application with ID '${c.clientId}' named 'Café Einkäufe'. Send an interactive authorization request for this user and resource.`,
      { suberror: 'consent_required' },
    ),
  /** 700082 as it was answered in 2020: no suberror. */
  expired: (c) => rejected(c, 'invalid_grant', 700082, expiredText(c)),
  /** 700082 as it is answered now. */
  'expired-bad-token': (c) => rejected(c, 'invalid_grant', 700082, expiredText(c), { suberror: 'bad_token' }),
  /** 50173: the grant was revoked. */
  revoked: (c) =>
    rejected(
      c,
      'invalid_grant',
      50173,
      `The provided grant has expired due to it being revoked, a fresh auth token is needed. The user might have changed or reset their password. The grant was issued on '${c.trace.timestamp}' and the TokensValidFrom date (before which tokens are not valid) for this user is '${c.trace.timestamp}'.`,
      { suberror: 'bad_token' },
    ),
  /** 50034 with `bad_token`: the user is not in that directory. */
  'wrong-directory': (c) =>
    rejected(
      c,
      'invalid_grant',
      50034,
      `The user account jürgen@contoso.com does not exist in the ${c.tenant} directory. To sign into this application, the account must be added to the directory.`,
      { suberror: 'bad_token' },
    ),
  /** 53003: Conditional Access says no and offers nothing. */
  blocked: (c) =>
    rejected(
      c,
      'invalid_grant',
      53003,
      'Access has been blocked by Conditional Access policies. The access policy does not allow token issuance.',
      { suberror: 'message_only', claims: c.claims },
    ),
  /** The documented pair whose first code says "invalid client" under `invalid_grant`. */
  'misleading-codes': (c) => ({
    status: 400,
    json: azureErrorBody(
      c.trace,
      'invalid_grant',
      'AADSTS70002: Error validating credentials. AADSTS70008: The provided authorization code or refresh token is expired. Send a new interactive authorization request for this user and resource.',
      [70002, 70008],
    ),
  }),
  /** 50196: the server thinks we loop. */
  loop: (c) =>
    rejected(
      c,
      'invalid_grant',
      50196,
      'The server terminated an operation because it encountered a client request loop. Please contact your app vendor.',
    ),
  /** 7000222 with HTTP 401. */
  'secret-expired': (c) => ({
    ...rejected(
      c,
      'invalid_client',
      7000222,
      `The provided client secret keys for app '${c.clientId}' are expired. Visit the Azure portal to create new keys for your app: https://aka.ms/NewClientSecret, or consider using certificate credentials for added security: https://aka.ms/certCreds.`,
    ),
    status: 401,
  }),
  /** 7000215 with HTTP 401. */
  'wrong-secret': (c) => ({
    ...rejected(
      c,
      'invalid_client',
      7000215,
      `Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '${c.clientId}'.`,
    ),
    status: 401,
  }),
  /** 429 with Retry-After in seconds. */
  throttled: (c) => ({ ...throttled(c), headers: { 'retry-after': String(c.retryAfterSeconds ?? 2) } }),
  /** 429 with Retry-After as an HTTP-date (RFC 9110 §10.2.3). */
  'throttled-until': (c) => ({
    ...throttled(c),
    headers: { 'retry-after': new Date(Date.now() + (c.retryAfterSeconds ?? 2) * 1000).toUTCString() },
  }),
  /** The gateway's own page instead of JSON. */
  'html-unavailable': () => ({
    status: 503,
    html: '<h2>Our services aren&#39;t available right now</h2><p>We&#39;re working to restore all services as soon as possible. Please check back soon.</p>',
  }),
  /** 90033 as JSON with HTTP 503. */
  transient: (c) => ({
    ...rejected(c, 'temporarily_unavailable', 90033, 'A transient error has occurred. Please try again.'),
    status: 503,
  }),
} satisfies Record<string, Template>

function expiredText(context: AzureErrorContext): string {
  return `The refresh token has expired due to inactivity. The token was issued on ${context.trace.timestamp} and was inactive for 90.00:00:00.`
}

function throttled(context: AzureErrorContext): AzureAnswer {
  return {
    ...rejected(
      context,
      'temporarily_unavailable',
      90055,
      'The tenant is throttled because there are too many incoming requests.',
    ),
    status: 429,
  }
}

/** Names of the ways to refuse. */
export type AzureErrorName = keyof typeof AZURE_ERRORS
