import type { ServerResponse } from 'node:http'
import { startCloakroom } from '../cloakroom.ts'
import type { ConfigData } from '../config/cloakroom-config.ts'
import {
  type RotatingControl,
  type RotatingOptions,
  startRotatingProvider,
} from '../provider/rotating-provider.ts'
import { startUpstream } from '../upstream/upstream.ts'

/** Where clean-up is registered: a test's own context. */
export type Scope = { after(cleanUp: () => unknown): void }

export const ORDERS = 'https://orders.test'

/** One provider, one API that needs a token for `orders`, one Cloakroom; and a clock that runs ahead when told. */
export async function setUp(t: Scope, options: { provider?: RotatingOptions; config?: ConfigData } = {}) {
  const provider = await startRotatingProvider(options.provider)
  t.after(() => provider.close())
  const api = await startUpstream()
  t.after(() => api.close())
  let aheadMs = 0
  const settings = {
    resources: { orders: { resource: ORDERS, audience: ORDERS } },
    routes: [
      { path: '/api/orders', upstream: api.url, resource: 'orders' },
      { path: '/', upstream: api.url, auth: 'anonymous' },
    ],
    ...options.config,
    provider: { ...provider.settings, ...(options.config?.provider as ConfigData | undefined) },
  }
  const start = async (changes: ConfigData = {}) => {
    const cloakroom = await startCloakroom({ ...settings, ...changes }, { now: () => Date.now() + aheadMs })
    t.after(() => cloakroom.close())
    return cloakroom
  }
  const cloakroom = await start()
  return {
    ...{ provider, api, cloakroom, settings, browser: cloakroom.browser() },
    /** Another Cloakroom with the same settings but for these. */
    start,
    advance(ms: number) {
      aheadMs += ms
    },
  }
}

/** Starts a sign-in, and stops before the provider's response is delivered: gives the URL that would deliver it. */
export async function callbackOf(
  { browser }: Pick<Awaited<ReturnType<typeof setUp>>, 'browser'>,
  returnUrl = '/',
): Promise<URL> {
  const login = await browser.open(`/bff/login?returnUrl=${encodeURIComponent(returnUrl)}`)
  const authorization = await fetch(String(login.headers.location), { redirect: 'manual' })
  return new URL(String(authorization.headers.get('location')))
}

/** Answers one path of the provider differently. */
export function instead(path: string, answer: (res: ServerResponse) => void): RotatingControl['intercept'] {
  return (request, res) => {
    if (request.path !== path) return false
    answer(res)
    return true
  }
}
