import type { FetchAnswer } from '../browsers/browser.ts'
import { type RunningCloakroom, startCloakroom } from '../cloakroom.ts'
import type { ConfigData } from '../config/cloakroom-config.ts'
import { startUpstream, type Upstream } from '../upstream/upstream.ts'

/** Where clean-up is registered: a test's own context. */
export type Scope = { after(cleanUp: () => unknown): void }

/** The origin browsers see: https, so that the cookie is the one of production. */
export const APP = 'https://app.example.test'
export const ORDERS = 'https://orders.example.com'
export const BILLING = 'https://billing.example.com'

/** Two APIs with a resource each, behind one Cloakroom. */
export type ShopParts = {
  /** The `provider:` section. */
  readonly provider: ConfigData & { readonly issuer: string }
  /** Where the APIs fetch the keys that verify access tokens. */
  readonly jwks: string
  /** The `aud` that each API insists on; ORDERS and BILLING unless given. */
  readonly audiences?: { readonly orders: string; readonly billing: string }
  /** The `resources:` section; by RFC 8707 indicator unless given. */
  readonly resources?: ConfigData
  readonly redisUrl?: string
  /** More of the `session:` section. */
  readonly session?: ConfigData
  /** Epoch ms, for Cloakroom alone. */
  readonly now?: () => number
  /** That of `now` unless given. */
  readonly monotonicNow?: () => number
}

/** What a running shop is made of. */
export type Shop = {
  readonly cloakroom: RunningCloakroom
  readonly orders: Upstream
  readonly billing: Upstream
  browser: RunningCloakroom['browser']
}

/** Starts both APIs and a Cloakroom in this process. */
export async function startShop(t: Scope, parts: ShopParts): Promise<Shop> {
  const { config, orders, billing } = await startApis(t, parts)
  const cloakroom = await startCloakroom(config, clocksOf(parts))
  t.after(() => cloakroom.close())
  return { cloakroom, orders, billing, browser: cloakroom.browser }
}

function clocksOf({ now, monotonicNow }: ShopParts) {
  return { ...(now ? { now } : {}), ...(monotonicNow ? { monotonicNow } : {}) }
}

/** Starts both APIs, which verify signature, issuer and `aud`, and gives the config of a Cloakroom in front of them. */
export async function startApis(
  t: Scope,
  parts: ShopParts,
): Promise<{ config: ConfigData; orders: Upstream; billing: Upstream }> {
  const { provider, jwks, redisUrl } = parts
  const audiences = parts.audiences ?? { orders: ORDERS, billing: BILLING }
  const start = async (audience: string) => {
    const api = await startUpstream({ jwks, issuer: provider.issuer, audience })
    t.after(() => api.close())
    return api
  }
  const [orders, billing] = await Promise.all([start(audiences.orders), start(audiences.billing)])
  const spa = await startUpstream()
  t.after(() => spa.close())
  const config = {
    publicUrl: APP,
    provider,
    session: {
      ...(redisUrl === undefined ? {} : { store: { type: 'redis', url: redisUrl } }),
      ...parts.session,
    },
    resources: parts.resources ?? {
      orders: { resource: ORDERS, audience: ORDERS },
      billing: { resource: BILLING, audience: BILLING },
    },
    routes: [
      { path: '/api/orders', id: 'orders', upstream: orders.url, resource: 'orders' },
      { path: '/api/billing', id: 'billing', upstream: billing.url, resource: 'billing' },
      { path: '/', id: 'spa', upstream: spa.url, auth: 'anonymous' },
    ],
  }
  return { config, orders, billing }
}

/** Status and problem code of an answer, or its token's `aud`: what most assertions are about. */
export function verdict(answer: FetchAnswer): [status: number, codeOrAudience: unknown] {
  const isJson = answer.headers['content-type']?.includes('json') === true
  const body = isJson ? answer.json() : {}
  return [answer.status, body.code ?? body.aud]
}

/** A clock for Cloakroom that runs ahead of the real one by as much as it is told. */
export function movableClock() {
  let aheadMs = 0
  return {
    now: () => Date.now() + aheadMs,
    advance(ms: number): void {
      aheadMs += ms
    },
  }
}
