import type { ServerResponse } from 'node:http'
import type { Person } from '../provider/identity-provider-options.ts'
import type { AuthorizationError, AuthorizedGrant, createCodes } from '../scripted/authorization-endpoint.ts'
import type { KnownClient } from '../scripted/client-check.ts'
import { type RecordedRequest, sendJson } from '../scripted/http-messages.ts'
import type { Signer } from '../scripted/signing.ts'
import { type Answer, createTokens, type Grant, type TokenPolicy } from '../scripted/tokens.ts'

/** An API that a scripted provider issues access tokens for. */
export type ProfileApi = {
  /** Names it where scopes do: a word of its own. */
  readonly name: string
  /** The `aud` of its access tokens. */
  readonly audience: string
  /** How token requests name it; default its audience. */
  readonly resource?: string
  readonly scopes: readonly string[]
}

/** What a token request asked for and how it ended, without any token: for a log. */
export type TokenEvent = {
  readonly grant: 'code' | 'refresh' | 'other'
  readonly user: string | undefined
  /** What the request named: `resource`, `audience` or `scope`, by the profile. */
  readonly asked: string
  readonly status: number
  /** OAuth's `error`. */
  readonly error: string | undefined
}

/** What the parts of a running provider are made of. */
export type ProfileDeps = {
  readonly issuer: string
  readonly tokenEndpoint: string
  readonly client: KnownClient
  readonly apis: readonly ProfileApi[]
  readonly signer: Signer
  readonly codes: ReturnType<typeof createCodes>
  /** Claims of a person, by `sub`, as they are now. */
  readonly claimsOf: (user: string) => Readonly<Record<string, unknown>>
  readonly accessTokenSeconds: number
  readonly observe: (event: TokenEvent) => void
  /** Epoch ms. */
  readonly now: () => number
}

/** The token endpoint of a running provider, and the tokens behind it. */
export type ProfileTokens = {
  token(request: RecordedRequest, res: ServerResponse): Promise<unknown>
  /** Absent where the provider has no revocation endpoint. */
  readonly revoke?: (request: RecordedRequest, res: ServerResponse) => Promise<void>
  /** Ends the grants of a user, or all: their refresh tokens are refused from now on. */
  endGrants(user?: string): void
  /** Whether the sign-in behind an access token had a second factor. */
  hadSecondFactor(accessToken: string): boolean
  /** Everything in plain data, for a file. Holds live tokens. */
  save(): unknown
  /** Takes over what `save` of the same profile returned. */
  load(saved: unknown): void
}

/** The authentication context of a sign-in with a second factor (OpenID Connect Core §2, `acr`). */
export const SECOND_FACTOR_ACR = 'mfa'

/** A provider's ways, as far as a client meets them. */
export type Profile = {
  readonly title: string
  /** Of the endpoints, below the origin. */
  readonly paths: Readonly<Record<'authorization' | 'token' | 'jwks' | 'endSession', string>> & {
    readonly revocation?: string
  }
  /** Appended to the origin. */
  readonly issuerPath: string
  /** Further members of the discovery document. */
  readonly metadata: Readonly<Record<string, unknown>>
  /** Members of `provider:` beside issuer, client and secret. */
  readonly settings: Readonly<Record<string, unknown>> & {
    readonly authMethod: 'client_secret_basic' | 'client_secret_post'
    readonly resourceDialect: string
  }
  /** How `resources:` names an API. */
  resourceOf(api: ProfileApi): object
  /** Refuses an authorization request before the sign-in page is shown. */
  refuseAuthorization?(query: [string, string][], apis: readonly ProfileApi[]): AuthorizationError | undefined
  /** Whether a person who has signed in is asked to agree. */
  asksConsent?(query: [string, string][]): boolean
  /** Further parameters of authorization responses. */
  responseParameters(issuer: string, grant: AuthorizedGrant): Record<string, string>
  /** What stands at the very end of the redirect. */
  readonly redirectSuffix?: string
  createTokens(deps: ProfileDeps): ProfileTokens
  /** The `WWW-Authenticate` with which an API asks for a second factor. */
  readonly secondFactorChallenge: string
}

/** RFC 9470 §3. */
export const STEP_UP_CHALLENGE = `Bearer error="insufficient_user_authentication", error_description="a second factor is needed", acr_values="${SECOND_FACTOR_ACR}"`

/** What the standard scopes bring (OpenID Connect Core §5.4). */
const CLAIMS_OF_SCOPE: Readonly<Record<string, readonly string[]>> = {
  profile: [
    'name',
    'given_name',
    'family_name',
    'middle_name',
    'nickname',
    'preferred_username',
    'profile',
  ].concat(['picture', 'website', 'gender', 'birthdate', 'zoneinfo', 'locale', 'updated_at']),
  email: ['email', 'email_verified'],
  address: ['address'],
  phone: ['phone_number', 'phone_number_verified'],
}

/** Claims of a person in an ID token: those of a standard scope only with that scope, all others always. */
export function idClaimsOf(
  claims: Readonly<Record<string, unknown>>,
  scopes: readonly string[],
): Record<string, unknown> {
  const hidden = Object.entries(CLAIMS_OF_SCOPE).flatMap(([scope, names]) =>
    scopes.includes(scope) ? [] : names,
  )
  return withoutClaims(claims, [...hidden, 'sub'])
}

/** Claims of a person in an access token: what decides about access, and nothing that is only about the person. */
export function accessClaimsOf(claims: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return withoutClaims(claims, [...Object.values(CLAIMS_OF_SCOPE).flat(), 'sub', 'title'])
}

function withoutClaims(claims: Readonly<Record<string, unknown>>, names: readonly string[]) {
  return Object.fromEntries(Object.entries(claims).filter(([name]) => !names.includes(name)))
}

/** Whether a person may be one: a `sub` and a name. */
export function isPerson(value: unknown): value is Person {
  if (typeof value !== 'object' || value === null) return false
  const { sub, name } = value as Record<string, unknown>
  return typeof sub === 'string' && sub !== '' && typeof name === 'string' && name !== ''
}

/** A refusal as RFC 6749 §5.2 has it. */
export function refusal(error: string, description: string, status = 400): Answer {
  return { status, json: { error, error_description: description } }
}

/** The usual decisions about tokens, for a profile to change: RFC 9700's rotation, ID tokens at each refresh. */
export function usualPolicy({
  claimsOf,
  signer,
  accessTokenSeconds,
}: ProfileDeps): Omit<TokenPolicy, 'target'> {
  return {
    rotation: () => 'once',
    usesUpRefused: () => false,
    accessTokenSeconds: () => accessTokenSeconds,
    hasRefreshToken: ({ scopes }) => scopes.includes('offline_access'),
    hasIdToken: ({ grant }) => grant.scopes.includes('openid'),
    idToken: async (claims, { grant }) =>
      signer.sign({ ...claims, ...idClaimsOf(claimsOf(grant.user), grant.scopes) }),
    accessClaims: ({ user }) => accessClaimsOf(claimsOf(user)),
    refusal,
  }
}

/** Makes the token endpoint of a profile from its decisions. */
export function tokensOf(
  deps: ProfileDeps,
  policy: TokenPolicy,
  askedName: 'resource' | 'audience' | 'scope',
): ProfileTokens {
  const tokens = createTokens({ ...deps, policy, issue: (secret) => secret, violation() {} })
  return {
    async token(request, res) {
      const user = tokens.userOf(request)
      const { status, json } = await tokens.answer(request)
      const answer = json as Record<string, unknown>
      deps.observe(tokenEvent(request, askedName, { user, status, error: answer.error }))
      sendJson(res, status, json)
    },
    async revoke(request, res) {
      const { status, json } = await tokens.revoke(request)
      sendJson(res, status, json)
    },
    endGrants: tokens.endGrants,
    hadSecondFactor: (accessToken) => hadSecondFactor(tokens.grantOf(accessToken)?.grant),
    save: tokens.save,
    load: (saved) => tokens.load(saved as ReturnType<typeof tokens.save>),
  }
}

function hadSecondFactor(grant: Grant | undefined): boolean {
  return grant?.acr === SECOND_FACTOR_ACR
}

/** What a log may know of a token request. */
export function tokenEvent(
  { form }: Pick<RecordedRequest, 'form'>,
  askedName: 'resource' | 'audience' | 'scope',
  { user, status, error }: { user: string | undefined; status: number; error: unknown },
): TokenEvent {
  const one = (name: string) => form.find(([key]) => key === name)?.[1]
  const type = one('grant_type')
  const grant = type === 'refresh_token' ? 'refresh' : type === 'authorization_code' ? 'code' : 'other'
  return {
    ...{ grant, user, asked: one(askedName) ?? '', status },
    error: typeof error === 'string' ? error : undefined,
  }
}
