import { randomBytes, randomUUID } from 'node:crypto'
import type { ServerResponse } from 'node:http'
import type { Person } from '../provider/identity-provider-options.ts'
import { consentPage, errorPage, secondFactorPage, signInPage } from '../provider/provider-pages.ts'
import { personNamed } from '../provider/sign-in.ts'
import type { SignedIn, SignIn } from '../scripted/authorization-endpoint.ts'
import { field, type RecordedRequest } from '../scripted/http-messages.ts'
import { SECOND_FACTOR_ACR } from './profile.ts'

/** A browser's session at the provider. */
export type SignInSession = {
  readonly user: string
  readonly sid: string
  /** Epoch seconds. */
  readonly authTime: number
  readonly acr?: string
  /** Of a ticket: the person is not asked to agree. */
  readonly isAutomatic?: boolean
}

/** Everything of the sign-in that outlives a restart. */
export type SavedSignIn = {
  readonly formToken: string
  readonly sessions: readonly (readonly [id: string, session: SignInSession])[]
  /** Persons whose names were typed at a sign-in. */
  readonly typed: readonly Person[]
}

export type PersonSignInDeps = {
  /** Who is offered, by `sub`. Grows when a new name is typed. */
  readonly persons: Map<string, Person>
  /** What to call the application that asks. */
  readonly clientName: string
  readonly cookieName: string
  readonly asksConsent: (query: [string, string][]) => boolean
  readonly sendPage: (res: ServerResponse, status: number, html: string) => void
  /** Epoch ms. */
  readonly now: () => number
}

/** What a ticket signs in. */
export type Ticket = { readonly user: string; readonly withSecondFactor: boolean }

const TICKET_PREFIX = 'cloakroom-dev.'
const TICKET_MS = 60_000
const MOST_SESSIONS = 200

/**
 * The sign-in of a scripted provider: persons to click instead of passwords, a session for the browser, `prompt`,
 * `max_age` and a second factor where the request asks for one. A ticket, given as `login_hint`, signs in without a page.
 */
export function createPersonSignIn(deps: PersonSignInDeps) {
  const { persons, cookieName, sendPage, now } = deps
  const offered = [...persons.values()]
  /** In every form and on no page of another origin: a form that another site posts has none. */
  let formToken = randomBytes(16).toString('base64url')
  const sessions = new Map<string, SignInSession>()
  const tickets = new Map<string, Ticket & { readonly endsAt: number }>()

  const signIn: SignIn = (request, params, res) => {
    if (request.method === 'POST') return answerForm(request, params, res)
    const ticket = takeTicket(field(params, 'login_hint'))
    if (ticket) {
      const acr = secondFactor(params) ?? (ticket.withSecondFactor ? SECOND_FACTOR_ACR : undefined)
      return begin(res, { user: ticket.user, acr, isAutomatic: true })
    }
    const session = sessionOf(request)
    const person = persons.get(session?.user ?? '')
    const prompts = (field(params, 'prompt') ?? '').split(' ')
    const isFresh = session !== undefined && !prompts.includes('login') && !prompts.includes('select_account')
    if (!session || !person || !isFresh || isTooOld(session, params))
      return prompts.includes('none') ? { error: 'login_required' } : show(res, 200, signInView(params))
    const acr = secondFactor(params)
    const isMissing = acr !== undefined && session.acr !== acr
    if (!isMissing && (session.isAutomatic || !deps.asksConsent(params))) return signedInBy(session)
    if (prompts.includes('none')) return { error: isMissing ? 'interaction_required' : 'consent_required' }
    return show(res, 200, isMissing ? secondFactorPage(person, formToken) : consentView(person, params))
  }

  /** A form of one of our pages. */
  function answerForm(
    { form, headers }: RecordedRequest,
    params: [string, string][],
    res: ServerResponse,
  ): ReturnType<SignIn> {
    const site = headers['sec-fetch-site']
    if (field(form, 'form') !== formToken || (site !== undefined && site !== 'same-origin'))
      return show(res, 400, errorPage('This form is not from this page, or from before a restart.'))
    if (field(form, 'cancel') !== undefined) return { error: 'access_denied' }
    const person = persons.get(field(form, 'person') ?? '') ?? personNamed(field(form, 'name') ?? '')
    if (!person) return show(res, 400, errorPage('Choose a person or type a name.'))
    persons.set(person.sub, persons.get(person.sub) ?? person)
    const acr = secondFactor(params)
    if (acr !== undefined && field(form, 'approved') === undefined)
      return show(res, 200, secondFactorPage(person, formToken))
    if (deps.asksConsent(params) && field(form, 'agreed') === undefined && acr === undefined)
      return show(res, 200, consentView(person, params))
    return begin(res, { user: person.sub, acr })
  }

  function begin(
    res: ServerResponse,
    { acr, ...who }: { user: string; acr: string | undefined; isAutomatic?: boolean },
  ): SignedIn {
    const id = randomBytes(24).toString('base64url')
    const authTime = Math.floor(now() / 1000)
    const session = { ...who, sid: randomUUID(), authTime, ...(acr === undefined ? {} : { acr }) }
    sessions.set(id, session)
    for (const old of sessions.keys()) if (sessions.size > MOST_SESSIONS) sessions.delete(old)
    res.setHeader('set-cookie', `${cookieName}=${id}; Path=/; HttpOnly; SameSite=Lax`)
    return signedInBy(session)
  }

  function takeTicket(hint: string | undefined): Ticket | undefined {
    if (!hint?.startsWith(TICKET_PREFIX)) return undefined
    const ticket = tickets.get(hint)
    tickets.delete(hint)
    return ticket && now() < ticket.endsAt && persons.has(ticket.user) ? ticket : undefined
  }

  const idOf = ({ headers }: Pick<RecordedRequest, 'headers'>) => cookieOf(headers.cookie, cookieName) ?? ''
  const sessionOf = (request: RecordedRequest) => sessions.get(idOf(request))
  const isTooOld = ({ authTime }: SignInSession, params: [string, string][]) => {
    const maxAge = field(params, 'max_age')
    return maxAge !== undefined && now() / 1000 - authTime > Number(maxAge)
  }
  const show = (_res: ServerResponse, status: number, html: string) => ({
    show: (res: ServerResponse) => sendPage(res, status, html),
  })
  const signInView = (params: [string, string][]) => {
    const hint = field(params, 'login_hint')
    const loginHint = hint?.startsWith(TICKET_PREFIX) ? undefined : hint
    return signInPage({ persons: offered, clientName: deps.clientName, loginHint, formToken })
  }
  const consentView = (person: Person, params: [string, string][]) =>
    consentPage(person, {
      ...{ clientName: deps.clientName, formToken },
      scopes: (field(params, 'scope') ?? '').split(' ').filter(Boolean),
    })

  return {
    signIn,
    /** A `login_hint` that signs in as this person, once and within a minute. */
    ticketFor(ticket: Ticket): string {
      for (const [hint, { endsAt }] of tickets) if (endsAt <= now()) tickets.delete(hint)
      const hint = TICKET_PREFIX + randomBytes(24).toString('base64url')
      tickets.set(hint, { ...ticket, endsAt: now() + TICKET_MS })
      return hint
    },
    /** Ends the browser's session at the provider. */
    signOut(request: RecordedRequest, res: ServerResponse): void {
      sessions.delete(idOf(request))
      res.setHeader('set-cookie', `${cookieName}=; Path=/; Max-Age=0`)
    },
    /** Everything in plain data, for a file. */
    save: (): SavedSignIn => ({
      formToken,
      sessions: [...sessions],
      typed: [...persons.values()].filter(({ sub }) => !offered.some((one) => one.sub === sub)),
    }),
    load(saved: SavedSignIn): void {
      formToken = saved.formToken
      for (const [id, session] of saved.sessions) sessions.set(id, session)
      for (const person of saved.typed) if (!persons.has(person.sub)) persons.set(person.sub, person)
    },
  }
}

function signedInBy({ isAutomatic: _isAutomatic, ...signedIn }: SignInSession): SignedIn {
  return signedIn
}

/** The `acr` that a request asks for: the first of `acr_values`, or ours where its `claims` ask for a context. */
function secondFactor(params: [string, string][]): string | undefined {
  const [first] = (field(params, 'acr_values') ?? '').split(' ').filter(Boolean)
  return first ?? (field(params, 'claims')?.includes('"acrs"') ? SECOND_FACTOR_ACR : undefined)
}

function cookieOf(header: string | undefined, name: string): string | undefined {
  const pair = header?.split(';').find((one) => one.trim().startsWith(`${name}=`))
  return pair?.trim().slice(name.length + 1)
}
