import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Person } from './identity-provider-options.ts'
import { errorPage, secondFactorPage, signInPage } from './provider-pages.ts'

/** The authorization request that waits for an answer of the person. */
type Interaction = {
  readonly params: Record<string, unknown>
  /** Why the person is asked. */
  readonly prompt: { readonly reasons: readonly string[] }
  /** Who is signed in at the provider already. */
  readonly session?: { readonly accountId?: string }
}

/** What sign-in needs of the provider: the authorization request that waits, and a way to answer it. */
export type Interactions = {
  interactionDetails(req: IncomingMessage, res: ServerResponse): Promise<Interaction>
  interactionFinished(
    req: IncomingMessage,
    res: ServerResponse,
    result: Record<string, unknown>,
    options: { mergeWithLastSubmission: boolean },
  ): Promise<void>
}

/** The sign-in's collaborators. `persons` grows when somebody types a new name. */
export type SignInDeps = {
  readonly interactions: Interactions
  readonly persons: Map<string, Person>
  /** What to call the application that asks. */
  readonly clientNames: ReadonlyMap<unknown, string>
  /** Sends a page of the provider's own. */
  readonly sendPage: (res: ServerResponse, status: number, html: string) => void
  /** The `acr` of a sign-in with a second factor; absent: none is asked for. */
  readonly secondFactorAcr?: string
}

/** The reason of an interaction in which only the second factor is missing. */
export const SECOND_FACTOR_MISSING = 'second_factor_missing'

/** True when the request asks for this authentication context (OpenID Connect Core §3.1.2.1, `acr_values`). */
export function wantsAcr(acrValues: unknown, acr: string | undefined): boolean {
  return acr !== undefined && typeof acrValues === 'string' && acrValues.split(' ').includes(acr)
}

const MAX_FORM_BYTES = 8192

/** Handles `/interaction/:uid`: GET shows the page, POST signs in as the person chosen (or cancels). */
export function createSignIn(deps: SignInDeps) {
  const { interactions, persons, clientNames, sendPage, secondFactorAcr } = deps
  const offered = [...persons.values()]

  async function show(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const { params, prompt, session } = await interactions.interactionDetails(req, res)
    const person = persons.get(session?.accountId ?? '')
    const isKnown = prompt.reasons.every((reason) => reason === SECOND_FACTOR_MISSING)
    if (person && isKnown) return sendPage(res, 200, secondFactorPage(person))
    const loginHint = typeof params.login_hint === 'string' ? params.login_hint : undefined
    const clientName = clientNames.get(params.client_id) ?? 'an application'
    sendPage(res, 200, signInPage({ persons: offered, clientName, loginHint }))
  }

  async function submit(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const form = await readForm(req)
    const finish = (result: Record<string, unknown>) =>
      interactions.interactionFinished(req, res, result, { mergeWithLastSubmission: false })
    if (form.has('cancel'))
      return finish({ error: 'access_denied', error_description: 'the person cancelled the sign-in' })
    const person = persons.get(form.get('person') ?? '') ?? personNamed(form.get('name') ?? '')
    if (!person) return sendPage(res, 400, errorPage('Choose a person or type a name.'))
    persons.set(person.sub, persons.get(person.sub) ?? person)
    const { params } = await interactions.interactionDetails(req, res)
    const needsFactor = wantsAcr(params.acr_values, secondFactorAcr)
    if (needsFactor && !form.has('approved')) return sendPage(res, 200, secondFactorPage(person))
    const acr = needsFactor ? { acr: secondFactorAcr } : undefined
    await finish({ login: { accountId: person.sub, ...acr }, select_account: {} })
  }

  return async function signIn(req: IncomingMessage, res: ServerResponse): Promise<void> {
    try {
      await (req.method === 'POST' ? submit(req, res) : show(req, res))
    } catch (error) {
      const message = error instanceof Error ? error.message : 'unexpected error'
      if (!res.headersSent) sendPage(res, 400, errorPage(message))
    }
  }
}

/** The person of a typed name; undefined without a letter or digit in it. */
export function personNamed(typed: string): Person | undefined {
  const name = typed.trim().slice(0, 60)
  const handle = name.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, '.')
  return /[\p{L}\p{N}]/u.test(handle) ? { sub: handle, name, email: `${handle}@example.com` } : undefined
}

async function readForm(req: IncomingMessage): Promise<URLSearchParams> {
  let text = ''
  req.setEncoding('utf8')
  for await (const chunk of req) {
    text += chunk
    if (text.length > MAX_FORM_BYTES) throw new Error('the form is too large')
  }
  return new URLSearchParams(text)
}
