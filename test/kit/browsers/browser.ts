import { Agent, request as httpRequest, type IncomingHttpHeaders } from 'node:http'
import { type CookieJar, createCookieJar, type HeldCookie } from './cookie-jar.ts'
import { type FormValues, fillFirstForm, metaRefresh } from './html-forms.ts'

/** One request and its answer, as they crossed the wire. */
export type Exchange = {
  readonly method: string
  readonly url: URL
  readonly requestHeaders: Record<string, string>
  readonly requestBody: string
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly rawHeaders: string[]
  readonly body: string
}

/** An answer to `fetch`. */
export type FetchAnswer = Exchange & {
  // biome-ignore lint/suspicious/noExplicitAny: tests read members of many different answers
  json(): any
}

/** Where a navigation ended, and everything on the way. */
export type Landing = Exchange & { readonly exchanges: Exchange[] }

/** How the user agent is set up. */
export type BrowserOptions = {
  /** The application's origin, as in `publicUrl`. */
  readonly origin: string
  /** `/bff` unless given. */
  readonly basePath?: string
  /** Where an origin is really served, e.g. `{ 'https://app.example.test': 'http://127.0.0.1:8080' }`. */
  readonly connect?: Record<string, string>
  /** Send `Sec-Fetch-*` and `Origin` as browsers do; true unless given. */
  readonly fetchMetadata?: boolean
  /** Treat each port of 127.0.0.1 as a site of its own with its own cookies; true unless given. */
  readonly portsAreSites?: boolean
  /** Keep and send `Secure` cookies of loopback hosts over plain http, as Chromium does; false unless given. */
  readonly loopbackIsSecure?: boolean
  readonly userAgent?: string
}

/** One request's options. */
export type RequestOptions = {
  readonly method?: string
  readonly headers?: Record<string, string>
  readonly body?: string
  /** Base URL of the replica to send this request to, e.g. `http://127.0.0.1:9002`. */
  readonly via?: string
  /** Origin of the page that asks; for `fetch` the application, for `navigate` nobody (typed into the address bar). */
  readonly from?: string
}

/** Who signs in, and with what on the login URL. */
export type SignInOptions = {
  readonly returnUrl?: string
  readonly user?: string
  readonly password?: string
  /** Further query parameters of `B/login`, such as `prompt`. */
  readonly params?: Record<string, string>
  readonly via?: string
}

/** A scripted user agent with one cookie jar. */
export type Browser = {
  readonly origin: string
  readonly cookies: readonly HeldCookie[]
  readonly jar: CookieJar
  /** Everything that ever crossed the wire, providers included. */
  readonly exchanges: Exchange[]
  /** Sends an origin's traffic to another base URL from now on. */
  connectTo(origin: string, baseUrl: string): void
  /** A script's request: CSRF header set, redirects not followed. */
  fetch(path: string, options?: RequestOptions): Promise<FetchAnswer>
  /** Opens a URL of the application and takes the answer as it is; it asks for no page, so that a refusal is JSON. */
  open(path: string, options?: RequestOptions): Promise<FetchAnswer>
  /** Opens a page: follows redirects and immediate meta refreshes. */
  navigate(url: string, options?: RequestOptions): Promise<Landing>
  /** Fills in and submits the first form of a page. */
  submit(page: Landing, values?: FormValues, via?: string): Promise<Landing>
  /** `B/login` → provider (forms are filled in) → callback → landing page; gives the page back at the application. */
  signIn(options?: SignInOptions): Promise<Landing>
  /** The `Cookie` header that a same-origin request to the application would carry; for raw sockets. */
  cookieHeader(path?: string): string
  /** Every answer of one origin (the application's unless given) as texts for a leak scan. */
  haystacks(origin?: string): Record<string, string>
  /** Another user agent with a copy of the cookies. */
  clone(): Browser
  close(): void
}

const MAX_HOPS = 25
const PAGE_TYPES = 'text/html,application/xhtml+xml,*/*;q=0.8'

/** A user agent that keeps cookies and follows redirects like a browser, and records every response. */
export function createBrowser(options: BrowserOptions, jarToUse?: CookieJar): Browser {
  const origin = new URL(options.origin).origin
  const basePath = options.basePath ?? '/bff'
  const separatePorts = options.portsAreSites ?? true
  const { loopbackIsSecure = false } = options
  const jar = jarToUse ?? createCookieJar({ separatePorts, loopbackIsSecure })
  const agent = new Agent({ keepAlive: true })
  const connect = new Map(
    Object.entries(options.connect ?? {}).map(([from, to]) => [new URL(from).origin, to]),
  )
  const exchanges: Exchange[] = []
  const siteOf = (url: URL) => `${url.protocol}//${separatePorts ? url.host : url.hostname}`

  type Hop = RequestOptions & {
    readonly kind: 'navigate' | 'fetch'
    readonly crossSite: boolean
  }

  async function send(url: URL, hop: Hop): Promise<Exchange> {
    const method = hop.method ?? 'GET'
    const isSafe = method === 'GET' || method === 'HEAD'
    const sameSite = !hop.crossSite
    const cookie = jar.header(url, { sameSite, topLevelGet: hop.kind === 'navigate' && isSafe })
    const base = new URL(hop.via ?? connect.get(url.origin) ?? url.origin)
    const headers: Record<string, string> = {
      host: url.host,
      'user-agent': options.userAgent ?? 'ScriptedBrowser/1.0',
      ...(hop.kind === 'navigate' ? { accept: PAGE_TYPES } : {}),
      ...(options.fetchMetadata === false ? {} : fetchMetadata(url, hop, sameSite)),
      ...(cookie === undefined ? {} : { cookie }),
      ...(base.protocol === url.protocol
        ? {}
        : { 'x-forwarded-proto': 'https', 'x-forwarded-host': url.host }),
      ...hop.headers,
    }
    const answer = await exchange(agent, base, url, { method, headers, body: hop.body ?? '' })
    jar.store(url, answer.headers['set-cookie'] ?? [])
    exchanges.push(answer)
    return answer
  }

  async function navigate(target: string, request: RequestOptions = {}): Promise<Landing> {
    const chain: Exchange[] = []
    let next = { ...request }
    let url = new URL(target, origin)
    let crossSite = request.from !== undefined && siteOf(new URL(request.from)) !== siteOf(url)
    for (let hops = 0; hops < MAX_HOPS; hops += 1) {
      const { via, ...elsewhere } = next
      const toReplica = url.origin === origin && via !== undefined ? { via } : {}
      const answer = await send(url, { ...elsewhere, ...toReplica, kind: 'navigate', crossSite })
      chain.push(answer)
      const { location } = answer.headers
      if (answer.status >= 300 && answer.status < 400 && location !== undefined) {
        const to = new URL(location, url)
        to.hash = ''
        // One hop on another site makes the rest of the chain cross-site.
        if (siteOf(to) !== siteOf(url)) crossSite = true
        if (answer.status < 307) next = withoutBody(next)
        url = to
        continue
      }
      const refresh = isHtml(answer) ? metaRefresh(answer.body) : undefined
      if (refresh === undefined) return { ...answer, exchanges: chain }
      // The page itself navigates: a new chain that begins on its origin.
      next = { from: url.origin, ...(via === undefined ? {} : { via }) }
      const to = new URL(refresh, url)
      crossSite = siteOf(to) !== siteOf(url)
      url = to
    }
    throw new Error(
      `more than ${MAX_HOPS} hops from ${target}: ${chain.map((one) => one.url.pathname).join(' → ')}`,
    )
  }

  async function submit(page: Landing, values: FormValues = {}, via?: string) {
    const form = fillFirstForm(page.body, values)
    if (!form) throw new Error(`no form on ${page.url.href} (${page.status}): ${page.body.slice(0, 300)}`)
    const action = new URL(form.action, page.url)
    const body = new URLSearchParams(form.fields).toString()
    const from = page.url.origin
    const shared = { from, ...(via === undefined ? {} : { via }) }
    if (form.method === 'GET') return navigate(`${action.origin}${action.pathname}?${body}`, shared)
    const headers = { 'content-type': 'application/x-www-form-urlencoded' }
    return navigate(action.href, { ...shared, method: 'POST', headers, body })
  }

  async function signIn(wishes: SignInOptions = {}): Promise<Landing> {
    const query = new URLSearchParams({ returnUrl: wishes.returnUrl ?? '/', ...wishes.params })
    const via = wishes.via === undefined ? {} : { via: wishes.via }
    let page = await navigate(`${origin}${basePath}/login?${query}`, { from: origin, ...via })
    const all = [...page.exchanges]
    for (let steps = 0; page.url.origin !== origin; steps += 1) {
      if (steps >= 10) throw new Error(`sign-in does not come back from ${page.url.href}`)
      page = await submit(page, wishes, wishes.via)
      all.push(...page.exchanges)
    }
    return { ...page, exchanges: all }
  }

  async function fetchFrom(path: string, request: RequestOptions = {}): Promise<FetchAnswer> {
    const url = new URL(path, origin)
    const from = request.from ?? origin
    const headers = { accept: '*/*', 'x-csrf': '1', ...request.headers }
    const crossSite = siteOf(new URL(from)) !== siteOf(url)
    const answer = await send(url, {
      ...request,
      from,
      headers: withoutEmpty(headers),
      kind: 'fetch',
      crossSite,
    })
    return { ...answer, json: () => JSON.parse(answer.body) }
  }

  async function open(path: string, request: RequestOptions = {}): Promise<FetchAnswer> {
    const url = new URL(path, origin)
    const crossSite = request.from !== undefined && siteOf(new URL(request.from)) !== siteOf(url)
    const headers = { accept: '*/*', ...request.headers }
    const answer = await send(url, { ...request, headers, kind: 'navigate', crossSite })
    return { ...answer, json: () => JSON.parse(answer.body) }
  }

  return {
    ...{ origin, jar, exchanges, navigate, open, submit, signIn, fetch: fetchFrom },
    get cookies() {
      return jar.held
    },
    connectTo: (from, baseUrl) => connect.set(new URL(from).origin, baseUrl),
    cookieHeader: (path = '/') =>
      jar.header(new URL(path, origin), { sameSite: true, topLevelGet: false }) ?? '',
    haystacks: (of = origin) => haystacks(exchanges, new URL(of).origin),
    clone: () => createBrowser({ ...options, connect: Object.fromEntries(connect) }, jar.clone()),
    close: () => agent.destroy(),
  }
}

/** Sec-Fetch-* (W3C Fetch Metadata) and Origin as Chromium sends them. */
function fetchMetadata(
  url: URL,
  hop: RequestOptions & { kind: 'navigate' | 'fetch' },
  sameSite: boolean,
): Record<string, string> {
  const sameOrigin = sameSite && hop.from === url.origin
  const site =
    hop.from === undefined ? 'none' : sameOrigin ? 'same-origin' : sameSite ? 'same-site' : 'cross-site'
  const isSafe = hop.method === undefined || hop.method === 'GET' || hop.method === 'HEAD'
  const sendsOrigin = hop.from !== undefined && (!isSafe || (hop.kind === 'fetch' && !sameOrigin))
  return {
    ...(sendsOrigin ? { origin: hop.from } : {}),
    'sec-fetch-site': site,
    'sec-fetch-mode': hop.kind === 'navigate' ? 'navigate' : 'cors',
    'sec-fetch-dest': hop.kind === 'navigate' ? 'document' : 'empty',
    ...(hop.kind === 'navigate' ? { 'sec-fetch-user': '?1' } : {}),
  }
}

/** A header set to '' is left out, so that a test can take a default away. */
function withoutEmpty(headers: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).filter(([, value]) => value !== ''))
}

function withoutBody(request: RequestOptions): RequestOptions {
  const { from, via } = request
  return { ...(from === undefined ? {} : { from }), ...(via === undefined ? {} : { via }) }
}

function isHtml(answer: Exchange): boolean {
  return answer.headers['content-type']?.startsWith('text/html') === true
}

function exchange(
  agent: Agent,
  base: URL,
  url: URL,
  { method, headers, body }: { method: string; headers: Record<string, string>; body: string },
): Promise<Exchange> {
  const length = body === '' ? {} : { 'content-length': String(Buffer.byteLength(body)) }
  return new Promise((resolve, reject) => {
    const req = httpRequest(
      {
        ...{ agent, method, host: base.hostname, port: base.port, path: url.pathname + url.search },
        headers: { ...headers, ...length },
      },
      (res) => {
        const chunks: Buffer[] = []
        res.on('data', (chunk: Buffer) => chunks.push(chunk))
        res.on('error', reject)
        res.on('end', () =>
          resolve({
            ...{ method, url, requestHeaders: headers, requestBody: body, status: res.statusCode ?? 0 },
            ...{ headers: res.headers, rawHeaders: res.rawHeaders },
            body: Buffer.concat(chunks).toString('utf8'),
          }),
        )
      },
    )
    req.on('error', reject)
    req.end(body)
  })
}

function haystacks(exchanges: readonly Exchange[], origin: string): Record<string, string> {
  const texts: Record<string, string> = {}
  exchanges.forEach((one, index) => {
    if (one.url.origin !== origin) return
    const label = `answer ${index + 1}: ${one.method} ${one.url.pathname} → ${one.status}`
    texts[`${label}, headers`] = one.rawHeaders.join('\n')
    texts[`${label}, body`] = one.body
  })
  return texts
}
