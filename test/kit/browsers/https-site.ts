import { randomBytes } from 'node:crypto'
import type { IncomingHttpHeaders, RequestListener, ServerResponse } from 'node:http'
import { get } from 'node:https'
import { text } from 'node:stream/consumers'
import type { Browser, BrowserContext, Page } from 'playwright-core'
import { WebSocketServer } from 'ws'
import { listenOnLoopback } from '../../../src/demo/loopback-server.ts'
import { createIdentityProvider } from '../../../src/demo/provider/identity-provider.ts'
import type { TokenRequest } from '../../../src/demo/provider/identity-provider-options.ts'
import { type RunningCloakroom, startCloakroom } from '../cloakroom.ts'
import { type ConfigData, sessionKey } from '../config/cloakroom-config.ts'
import { type LocalServer, type RecordedRequest, sendHtml, startLocalServer } from '../local-server.ts'
import { startUpstream, type Upstream } from '../upstream/upstream.ts'
import { launchChromium, launchWholeChromium } from './chromium.ts'
import { type HttpsFront, startHttpsFront } from './https-front.ts'

/** Cloakroom's public origin, and one beside it on the same site: its requests carry SameSite=Strict cookies. */
export const APP = 'https://app.cloakroom.test'
export const SIBLING = 'https://sibling.cloakroom.test'
export const COOKIE = '__Host-Http-cloakroom'
export const ACCESS_TOKEN_SECONDS = 3

const ORDERS = 'https://orders.example.com'

/** Everything around Cloakroom on https, and Chromium looking at it. */
export type Site = {
  readonly browser: Browser
  /** A second browser, with pages that are kept for the way back: see `launchWholeChromium`. */
  wholeBrowser(): Promise<Browser>
  readonly cloakroom: RunningCloakroom
  readonly front: HttpsFront
  /** The API; verifies its access tokens. */
  readonly api: Upstream
  /** Headers of the WebSocket handshakes that reached the API. */
  readonly handshakes: IncomingHttpHeaders[]
  /** `http://127.0.0.1:PORT`: another site. */
  readonly issuer: string
  readonly tokenRequests: TokenRequest[]
  /** What was posted to the end-session endpoint. */
  readonly endSessions: URLSearchParams[]
  /** From now on the session cookie has this attribute. */
  setSameSite(sameSite: 'strict' | 'lax'): Promise<unknown>
  /** From now on the provider answers sign-ins in this mode. */
  answerBy(responseMode: 'query' | 'form_post'): Promise<unknown>
  /** From now on the provider answers sign-outs without a page of its own, as many do. */
  signOutByRedirect(on: boolean): void
  /** From now on sessions end when they are idle for so long, such as `20s`. */
  endIdleAfter(idleTimeout: string): Promise<unknown>
  close(): Promise<void>
}

/** Starts provider, API, application, sibling, Cloakroom, a front with TLS before the last three, and Chromium. */
export async function startSite(): Promise<Site> {
  const tokenRequests: TokenRequest[] = []
  const clientSecret = randomBytes(24).toString('base64url')
  const front = await startHttpsFront([new URL(APP).host, new URL(SIBLING).host])
  const endSessions: URLSearchParams[] = []
  let signsOutByRedirect = false
  const provider = await listenOnLoopback((issuer) =>
    withPages(createProvider(issuer, clientSecret, tokenRequests), {
      endSessions,
      isHasty: () => signsOutByRedirect,
    }),
  )
  const issuer = provider.origin
  const api = await startUpstream({
    ...{ jwks: `${issuer}/jwks`, issuer, audience: ORDERS },
    handle: (request, res) => sendEvents(request, res) || sendCacheable(request, res),
  })
  const { sockets, handshakes } = echoWebSockets(api)
  const pages = await Promise.all([startLocalServer(applicationPage), startLocalServer(siblingPage)])
  const [spa, sibling] = pages
  const settings = configFor({ issuer, clientSecret, api, spa })
  const cloakroom = await startCloakroom(settings)
  const changes: ConfigData = {}
  const reload = (more: ConfigData) => cloakroom.reload(Object.assign(changes, more))
  front.serve(new URL(APP).host, cloakroom.listenUrl)
  front.serve(new URL(SIBLING).host, sibling.origin)
  const flags = [
    `--host-resolver-rules=MAP *.cloakroom.test 127.0.0.1:${front.port}`,
    `--ignore-certificate-errors-spki-list=${front.keyHash}`,
  ]
  const browser = await launchChromium(flags)
  let whole: Promise<Browser> | undefined
  return {
    ...{ browser, cloakroom, front, api, handshakes, issuer, tokenRequests, endSessions },
    wholeBrowser() {
      whole ??= launchWholeChromium(flags)
      return whole
    },
    signOutByRedirect(on) {
      signsOutByRedirect = on
    },
    endIdleAfter: (idleTimeout) => cloakroom.reload({ session: { ...settings.session, idleTimeout } }),
    setSameSite: (sameSite) => reload({ session: { ...settings.session, cookie: { sameSite } } }),
    answerBy: (responseMode) => reload({ provider: { ...settings.provider, responseMode } }),
    async close() {
      await browser.close()
      await (await whole)?.close()
      for (const socket of sockets.clients) socket.terminate()
      await cloakroom.close()
      await Promise.all([front, provider, api, ...pages].map((server) => server.close()))
    },
  }
}

/**
 * oidc-provider lets end-session be posted only where its own cookies are SameSite=None, so never on plain http; and it has
 * no front-channel logout: FRAMING is the page of a provider that does.
 */
function withPages(
  provider: RequestListener,
  { endSessions, isHasty }: { endSessions: URLSearchParams[]; isHasty: () => boolean },
): RequestListener {
  return function serve(req, res) {
    const url = new URL(req.url ?? '', APP)
    if (url.pathname === FRAMING) return framingPage(url.searchParams, res)
    const isForm = req.method === 'POST' && req.url === '/session/end'
    const goBack = (query: URLSearchParams) => {
      const back = `${query.get('post_logout_redirect_uri')}?state=${query.get('state')}`
      res.writeHead(303, { location: back, 'set-cookie': 'idp_session=; Max-Age=0; Path=/' }).end()
    }
    if (isForm) {
      text(req).then((body) => {
        const form = new URLSearchParams(body)
        endSessions.push(form)
        goBack(form)
      })
    } else if (url.pathname === '/session/end' && isHasty()) goBack(url.searchParams)
    else provider(req, res)
  }
}

/** A page of the provider, and of the sibling, that shows its parameter `src` in a frame. */
export const FRAMING = '/framing'

function framingPage(query: URLSearchParams, res: ServerResponse): void {
  sendHtml(res, 200, `<h1>You are signed out</h1><iframe src="${query.get('src')}"></iframe>`)
}

/** The third has more roles than a URL holds. */
const PERSONS = [
  { sub: 'ada', name: 'Ada Lovelace' },
  { sub: 'grace', name: 'Grace Hopper' },
  { sub: 'augusta', name: 'Augusta King', roles: Array.from({ length: 300 }, (_, index) => `role-${index}`) },
]

function createProvider(issuer: string, clientSecret: string, tokenRequests: TokenRequest[]) {
  return createIdentityProvider({
    issuer,
    clients: [
      {
        ...{ clientId: 'app', clientSecret, authMethod: 'client_secret_basic' },
        redirectUris: [`${APP}/bff/callback`],
        postLogoutRedirectUris: [`${APP}/bff/logged-out`],
        // Without one, ID tokens have no `sid`. Nobody listens there.
        backchannelLogoutUri: 'http://127.0.0.1:9/',
      },
    ],
    resources: {
      [ORDERS]: {
        audience: ORDERS,
        scope: 'orders.read',
        accessTokenTtlSeconds: ACCESS_TOKEN_SECONDS,
      },
    },
    persons: PERSONS,
    secondFactorAcr: 'mfa',
    onTokenRequest: (request) => tokenRequests.push(request),
  }).callback
}

function configFor(parts: { issuer: string; clientSecret: string; api: Upstream; spa: LocalServer }) {
  const { issuer, clientSecret, api, spa } = parts
  const orders = { upstream: api.url, resource: 'orders' }
  return {
    publicUrl: APP,
    trustProxy: ['127.0.0.1'],
    session: { store: { type: 'memory' }, keys: [sessionKey()] },
    provider: {
      ...{ issuer, clientId: 'app', resourceDialect: 'resource-indicator' },
      clientAuth: { method: 'client_secret_basic', secret: clientSecret },
      scopes: ['openid', 'profile', 'offline_access'],
    },
    resources: { orders: { resource: ORDERS, scopes: ['orders.read'], audience: ORDERS } },
    routes: [
      { path: '/api/orders', ...orders },
      { path: '/api/live', ...orders, websocket: true },
      { path: '/api/payments', ...orders, require: { acr: ['mfa'] } },
      { path: '/files', ...orders, csrf: 'fetch-metadata' },
      { path: '/', upstream: spa.origin, auth: 'anonymous' },
    ],
  }
}

/** `/api/orders/events` is an event stream whose first event says `ready`. */
function sendEvents({ path }: RecordedRequest, res: ServerResponse): boolean {
  if (path !== '/api/orders/events') return false
  res.writeHead(200, { 'content-type': 'text/event-stream' })
  res.write('id: 7\ndata: ready\n\n')
  return true
}

/** What a browser may keep: an answer that says so, and one that says nothing but its age; and a download. */
function sendCacheable({ path, headers }: RecordedRequest, res: ServerResponse): boolean {
  const fields: Record<string, Record<string, string>> = {
    '/api/orders/fresh': { 'cache-control': 'private, max-age=600' },
    '/api/orders/aged': { 'last-modified': 'Mon, 01 Jan 2024 00:00:00 GMT' },
    '/files/download': { 'content-disposition': 'attachment; filename="report.txt"' },
  }
  const own = fields[path]
  if (!own) return false
  const [, payload = ''] = String(headers.authorization).split('.')
  const { sub } = JSON.parse(Buffer.from(payload, 'base64url').toString()) as { sub: string }
  // As servers do that know of a token and of no cookie.
  res.writeHead(200, { 'content-type': 'text/plain', vary: 'Authorization', ...own })
  res.end(`for ${sub}`)
  return true
}

function echoWebSockets(api: Upstream) {
  const handshakes: IncomingHttpHeaders[] = []
  const sockets = new WebSocketServer({ server: api.server })
  sockets.on('connection', (socket, req) => {
    handshakes.push(req.headers)
    socket.on('message', (data) => socket.send(String(data)))
  })
  return { sockets, handshakes }
}

/** Asks who is signed in as the first thing it does, and keeps the answer's status. */
function applicationPage({ path }: RecordedRequest, res: ServerResponse): void {
  if (path === '/worker.js') {
    res.writeHead(200, { 'content-type': 'text/javascript' })
    return void res.end('onfetch = (event) => event.respondWith(fetch(event.request))')
  }
  const ask = `window.firstAnswer = fetch('/bff/user', { headers: { 'x-csrf': '1' } }).then(({ status }) => status)`
  sendHtml(res, 200, `<a href="/bff/login?returnUrl=/home">Sign in</a><script>${ask}</script>`)
}

/** May plant what it likes: a cookie for the whole domain under our name, say. */
function siblingPage({ path, query }: RecordedRequest, res: ServerResponse): void {
  const planted = [
    `${COOKIE}=planted; Domain=cloakroom.test; Path=/; Secure; HttpOnly`,
    `${COOKIE}=planted; Domain=app.cloakroom.test; Path=/; Secure; HttpOnly`,
  ]
  if (path === '/plant') res.setHeader('set-cookie', planted)
  if (path === FRAMING) framingPage(new URLSearchParams(query), res)
  else sendHtml(res, 200, '<h1>a sibling</h1>')
}

/** A signed-in page at `/home`, in a browser profile of its own. */
export async function signedIn(
  site: Site,
  person = 'Ada',
  browser = site.browser,
): Promise<{ context: BrowserContext; page: Page }> {
  const context = await browser.newContext()
  const page = await context.newPage()
  await page.goto(`${APP}/`)
  await page.getByRole('link', { name: 'Sign in' }).click()
  await page.getByRole('button', { name: new RegExp(person) }).click()
  await page.waitForURL(`${APP}/home`)
  return { context, page }
}

/** The session cookie as Chromium holds it, or undefined. */
export async function heldCookie(context: BrowserContext) {
  return (await context.cookies(APP)).find(({ name }) => name === COOKIE)
}

/** How `B/user` answers whoever sends this as the session cookie's value; asked through the front, without a page. */
export function statusWith({ front }: Site, value: string | undefined): Promise<number | undefined> {
  const headers = { host: new URL(APP).host, cookie: `${COOKIE}=${value}`, 'x-csrf': '1' }
  return new Promise((resolve, reject) => {
    const asked = { host: '127.0.0.1', port: front.port, path: '/bff/user', headers, agent: false }
    // The front is this process, and its certificate its own.
    get({ ...asked, rejectUnauthorized: false }, (answer) => {
      answer.resume().on('end', () => resolve(answer.statusCode))
    }).on('error', reject)
  })
}

/** What a script of this page gets for a request: status and body. */
export function call(page: Page, path: string, init: { method?: string; headers?: object } = {}) {
  const text = JSON.stringify([path, { ...init, headers: { 'x-csrf': '1', ...init.headers } }])
  return page.evaluate(
    `fetch(...${text}).then(async (answer) => ({ status: answer.status, body: await answer.text() }))`,
  ) as Promise<{ status: number; body: string }>
}
