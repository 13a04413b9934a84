import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Person } from './identity-provider-options.ts'
import { errorPage, signInPage } from './provider-pages.ts'

/** What sign-in needs of the provider: the authorization request that waits, and a way to answer it. */
export type Interactions = {
  interactionDetails(req: IncomingMessage, res: ServerResponse): Promise<{ params: Record<string, unknown> }>
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
}

const MAX_FORM_BYTES = 8192

/** Handles `/interaction/:uid`: GET shows the sign-in page, POST signs in as the person chosen (or cancels). */
export function createSignIn({ interactions, persons, clientNames, sendPage }: SignInDeps) {
  const offered = [...persons.values()]

  async function show(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const { params } = await interactions.interactionDetails(req, res)
    const loginHint = typeof params.login_hint === 'string' ? params.login_hint : undefined
    const clientName = clientNames.get(params.client_id) ?? 'an application'
    sendPage(res, 200, signInPage({ persons: offered, clientName, loginHint }))
  }

  async function submit(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const result = answerOf(await readForm(req), persons)
    if (!result) return sendPage(res, 400, errorPage('Choose a person or type a name.'))
    await interactions.interactionFinished(req, res, result, { mergeWithLastSubmission: false })
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

function answerOf(form: URLSearchParams, persons: Map<string, Person>): Record<string, unknown> | undefined {
  if (form.has('cancel'))
    return { error: 'access_denied', error_description: 'the person cancelled the sign-in' }
  const person = persons.get(form.get('person') ?? '') ?? personNamed(form.get('name') ?? '')
  if (!person) return undefined
  persons.set(person.sub, persons.get(person.sub) ?? person)
  return { login: { accountId: person.sub }, select_account: {} }
}

function personNamed(typed: string): Person | undefined {
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
