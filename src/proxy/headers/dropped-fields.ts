import { SHARED_CACHE_FIELDS } from './cache-control.ts'
import { type FieldNames, fieldNames } from './field-names.ts'

/** RFC 9110 §7.6.1 and the older names of the same kind; message framing is made anew for each connection. */
const HOP_BY_HOP = ['connection', 'keep-alive', 'proxy-*', 'te', 'trailer', 'transfer-encoding', 'upgrade']

/** What is per connection, or Cloakroom's own to say or to read. */
const OURS = [
  ...HOP_BY_HOP,
  // No header of HTTP; but CGI makes of it the variable that names the proxy for requests of the program's own
  // (CVE-2016-5385).
  'proxy',
  'host',
  'content-length',
  'expect',
  'http2-settings',
  'cookie',
  'authorization',
  'x-csrf',
  'via',
  'x-request-id',
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

/** Client fields that never cross: they are per connection, ours to say, or something an upstream would believe. */
export const TAKEN_FROM_REQUESTS: readonly string[] = [
  ...OURS,
  ...[...IDENTITY, ...CLIENT_CERTIFICATE, ...ADDRESS].flatMap(({ names }) => names),
]

/** Upstream fields that never cross, and those looked at one by one. */
export const TAKEN_FROM_RESPONSES: FieldNames = fieldNames([
  ...HOP_BY_HOP,
  'access-control-*',
  'clear-site-data',
  'strict-transport-security',
  'alt-svc',
  'cloakroom-error',
  'set-cookie',
  'location',
  'content-location',
  'link',
  'refresh',
  'www-authenticate',
  'cache-control',
  ...SHARED_CACHE_FIELDS,
])
