import type { KeyObject } from 'node:crypto'
import type { Config, ResourceConfig } from '../../config/config.ts'
import { BffError } from '../../errors.ts'
import { refusalOf } from '../../oidc/token-endpoint/provider-errors.ts'
import { causeOf, cureIn, type Findings, type Found, fail, type Group, ok, warn } from './finding.ts'
import type { ProviderClient } from './provider-client.ts'

type Checked = { readonly config: Config; readonly client: ProviderClient }

/**
 * One real token for each resource: with the refresh token, if there is one, and for the client itself. The tokens are
 * dropped, and the last refresh token is revoked.
 */
export async function checkResources(
  group: Group,
  { refreshToken, ...checked }: Checked & { readonly refreshToken?: string | undefined },
): Promise<void> {
  const { config, client } = checked
  const all = Object.values(config.resources)
  const ms = config.provider.timeoutMs + 2_000
  const own = all.filter(({ grant }) => grant === 'client_credentials')
  await Promise.all(
    own.map((resource) => group.check(resource.name, () => clientToken(client, resource), { ms })),
  )
  const ofUser = all.filter(({ grant }) => grant === 'refresh_token')
  if (refreshToken === undefined) {
    if (ofUser.length > 0) await group.check('refresh', () => notTried(ofUser))
    return
  }
  if (config.provider.clientAuth.method === 'none' && config.provider.dpop !== 'off') {
    const message =
      'not tried: the refresh token of a public client is bound to a key that is not in the file (RFC 9449)'
    await group.check('refresh', () => warn(message, 'sign in once and look at the log'))
    return
  }
  const uses: Uses = { current: refreshToken, rotations: 0, isDead: false, tokens: new Map() }
  // One after the other: each may have used up the refresh token before it.
  for (const resource of ofUser) {
    await group.check(resource.name, () => refreshed(checked, resource, uses), { ms })
  }
  for (const resource of all.filter(({ grant }) => grant === 'token_exchange')) {
    await group.check(resource.name, () => exchanged(client, resource, uses), { ms })
  }
  if (uses.tokens.size === 0) return
  await group.check('rotation', () => told(uses, config))
  await group.check('revocation', () => revoked(client, uses.current), { ms })
}

/** What became of the refresh token so far. */
type Uses = {
  current: string
  rotations: number
  isDead: boolean
  /** What it brought, by the name of the resource. */
  readonly tokens: Map<string, { readonly accessToken: string; readonly key?: KeyObject }>
}

function notTried(resources: readonly ResourceConfig[]): Found {
  const names = resources.map(({ name }) => name).join(', ')
  return ok(`not tried for ${names}: that needs a refresh token of a test user, --refresh-token-file FILE`)
}

async function clientToken(client: ProviderClient, { name }: ResourceConfig): Promise<Found> {
  try {
    const { expiresAt, obtainedAt } = await client.grants.clientCredentialsGrant(name)
    return ok(`client_credentials: a token for ${seconds(expiresAt - obtainedAt)}`)
  } catch (error) {
    return refused(name, error, client)
  }
}

async function refreshed(
  { client, config }: Checked,
  { name }: ResourceConfig,
  uses: Uses,
): Promise<Findings> {
  if (uses.isDead) return ok('not tried: the refresh token is not good')
  const outcome = await client.grants.refreshGrant({
    refreshToken: uses.current,
    resource: name,
    async keep(next) {
      uses.current = next
      uses.rotations += 1
    },
  })
  const { resourceDialect } = config.provider
  if (outcome.kind === 'renewed') {
    uses.tokens.set(name, outcome)
    return ok(`dialect ${resourceDialect}: a token for ${seconds(outcome.expiresAt - outcome.obtainedAt)}`)
  }
  if (outcome.kind === 'dead') {
    uses.isDead = true
    return fail(
      `the refresh token is not good (${outcome.reason})`,
      uses.tokens.size === 0
        ? 'give a fresh one of this client, that no session uses; where it is rotated each is good for one use'
        : 'the one that came with the resource before is refused: look at the rotation of refresh tokens at the provider',
    )
  }
  return refused(name, outcome.error, client)
}

/** The token of another resource for one of this. */
async function exchanged(
  client: ProviderClient,
  { name, subject = '' }: ResourceConfig,
  { tokens }: Uses,
): Promise<Findings> {
  const held = tokens.get(subject)
  if (!held) return ok(`not tried: there is no token for ${subject}, which is exchanged`)
  const { accessToken, key } = held
  try {
    const request = { resource: name, subjectToken: accessToken, ...(key && { key }) }
    const { expiresAt, obtainedAt } = await client.grants.tokenExchangeGrant(request)
    return ok(`token_exchange: a token for ${seconds(expiresAt - obtainedAt)}`)
  } catch (error) {
    return refused(name, error, client)
  }
}

const CURES: Readonly<Record<string, string>> = {
  invalid_scope:
    'correct the scopes of this resource, or grant them to the client; a refresh may not widen what the sign-in asked for',
  invalid_target:
    'correct the resource, or provider.resourceDialect: the provider does not know a resource of this name',
  invalid_resource: 'correct the resource: the provider does not know one of this name',
  unauthorized_client: 'allow this grant type to the client at the provider',
  unsupported_grant_type: 'allow this grant type to the client at the provider',
  wrong_audience: "correct the resource's audience, or what names the resource: the token is for another API",
  scope_not_granted: 'grant these scopes to the client, or let the user consent to them',
}

function refused(name: string, error: unknown, client: ProviderClient): Found {
  const last = client.lastResult(name)
  const { oauthError, errorCodes } = last?.refusal ?? refusalOf(undefined)
  const word = oauthError ?? last?.outcome
  const { message, cure } = causeOf(error)
  const code = error instanceof BffError ? ` (${[word, errorCodes].filter(Boolean).join(', ')})` : ''
  const compared =
    last?.expected === undefined ? '' : `; expected ${last.expected}, came ${last.actual ?? 'nothing'}`
  return fail(`${message}${code}${compared}`, cureIn(CURES, word) ?? cure)
}

function told({ rotations }: Uses, { provider }: Config): Found {
  if (rotations === 0) return ok('the provider keeps refresh tokens as they are')
  if (provider.reusesRefreshTokens === true) {
    return warn(
      'the provider gives a new refresh token at each use, and provider.reusesRefreshTokens says that the used one stays good',
      'set it to auto, unless the provider promises that',
    )
  }
  return ok(`the provider gave a new refresh token ${rotations === 1 ? 'once' : `${rotations} times`}`)
}

async function revoked(client: ProviderClient, refreshToken: string): Promise<Found> {
  const isRevoked = await client.relyingParty.revoke(refreshToken)
  if (isRevoked) return ok('the last refresh token is revoked, so that nothing of this test stays usable')
  return warn(
    'the provider has no revocation endpoint: the last refresh token of this test stays good until its end',
    'end the session of the test user at the provider',
  )
}

function seconds(ms: number): string {
  return `${Math.round(ms / 1000)} s`
}
