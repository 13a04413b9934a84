import type { Browser, Landing } from '../kit/browsers/browser.ts'
import type { FormValues } from '../kit/browsers/html-forms.ts'
import type { TokenExchange } from '../kit/recording-proxy.ts'
import type { Replica } from '../kit/replica.ts'
import type { Upstream } from '../kit/upstream/upstream.ts'

/** The origin browsers see, as every documented config has it. Nothing listens there: the scripted browser knows better. */
export const APP = 'https://app.example.com'

/** The client's name in the documented configs. */
export const CLIENT_ID = 'shop-bff'

/** Who signs in. */
export const PERSON = { user: 'ada', password: 'correct-horse-battery-1' }

/** What every provider is asked to do. */
export const ROW_IDS = [
  'sign-in',
  'two resources',
  'silent renewal',
  '20 parallel calls',
  'sign-out',
  'user removed',
  'wrong secret',
  'cancelled',
  'key rotation',
  'narrowed',
  'back-channel logout',
  'front-channel logout',
  'shared signals',
  'profile',
] as const

export type RowId = (typeof ROW_IDS)[number]

/** A provider that runs. */
export type RealProvider = {
  /** As its discovery document says it. */
  readonly issuer: string
  readonly jwks: string
  readonly clientSecret: string
  /** Strings of the documented config, and what stands for them here: addresses and names, nothing else. */
  readonly substitutions: readonly (readonly [documented: string, real: string])[]
  /** Endpoints that are reached elsewhere, where its own address cannot be led through the recording proxy. */
  readonly endpoints?: { readonly token: string }
  /** Every request to its token endpoint. */
  readonly tokenExchanges: readonly TokenExchange[]
  /** Whether each refresh brings a new refresh token, and an old one is refused. */
  readonly rotates: boolean
  /** Its refresh tokens end at the same moment as the access token that they came with. */
  readonly refreshEndsWithAccess?: boolean
  /** Who signs in, if not PERSON. */
  readonly person?: { readonly user: string; readonly password: string }
  /** Why its access tokens are good for both APIs, if they are. */
  readonly tokensForBoth?: string
  /** Holds the profile of `cloakroom dev` that behaves like this provider against it. */
  readonly compareProfile?: (scene: Scene) => Promise<void>
  /** Goes through its pages, from the first one until the browser is back at the application. */
  passSignIn(browser: Browser, page: Landing): Promise<Landing>
  /** The same, but the user refuses. */
  denySignIn?(browser: Browser, page: Landing): Promise<Landing>
  /** The prompt without which it would not ask a user who has agreed before. */
  readonly denyPrompt?: string
  /** Goes through its pages of a sign-out; the forms are sent as they are unless given. */
  passSignOut?(browser: Browser, page: Landing): Promise<Landing>
  /** Leads what the provider itself asks of the application to this port, for its back-channel logout. */
  leadToApplication?(port: number): void
  /** Signs the user out at the provider, by its administrator or in the user's browser but without the application. */
  signOutElsewhere?(browser: Browser): Promise<unknown>
  /** The same in the user's browser, at a client registered for it. The frames that its last page would load. */
  signOutWithFrames?(browser: Browser): Promise<readonly string[]>
  removeUser?(): Promise<unknown>
  restoreUser?(): Promise<unknown>
  /** A new signing key from now on. */
  rotateKeys?(): Promise<unknown>
  /** From now on the user's sign-in brings less than was asked for: nothing for billing. */
  narrow?(): Promise<unknown>
  widen?(): Promise<unknown>
  /** Absent: it transmits no security events. */
  readonly signals?: ProviderSignals
  stop(): Promise<void>
}

/** What makes a provider push security events, for `provider.sharedSignals`. */
export type ProviderSignals = {
  readonly transmitter: string
  readonly audience: string
  readonly authorization: string
  /** Creates a stream of session-revoked and credential-change that is pushed to this URL. */
  connect(pushUrl: string): Promise<unknown>
  /** The administrator ends all sessions of the user. */
  logOutUser(): Promise<unknown>
  /** The administrator sets the user's password, to what it was. */
  resetPassword(): Promise<unknown>
}

/** Two replicas of Cloakroom, two APIs and a page behind them, and the provider. */
export type Scene = {
  readonly provider: RealProvider
  readonly replicas: readonly [Replica, Replica]
  readonly apis: Readonly<Record<ApiName, Api>>
  /** A new browser that reaches the first replica. */
  browser(): Browser
  /** From `B/login` through the provider's pages to where it ends. */
  signIn(browser: Browser, returnUrl?: string): Promise<Landing>
  /** From now on the client authenticates with this secret; both replicas have read it. */
  useClientSecret(secret: string): Promise<void>
}

export type ApiName = 'orders' | 'billing'

/** One API: what the documented config says of its resource, and what came. */
export type Api = {
  readonly path: string
  readonly upstream: Upstream
  readonly resource: string
  readonly scopes: readonly string[]
  readonly audience?: string
}

/** What a row came to beside its being right: a limit of the provider, in a few words. */
export type Limit = string

/** A row that a provider cannot do: what it does instead, which is asserted. */
export type Limited = { readonly reason: Limit; check(scene: Scene): Promise<void> }

/** For a provider that transmits no security events. */
export const NO_SIGNALS: Limited = {
  reason: 'it transmits no security events',
  async check({ provider }) {
    if (provider.signals) throw new Error('it does')
  },
}

/** The limit of a provider that `cloakroom dev` has no profile of. */
export const NO_PROFILE: Limited = {
  reason: 'cloakroom dev has no profile of it',
  async check({ provider }) {
    if (provider.compareProfile) throw new Error('it has')
  },
}

/** One kind of provider: how to get it and what it cannot do. */
export type ProviderKind = {
  /** On the command line. */
  readonly id: string
  readonly title: string
  /** Heading of its section in `config/README.md`. */
  readonly section: string
  /** Installs it if it is not there, and says why it cannot be had on this machine. */
  missing(): Promise<string | undefined>
  start(): Promise<RealProvider>
  readonly limits: Readonly<Partial<Record<RowId, Limited>>>
}

const MOST_PAGES = 10

/** Fills in and submits the first form of each page until the browser is back at the application; `more` says what else to fill in. */
export async function throughForms(
  browser: Browser,
  first: Landing,
  more: (page: Landing) => FormValues = () => ({}),
): Promise<Landing> {
  let page = first
  for (let pages = 0; page.url.origin !== APP; pages += 1) {
    const { url, status, body } = page
    if (status >= 400) throw new Error(`${url.pathname} of the provider says ${status}: ${wordsOf(body)}`)
    if (pages >= MOST_PAGES) throw new Error(`does not come back from ${url.pathname}: ${wordsOf(body)}`)
    page = await browser.submit(page, { ...PERSON, ...more(page) })
  }
  return page
}

/** What a page says, without its tags. */
export function wordsOf(html: string): string {
  const visible = html.replace(/<(script|style)\b[\s\S]*?<\/\1>/gi, ' ').replace(/<[^>]*>/g, ' ')
  return visible.replace(/\s+/g, ' ').trim().slice(0, 300)
}
