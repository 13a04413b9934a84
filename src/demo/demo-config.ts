import { BILLING_RESOURCE, type DemoBackends, ORDERS_RESOURCE } from './demo-backends.ts'

/** Addresses that the demo's configuration names. */
export type DemoConfigInput = {
  readonly publicUrl: string
  /** `host:port`. */
  readonly listen: string
  readonly adminListen: string
  readonly backends: Pick<DemoBackends, 'issuer' | 'clientId' | 'ordersUrl' | 'billingUrl' | 'spaUrl'>
}

/** The demo's configuration file: what an operator would write, secrets by name of their environment variable. */
export function demoConfigText({ publicUrl, listen, adminListen, backends }: DemoConfigInput): string {
  return `# The configuration of \`cloakroom demo\`.
publicUrl: ${publicUrl}
listen: ${listen}
admin: { listen: "${adminListen}" }

provider:
  issuer: ${backends.issuer}
  clientId: ${backends.clientId}
  clientAuth: { method: client_secret_basic, secret: { env: CLOAKROOM_DEMO_CLIENT_SECRET } }
  resourceDialect: resource-indicator     # RFC 8707: a refresh request names one resource
  scopes: [openid, profile, email, offline_access]

session:
  store: { type: memory }                 # one process, lost at its end; production uses redis
  keys: [ { env: CLOAKROOM_DEMO_SESSION_KEY } ]
  idleTimeout: 30m
  absoluteTimeout: 10h

resources:                                # one refresh token, an access token for each of these
  orders:  { resource: ${ORDERS_RESOURCE}, scopes: [orders.read], audience: ${ORDERS_RESOURCE} }
  billing: { resource: ${BILLING_RESOURCE}, scopes: [billing.read], audience: ${BILLING_RESOURCE} }

routes:                                   # the longest path wins
  - path: /api/orders
    id: orders
    upstream: ${backends.ordersUrl}
    rewrite: /orders
    resource: orders
    maxBody: 16KiB                        # the API reads it whole
  - path: /api/files
    id: files
    upstream: ${backends.ordersUrl}
    rewrite: /files
    resource: orders
    csrf: fetch-metadata                  # a link can download; a link can send no header
    maxBody: 20MiB
  - { path: /api/billing, id: billing, upstream: "${backends.billingUrl}", rewrite: /invoices, resource: billing }
  - path: /api/billing/payments
    id: payments
    upstream: ${backends.billingUrl}
    rewrite: /payments
    resource: billing
    maxBody: 16KiB
    require: { acr: [mfa] }               # a second factor: who signed in without it is asked for it
  - path: /api/billing/report
    id: report
    upstream: ${backends.billingUrl}
    rewrite: /report
    resource: billing
    require: { claims: { roles: [manager] } }
  - { path: /, id: spa, upstream: "${backends.spaUrl}", auth: anonymous }

tests:
  - request: GET /api/orders
    expect: { route: orders, upstream: "${backends.ordersUrl}/orders", resource: orders }
  - request: GET /api/billing
    expect: { route: billing, upstream: "${backends.billingUrl}/invoices", resource: billing }
  - request: POST /api/billing/payments
    as: { roles: [staff] }
    expect: { code: reauthentication_required }
  - request: GET /api/billing/report
    as: { roles: [staff] }
    expect: { code: access_denied }
`
}
