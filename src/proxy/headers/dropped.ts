import type { RouteConfig } from '../../config/config.ts'

/** RFC 9110 §7.6.1 and the older names of the same kind; message framing is made anew for each connection. */
const HOP_BY_HOP = ['connection', 'keep-alive', 'proxy-*', 'te', 'trailer', 'transfer-encoding', 'upgrade']

/** Fields that belong to one connection, or that only Cloakroom writes or reads. */
const OURS = [
  ...HOP_BY_HOP,
  // CGI turns this field into HTTP_PROXY, which a program's own requests then go through (CVE-2016-5385).
  'proxy',
  'host',
  'content-length',
  'expect',
  'http2-settings',
  'cookie',
  'authorization',
  // RFC 9449: a proof of the client is for no token of ours.
  'dpop',
  'x-csrf',
  'cloakroom-background',
  'via',
  'x-request-id',
  // W3C Trace Context and Baggage, and what came before: an upstream continues traces of trusted proxies only.
  ...['traceparent', 'tracestate', 'baggage', 'b3', 'x-b3-*'],
]

/** Fields of one origin, and the software or document that sets them for an upstream to believe. */
type Family = { readonly source: string; readonly names: readonly string[] }

/** Who the user is. A name ends in `*` where the source has more of the same beginning. */
const IDENTITY: readonly Family[] = [
  { source: 'oauth2-proxy, ingress-nginx external auth', names: ['x-auth-request-*'] },
  // X-Auth-Token is not among them: it is a credential of OpenStack's clients, and proves itself.
  {
    source: 'louketo-proxy (Keycloak Gatekeeper)',
    names: [
      ...['x-auth-userid', 'x-auth-username', 'x-auth-user', 'x-auth-name', 'x-auth-subject'],
      'x-auth-email',
      ...['x-auth-groups', 'x-auth-roles', 'x-auth-audience', 'x-auth-expiresin'],
    ],
  },
  { source: 'Authelia (Remote-User, -Name, -Email, -Groups), CGI (RFC 3875 §4.1)', names: ['remote-*'] },
  { source: 'Kubernetes request-header authentication', names: ['x-remote-*'] },
  { source: 'Kubernetes user impersonation', names: ['impersonate-*'] },
  { source: 'Grafana auth.proxy, Gitea reverse proxy authentication', names: ['x-webauth-*'] },
  { source: 'mod_auth_openidc', names: ['oidc-*'] },
  { source: 'Apache mod_auth_mellon', names: ['mellon-*'] },
  { source: 'mod_auth_cas', names: ['cas-user', 'cas-authnheader'] },
  { source: 'Shibboleth SP (ShibUseHeaders)', names: ['shib-*'] },
  { source: 'authentik proxy provider', names: ['x-authentik-*'] },
  { source: 'Pomerium', names: ['x-pomerium-*'] },
  { source: 'Vouch Proxy', names: ['x-vouch-*'] },
  { source: 'Caddy Security (AuthCrunch)', names: ['x-token-user-*', 'x-token-subject'] },
  { source: 'Teleport application access', names: ['teleport-*'] },
  { source: 'Tailscale Serve', names: ['tailscale-*'] },
  { source: 'Cloudflare Access', names: ['cf-access-*'] },
  {
    source: 'Google Identity-Aware Proxy (X-Goog-Authenticated-User-*, X-Goog-IAP-JWT-Assertion)',
    names: ['x-goog-*'],
  },
  { source: 'Google App Engine', names: ['x-appengine-*'] },
  {
    source: 'Google Cloud Endpoints and API Gateway',
    names: ['x-endpoint-api-userinfo', 'x-apigateway-api-userinfo'],
  },
  { source: 'AWS Application Load Balancer', names: ['x-amzn-oidc-*', 'x-amzn-mtls-*'] },
  { source: 'Azure App Service authentication (X-MS-CLIENT-PRINCIPAL*, X-MS-TOKEN-*)', names: ['x-ms-*'] },
  {
    source: 'Kong',
    names: ['x-consumer-*', 'x-credential-*', 'x-anonymous-consumer', 'x-authenticated-*'],
  },
  { source: 'Apache APISIX openid-connect', names: ['x-userinfo', 'x-id-token'] },
  { source: 'WSO2', names: ['x-jwt-assertion'] },
  {
    source: 'Istio RequestAuthentication (outputPayloadToHeader, outputClaimToHeaders)',
    names: ['x-jwt-payload', 'x-jwt-claim*'],
  },
  { source: 'Red Hat Hybrid Cloud Console, 3scale', names: ['x-rh-identity'] },
  {
    source: 'Sandstorm, Replit, Snowflake container services',
    names: ['x-sandstorm-*', 'x-replit-user-*', 'sf-context-*'],
  },
  { source: 'OpenSearch proxy authentication', names: ['x-proxy-user', 'x-proxy-roles'] },
  { source: 'Elasticsearch and Kibana', names: ['es-security-runas-user'] },
  { source: 'IBM Verify Access (WebSEAL)', names: ['iv-*'] },
  { source: 'Broadcom SiteMinder', names: ['sm-*', 'smuser'] },
  { source: 'Oracle Access Manager', names: ['oam-*', 'osso-*'] },
  { source: 'Sonatype Nexus (remote user token)', names: ['x-proxy-remote-user'] },
  // Recipes for ext_authz, forwardAuth and auth_request use these names. Others that begin so (X-User-Agent,
  // X-User-Timezone) are data of an application.
  {
    source: 'Ory Oathkeeper, KrakenD, Envoy ext_authz, nginx auth_request',
    names: [
      ...['x-user', 'x-userid', 'x-username', 'x-user-id', 'x-user-name', 'x-user-email'],
      ...['x-user-groups', 'x-user-role', 'x-user-roles', 'x-user-claims'],
    ],
  },
]

/** The client certificate, which some TLS terminator has verified. */
const CLIENT_CERTIFICATE: readonly Family[] = [
  { source: 'RFC 9440', names: ['client-cert*'] },
  { source: 'ingress-nginx, Apache mod_ssl', names: ['ssl-client-*'] },
  { source: 'HAProxy, nginx and F5 recipes', names: ['x-ssl-*', 'x-ssl', 'x-client-cert*'] },
  { source: 'Cloudflare (managed transforms)', names: ['cf-client-cert*', 'cf-cert-*'] },
  { source: 'Envoy Gateway and HAProxy recipes', names: ['x-tls-*', 'tls-client-*'] },
  { source: 'IIS Application Request Routing, Azure App Service', names: ['x-arr-*'] },
  // Its other names (WL-Proxy-Client-IP) are addresses.
  { source: 'Oracle WebLogic', names: ['wl-proxy-*'] },
  { source: 'IBM WebSphere plug-in ($WSCC, $WSRU, $WSRA …)', names: ['$ws*'] },
  { source: 'Linkerd', names: ['l5d-client-id'] },
  {
    source: 'Puppet Server and its nginx recipes',
    names: ['x-client-verify', 'x-client-dn', 'x-client-s-dn'],
  },
]

/** Where the request comes from, and which URL the browser asked for. */
const ADDRESS: readonly Family[] = [
  { source: 'RFC 7239, and what came before it', names: ['forwarded', 'x-forwarded', 'x-forwarded-*'] },
  { source: 'proxies before RFC 7239', names: ['forwarded-for*', 'client-ip', 'x-client-ip', 'x-clientip'] },
  { source: 'nginx realip', names: ['x-real-*'] },
  {
    source: 'load balancers (Rackspace, GCE, F5, Exchange)',
    names: ['x-cluster-client-ip', 'x-proxyuser-ip', 'x-originating-ip', 'x-source-ip'],
  },
  { source: 'Akamai, Cloudflare Enterprise', names: ['true-client-*', 'x-true-client-ip'] },
  { source: 'Cloudflare', names: ['cf-connecting-ip*', 'cf-pseudo-ipv4', 'cf-visitor'] },
  { source: 'Amazon CloudFront', names: ['cloudfront-viewer-*', 'cloudfront-forwarded-*'] },
  { source: 'Fastly', names: ['fastly-client-*', 'fastly-ssl'] },
  { source: 'Azure Front Door', names: ['x-azure-*'] },
  { source: 'Fly.io', names: ['fly-client-ip', 'fly-forwarded-*'] },
  { source: 'Netlify', names: ['x-nf-client-connection-ip'] },
  { source: 'Vercel', names: ['x-vercel-*'] },
  { source: 'DigitalOcean', names: ['do-connecting-ip'] },
  { source: 'Imperva', names: ['incap-client-ip'] },
  // Some of them steer Envoy itself: retries, timeouts, the original path.
  { source: 'Envoy and Istio', names: ['x-envoy-*'] },
  { source: 'frameworks that read the scheme', names: ['front-end-https', 'x-url-scheme', 'x-scheme'] },
  { source: 'host overrides of Symfony, Plesk and others', names: ['x-host', 'x-http-host-override'] },
  { source: 'URL overrides of IIS and Symfony, auth_request', names: ['x-original-*', 'x-rewrite-url'] },
  // They move the line between mount point and path: `Script-Name: /public` makes `/admin` of `/public/admin`.
  {
    source: 'gunicorn (forwarder_headers), WSGI and FastCGI recipes',
    names: ['script-name', 'path-info', 'x-script-name'],
  },
  { source: 'Rack::Sendfile (CVE-2025-61780)', names: ['x-sendfile-type', 'x-accel-mapping'] },
  { source: 'Next.js middleware (CVE-2025-29927)', names: ['x-middleware-subrequest*'] },
  // The route allowed one method, and the upstream would serve another.
  {
    source: 'method overrides',
    names: ['x-http-method', 'x-http-method-override', 'x-method-override'],
  },
]

/** Fields that some shared caches obey instead of `Cache-Control`: RFC 9213 and its forerunners, nginx. */
const SHARED_CACHE_FIELDS = [
  'cdn-cache-control',
  'cloudflare-cdn-cache-control',
  'surrogate-control',
  'edge-control',
  'x-accel-expires',
]

/** Whether only shared caches read a field, by its folded name. */
export function isForSharedCaches(folded: string): boolean {
  return SHARED_CACHE_FIELDS.includes(folded)
}

/**
 * Client fields that never cross, and those that `request.ts` looks at one by one. They include every field that any
 * route adds: an upstream that believes such a field on one path believes it on all.
 */
export function droppedFromRequests(routes: readonly Pick<RouteConfig, 'headers'>[]): FieldNames {
  const families = [...IDENTITY, ...CLIENT_CERTIFICATE, ...ADDRESS].flatMap(({ names }) => names)
  const added = routes.flatMap(({ headers }) => headers.map(({ name }) => name))
  return fieldNames([...OURS, ...families, ...added])
}

/** Upstream fields that never cross, and those that `response.ts` looks at one by one. */
export function droppedFromResponses(): FieldNames {
  return fieldNames([
    ...HOP_BY_HOP,
    'access-control-*',
    'clear-site-data',
    'strict-transport-security',
    'alt-svc',
    'cloakroom-error',
    // Every answer has ours.
    'x-request-id',
    'set-cookie',
    'location',
    'content-location',
    'link',
    'refresh',
    'www-authenticate',
    'cache-control',
    ...SHARED_CACHE_FIELDS,
  ])
}

/** A set of HTTP field names, in every spelling that some server takes for the same name. */
export type FieldNames = {
  /** The name in its folded spelling if it is in the set, otherwise undefined. */
  find(name: string): string | undefined
}

/**
 * Compiles names, and prefixes of three characters or more written with a trailing `*`. Most names are not in the set,
 * and those are told apart by first letter and length, or first and third letter, without allocating. Every sign counts
 * as a hyphen: CGI-like servers make one variable of `X-Forwarded-For` and `X_Forwarded.For`, which would overrule ours.
 */
function fieldNames(names: Iterable<string>): FieldNames {
  const exact = new Set<string>()
  const prefixes = new Map<string, string[]>()
  for (const name of names) {
    if (name.endsWith('*')) addPrefix(prefixes, foldFieldName(name.slice(0, -1)))
    else exact.add(foldFieldName(name))
  }
  const byLength = new Uint32Array(MAX_LENGTH + 1)
  for (const name of exact) byLength[Math.min(name.length, MAX_LENGTH)]! |= bitAt(name, 0)
  // 128 entries, so that any character code of ASCII finds one.
  const byThird = new Uint32Array(128)
  for (let code = 0; code < 128; code++) {
    for (const start of prefixes.keys()) {
      if (LETTER_BITS[code] === bitAt(start, 2)) byThird[code]! |= bitAt(start, 0)
    }
  }

  function find(name: string): string | undefined {
    const first = LETTER_BITS[name.charCodeAt(0) & 0x7f]!
    const mayBeExact = (byLength[Math.min(name.length, MAX_LENGTH)]! & first) !== 0
    const mayBegin = name.length > 2 && (byThird[name.charCodeAt(2) & 0x7f]! & first) !== 0
    if (!mayBeExact && !mayBegin) return undefined
    const folded = foldFieldName(name)
    if (mayBeExact && exact.has(folded)) return folded
    if (!mayBegin) return undefined
    const begins = prefixes.get(folded.slice(0, 3))?.some((prefix) => folded.startsWith(prefix))
    return begins ? folded : undefined
  }
  return { find }
}

function addPrefix(prefixes: Map<string, string[]>, prefix: string): void {
  if (prefix.length < 3) throw new Error(`the prefix ${prefix} is too short`)
  const start = prefix.slice(0, 3)
  prefixes.set(start, [...(prefixes.get(start) ?? []), prefix])
}

/** The one spelling under which field names are compared: lower case, a hyphen for every sign. */
export function foldFieldName(name: string): string {
  const lower = name.toLowerCase()
  return SIGN.test(lower) ? lower.replaceAll(EVERY_SIGN, '-') : lower
}

/**
 * Removes the fields that `Connection` names, because they were meant for this hop only (RFC 9110 §7.6.1). Returns their
 * folded names. `connection` is the field's value, each of several after a comma.
 */
export function removeNamed(fields: string[], connection: string): ReadonlySet<string> {
  if (connection === '' || connection === ',keep-alive' || connection === ',close') return NONE
  // Blanks and tabs alone are no part of an option (RFC 9110 §5.6.3); `trim` would take more, such as U+00A0.
  const options = connection.split(',').map((option) => option.replace(/^[ \t]+|[ \t]+$/g, ''))
  const named = new Set(options.map(foldFieldName))
  let kept = 0
  for (let i = 0; i < fields.length; i += 2) {
    if (named.has(foldFieldName(fields[i]!))) continue
    fields[kept] = fields[i]!
    fields[kept + 1] = fields[i + 1]!
    kept += 2
  }
  fields.length = kept
  return named
}

const NONE: ReadonlySet<string> = new Set()

const SIGN = /[^a-z0-9-]/
const EVERY_SIGN = /[^a-z0-9]/g

/** Lengths from here on share one entry of the table. */
const MAX_LENGTH = 63

/** One bit for the first letter of a name in either case, and one for all signs. Digits share theirs with letters. */
const LETTER_BITS = Uint32Array.from({ length: 128 }, (_, code) => {
  const letter = String.fromCharCode(code)
  return /[a-z0-9]/i.test(letter) ? 1 << (code & 31) : 1
})

function bitAt(folded: string, index: number): number {
  return LETTER_BITS[folded.charCodeAt(index)]!
}

/** Says whether a cookie name is one of ours, in any letter case: user agents compare name prefixes that way. */
export type IsOwnCookie = (name: string) => boolean

/** Names that belong to Cloakroom: the session cookie's own and every name that begins with `<name>-login`. */
export function ownCookieNames(sessionCookie: string): IsOwnCookie {
  const own = sessionCookie.toLowerCase()
  const login = `${own}-login`
  return function isOwnCookie(name) {
    if (name.length < own.length) return false
    const lower = name.toLowerCase()
    return lower === own || lower.startsWith(login)
  }
}

/** A `Cookie` field value without our cookies, everything else byte-exact; undefined when nothing is left. */
export function withoutOwnCookies(cookie: string, isOwn: IsOwnCookie): string | undefined {
  let kept: string | undefined
  let changed = false
  let start = 0
  while (start <= cookie.length) {
    const semicolon = cookie.indexOf(';', start)
    const end = semicolon === -1 ? cookie.length : semicolon
    if (isOwn(cookieName(cookie, start, end))) {
      // Up to the first cookie of ours nothing was copied: what precedes it is kept in one piece.
      if (!changed) kept = start === 0 ? undefined : cookie.slice(0, start - 1)
      changed = true
    } else if (changed) {
      const pair = cookie.slice(start, end)
      kept = kept === undefined ? pair.trimStart() : `${kept};${pair}`
    }
    start = end + 1
  }
  const rest = changed ? kept : cookie
  return rest === undefined || rest.trim() === '' ? undefined : rest
}

/** Whether a `Set-Cookie` field value would make or overwrite one of our cookies. */
export function setsOwnCookie(setCookie: string, isOwn: IsOwnCookie): boolean {
  const semicolon = setCookie.indexOf(';')
  const pair = setCookie.slice(0, semicolon === -1 ? setCookie.length : semicolon)
  // RFC 6265bis §5.7: a cookie without a name is sent back as its bare value, so `=name=value` reads as ours.
  const named = pair.replace(/^[\s=]+/, '')
  return isOwn(cookieName(named, 0, named.length))
}

function cookieName(text: string, start: number, end: number): string {
  const equals = text.indexOf('=', start)
  return text.slice(start, equals === -1 || equals > end ? end : equals).trim()
}
