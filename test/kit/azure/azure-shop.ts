import type { ResourcePolicy } from '../../../src/demo/azure/azure-policy.ts'
import type { Browser } from '../browsers/browser.ts'
import { field } from '../local-server.ts'
import { movableClock, type Scope, type Shop, startShop } from '../shops/shop.ts'
import { type ScriptedAzure, startAzureAdV1, startEntraV2 } from './azure-ad.ts'

/** Life of the access tokens of these tests: they are renewed from the half of it. */
export const LIFE_SECONDS = 600

/** The names of the two APIs at a provider, and how the config names them. */
export const NAMES = {
  v1: {
    orders: 'https://service.contoso.com/',
    billing: 'api://billing',
    resources: {
      orders: { resource: 'https://service.contoso.com/', audience: 'https://service.contoso.com/' },
      billing: { resource: 'api://billing', audience: 'api://billing' },
    },
  },
  v2: {
    orders: 'api://orders',
    billing: 'https://billing.contoso.com',
    resources: {
      orders: { scopes: ['api://orders/.default'], audience: 'api://orders' },
      billing: {
        scopes: ['https://billing.contoso.com/read', 'https://billing.contoso.com/pay'],
        audience: 'https://billing.contoso.com',
      },
    },
  },
} as const

/** A signed-in user of a shop behind a scripted Azure AD, and the clock of its Cloakroom. */
export type AzureScene = {
  readonly azure: ScriptedAzure
  readonly shop: Shop
  readonly browser: Browser
  readonly orders: string
  readonly billing: string
  advance(seconds: number): void
  /** Says how the provider answers for billing from now on; `undefined` makes it well again. */
  setBilling(policy: ResourcePolicy | undefined): void
}

/** Signs in. Neither API has been called; the token of the code is for orders. `wishes` are of the `provider:` section. */
export async function signedInAtAzure(
  t: Scope,
  version: 'v1' | 'v2',
  wishes: object = {},
): Promise<AzureScene> {
  const policy = { accessTokenSeconds: LIFE_SECONDS }
  // As in the real v1, tokens are issued under a name that is no address of the endpoints.
  const azure =
    version === 'v1'
      ? await startAzureAdV1({
          issuer: 'https://sts.windows.net/7fe81447-da57-4385-becb-6de57f21477e/',
          policy,
        })
      : await startEntraV2({ policy })
  t.after(() => azure.close())
  const { orders, billing, resources } = NAMES[version]
  const clock = movableClock()
  const shop = await startShop(t, {
    provider: { ...azure.settings, ...(version === 'v1' ? { endpoints: azure.endpoints } : {}), ...wishes },
    jwks: azure.endpoints.jwks,
    audiences: { orders, billing },
    resources,
    session: { idleTimeout: '5h' },
    now: clock.now,
  })
  const browser = shop.browser()
  await browser.signIn()
  return {
    ...{ azure, shop, browser, orders, billing },
    advance: (seconds) => clock.advance(seconds * 1000),
    setBilling: (wanted) => {
      azure.policy.resources = wanted ? { [billing]: wanted } : {}
    },
  }
}

/** The form of the latest token request, secrets included; throws when a parameter stands in it twice. */
export function lastForm({ azure }: AzureScene): Record<string, string> {
  const form = azure.tokenRequests().at(-1)?.form ?? []
  const asObject = Object.fromEntries(form)
  if (Object.keys(asObject).length !== form.length) throw new Error('a parameter is sent twice')
  return asObject
}

/** The refresh token that was issued last; both versions give a new one with every answer. */
export function newestRefreshToken({ azure }: AzureScene): string {
  return azure.issuedSecrets.findLast((secret) => /^(AwABAAAAvPM1|0\.ARoA)/.test(secret)) ?? ''
}

/** Number of refresh requests so far. */
export function refreshCalls({ azure }: AzureScene): number {
  return azure.tokenRequests().filter(({ form }) => field(form, 'grant_type') === 'refresh_token').length
}
