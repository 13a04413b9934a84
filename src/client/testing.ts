import { CloakroomError, createCloakroom } from './client.ts'
import type {
  AnyClaims,
  Cloakroom,
  CloakroomOptions,
  ProblemCode,
  SignInOptions,
  Snapshot,
  StreamState,
} from './types.ts'

/** Answers one request of the component under test. Undefined: 404. */
export type TestAnswer = (request: Request) => Response | undefined | Promise<Response | undefined>

/** One WebSocket of the component under test, seen from the server. */
export type TestSocket = {
  readonly path: string
  /** What the component has sent. */
  readonly sent: readonly unknown[]
  /** As if the server had sent it. */
  receive(data: unknown): void
  close(): void
}

/** The helper with a session that a test holds in its hand. */
export type TestCloakroom<Claims> = Cloakroom<Claims> & {
  /** As after a sign-in: waiting requests are sent again, `signIn` resolves. Resolves when the helper knows. */
  signInAs(user: Claims): Promise<void>
  /** As after a popup that came to nothing: `signIn` rejects with this reason. */
  failSignIn(reason: string): void
  /** The next call meets an expired session. */
  expireSession(): void
  /** The session ends in so many seconds. Resolves when the helper knows. */
  expireIn(seconds: number): Promise<void>
  /** The next call is refused by Cloakroom with this code. */
  refuseNext(code: ProblemCode, status: number, reason?: string): void
  /** Every request so far, those of the helper itself among them. */
  readonly requests: readonly Request[]
  /** With what each sign-in was begun. No page is left, and no window opens. */
  readonly signIns: readonly SignInOptions[]
  readonly sockets: readonly TestSocket[]
}

/**
 * Makes the real helper over a server that is a function, for tests of components: without a server, in Node and in jsdom.
 * It hears of no other tab, and of no other test. `user`: who is signed in at the beginning.
 */
export function createTestCloakroom<Claims extends object = AnyClaims>({
  user,
  answer = () => undefined,
  ...options
}: Omit<CloakroomOptions, 'fetch'> & { user?: Claims; answer?: TestAnswer } = {}): TestCloakroom<Claims> {
  const { basePath = '/bff' } = options
  const requests: Request[] = []
  const signIns: SignInOptions[] = []
  const sockets: TestSocket[] = []
  const refusals: { code: ProblemCode; status: number; reason?: string }[] = []
  const asked: PromiseWithResolvers<Snapshot<Claims>>[] = []
  let current = user
  let secondsLeft = 1800
  let sessions = 0

  async function serve(input: string | Request, init?: RequestInit): Promise<Response> {
    const request = new Request(typeof input === 'string' ? absolute(input) : input, init)
    requests.push(request)
    const { pathname } = new URL(request.url)
    if (pathname === `${basePath}/user`) {
      const facts = { 'bff:session_expires_in': secondsLeft, 'bff:logout_url': `${sessions}` }
      return current ? Response.json({ ...current, ...facts }) : new Response(null, { status: 204 })
    }
    if (pathname === `${basePath}/logout`) {
      current = undefined
      return Response.json({ redirect: '/' })
    }
    const refusal = refusals.shift() ?? (current ? undefined : { code: 'session_required', status: 401 })
    if (!refusal) return (await answer(request)) ?? new Response('no answer in this test', { status: 404 })
    const headers = { 'content-type': 'application/problem+json', 'cloakroom-error': refusal.code }
    const problem = { ...refusal, login_url: `${basePath}/login` }
    return new Response(JSON.stringify(problem), { status: refusal.status, headers })
  }

  const cloakroom = createCloakroom<Claims>({ ...options, fetch: serve, channel: null })
  return {
    ...cloakroom,
    fetch: (input, init) => cloakroom.fetch(typeof input === 'string' ? absolute(input) : input, init),
    async upload(path, body, { method = 'POST', onProgress, ...init } = {}) {
      const response = await cloakroom.fetch(absolute(path), { ...init, method, body })
      onProgress?.({ loaded: 1, total: 1 })
      return response
    },
    webSocket(path, { onMessage, onState = () => {} }) {
      const socket = openSocket(path, { onMessage, onState })
      sockets.push(socket)
      return { send: socket.send, close: socket.close }
    },
    signIn(how = {}) {
      signIns.push(how)
      asked.push(Promise.withResolvers())
      return asked.at(-1)!.promise
    },
    async signInAs(next) {
      current = next
      secondsLeft = 1800
      sessions += 1
      const snapshot = await cloakroom.refresh()
      for (const { resolve } of asked.splice(0)) resolve(snapshot)
    },
    failSignIn(reason) {
      const failure = new CloakroomError({ code: 'session_required', status: 401, reason })
      for (const { reject } of asked.splice(0)) reject(failure)
    },
    async signOut() {
      current = undefined
      await cloakroom.refresh()
    },
    expireSession() {
      current = undefined
    },
    async expireIn(seconds) {
      secondsLeft = seconds
      await cloakroom.refresh()
    },
    refuseNext: (code, status, reason) => void refusals.push({ code, status, ...(reason && { reason }) }),
    ...{ requests, signIns, sockets },
  }
}

function absolute(path: string): URL {
  return new URL(path, 'http://cloakroom.test')
}

function openSocket(
  path: string,
  { onMessage, onState }: { onMessage: (data: unknown) => void; onState: (state: StreamState) => void },
) {
  const sent: unknown[] = []
  let isOpen = true
  onState('connecting')
  onState('open')
  return {
    ...{ path, sent },
    send(data: unknown): boolean {
      if (isOpen) sent.push(data)
      return isOpen
    },
    receive: (data: unknown) => {
      if (isOpen) onMessage(data)
    },
    close() {
      if (!isOpen) return
      isOpen = false
      onState('closed')
    },
  }
}
