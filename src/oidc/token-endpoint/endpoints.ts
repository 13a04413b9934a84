import type { ProviderConfig, ProviderEndpoints } from '../../config/config.ts'

/** The configured endpoints under their names of RFC 8414 §2. */
export function endpointMetadata(endpoints: ProviderEndpoints): Record<string, string> {
  const named = {
    authorization_endpoint: endpoints.authorization,
    token_endpoint: endpoints.token,
    jwks_uri: endpoints.jwks,
    revocation_endpoint: endpoints.revocation,
    end_session_endpoint: endpoints.endSession,
    userinfo_endpoint: endpoints.userinfo,
  }
  return Object.fromEntries(
    Object.entries(named).filter((entry): entry is [string, string] => Boolean(entry[1])),
  )
}

/** Endpoints that we, or the browser on our behalf, send secrets or codes to. */
const ENDPOINTS = [
  ...['authorization_endpoint', 'token_endpoint', 'jwks_uri', 'revocation_endpoint', 'end_session_endpoint'],
  ...['userinfo_endpoint', 'pushed_authorization_request_endpoint'],
]

/** Those of them that are not https. */
export function insecureEndpoints(metadata: Readonly<Record<string, unknown>>): { name: string; url: URL }[] {
  return ENDPOINTS.flatMap((name) => {
    const value = metadata[name]
    if (value === undefined) return []
    const url = typeof value === 'string' && URL.canParse(value) ? new URL(value) : undefined
    if (!url) throw new Error(`the discovery document has no URL for ${name}`)
    return url.protocol === 'https:' ? [] : [{ name, url }]
  })
}

/**
 * A provider whose issuer is https names no endpoint in plain http, unless the host is in `provider.insecureHosts`; a
 * provider on this machine may name others on it. Configured endpoints were checked with the configuration.
 */
export function requireNamedHosts(
  insecure: readonly { name: string; url: URL }[],
  {
    configured,
    provider: { issuer, insecureHosts },
  }: { configured: Readonly<Record<string, string>>; provider: ProviderConfig },
): void {
  for (const { name, url } of insecure) {
    if (Object.hasOwn(configured, name)) continue
    if (isAllowedTransport(url, { issuer, insecureHosts })) continue
    throw new Error(
      `the discovery document names ${name} at ${url.origin}, which is not https: ` +
        `correct it at the provider, or allow the host: provider.insecureHosts: [${url.host}]`,
    )
  }
}

/** Whether an endpoint that `issuer` names may be asked: https, a host of `insecureHosts`, or both of them on this machine. */
export function isAllowedTransport(
  { protocol, hostname, port }: URL,
  { issuer, insecureHosts }: Pick<ProviderConfig, 'issuer' | 'insecureHosts'>,
): boolean {
  if (protocol !== 'http:') return protocol === 'https:'
  const names = [hostname, `${hostname}:${port || '80'}`]
  return (
    names.some((one) => insecureHosts.includes(one)) ||
    (issuer.startsWith('http:') && isThisMachine(hostname))
  )
}

/** RFC 6761 §6.3. */
function isThisMachine(hostname: string): boolean {
  return /^(?:(?:.+\.)?localhost|127(?:\.\d{1,3}){3}|\[::1\])$/.test(hostname)
}

/** The aliases that are called, in the place of the endpoints of these names. */
export function aliasesOf({
  mtls_endpoint_aliases: aliases = {},
}: {
  readonly mtls_endpoint_aliases?: object
}): Record<string, unknown> {
  return Object.fromEntries(Object.entries(aliases).filter(([name]) => ENDPOINTS.includes(name)))
}

/** What stands in the issuer of Entra ID's metadata for many tenants, in the place of a tenant. */
export const TENANT = '{tenantid}'
/** The one host whose metadata openid-client takes such an issuer from; it puts the `tid` of each ID token in. */
export const LARGEST_CLOUD = 'https://login.microsoftonline.com'

/** True for an authority of Entra ID that signs in users of many tenants, in whatever cloud. */
export function isSharedAuthority(issuer: string): boolean {
  return /^https:\/\/[^/]+\/(?:common|organizations|consumers)(?:\/|$)/i.test(issuer)
}

/**
 * Whether an `iss` is of this provider: its own, or, under an authority for many tenants, that of a tenant that may sign in.
 */
export function createIsIssuer({
  issuer,
  allowedTenants,
}: {
  readonly issuer: string
  readonly allowedTenants: readonly string[]
}): (iss: string) => boolean {
  const [, start, end] = /^(https:\/\/[^/]+\/)(?:common|organizations|consumers)(\/.*|)$/i.exec(issuer) ?? []
  if (start === undefined || end === undefined) return (iss) => iss === issuer
  const ofTenant = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/i
  return function isIssuer(iss) {
    if (iss === issuer) return true
    const [tenant] = (iss.startsWith(start) && ofTenant.exec(iss.slice(start.length))) || []
    if (tenant === undefined || iss !== start + tenant + end) return false
    return allowedTenants.length === 0 || allowedTenants.includes(tenant)
  }
}

/** Reads the metadata where they are, while openid-client takes them for those of the host that it knows. */
export function atLargestCloud<Options, Answer>(
  issuer: URL,
  fetch: (url: string, options: Options) => Answer,
): { location: URL; fetch: (url: string, options: Options) => Answer } {
  const elsewhere = (url: string) => url.replace(LARGEST_CLOUD, issuer.origin)
  return {
    location: new URL(issuer.href.replace(issuer.origin, LARGEST_CLOUD)),
    fetch: (url, options) => fetch(elsewhere(url), options),
  }
}
