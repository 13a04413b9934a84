import { randomBytes } from 'node:crypto'
import type { RequestListener } from 'node:http'
import { createDemoApi } from './demo-api.ts'
import { createFiles } from './files.ts'
import { createInvoices } from './invoices.ts'
import { type LoopbackServer, listenOnLoopback } from './loopback-server.ts'
import { createOrders } from './orders.ts'
import { createIdentityProvider } from './provider/identity-provider.ts'
import type { Person, ProtectedResource, TokenRequest } from './provider/identity-provider-options.ts'
import { loadStaticFiles, sendStaticFile } from './static-files.ts'

/** Resource indicator and audience of the two APIs: names, not addresses. */
export const ORDERS_RESOURCE = 'https://orders.example.com'
export const BILLING_RESOURCE = 'https://billing.example.com'

/** One who has the role that a route asks for, and one who has not. */
const PERSONS: readonly Person[] = [
  {
    sub: 'ada',
    name: 'Ada Lovelace',
    email: 'ada@example.com',
    title: 'Analyst',
    roles: ['manager', 'staff'],
  },
  { sub: 'grace', name: 'Grace Hopper', email: 'grace@example.com', title: 'Rear admiral', roles: ['staff'] },
]

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
    const orders = createOrders()
    const ordersApi = {
      ...{ ...api, audience: ORDERS_RESOURCE, requiredScope: 'orders.read', content: orders.content },
      operations: [...orders.operations, ...createFiles()],
    }
    const billingApi = {
      ...{ ...api, audience: BILLING_RESOURCE, requiredScope: 'billing.read' },
      ...createInvoices(),
    }
    return {
      issuer,
      clientId,
      clientSecret,
      ordersUrl: await start(() => createDemoApi(ordersApi)),
      billingUrl: await start(() => createDemoApi(billingApi)),
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
    persons: PERSONS,
    secondFactorAcr: 'mfa',
    ...(onTokenRequest && { onTokenRequest }),
  }).callback
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
