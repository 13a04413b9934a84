import { randomUUID } from 'node:crypto'
import type { ServerResponse } from 'node:http'
import {
  EmbeddedJWK,
  exportJWK,
  generateKeyPair,
  type JSONWebKeySet,
  type JWTPayload,
  jwtVerify,
  SignJWT,
} from 'jose'
import type { ResponseParameters } from '../../../src/demo/scripted/authorization-endpoint.ts'
import { checkClient } from '../../../src/demo/scripted/client-check.ts'
import { jwtClaims, opaque } from '../../../src/demo/scripted/signing.ts'
import { type RunningCloakroom, startCloakroom } from '../cloakroom.ts'
import type { ConfigData } from '../config/cloakroom-config.ts'
import { field, type RecordedRequest, sendJson } from '../local-server.ts'
import { startUpstream, type Upstream } from '../upstream/upstream.ts'
import { type RotatingOptions, type RotatingProvider, startRotatingProvider } from './rotating-provider.ts'

/** Where clean-up is registered: a test's own context. */
type Scope = { after(cleanUp: () => unknown): void }
type Claims = Readonly<Record<string, unknown>>

/** What the provider does otherwise than it should, for one module of the conformance suite; absent: as it should. */
export type Behaviour = {
  /** The claims of ID tokens; `undefined` removes one. */
  readonly claims?: (sound: Claims) => Claims
  /** Signs ID tokens in place of the provider. */
  readonly sign?: (claims: Claims) => string | Promise<string>
  /** Changes the answer of the token endpoint. */
  readonly answer?: (answer: Record<string, unknown>) => void
  /** Changes the authorization response. */
  readonly response?: (answer: ResponseParameters) => ResponseParameters | Promise<ResponseParameters>
  /** What the UserInfo endpoint answers: claims, or a JWT. */
  readonly userInfo?: (sound: Claims) => Claims | Promise<string>
  /** The key set. */
  readonly keys?: () => JSONWebKeySet
  /** What stands in the place of `DPoP` where a server wants its nonce; `none`: no server wants any. */
  readonly nonceScheme?: string
}

/** What came of one sign-in. */
export type Played = {
  readonly status: number
  readonly isSignedIn: boolean
  /** The claims of `B/user`. */
  readonly user: Claims
  /** The endpoints of the provider that were asked, in order, but for discovery and keys. */
  readonly asked: readonly string[]
  /** How often the API was asked, once sign-in was over and the browser called it. */
  readonly calls: number
  /** The log of the sign-in. */
  readonly log: string
  readonly browser: ReturnType<RunningCloakroom['browser']>
}

/** A provider for the modules of the OpenID Foundation's suite for Relying Parties, an API, and a Cloakroom between them. */
export type Conformance = {
  readonly provider: RotatingProvider
  readonly api: Upstream
  readonly cloakroom: RunningCloakroom
  /** The behaviour from now on. */
  behave(behaviour: Behaviour): void
  /** A sign-in, and a call of the API, under this behaviour. */
  play(behaviour?: Behaviour, at?: RunningCloakroom): Promise<Played>
  /** Another Cloakroom with the same settings but for these of the provider. */
  start(provider?: ConfigData): Promise<RunningCloakroom>
  /** Lets time pass, but not for the dates in tokens: what was read of the provider is read anew. */
  later(ms: number): void
  /** Lets time pass in Cloakroom: access tokens expire. */
  tick(ms: number): void
}

/** The resource of the API. */
export const ORDERS = 'https://orders.test'
const SETUP_PATHS = new Set(['/.well-known/openid-configuration', '/jwks'])

/** How the system is set up. */
export type ConformanceOptions = {
  readonly provider?: RotatingOptions
  /** More of the `provider:` section. */
  readonly settings?: ConfigData
  /** Endpoints that demand what FAPI 2.0 demands: pushed requests and DPoP. */
  readonly isFapi?: boolean
}

/** Starts all of it. */
export async function startConformance(t: Scope, options: ConformanceOptions = {}): Promise<Conformance> {
  const provider = await startRotatingProvider(options.provider)
  t.after(() => provider.close())
  const { control, origin } = provider
  const ofFapi = {
    pushed_authorization_request_endpoint: `${origin}/par`,
    dpop_signing_alg_values_supported: ['ES256'],
  }
  control.metadata = {
    userinfo_endpoint: `${origin}/userinfo`,
    ...(options.isFapi ? ofFapi : {}),
    ...control.metadata,
  }
  let behaviour: Behaviour = {}
  const proofs = createProofChecks(() => behaviour.nonceScheme ?? 'DPoP')
  const api = await startUpstream({
    handle: (request, res) =>
      options.isFapi === true && proofs.refuse(request, res, { at: api.url, isResource: true }),
  })
  t.after(() => api.close())
  misbehave(provider, () => behaviour)
  control.intercept = createEndpoints({ provider, options, proofs, behaviour: () => behaviour })
  let laterMs = 0
  let aheadMs = 0
  const start = async (changes: ConfigData = {}) => {
    const cloakroom = await startCloakroom(
      {
        provider: { ...provider.settings, ...options.settings, ...changes },
        resources: { orders: { resource: ORDERS, audience: ORDERS } },
        routes: [
          { path: '/api/orders', upstream: api.url, resource: 'orders' },
          { path: '/', upstream: api.url, auth: 'anonymous' },
        ],
      },
      { now: () => Date.now() + aheadMs, monotonicNow: () => performance.now() + laterMs + aheadMs },
    )
    t.after(() => cloakroom.close())
    return cloakroom
  }
  const cloakroom = await start()

  async function play(wanted: Behaviour = {}, at = cloakroom): Promise<Played> {
    behaviour = wanted
    const [asked, logged] = [provider.requests.length, at.logs.length]
    const browser = at.browser()
    const { status } = await browser.signIn({ returnUrl: '/home' })
    const paths = provider.requests.slice(asked).map(({ path }) => path)
    const answer = await browser.fetch('/bff/user')
    const before = api.requests.length
    await browser.fetch('/api/orders')
    return {
      ...{ status, browser, isSignedIn: answer.status === 200, user: answer.json() },
      asked: paths.filter((path) => !SETUP_PATHS.has(path)),
      calls: api.requests.length - before,
      log: at.logs.slice(logged).join('\n'),
    }
  }

  return {
    ...{ provider, api, cloakroom, play, start },
    behave(wanted) {
      behaviour = wanted
    },
    later(ms) {
      laterMs += ms
    },
    tick(ms) {
      aheadMs += ms
    },
  }
}

function misbehave({ control, signer }: RotatingProvider, behaviour: () => Behaviour): void {
  const sound = control.forgeIdToken ?? ((claims: Claims) => signer.sign({ ...claims }))
  control.forgeIdToken = (claims, leg) => {
    const { claims: changed = (same: Claims) => same, sign } = behaviour()
    const all = JSON.parse(JSON.stringify(changed(claims)))
    return sign ? sign(all) : sound(all, leg)
  }
  const answer = control.editAnswer
  control.editAnswer = (json, leg) => {
    answer?.(json, leg)
    behaviour().answer?.(json)
  }
  control.editResponse = async (response) => (await behaviour().response?.(response)) ?? response
}

type EndpointDeps = {
  readonly provider: RotatingProvider
  readonly options: ConformanceOptions
  readonly proofs: ReturnType<typeof createProofChecks>
  readonly behaviour: () => Behaviour
}

/** The endpoints that the provider does not have by itself, and what FAPI 2.0 demands of the others. */
function createEndpoints({
  provider,
  options: { isFapi = false, provider: given },
  proofs,
  behaviour,
}: EndpointDeps) {
  const pushed = new Map<string, [string, string][]>()
  const client = { clientId: provider.clientId, ...given, clientSecret: provider.clientSecret }

  async function push(request: RecordedRequest, res: ServerResponse) {
    const check = await checkClient(request, client, [provider.issuer])
    const { aud } = jwtClaims(field(request.form, 'client_assertion') ?? '') ?? {}
    // FAPI 2.0 Security Profile §5.3.3.1: the issuer, as a string.
    if (check !== 'ok' || aud !== provider.issuer) return sendJson(res, 401, { error: 'invalid_client' })
    const uri = `urn:ietf:params:oauth:request_uri:${randomUUID()}`
    pushed.set(uri, request.form)
    return sendJson(res, 201, { request_uri: uri, expires_in: 60 })
  }

  /** Puts the pushed parameters in the place of their reference. */
  function open({ query }: RecordedRequest) {
    const uri = field(query, 'request_uri') ?? ''
    const form = pushed.get(uri) ?? []
    pushed.delete(uri)
    const isAlone =
      query
        .map(([name]) => name)
        .sort()
        .join() === 'client_id,request_uri'
    query.splice(0, query.length, ...(isAlone ? form.filter(([name]) => !name.startsWith('client_a')) : []))
    return false
  }

  return async (request: RecordedRequest, res: ServerResponse): Promise<boolean> => {
    const { path, headers } = request
    if (path === '/jwks' && behaviour().keys) sendJson(res, 200, behaviour().keys!())
    else if (path === '/userinfo') {
      if (isFapi && (await proofs.refuse(request, res, { at: provider.origin, isResource: true })))
        return true
      const [scheme = '', token = ''] = (headers.authorization ?? '').split(' ')
      if (scheme !== (isFapi ? 'DPoP' : 'Bearer')) sendJson(res, 401, {})
      else await sendUserInfo(res, jwtClaims(token)?.sub, behaviour())
    } else if (isFapi && path === '/par') await push(request, res)
    else if (isFapi && path === '/authorize' && request.method === 'GET') return open(request)
    else if (isFapi && path === '/token') return proofs.refuse(request, res, { at: provider.origin })
    else return false
    return true
  }
}

async function sendUserInfo(res: ServerResponse, sub: unknown, { userInfo = (same) => same }: Behaviour) {
  const answer = await userInfo({ sub, name: 'Ada', email: 'ada@example.com', email_verified: true })
  if (typeof answer !== 'string') sendJson(res, 200, answer)
  else res.writeHead(200, { 'content-type': 'application/jwt' }).end(answer)
}

/** RFC 9449 §4.3, and the nonces of §8 and §9. */
function createProofChecks(scheme: () => string) {
  const seen = new Set<unknown>()
  const nonces = new Map<string, string>()

  async function faultOf(
    { headers, method, path }: RecordedRequest,
    { at, isResource = false }: { at: string; isResource?: boolean },
  ): Promise<string | undefined> {
    const verified = await jwtVerify(String(headers.dpop), EmbeddedJWK, { typ: 'dpop+jwt' }).catch(
      () => undefined,
    )
    if (!verified) return 'no proof'
    const { htm, htu, jti, nonce } = verified.payload
    if (htm !== method || htu !== at + path || seen.has(jti)) return 'another request'
    seen.add(jti)
    if (isResource && !headers.authorization?.startsWith('DPoP ')) return 'no bound token'
    if (isResource && verified.payload.ath === undefined) return 'no ath'
    return scheme() === 'none' || nonce === nonces.get(at) ? undefined : 'use_dpop_nonce'
  }

  return {
    /** Refuses the request, with the nonce that it must have, or lets it pass. */
    async refuse(
      request: RecordedRequest,
      res: ServerResponse,
      server: { readonly at: string; readonly isResource?: boolean },
    ): Promise<boolean> {
      if (!nonces.has(server.at)) nonces.set(server.at, opaque('nonce-', 12))
      if (server.isResource && request.headers.dpop === undefined && !request.headers.authorization)
        return false
      const fault = await faultOf(request, server)
      if (!fault) return false
      const error = fault === 'use_dpop_nonce' ? fault : 'invalid_dpop_proof'
      const headers = {
        'dpop-nonce': nonces.get(server.at)!,
        ...(server.isResource ? { 'www-authenticate': `${scheme()} error="${error}"` } : {}),
      }
      sendJson(res, server.isResource ? 401 : 400, { error, error_description: fault }, headers)
      return true
    },
  }
}

/** A key that signs with one algorithm, and its public half. */
export async function signingKey(alg: string, kid?: string) {
  const { privateKey, publicKey } = await generateKeyPair(alg)
  const named = kid === undefined ? {} : { kid }
  return {
    jwk: { ...(await exportJWK(publicKey)), ...named, alg, use: 'sig' },
    sign: (claims: Claims, header: Record<string, string> = {}) =>
      new SignJWT(claims as JWTPayload).setProtectedHeader({ alg, ...named, ...header }).sign(privateKey),
  }
}
