import assert from 'node:assert/strict'
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Configuration, JWK, Provider } from 'oidc-provider'
import type { Browser, Landing } from '../kit/browsers/browser.ts'
import { startRecordingProxy } from '../kit/recording-proxy.ts'
import {
  APP,
  CLIENT_ID,
  NO_PROFILE,
  NO_SIGNALS,
  type ProviderKind,
  type RealProvider,
  type Scene,
  throughForms,
} from './provider.ts'

const SECRET = 'oidc-provider-client-secret-0123456789'
const BILLING = 'https://billing.example.com'
const SCOPES: Readonly<Record<string, string>> = {
  'https://orders.example.com': 'orders.read',
  [BILLING]: 'billing.read',
}
/** Short, because the tests wait for its end; long enough for the first calls of a row on a busy machine. */
const TOKEN_SECONDS = 5

/**
 * The npm package as it comes: its own pages for sign-in and consent, and `offline_access` only with prompt=consent.
 * Added is what there is no default for: a client, persons, resources (RFC 8707); and every refresh token is for one use.
 */
export const oidcProvider: ProviderKind = {
  id: 'oidc-provider',
  title: 'oidc-provider 9, strict defaults',
  section: 'oidc-provider',
  missing: async () => undefined,
  start,
  limits: {
    'shared signals': NO_SIGNALS,
    profile: NO_PROFILE,
    'front-channel logout': { reason: 'it has back-channel logout only', check: assertNoFrontChannel },
  },
}

async function start(): Promise<RealProvider> {
  const proxy = await startRecordingProxy()
  const issuer = proxy.origin
  const application = await startRecordingProxy()
  const removed = new Set<string>()
  const grants = new Set<string>()
  const cookieKeys = [randomBytes(32).toString('base64url')]
  let keys = [newKey()]
  let running: { provider: Provider; handle: RequestListener }

  /** What it stores is kept by the package itself, so that a new one goes on where the old one was. */
  async function makeProvider(): Promise<void> {
    const provider = await createProvider(issuer, {
      ...{ keys, cookieKeys, removed, application: application.origin },
    })
    provider.on('grant.saved', (grant) => void (grant.jti && grants.add(grant.jti)))
    running = { provider, handle: provider.callback() }
  }
  await makeProvider()
  const server = createServer((req, res) => running.handle(req, res))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  proxy.forwardTo((server.address() as AddressInfo).port)

  return {
    ...{ issuer, jwks: `${issuer}/jwks`, clientSecret: SECRET, tokenExchanges: proxy.tokenExchanges },
    ...{ rotates: true, substitutions: [['https://id.example.com', issuer]] },
    passSignIn: throughForms,
    denySignIn: abort,
    passSignOut: (browser, page) => browser.submit(page),
    leadToApplication: application.forwardTo,
    signOutElsewhere: async (browser) =>
      browser.submit(await browser.navigate(`${issuer}/session/end`, { from: issuer })),
    removeUser: async () => removed.add('ada'),
    restoreUser: async () => removed.delete('ada'),
    async rotateKeys() {
      keys = [newKey(), ...keys]
      await makeProvider()
    },
    async narrow() {
      for (const id of grants) {
        const grant = await running.provider.Grant.find(id)
        grant?.rejectResourceScope(BILLING, SCOPES[BILLING]!)
        await grant?.save()
      }
    },
    widen: async () => undefined,
    async stop() {
      await application.close()
      await proxy.close()
      await new Promise((resolve) => {
        server.close(resolve)
        server.closeAllConnections()
      })
    },
  }
}

async function createProvider(
  issuer: string,
  {
    keys,
    cookieKeys,
    removed,
    application,
  }: { keys: JWK[]; cookieKeys: string[]; removed: ReadonlySet<string>; application: string },
): Promise<Provider> {
  const configuration: Configuration = {
    clients: [
      {
        ...{ client_id: CLIENT_ID, client_secret: SECRET, redirect_uris: [`${APP}/bff/callback`] },
        grant_types: ['authorization_code', 'refresh_token'],
        post_logout_redirect_uris: [`${APP}/bff/logged-out`],
        backchannel_logout_uri: `${application}/bff/backchannel-logout`,
        backchannel_logout_session_required: true,
      },
    ],
    claims: { profile: ['name'], email: ['email'] },
    findAccount: (_ctx, sub) =>
      removed.has(sub)
        ? undefined
        : { accountId: sub, claims: () => ({ sub, name: 'Ada Lovelace', email: `${sub}@example.com` }) },
    jwks: { keys },
    cookies: { keys: cookieKeys },
    // Its own would not ask a loopback address, where the application is here.
    fetch: (url, options) => fetch(url, { ...options, dispatcher: undefined } as RequestInit),
    rotateRefreshToken: true,
    // The others are its own; named, it does not remark on them.
    ttl: {
      AccessToken: TOKEN_SECONDS,
      Interaction: 3600,
      Session: 1_209_600,
      Grant: 1_209_600,
      IdToken: 3600,
      RefreshToken: 1_209_600,
    },
    features: {
      revocation: { enabled: true },
      backchannelLogout: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_ctx, indicator) => ({
          ...{ audience: indicator, scope: SCOPES[indicator] ?? '', accessTokenTTL: TOKEN_SECONDS },
          accessTokenFormat: 'jwt',
        }),
      },
    },
  }
  return quietly(async () => {
    const { default: ProviderClass } = await import('oidc-provider')
    return new ProviderClass(issuer, configuration)
  })
}

async function assertNoFrontChannel({ provider }: Scene): Promise<void> {
  const answer = await fetch(`${provider.issuer}/.well-known/openid-configuration`)
  const metadata = (await answer.json()) as Record<string, unknown>
  assert.equal(metadata.backchannel_logout_supported, true)
  assert.equal(metadata.frontchannel_logout_supported, undefined)
}

/** The link "Cancel" of the page for signing in. */
async function abort(browser: Browser, page: Landing): Promise<Landing> {
  const href = /<a href="([^"]*\/abort)"/.exec(page.body)?.[1]
  if (href === undefined) throw new Error(`no link to cancel on ${page.url.pathname}`)
  return browser.navigate(new URL(href, page.url).href, { from: page.url.origin })
}

function newKey(): JWK {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const kid = randomBytes(8).toString('base64url')
  return { ...privateKey.export({ format: 'jwk' }), kid, alg: 'RS256', use: 'sig' } as JWK
}

/** Without the package's remarks on what belongs to production. */
async function quietly<T>(make: () => Promise<T>): Promise<T> {
  const { warn, info } = console
  console.warn = () => {}
  console.info = () => {}
  try {
    return await make()
  } finally {
    Object.assign(console, { warn, info })
  }
}
