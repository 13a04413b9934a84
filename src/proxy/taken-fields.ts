import { type FieldNames, fieldNames } from './field-names.ts'
import { SHARED_CACHE_FIELDS } from './private-caching.ts'

/** RFC 9110 §7.6.1 and the older names of the same kind; message framing is made anew for each connection. */
const HOP_BY_HOP = ['connection', 'keep-alive', 'proxy-*', 'te', 'trailer', 'transfer-encoding', 'upgrade']

/** Client fields that never cross: they are per connection, ours to say, or spoofed identity. */
export const TAKEN_FROM_REQUESTS: readonly string[] = [
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
  'forwarded',
  'x-forwarded',
  'x-forwarded-*',
  'x-request-id',
  'x-real-ip',
  'x-client-ip',
  'x-cluster-client-ip',
  'true-client-ip',
  'cf-connecting-ip',
  'x-original-*',
  'x-rewrite-url',
  'x-http-method',
  'x-http-method-override',
  'x-method-override',
  'x-ms-*',
  'x-amzn-oidc-*',
  'x-auth-request-*',
  'remote-user',
  'x-remote-user',
  'client-cert*',
  'x-client-cert*',
  'x-ssl-client-*',
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
  'www-authenticate',
  'cache-control',
  ...SHARED_CACHE_FIELDS,
])
