import { setTimeout as delay } from 'node:timers/promises'
import { startAzureAdV1 } from '../azure/azure-ad.ts'
import { startCloakroom } from '../cloakroom.ts'
import { startUpstream } from '../upstream/upstream.ts'
import { traceWalk, type Walk } from './walk.ts'

const RESOURCE = 'https://service.contoso.com/'
const LIFE_SECONDS = 600
/** Enough for what a request leaves to be done once it is answered. */
const AFTER_MS = 50

/** What one GET of a signed-in user passes through, when its connections are open and the code has run before. */
export type Walks = {
  /** Session and access token are in memory. */
  readonly hot: Walk
  /** The access token has expired; the session has been read again. */
  readonly expired: Walk
}

/** Both walks, through a whole Cloakroom between an Azure AD and an API that verifies tokens. With the memory store unless given. */
export async function traceWalks(redisUrl?: string): Promise<Walks> {
  await using scene = new AsyncDisposableStack()
  // A name that is no address of the endpoints, as in the real v1.
  const azure = await startAzureAdV1({
    issuer: 'https://sts.windows.net/7fe81447-da57-4385-becb-6de57f21477e/',
    policy: { accessTokenSeconds: LIFE_SECONDS },
  })
  scene.defer(() => azure.close())
  const api = await startUpstream({ jwks: azure.endpoints.jwks, issuer: azure.issuer, audience: RESOURCE })
  scene.defer(() => api.close())
  let aheadMs = 0
  const cloakroom = await startCloakroom(
    {
      publicUrl: 'https://app.example.test',
      provider: { ...azure.settings, endpoints: azure.endpoints },
      session: redisUrl === undefined ? {} : { store: { type: 'redis', url: redisUrl } },
      resources: { orders: { resource: RESOURCE, audience: RESOURCE } },
      routes: [
        { path: '/api/orders', id: 'orders', upstream: api.url, resource: 'orders' },
        { path: '/static', id: 'static', upstream: api.url, auth: 'optional' },
      ],
    },
    { now: () => Date.now() + aheadMs },
  )
  scene.defer(() => cloakroom.close())
  const browser = cloakroom.browser()
  await browser.signIn()

  async function get(refreshes: 0 | 1): Promise<void> {
    const before = azure.tokenRequests().length
    const { status, body } = await browser.fetch('/api/orders')
    await delay(AFTER_MS)
    const made = azure.tokenRequests().length - before
    if (status !== 200 || made !== refreshes) throw new Error(`${status} after ${made} refreshes: ${body}`)
  }
  await get(0)
  const hot = await traceWalk(() => get(0))
  async function expire(): Promise<void> {
    aheadMs += LIFE_SECONDS * 1_000
    // The copy of the session outlives no access token: another request of the page has read it again.
    await browser.fetch('/static')
  }
  await expire()
  await get(1)
  const expired = await traceWalk(() => get(1), expire)
  return { hot, expired }
}
