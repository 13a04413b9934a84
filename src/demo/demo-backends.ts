import { randomBytes } from 'node:crypto'
import type { RequestListener } from 'node:http'
import { createDemoApi } from './demo-api.ts'
import { type LoopbackServer, listenOnLoopback } from './loopback-server.ts'
import { createIdentityProvider } from './provider/identity-provider.ts'
import type { ProtectedResource, TokenRequest } from './provider/identity-provider-options.ts'
import { loadStaticFiles, sendStaticFile } from './static-files.ts'

/** Resource indicator and audience of the two APIs: names, not addresses. */
export const ORDERS_RESOURCE = 'https://orders.example.com'
export const BILLING_RESOURCE = 'https://billing.example.com'

/** What the demo's neighbours are told. */
export type DemoBackendOptions = {
  /** The origin Cloakroom will have, where the provider may send people back to. */
  readonly publicUrl: string
  readonly accessTokenTtlSeconds: number
  /** Port of the identity provider; default any free one. */
  readonly providerPort?: number
  readonly onTokenRequest?: (request: TokenRequest) => void
}

/** Everything that stands around Cloakroom in the demo, listening on 127.0.0.1. */
export type DemoBackends = {
  readonly issuer: string
  readonly clientId: string
  readonly clientSecret: string
  /** Origins. */
  readonly ordersUrl: string
  readonly billingUrl: string
  readonly spaUrl: string
  close(): Promise<void>
}

/** Starts the identity provider, the two APIs and the application's file server. Rejects if a port cannot be had. */
export async function startDemoBackends(options: DemoBackendOptions): Promise<DemoBackends> {
  const clientId = 'cloakroom-demo'
  const clientSecret = randomBytes(32).toString('base64url')
  const servers: LoopbackServer[] = []
  const start = async (...args: Parameters<typeof listenOnLoopback>) => {
    const server = await listenOnLoopback(...args)
    servers.push(server)
    return server.origin
  }
  const close = async () => {
    await Promise.all(servers.map((server) => server.close()))
  }
  try {
    const provider = (issuer: string) => demoProvider(issuer, { clientId, clientSecret }, options)
    const issuer = await start(provider, options.providerPort)
    const api = { issuer, jwksUrl: `${issuer}/jwks` }
    const orders = { ...api, audience: ORDERS_RESOURCE, requiredScope: 'orders.read', content: ordersContent }
    const billing = {
      ...api,
      audience: BILLING_RESOURCE,
      requiredScope: 'billing.read',
      content: billingContent,
    }
    return {
      issuer,
      clientId,
      clientSecret,
      ordersUrl: await start(() => createDemoApi(orders)),
      billingUrl: await start(() => createDemoApi(billing)),
      spaUrl: await start(() => createSpaServer()),
      close,
    }
  } catch (error) {
    await close()
    throw error
  }
}

function demoProvider(
  issuer: string,
  client: { clientId: string; clientSecret: string },
  { publicUrl, accessTokenTtlSeconds, onTokenRequest }: DemoBackendOptions,
) {
  const resource = (audience: string, scope: string): ProtectedResource => ({
    audience,
    scope,
    accessTokenTtlSeconds,
  })
  return createIdentityProvider({
    issuer,
    clients: [
      {
        ...client,
        clientName: 'the Cloakroom demo',
        authMethod: 'client_secret_basic',
        redirectUris: [`${publicUrl}/bff/callback`],
        postLogoutRedirectUris: [`${publicUrl}/bff/logged-out`],
      },
    ],
    resources: {
      [ORDERS_RESOURCE]: resource(ORDERS_RESOURCE, 'orders.read'),
      [BILLING_RESOURCE]: resource(BILLING_RESOURCE, 'billing.read billing.pay'),
    },
    ...(onTokenRequest && { onTokenRequest }),
  }).callback
}

type Content = Record<string, unknown>

type Order = {
  readonly id: string
  readonly item: string
  readonly quantity: number
  readonly status: string
  readonly placed: string
}

const ORDERS: readonly Order[] = [
  { id: 'A-1042', item: 'Wool overcoat, charcoal', quantity: 1, status: 'shipped', placed: '2026-11-14' },
  { id: 'A-1047', item: 'Leather gloves, size 8', quantity: 2, status: 'packing', placed: '2026-11-17' },
  { id: 'A-1051', item: 'Umbrella, walnut handle', quantity: 1, status: 'placed', placed: '2026-11-19' },
]

/** What the orders API knows. */
function ordersContent(): Content {
  return { api: 'orders', orders: ORDERS }
}

/** What the billing API knows; amounts in euro cents. */
function billingContent(): Content {
  return {
    api: 'billing',
    currency: 'EUR',
    invoices: [
      { id: 'INV-2211', order: 'A-1042', amount: 28900, status: 'paid', due: '2026-11-28' },
      { id: 'INV-2216', order: 'A-1047', amount: 11800, status: 'open', due: '2026-12-01' },
      { id: 'INV-2220', order: 'A-1051', amount: 6450, status: 'open', due: '2026-12-03' },
    ],
  }
}

const PAGE_HEADERS = {
  // Scripts, styles and calls from this origin only: a strict policy is half of what keeps a browser application safe.
  'content-security-policy':
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
  'referrer-policy': 'same-origin',
  'cache-control': 'no-cache',
}

/** Serves the demo's single-page application: files by name, and `index.html` for every other path without an extension. */
export function createSpaServer(): RequestListener {
  const files = loadStaticFiles(new URL('./spa/', import.meta.url))

  return function spaServer(req, res) {
    req.resume()
    const path = req.url?.split('?', 1)[0] ?? '/'
    const name = path.includes('.') ? path.slice(1) : 'index.html'
    const file = files.get(name)
    if (file && (req.method === 'GET' || req.method === 'HEAD'))
      return void sendStaticFile(res, file, PAGE_HEADERS)
    res.writeHead(file ? 405 : 404, { ...PAGE_HEADERS, 'content-type': 'text/plain; charset=utf-8' })
    res.end(file ? 'Only GET and HEAD.\n' : 'There is no such file.\n')
  }
}
