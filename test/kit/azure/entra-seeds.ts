import assert from 'node:assert/strict'
import type { TestContext } from 'node:test'
import { startCloakroom } from '../cloakroom.ts'
import { field } from '../local-server.ts'
import { APP, movableClock } from '../shops/shop.ts'
import { startUpstream } from '../upstream/upstream.ts'
import { startAzureAdV1, startEntraV2 } from './azure-ad.ts'
import {
  SEED_ACCESS_TOKEN,
  SEED_REFRESH_TOKEN,
  SEED_SUCCESS,
  SEED_SUCCESS_MULTIPLE,
  SEED_SUCCESS_V2,
} from './azure-fixtures.ts'

type Define = (what: string, run: (t: TestContext) => Promise<void>) => void

/** A documented success: its bytes, and what is in them. */
type Seed = {
  readonly body: string
  readonly accessToken: string
  readonly refreshToken: string
  readonly lifeSeconds: number
}

const SEEDS: Record<'v1' | 'v2', Record<string, Seed>> = {
  v1: {
    'the documented success': {
      body: SEED_SUCCESS,
      accessToken: SEED_ACCESS_TOKEN,
      refreshToken: SEED_REFRESH_TOKEN,
      lifeSeconds: 3600,
    },
    'the documented success for a further resource': {
      body: SEED_SUCCESS_MULTIPLE,
      accessToken: ` ${SEED_ACCESS_TOKEN}`,
      refreshToken: SEED_REFRESH_TOKEN,
      lifeSeconds: 3600,
    },
  },
  v2: {
    'the documented success': {
      body: SEED_SUCCESS_V2,
      accessToken: 'eyJ0eXAiOiJKV1QiLCJub25jZSI6IkJuUXdJd0ZFc...',
      refreshToken: '0.ARoAv4j5cvGGr0GRqy180BHbR8lB8cvIWGtHpawGN...',
      lifeSeconds: 4557,
    },
  },
}

const RESOURCES = {
  v1: {
    name: 'https://service.contoso.com/',
    first: { resource: 'api://first', audience: 'api://first' },
    asked: { resource: 'https://service.contoso.com/', audience: 'https://service.contoso.com/' },
  },
  v2: {
    name: 'https://graph.microsoft.com',
    first: { scopes: ['api://first/.default'], audience: 'api://first' },
    asked: { scopes: ['https://graph.microsoft.com/User.Read'] },
  },
}

/** Defines what must become of each documented success: both tokens are used as they are, for as long as it says. */
export function testSeeds(version: 'v1' | 'v2', define: Define): void {
  for (const [name, seed] of Object.entries(SEEDS[version]))
    define(`${name} is used as it is, blanks and all`, async (t) => {
      const at = await scene(t, version)
      at.answerWith(seed.body)
      for (const aheadSeconds of [0, seed.lifeSeconds * 0.45]) {
        at.clock.advance(aheadSeconds * 1000)
        assert.equal((await at.browser.fetch('/api/asked')).status, 200)
        assert.equal(at.api.requests.at(-1)?.headers.authorization, `Bearer ${seed.accessToken}`)
        assert.equal(at.refreshes().length, 1)
      }
      at.clock.advance(seed.lifeSeconds * 0.55 * 1000)
      assert.equal((await at.browser.fetch('/api/asked')).status, 200)
      assert.deepEqual([at.refreshes().length, at.refreshes().at(-1)], [2, seed.refreshToken])
    })
}

/** The API takes any token: the documented ones have run out long ago, and nobody has their keys. */
async function scene(t: TestContext, version: 'v1' | 'v2') {
  const azure = await (version === 'v1' ? startAzureAdV1() : startEntraV2())
  t.after(() => azure.close())
  const api = await startUpstream()
  t.after(() => api.close())
  const clock = movableClock()
  const { name, first, asked } = RESOURCES[version]
  const cloakroom = await startCloakroom(
    {
      publicUrl: APP,
      provider: { ...azure.settings, ...(version === 'v1' ? { endpoints: azure.endpoints } : {}) },
      session: { idleTimeout: '5h' },
      resources: { first, asked },
      routes: [
        { path: '/api/first', upstream: api.url, resource: 'first' },
        { path: '/api/asked', upstream: api.url, resource: 'asked' },
        { path: '/', upstream: api.url, auth: 'anonymous' },
      ],
    },
    { now: clock.now },
  )
  t.after(() => cloakroom.close())
  const browser = cloakroom.browser()
  await browser.signIn()
  return {
    ...{ api, browser, clock },
    answerWith(body: string) {
      azure.policy.resources = { [name]: { outcome: 'raw', raw: { status: 200, body } } }
    },
    /** The refresh tokens that were offered, in order. */
    refreshes: () =>
      azure
        .tokenRequests()
        .filter(({ form }) => field(form, 'grant_type') === 'refresh_token')
        .map(({ form }) => field(form, 'refresh_token')),
  }
}
