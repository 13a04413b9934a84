import type { ServerResponse } from 'node:http'
import { setTimeout as delay } from 'node:timers/promises'
import type { AuthorizedGrant, CodeRefusal } from '../scripted/authorization-endpoint.ts'
import { checkClient } from '../scripted/client-check.ts'
import { dropConnection, field, type RecordedRequest, sendHtml, sendJson } from '../scripted/http-messages.ts'
import {
  AZURE_ERRORS,
  type AzureAnswer,
  type AzureErrorName,
  type AzureTrace,
  azureErrorBody,
  azureTrace,
} from './azure-errors.ts'
import { type AzureGrant, type AzureTokensDeps, issueTokens, type Opened } from './azure-issue.ts'
import { type ResourcePolicy, takePolicy } from './azure-policy.ts'

/** The token endpoint of both versions. */
export function createAzureTokens(deps: AzureTokensDeps) {
  return async function token(request: RecordedRequest, res: ServerResponse) {
    noteViolations(deps, request)
    const clientRequestId = request.headers['client-request-id']?.toString()
    const trace = deps.trace ?? azureTrace(clientRequestId, deps.now())
    const { answer, policy } = await answerFor(deps, request, trace)
    deps.observe?.(request, answer)
    if (policy?.delayMs) await delay(policy.delayMs)
    if (policy?.dropConnection) return dropConnection(res)
    const headers = { ...responseHeaders(trace), ...answer.headers }
    if (answer.html !== undefined) return sendHtml(res, answer.status, answer.html)
    if (answer.text !== undefined) {
      res.writeHead(answer.status, { 'content-type': 'application/json; charset=utf-8', ...headers })
      return res.end(answer.text)
    }
    sendJson(res, answer.status, answer.json ?? {}, headers)
  }
}

function noteViolations({ dialect, violations }: AzureTokensDeps, request: RecordedRequest): void {
  const note = (text: string) => violations.push(`token request: ${text}`)
  if (request.method !== 'POST') note(`method ${request.method}`)
  if (request.query.length > 0) note('parameters in the URL')
  // With an Origin, Entra takes the caller for a single-page application and refuses credentials.
  if (request.headers.origin !== undefined) note('an Origin header')
  if (request.headers.cookie !== undefined) note('a Cookie header')
  const names = request.form.map(([name]) => name)
  const repeated = names.find((name, index) => names.indexOf(name) !== index)
  if (repeated) note(`parameter sent twice: ${repeated}`)
  const isRefresh = field(request.form, 'grant_type') === 'refresh_token'
  if (dialect.version === 'v1' && isRefresh && names.includes('scope')) note('scope on a v1 refresh')
  if (dialect.version === 'v2' && names.includes('resource')) note('resource on v2')
}

async function answerFor(
  deps: AzureTokensDeps,
  request: RecordedRequest,
  trace: AzureTrace,
): Promise<{ answer: AzureAnswer; policy?: ResourcePolicy }> {
  const refuse = (name: AzureErrorName, resource = '', policy?: ResourcePolicy): AzureAnswer =>
    AZURE_ERRORS[name]({
      ...{
        version: deps.dialect.version,
        clientId: deps.client.clientId,
        tenant: deps.tenant,
        resource,
        trace,
      },
      ...{ claims: policy?.claims, retryAfterSeconds: policy?.retryAfterSeconds },
    })
  const { form } = request
  const raw = takeRaw(deps, form, trace)
  if (raw) return raw
  const clientFault = await refuseClient(deps, request, trace)
  if (clientFault) return { answer: clientFault }
  const opened = openGrant(deps, form, trace)
  if ('status' in opened) return { answer: opened }
  const asked = deps.dialect.askedResource(form, opened.leg, opened.grant.named, trace)
  if ('status' in asked) return { answer: asked }
  if (opened.grant.revoked) return { answer: refuse('revoked', asked.resource) }
  if (deps.resources && !(asked.resource in deps.resources))
    return { answer: refuse('invalid-resource', asked.resource) }
  const leg = opened.leg === 'code' ? 'code' : 'refresh'
  const claims = leg === 'refresh' ? lackingContext(deps, form, opened.grant) : undefined
  if (claims !== undefined)
    return { answer: refuse('step-up', asked.resource, { outcome: 'step-up', claims }) }
  const policy = takePolicy(deps.policy, asked.resource, leg, opened.grant)
  const outcome = policy?.outcome ?? 'ok'
  if (outcome !== 'ok' && outcome !== 'bare' && outcome !== 'wrong-resource' && outcome !== 'raw')
    return { answer: refuse(outcome, asked.resource, policy), policy }
  const answered =
    outcome === 'wrong-resource' ? { ...asked, resource: policy?.answerFor ?? 'urn:another' } : asked
  const json = await issueTokens(deps, form, opened, answered)
  if (outcome === 'bare') for (const name of ['refresh_token', 'expires_in', 'expires_on']) delete json[name]
  policy?.edit?.(json)
  return { answer: { status: 200, json }, policy }
}

/** The `claims` of a refresh that asks for more than its sign-in had. */
function lackingContext(
  { policy }: AzureTokensDeps,
  form: [string, string][],
  { withClaims }: AzureGrant,
): string | undefined {
  const claims = policy.enforcesContexts && !withClaims ? field(form, 'claims') : undefined
  return claims?.includes('"acrs"') ? claims : undefined
}

/** The scripted bytes for a refresh of this resource, if there are any. */
function takeRaw(
  { dialect, policy: all }: AzureTokensDeps,
  form: [string, string][],
  trace: AzureTrace,
): { answer: AzureAnswer; policy: ResourcePolicy } | undefined {
  if (field(form, 'grant_type') !== 'refresh_token') return undefined
  const asked = dialect.askedResource(form, 'refresh', [], trace)
  if ('status' in asked) return undefined
  if ((all.resources[asked.resource] ?? all.everyResource)?.outcome !== 'raw') return undefined
  const policy = takePolicy(all, asked.resource, 'refresh', { withClaims: false, named: [] })
  if (!policy?.raw) return undefined
  const { status, body, headers } = policy.raw
  return { answer: { status, text: body, headers: headers ?? {} }, policy }
}

async function refuseClient(deps: AzureTokensDeps, request: RecordedRequest, trace: AzureTrace) {
  const check = await checkClient(request, deps.client, [deps.endpoints.token, deps.issuer])
  if (check === 'ok') return undefined
  const { version } = deps.dialect
  const context = { version, clientId: deps.client.clientId, tenant: deps.tenant, resource: '', trace }
  if (check === 'wrong') return AZURE_ERRORS['wrong-secret'](context)
  if (check === 'missing')
    return fault(
      trace,
      401,
      'invalid_client',
      7000218,
      "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.",
    )
  if (check === 'several') {
    deps.violations.push('token request: several client credentials')
    return fault(trace, 400, 'invalid_request', 90023, 'Several client credentials were sent.')
  }
  return fault(
    trace,
    400,
    'unauthorized_client',
    700016,
    `Application was not found in the directory '${deps.tenant}'.`,
  )
}

function fault(trace: AzureTrace, status: number, error: string, code: number, text: string): AzureAnswer {
  return { status, json: azureErrorBody(trace, error, `AADSTS${code}: ${text}`, [code], { errorUri: true }) }
}

function openGrant(deps: AzureTokensDeps, form: [string, string][], trace: AzureTrace): Opened | AzureAnswer {
  const grantType = field(form, 'grant_type')
  if (grantType === 'client_credentials') return { leg: 'client_credentials', grant: applicationGrant() }
  if (grantType === 'refresh_token') {
    const refreshToken = field(form, 'refresh_token') ?? ''
    const grant = deps.grants.get(refreshToken)
    if (grant) return { leg: 'refresh', grant }
    return fault(trace, 400, 'invalid_request', 9002313, 'Invalid request. Request is malformed or invalid.')
  }
  if (grantType === 'urn:ietf:params:oauth:grant-type:jwt-bearer') return openAssertion(deps, form, trace)
  if (grantType !== 'authorization_code')
    return fault(trace, 400, 'unsupported_grant_type', 70003, `The app requested an unsupported grant type.`)
  const redeemed = deps.codes.redeem(form)
  if (typeof redeemed === 'string') return codeFault(trace, redeemed)
  return { leg: 'code', grant: grantOf(deps, redeemed), nonce: redeemed.nonce }
}

/** The on-behalf-of flow: an access token of the user as assertion. */
function openAssertion(deps: AzureTokensDeps, form: [string, string][], trace: AzureTrace) {
  if (field(form, 'requested_token_use') !== 'on_behalf_of')
    return fault(trace, 400, 'invalid_request', 90014, "The field 'requested_token_use' is missing.")
  const grant = deps.assertions.get(field(form, 'assertion') ?? '')
  if (grant) return { leg: 'on_behalf_of', grant } as const
  return fault(trace, 400, 'invalid_grant', 50013, 'Assertion failed signature validation.')
}

function applicationGrant(): AzureGrant {
  return { user: 'application', sid: '', named: [], withClaims: false, revoked: false }
}

function grantOf({ dialect }: AzureTokensDeps, code: AuthorizedGrant): AzureGrant {
  const query: [string, string][] = [['scope', code.scopes.join(' ')]]
  for (const resource of code.resources) query.push(['resource', resource])
  return {
    user: code.user,
    sid: code.sid,
    named: dialect.namedResources(query),
    withClaims: code.claims !== undefined,
    ...{ acr: code.acr, authTime: code.authTime },
    revoked: false,
  }
}

function codeFault(trace: AzureTrace, refusal: CodeRefusal): AzureAnswer {
  if (refusal === 'spent')
    return fault(
      trace,
      400,
      'invalid_grant',
      54005,
      'OAuth2 Authorization code was already redeemed, please retry with a new valid code or use an existing refresh token.',
    )
  if (refusal === 'pkce')
    return fault(
      trace,
      400,
      'invalid_grant',
      501481,
      'The Code_Verifier does not match the code_challenge supplied in the authorization request.',
    )
  if (refusal === 'redirect-uri')
    return fault(
      trace,
      400,
      'invalid_grant',
      500112,
      'The reply address does not match the reply address provided when requesting Authorization code.',
    )
  return fault(
    trace,
    400,
    'invalid_grant',
    70000,
    'The provided value for the input parameter code is not valid.',
  )
}

/** Azure AD answers set cookies on the token endpoint; a client that kept them would mix users. */
function responseHeaders(trace: AzureTrace): Record<string, string | string[]> {
  return {
    'x-ms-request-id': trace.traceId,
    'client-request-id': trace.correlationId,
    'set-cookie': [
      'fpc=AsJ5z6nGk0dOqGFN; expires=Thu, 31-Dec-2099 00:00:00 GMT; path=/; secure; HttpOnly; SameSite=None',
      'x-ms-gateway-slice=estsfd; path=/; secure; httponly',
      'stsservicecookie=estsfd; path=/; secure; httponly',
    ],
  }
}
