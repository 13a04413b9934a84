import assert from 'node:assert/strict'
import { jwtClaims } from '../../src/demo/scripted/signing.ts'
import type { Browser, FetchAnswer, Landing } from '../kit/browsers/browser.ts'
import { type TokenExchange, tokensOf } from '../kit/recording-proxy.ts'
import { assertNoSecrets } from '../kit/secrets.ts'
import { bearerToken } from '../kit/upstream/upstream.ts'
import {
  APP,
  type Api,
  type ApiName,
  type RealProvider,
  type RowId,
  type Scene,
  wordsOf,
} from './provider.ts'

/** What each row asks of a provider that can do it. Throws an AssertionError when it is not so. */
export const ROWS: Readonly<Record<RowId, (scene: Scene) => Promise<void>>> = {
  'sign-in': async (scene) => {
    const browser = scene.browser()
    assertHome(await scene.signIn(browser))
    const user = await browser.fetch('/bff/user')
    assert.equal(user.status, 200, user.body)
    assert.ok(user.json().sub)
  },

  'two resources': async (scene) => {
    const browser = await signedIn(scene)
    for (const name of API_NAMES) await assertServed(scene, browser, name)
  },

  'silent renewal': (scene) => renewSilently(scene, API_NAMES),

  '20 parallel calls': (scene) => callInParallel(scene, API_NAMES),

  'sign-out': async (scene) => {
    const browser = await signedIn(scene)
    await assertServed(scene, browser, 'orders')
    assert.equal((await signOut(scene, browser)).url.href, `${APP}/bye`)
    await assertSignedOut(browser)
    const again = await browser.navigate(`${APP}/bff/login?returnUrl=/home`, { from: APP })
    assert.notEqual(again.url.origin, APP, 'the provider asks who it is')
  },

  'user removed': async (scene) => {
    const { removeUser, restoreUser } = scene.provider
    assert.ok(removeUser && restoreUser)
    const [browser, other] = [await signedIn(scene), await signedIn(scene)]
    for (const one of [browser, other]) await assertServed(scene, one, 'orders')
    await untilExpired(scene)
    // Where a refusal is told in words that could mean anything, it matters that another session was renewed just now.
    await assertServed(scene, other, 'orders')
    await removeUser()
    try {
      const answer = await browser.fetch(scene.apis.orders.path)
      assert.equal(answer.status, 401, answer.body)
      const { code } = answer.json()
      assert.ok(['session_required', 'reauthentication_required'].includes(code), answer.body)
      // Where the provider's words leave it open whether the grant is dead, the session waits for a new sign-in.
      if (code === 'session_required') await assertSignedOut(browser)
    } finally {
      await restoreUser()
    }
    assertHome(await scene.signIn(scene.browser()))
  },

  'wrong secret': (scene) =>
    withWrongSecret(scene, (answer) => {
      assert.deepEqual([answer.status, answer.json().code], [502, 'provider_rejected'], answer.body)
    }),

  cancelled: async (scene) => {
    const { denySignIn, denyPrompt } = scene.provider
    assert.ok(denySignIn)
    const browser = scene.browser()
    const query = new URLSearchParams({ returnUrl: '/home', ...(denyPrompt ? { prompt: denyPrompt } : {}) })
    const page = await browser.navigate(`${APP}/bff/login?${query}`, { from: APP })
    const landing = await denySignIn(browser, page)
    assert.deepEqual([landing.url.origin, landing.url.pathname], [APP, '/bff/callback'])
    assert.ok(landing.status >= 400 && landing.status < 500, String(landing.status))
    assert.match(landing.body, /\/bff\/login\?returnUrl=(%2F|\/)home/, 'a link to try again')
    await assertSignedOut(browser)
  },

  'key rotation': async (scene) => {
    const { rotateKeys } = scene.provider
    assert.ok(rotateKeys)
    assertHome(await scene.signIn(scene.browser()))
    await rotateKeys()
    const browser = await signedIn(scene)
    await assertServed(scene, browser, 'orders')
  },

  'back-channel logout': async (scene) => {
    const { signOutElsewhere, leadToApplication } = scene.provider
    assert.ok(signOutElsewhere && leadToApplication)
    // The replica that is told is not the one that the browser uses.
    leadToApplication(Number(new URL(scene.replicas[1].listenUrl).port))
    await assertEndsElsewhere(scene, signOutElsewhere)
  },

  'front-channel logout': async (scene) => {
    const { signOutWithFrames, leadToApplication } = scene.provider
    assert.ok(signOutWithFrames)
    // What comes by the other channel as well must not be what ends it.
    leadToApplication?.(NOBODY_THERE)
    await assertEndsElsewhere(scene, async (browser) => {
      const frames = await signOutWithFrames(browser)
      const ours = frames.filter((url) => url.startsWith(`${APP}/bff/frontchannel-logout?`))
      assert.equal(ours.length, 1, frames.join(' '))
      // As a browser does in a frame of another site: without a cookie.
      const { pathname, search } = new URL(ours[0]!)
      const answer = await fetch(scene.replicas[1].listenUrl + pathname + search)
      const policy = String(answer.headers.get('content-security-policy'))
      assert.equal(
        answer.status,
        200,
        `${[...new URL(ours[0]!).searchParams.keys()]}: ${await answer.text()}`,
      )
      assert.ok(policy.includes(`frame-ancestors ${new URL(scene.provider.issuer).origin}`), policy)
    })
  },

  narrowed: async (scene) => {
    const { narrow, widen } = scene.provider
    assert.ok(narrow && widen)
    const browser = await signedIn(scene)
    for (const name of API_NAMES) await assertServed(scene, browser, name)
    await narrow()
    try {
      await untilExpired(scene)
      await assertServed(scene, browser, 'orders')
      await assertRefused(scene, browser, 'billing')
    } finally {
      await widen()
    }
  },

  'shared signals': endBySignals,

  profile: async (scene) => {
    assert.ok(scene.provider.compareProfile)
    await scene.provider.compareProfile(scene)
  },
}

/** What the provider pushes to one replica ends sessions that the other one serves from its copies, too. */
async function endBySignals(scene: Scene): Promise<void> {
  const { signals } = scene.provider
  assert.ok(signals)
  const [a, b] = scene.replicas
  await signals.connect(`${a.listenUrl}/bff/ssf/events`)
  const ended = (event: string, count: number) => untilLogged(a.stdout, { event, outcome: 'ended', count })
  const statusAt = async (browser: Browser) =>
    (await browser.fetch(scene.apis.orders.path, { via: b.listenUrl })).status

  // With this one end those of the rows before.
  await signedIn(scene)
  await signals.logOutUser()
  await untilLogged(a.stdout, { event: 'session-revoked', outcome: 'ended' })
  const [one, two] = [await signedIn(scene), await signedIn(scene)]
  for (const browser of [one, two]) assert.equal(await statusAt(browser), 200)
  await signals.logOutUser()
  await ended('session-revoked', 2)
  for (const browser of [one, two]) assert.equal(await statusAt(browser), 401)

  const three = await signedIn(scene)
  assert.equal(await statusAt(three), 200)
  await signals.resetPassword()
  await ended('credential-change', 1)
  assert.equal(await statusAt(three), 401)
}

const EVENT_MS = 45_000

/** Resolves when a line with these members has been logged, and takes it out, so that it counts once. */
async function untilLogged(lines: string[], members: Record<string, unknown>): Promise<void> {
  const deadline = performance.now() + EVENT_MS
  const matches = (line: string) => {
    const fields = line.startsWith('{') ? JSON.parse(line) : {}
    return Object.entries(members).every(([name, value]) => fields[name] === value)
  }
  for (;;) {
    const at = lines.findIndex(matches)
    if (at !== -1) return void lines.splice(at, 1)
    const told = lines
      .filter((line) => line.includes('"event"') || line.includes('security event'))
      .join('\n')
    if (performance.now() > deadline)
      assert.fail(`${JSON.stringify(members)} is not logged; there is: ${told}`)
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}

/** Ends a session from the provider's side; both replicas know it soon, and a new sign-in is as good as ever. */
async function assertEndsElsewhere(scene: Scene, end: (browser: Browser) => Promise<unknown>): Promise<void> {
  const browser = await signedIn(scene)
  await assertServed(scene, browser, 'orders')
  await end(browser)
  const deadline = performance.now() + ENDS_WITHIN_MS
  for (const { listenUrl: via } of scene.replicas) {
    for (;;) {
      const answer = await browser.fetch('/bff/user', { via })
      if (answer.status === 401) break
      assert.ok(
        performance.now() < deadline,
        `${via} still knows the session: ${answer.status}; ${heardBy(scene)}`,
      )
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }
  assertHome(await scene.signIn(scene.browser()))
}

/** What the replicas say of logouts. */
function heardBy({ replicas }: Scene): string {
  const lines = replicas.flatMap(({ stdout }) => stdout).filter((line) => line.includes('logout'))
  return lines.slice(-4).join('\n')
}

const ENDS_WITHIN_MS = 10_000
/** The port of the discard service, which is not there. */
const NOBODY_THERE = 9

/** A provider that does not say that it can. */
export async function assertCannotLogOut({ provider }: Scene): Promise<void> {
  const answer = await fetch(`${provider.issuer.replace(/\/$/, '')}/.well-known/openid-configuration`)
  const metadata = (await answer.json()) as Record<string, unknown>
  for (const channel of ['back', 'front']) assert.ok(!metadata[`${channel}channel_logout_supported`])
}

export const API_NAMES = ['orders', 'billing'] as const

/** What is true of every row: no API got a token that is not its own, and no token or secret is in an answer or in a log. */
export function assertInvariants(scene: Scene, browsers: readonly Browser[]): void {
  for (const name of API_NAMES)
    for (const token of tokensAt(scene.apis[name])) assertOwnToken(scene, name, token)
  const { provider, replicas } = scene
  // A secret that is an everyday word, as an example may have it, would be found by chance.
  const clientSecrets = provider.clientSecret.length < 8 ? [] : [provider.clientSecret]
  const secrets = [...tokensOf(provider.tokenExchanges), ...clientSecrets]
  const logs = replicas.flatMap(({ stdout, stderr }) => [...stdout, ...stderr]).join('\n')
  assertNoSecrets({ 'the logs': logs }, secrets)
  for (const browser of browsers) assertNoSecrets(browser.haystacks(), secrets, { allowJwt: true })
}

/** A browser that has signed in. */
export async function signedIn(scene: Scene): Promise<Browser> {
  const browser = scene.browser()
  assertHome(await scene.signIn(browser))
  return browser
}

/**
 * With a wrong client secret a call is refused as it must be, the session stays, and nobody can sign in; with the right
 * one all is well. `endsGrants`: the refresh token does not live to see that, and the user signs in again.
 */
export async function withWrongSecret(
  scene: Scene,
  assertRefusal: (answer: FetchAnswer) => void,
  { endsGrants = scene.provider.refreshEndsWithAccess === true } = {},
): Promise<void> {
  const browser = await signedIn(scene)
  await assertServed(scene, browser, 'orders')
  await scene.useClientSecret('not-the-secret-of-this-client')
  try {
    await untilExpired(scene)
    assertRefusal(await browser.fetch(scene.apis.orders.path))
    assert.equal((await browser.fetch('/bff/user')).status, 200, 'the session stays')
    const failed = await scene.signIn(scene.browser())
    // With pushed requests (RFC 9126) the provider says so before the user is asked anything.
    assert.deepEqual([failed.status, failed.url.origin], [502, APP])
  } finally {
    await scene.useClientSecret(scene.provider.clientSecret)
  }
  await assertServed(scene, endsGrants ? await signedIn(scene) : browser, 'orders')
}

/** After the tokens' end each of these APIs is served with a new one, from one refresh each. */
export async function renewSilently(scene: Scene, names: readonly ApiName[]): Promise<void> {
  const browser = await signedIn(scene)
  const first = new Map<ApiName, string>()
  for (const name of names) first.set(name, await assertServed(scene, browser, name))
  const mark = scene.provider.tokenExchanges.length
  await untilExpired(scene)
  for (const name of names)
    assert.notEqual(await assertServed(scene, browser, name), first.get(name), `a new token for ${name}`)
  const renewals = scene.provider.tokenExchanges.slice(mark)
  assertOneRefreshEach(scene, names, renewals)
  const sent = renewals.map(({ form }) => form.get('refresh_token'))
  if (scene.provider.rotates) assert.equal(new Set(sent).size, sent.length, 'each refresh token is used once')
}

/** After the tokens' end everybody comes at once, to both replicas. */
export async function callInParallel(scene: Scene, names: readonly ApiName[]): Promise<void> {
  const browser = await signedIn(scene)
  for (const name of names) await assertServed(scene, browser, name)
  await untilExpired(scene)
  const mark = scene.provider.tokenExchanges.length
  await assertManyServed(scene, browser, names)
  assertOneRefreshEach(scene, names, scene.provider.tokenExchanges.slice(mark))
  // Nobody holds a token that another refresh has made worthless.
  await assertManyServed(scene, browser, names)
}

function assertOneRefreshEach(
  { apis }: Scene,
  names: readonly ApiName[],
  refreshes: readonly TokenExchange[],
): void {
  const resources = new Set(names.map((name) => apis[name].resource))
  const wanted = [...resources].map(() => 'refresh_token 200')
  assert.deepEqual(refreshes.map(outcomeOf), wanted, 'one refresh per resource')
  const targets = refreshes.map(({ form }) => `${form.get('resource')} ${form.get('scope')}`)
  assert.equal(new Set(targets).size, resources.size)
}

/** One call that is served with a token for this API; gives the token. */
export async function assertServed(scene: Scene, browser: Browser, name: ApiName): Promise<string> {
  const api = scene.apis[name]
  const answer = await browser.fetch(`${api.path}/1`)
  assert.equal(answer.status, 200, `${name}: ${answer.body}`)
  const token = tokensAt(api).at(-1)
  assert.ok(token, `${name} got a token`)
  assertOwnToken(scene, name, token)
  return token
}

/** One call that Cloakroom refuses with a named reason; the API hears nothing of it. */
export async function assertRefused(scene: Scene, browser: Browser, name: ApiName): Promise<FetchAnswer> {
  const { path, upstream } = scene.apis[name]
  const before = upstream.requests.length
  const answer = await browser.fetch(`${path}/1`)
  assert.match(answer.headers['content-type'] ?? '', /^application\/problem\+json/, answer.body)
  assert.ok([401, 502].includes(answer.status), answer.body)
  const { code, reason } = answer.json()
  assert.ok(['reauthentication_required', 'provider_rejected'].includes(code), answer.body)
  assert.ok(typeof reason === 'string' && reason !== '', `a named reason: ${answer.body}`)
  assert.equal(upstream.requests.length, before, 'the API hears nothing of it')
  return answer
}

/** Twenty calls at once, ten through each replica, to these APIs in turn. */
export async function assertManyServed(
  scene: Scene,
  browser: Browser,
  names: readonly ApiName[],
): Promise<void> {
  const answers = await Promise.all(
    Array.from({ length: 20 }, (_, index) =>
      browser.fetch(scene.apis[names[index % names.length]!].path, {
        via: scene.replicas[(index >> 1) % 2]!.listenUrl,
      }),
    ),
  )
  assert.deepEqual([...new Set(answers.map(({ status, body }) => (status === 200 ? 200 : body)))], [200])
}

/** Signs out with `returnUrl` `/bye` and goes through the provider's pages to where it ends. */
export async function signOut(scene: Scene, browser: Browser): Promise<Landing> {
  const answer = await browser.fetch('/bff/logout?returnUrl=/bye', { method: 'POST' })
  assert.equal(answer.status, 200, answer.body)
  let page = await browser.navigate(new URL(answer.json().redirect, APP).href, { from: APP })
  if (page.url.origin !== APP && scene.provider.passSignOut)
    page = await scene.provider.passSignOut(browser, page)
  return page
}

export async function assertSignedOut(browser: Browser): Promise<void> {
  const user = await browser.fetch('/bff/user')
  assert.deepEqual([user.status, user.json().code], [401, 'session_required'])
}

/** Until none of the access tokens that were issued so far may be used. */
export async function untilExpired({ provider }: Scene): Promise<void> {
  // Cloakroom uses no token in the last tenth of a short life; the refresh token must live to see that.
  const part = provider.refreshEndsWithAccess ? 0.92 : 1
  const ends = provider.tokenExchanges.map(({ answer, answeredAt }) =>
    answer.access_token === undefined ? 0 : answeredAt + Number(answer.expires_in) * 1000 * part,
  )
  const last = Math.max(...ends)
  while (Date.now() <= last) await new Promise((resolve) => setTimeout(resolve, last - Date.now() + 1))
}

function assertHome(landing: Landing): void {
  assert.deepEqual([landing.status, landing.url.href], [200, `${APP}/home`], wordsOf(landing.body))
}

/** One token request in a few words. */
export function outcomeOf({ grantType, status, answer }: TokenExchange): string {
  return [grantType, status, answer.error, answer.error_description]
    .filter((part) => part !== undefined)
    .join(' ')
}

function tokensAt({ upstream }: Api): string[] {
  return upstream.requests.flatMap((request) => bearerToken(request) ?? [])
}

/** By its audience where the documented config names one, else by the scopes that it was issued for (RFC 6749 §5.1). */
function assertOwnToken({ provider, apis }: Scene, name: ApiName, token: string): void {
  const own = apis[name]
  const other = apis[name === 'orders' ? 'billing' : 'orders']
  const claims = own.audience === undefined ? undefined : jwtClaims(token)
  const marks = claims === undefined ? scopesOf(provider, token) : [claims.aud].flat().map(String)
  const mine = claims === undefined ? own.scopes : [own.audience!]
  const others = claims === undefined ? other.scopes : [other.audience!]
  assert.ok(
    mine.some((mark) => marks.includes(mark)),
    `${name} got a token for ${marks.join(' ')}`,
  )
  if (provider.tokensForBoth === undefined)
    assert.ok(!others.some((mark) => marks.includes(mark)), `${name} got a token for ${marks.join(' ')}`)
}

function scopesOf({ tokenExchanges }: RealProvider, token: string): string[] {
  const issued = tokenExchanges.find(({ answer }) => answer.access_token === token)
  assert.ok(issued, 'every token that an API gets was issued by the provider')
  return String(issued.answer.scope ?? issued.form.get('scope') ?? '').split(' ')
}
