import { randomBytes } from 'node:crypto'
import { createDemoApi } from './demo-api.ts'
import { billingContent, ordersContent } from './demo-content.ts'
import { type LoopbackServer, listenOnLoopback } from './loopback-server.ts'
import { createIdentityProvider } from './provider/identity-provider.ts'
import type { ProtectedResource, TokenRequest } from './provider/identity-provider-options.ts'
import { createSpaServer } from './spa-server.ts'

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
