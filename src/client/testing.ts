import { createCloakroom } from './client.ts'
import type { AnyClaims, Cloakroom, CloakroomOptions, ProblemCode } from './types.ts'

/** Answers one request of the component under test. Undefined: 404. */
export type TestAnswer = (request: Request) => Response | undefined | Promise<Response | undefined>

/** The helper with a session that a test holds in its hand. */
export type TestCloakroom<Claims> = Cloakroom<Claims> & {
  /** As after a sign-in: waiting requests are sent again. Resolves when the helper knows. */
  signInAs(user: Claims): Promise<void>
  /** The next call meets an expired session. */
  expireSession(): void
  /** The next call is refused by Cloakroom with this code. */
  refuseNext(code: ProblemCode, status: number, reason?: string): void
  /** Every request so far. */
  readonly requests: readonly Request[]
}

/**
 * Makes the real helper over a server that is a function, for tests of components: without a server, and in jsdom too.
 * `user`: who is signed in at the beginning.
 */
export function createTestCloakroom<Claims extends object = AnyClaims>({
  user,
  answer = () => undefined,
  ...options
}: Omit<CloakroomOptions, 'fetch'> & { user?: Claims; answer?: TestAnswer } = {}): TestCloakroom<Claims> {
  const requests: Request[] = []
  const refusals: { code: ProblemCode; status: number; reason?: string }[] = []
  let current = user

  async function serve(input: string | Request, init?: RequestInit): Promise<Response> {
    const request = new Request(
      typeof input === 'string' ? new URL(input, 'http://cloakroom.test') : input,
      init,
    )
    requests.push(request)
    const { pathname } = new URL(request.url)
    if (pathname.endsWith('/bff/user'))
      return current
        ? json({ ...current, 'bff:session_expires_in': 1800 })
        : new Response(null, { status: 204 })
    if (pathname.endsWith('/bff/logout')) {
      current = undefined
      return json({ redirect: '/' })
    }
    const refusal = refusals.shift() ?? (current ? undefined : { code: 'session_required', status: 401 })
    if (!refusal) return (await answer(request)) ?? new Response('no answer in this test', { status: 404 })
    const headers = { 'content-type': 'application/problem+json', 'cloakroom-error': refusal.code }
    const problem = { ...refusal, login_url: '/bff/login' }
    return new Response(JSON.stringify(problem), { status: refusal.status, headers })
  }

  const cloakroom = createCloakroom<Claims>({ ...options, fetch: serve })
  return {
    ...cloakroom,
    fetch: (input, init) =>
      cloakroom.fetch(typeof input === 'string' ? new URL(input, 'http://cloakroom.test') : input, init),
    async signInAs(next) {
      current = next
      await cloakroom.refresh()
    },
    async signOut() {
      current = undefined
      await cloakroom.refresh()
    },
    expireSession() {
      current = undefined
    },
    refuseNext: (code, status, reason) => void refusals.push({ code, status, ...(reason && { reason }) }),
    requests,
  }
}

function json(value: unknown): Response {
  return new Response(JSON.stringify(value), { headers: { 'content-type': 'application/json' } })
}
