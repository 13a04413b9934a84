/**
 * The browser helper, served as `B/client.js`. It is one file because it is served as it is, without its comments and
 * types. It imports nothing at run time and keeps to 3 kB.
 */
import type {
  AnyClaims,
  Cloakroom,
  CloakroomErrorFields,
  CloakroomInit,
  CloakroomOptions,
  Problem,
  ProblemCode,
  SignInOptions,
  Snapshot,
  StreamState,
  UploadBody,
} from './types.ts'

export type {
  AnyClaims,
  Cloakroom,
  CloakroomOptions,
  ProblemCode,
  Snapshot,
  StreamEvent,
  StreamState,
} from './types.ts'

// Of a browser, as far as it is used here: the same types with and without TypeScript's `dom` library.
declare const location: Readonly<Record<'href' | 'origin', string>> & {
  assign(url: string): void
  replace(url: string): void
}
declare const document: { hasFocus(): boolean } | undefined
declare function open(url: string, name: string, features: string): { readonly closed: boolean } | null
declare function addEventListener(type: string, listener: (event: object) => void): void
declare const XMLHttpRequest: new () => {
  responseType: string
  readonly response: Blob
  readonly status: number
  readonly upload: { onprogress: ((event: { loaded: number; total: number }) => void) | null }
  onloadend: (() => void) | null
  open(method: string, path: string): void
  setRequestHeader(name: string, value: string): void
  getAllResponseHeaders(): string
  abort(): void
  send(body: UploadBody): void
}

/** A refusal of Cloakroom's own, as opposed to an API's answer; or why a sign-in came to nothing. */
export class CloakroomError extends Error implements CloakroomErrorFields {
  declare readonly code: ProblemCode
  declare readonly reason?: string
  declare readonly status: number
  declare readonly loginUrl?: string
  declare readonly requestId?: string
  declare readonly retryAfter?: number
  declare readonly needsSignIn: boolean

  constructor(facts: Facts) {
    super(facts.detail ?? facts.code)
    Object.assign(this, facts, { name: 'CloakroomError', needsSignIn: facts.status === 401 })
  }
}

/** Of an error, without what follows from it. */
type Facts = Omit<CloakroomErrorFields, 'needsSignIn'> & { readonly detail?: string | undefined }
/** What `B/done` tells of a popup. Empty: another tab has seen a change of the session. */
type Message = Partial<Facts> & { done?: string }

const ignore = () => {}
/** Such a request does not extend the session. */
const BACKGROUND = { 'Cloakroom-Background': '1' }
const signInError = (reason?: string, facts?: Partial<Facts>) =>
  new CloakroomError({ code: 'session_required', status: 401, reason, ...facts })

/** Makes the helper. One for a page: what it knows of the session it tells to the other tabs, and hears from them. */
export function createCloakroom<Claims extends object = AnyClaims>({
  basePath = '/bff',
  warnBefore = 60,
  onSignInNeeded,
  fetch: send = (input, init) => fetch(input, init),
  // A server that renders pages has many users in one process.
  channel = typeof document === 'object' ? new BroadcastChannel(`cloakroom:${basePath}`) : undefined,
}: CloakroomOptions & { channel?: BroadcastChannel | null } = {}): Cloakroom<Claims> {
  const listeners: Record<string, Set<(detail: never) => void>> = {}
  const waiting: ((error?: unknown) => void)[] = []
  // Background calls that were refused are not sent again before a sign-in.
  let refused: Record<string, unknown> = {}
  let snapshot: Snapshot<Claims> = { status: 'unknown', expiring: false }
  // Another one after each sign-in and step-up.
  let sessionId = ''
  let person: string | undefined
  let question: CloakroomError | undefined
  let endPopup: (error?: unknown, id?: string) => void = ignore
  let timer: ReturnType<typeof setTimeout>
  let loading: Promise<Snapshot<Claims>> | undefined

  function on(type: string, listener: (detail: never) => void) {
    listeners[type] ??= new Set()
    const set = listeners[type]
    set.add(listener)
    return () => void set.delete(listener)
  }
  // One by one and later, so that a listener that throws disturbs nothing.
  function emit(type: string, detail: unknown = snapshot) {
    for (const listener of listeners[type] ?? []) Promise.resolve(detail as never).then(listener)
  }

  function signedIn() {
    const { sub } = snapshot.user as Partial<AnyClaims>
    if (person && person !== sub) emit('user-changed')
    person = sub
    question = undefined
    refused = {}
    endPopup()
    emit('signed-in')
    resume()
  }
  function resume(error?: unknown) {
    for (const one of waiting.splice(0)) one(error)
  }

  const call = async (path: string, headers?: Record<string, string>, init?: RequestInit) =>
    accepted(await send(path, { ...init, headers: { 'X-CSRF': '1', ...headers } }))

  /** An API's own 401 has no such header. */
  async function accepted(response: Response) {
    const { headers, status } = response
    const code = headers.get('Cloakroom-Error') as ProblemCode | null
    if (!code) return response
    const problem = (await response.json().catch(ignore)) as Problem | undefined
    throw new CloakroomError({
      ...problem,
      ...{ code, status, loginUrl: problem?.login_url, requestId: problem?.request_id },
      retryAfter: Number(headers.get('Retry-After')) || undefined,
    })
  }

  /** Asks the server, and tells listeners and other tabs what has changed. */
  async function load(headers: Record<string, string>, isNews?: unknown): Promise<Snapshot<Claims>> {
    const wasIn = sessionId
    const response = await call(`${basePath}/user?anonymous=204`, headers)
    if (!response.ok) throw new TypeError(response.statusText)
    const user = response.status === 204 ? undefined : ((await response.json()) as Record<string, unknown>)
    // A sign-in or sign-out overtook it.
    if (wasIn !== sessionId) return load(headers, isNews)
    const was = snapshot
    sessionId = user ? `${user['bff:logout_url']}` : ''
    let expiresAt = user && Date.now() + (user['bff:session_expires_in'] as number) * 1e3
    // The server counts in seconds.
    if (Math.abs(expiresAt! - was.expiresAt!) < 1500) expiresAt = was.expiresAt
    for (const name in user) if (name.startsWith('bff:')) delete user[name]
    const leftMs = expiresAt! - Date.now()
    const warnMs = leftMs - warnBefore * 1e3
    const expiring = warnMs <= 0
    const status = user ? 'signed-in' : 'signed-out'
    const next = { status, user: user as Claims | undefined, expiresAt, expiring } as const
    if (sessionId !== wasIn || JSON.stringify(next) !== JSON.stringify(was)) {
      snapshot = next
      if (isNews) channel?.postMessage({})
      emit('change')
    }
    clearTimeout(timer)
    if (user) {
      if (sessionId !== wasIn) signedIn()
      // Looks at the time of the warning, and often after it: another tab may have extended the session.
      timer = setTimeout(refresh, expiring ? Math.min(leftMs, 15e3) + 1e3 : Math.min(warnMs, 1e9))
    } else if (wasIn) emit('signed-out')
    if (expiring && !was.expiring) emit('expiring')
    return snapshot
  }
  function refresh(isNews: unknown = true): Promise<Snapshot<Claims>> {
    loading ??= load(BACKGROUND, isNews)
      .catch(() => {
        timer = setTimeout(refresh, 15e3)
        return snapshot
      })
      .finally(() => {
        loading = undefined
      })
    return loading
  }
  async function requireSession() {
    await refresh()
    if (snapshot.status === 'signed-out') throw signInError()
  }

  async function ask(error: CloakroomError) {
    const isOpen = question
    // The newest has a challenge that lives longest.
    question = error
    if (isOpen) return
    emit('sign-in-needed', error)
    const answer = await Promise.resolve(error)
      .then(onSignInNeeded)
      .catch(() => false)
    if (answer !== false || !question) return
    question = undefined
    resume(error)
  }

  /**
   * Does `act`, and does it again after a sign-in. What was refused has not reached the API. `key`: of a call that is not
   * sent again after a refusal.
   */
  async function attempt<Result>(
    act: () => Promise<Result>,
    { whenSignedOut, background, signal, key }: CloakroomInit & { key?: string | undefined },
  ): Promise<Result> {
    const sender = person
    // Of two routes that each undo the step-up of the other, none is asked for without an end.
    for (let refusals = 0; ; ) {
      signal?.throwIfAborted()
      if (refused[key!]) throw refused[key!]
      const before = sessionId
      try {
        const result = await act()
        if (snapshot.expiring && !background) refresh()
        return result
      } catch (thrown) {
        const error = thrown as CloakroomError
        if (!error?.needsSignIn || ++refusals > 9) throw error
        // The server knows better, and the other tabs hear of it.
        if (snapshot.status !== 'signed-out') await refresh()
        if (!sessionId || before === sessionId) {
          if (key) refused[key] = error
          if (!background) ask(error)
          if (whenSignedOut !== 'wait') throw error
          await new Promise<void>((resolve, reject) => {
            waiting.push((refusal) => (refusal && !background ? reject(refusal) : resolve()))
            signal?.addEventListener('abort', () => reject(signal.reason))
          })
        }
        // What one user began does not go on as another.
        if (sender && sender !== person) throw error
      }
    }
  }

  async function signIn({
    mode,
    returnTo = location.href.replace(location.origin, ''),
    loginUrl = question?.loginUrl ?? `${basePath}/login`,
    prompt,
    loginHint,
  }: SignInOptions = {}): Promise<Snapshot<Claims>> {
    const url = new URL(loginUrl, location.origin)
    if (url.origin !== location.origin) throw new TypeError('loginUrl')
    const isPopup = mode === 'popup'
    const id = `${Math.random()}`
    const returnUrl = isPopup ? `${basePath}/done?id=${id}` : returnTo
    for (const [name, value] of Object.entries({ returnUrl, prompt, login_hint: loginHint }))
      if (value) url.searchParams.set(name, value)
    if (!isPopup) {
      location.assign(url.href)
      return new Promise(ignore)
    }
    const window = open(url.href, '', 'width=500,height=700')
    if (!window) throw signInError('popup_blocked')
    const closed = signInError('popup_closed')
    endPopup(closed)
    return new Promise((resolve, reject) => {
      let seconds = -7
      const watch = setInterval(() => {
        // Under COOP `closed` says nothing. The page has the focus again, and for longer than by a stray click.
        if (!document!.hasFocus()) seconds = 0
        else if (window.closed && ++seconds > 2) endPopup(closed)
      }, 1e3)
      endPopup = (error, popup = id) => {
        if (popup !== id) return
        clearInterval(watch)
        endPopup = ignore
        if (!error) return resolve(snapshot)
        reject(error)
        // The challenge of a step-up may have grown too old: those that wait are refused again with a new one.
        resume()
      }
    })
  }

  if (channel) {
    channel.onmessage = async ({ data }: { data: Message }) => {
      const { done, code } = data
      if (code) endPopup(signInError('', data), done)
      else if (done) {
        // What is loaded now is news, and what is on its way is old.
        sessionId &&= ' '
        loading = undefined
        await refresh('')
        endPopup(signInError(), done)
      } else refresh('')
    }
    for (const type of ['focus', 'pageshow']) addEventListener(type, refresh)
    refresh()
  }

  /** Connects again and again; after a refusal that a sign-in cures, when there was one. */
  function keepOpen(
    /** Resolves with ms to wait, or with -1 when it ended for good. */
    connect: (opened: () => void, signal: AbortSignal) => Promise<number>,
    onState: (state: StreamState) => void = ignore,
  ) {
    const controller = new AbortController()
    const { signal } = controller
    let wake = ignore
    const run = async () => {
      let waitMs = 3e3
      let failures = 0
      const opened = () => {
        failures = 0
        onState('open')
      }
      for (;;) {
        try {
          waitMs = await attempt(
            () => {
              onState('connecting')
              return connect(opened, signal).catch((error) => {
                if (error.needsSignIn) onState('signed-out')
                throw error
              })
            },
            { signal, background: true, whenSignedOut: 'wait' },
          )
        } catch (error) {
          const { status = 503 } = error as Partial<CloakroomError>
          if (status < 500 && status !== 429) break
        }
        if (waitMs < 0 || signal.aborted) break
        await new Promise<void>((resolve) => {
          wake = resolve
          setTimeout(resolve, Math.random() * Math.min(3e4, waitMs * 2 ** failures++))
        })
      }
      onState('closed')
    }
    run()
    return {
      close() {
        controller.abort()
        wake()
      },
    }
  }

  return {
    async fetch(input, init = {}) {
      const request = new Request(input, init)
      request.headers.set('X-CSRF', '1')
      if (init.background) request.headers.set('Cloakroom-Background', '1')
      return attempt(async () => accepted(await send(request.clone())), {
        ...init,
        signal: request.signal,
        key: init.background ? request.url.split('?')[0] : undefined,
      })
    },

    /** A `fetch` tells no progress of what it sends. */
    upload: (path, body, options = {}) =>
      attempt(async () => {
        const { method = 'POST', headers, onProgress, signal, whenSignedOut } = options
        // A refusal may end the connection while the file is still on its way, and is not seen then.
        if (whenSignedOut) await requireSession()
        return new Promise((resolve, reject) => {
          const request = new XMLHttpRequest()
          request.open(method, path)
          request.responseType = 'blob'
          for (const [name, value] of Object.entries({ ...headers, 'X-CSRF': '1' }))
            request.setRequestHeader(name, value)
          request.upload.onprogress = onProgress!
          request.onloadend = () => {
            const { status, response } = request
            const lines = request.getAllResponseHeaders().trim().split('\r\n')
            const fields = lines.map((line) => line.split(/: (.*)/, 2) as [string, string])
            if (status)
              resolve(accepted(new Response(response.size ? response : null, { status, headers: fields })))
            else requireSession().then(() => reject(new TypeError('upload')), reject)
          }
          signal?.addEventListener('abort', () => {
            reject(signal.reason)
            request.abort()
          })
          request.send(body)
        })
      }, options),

    /** Fetched, because an EventSource tells no status, and a new one forgets its last event id (HTML §9.2.6). */
    eventSource(path, { onMessage, onState }) {
      let lastEventId = ''
      let retryMs = 3e3
      return keepOpen(async (opened, signal) => {
        const { status, headers, body } = await call(
          path,
          {
            Accept: 'text/event-stream',
            ...BACKGROUND,
            ...(lastEventId && { 'Last-Event-ID': lastEventId }),
          },
          { signal },
        )
        if (status !== 200 || !/event-stream/.test(headers.get('Content-Type')!))
          return status < 500 ? -1 : retryMs
        opened()
        const reader = body!.pipeThrough(new TextDecoderStream()).getReader()
        let rest = ''
        let fields: Record<string, string> = { data: '' }
        for (;;) {
          const { done, value } = await reader.read()
          if (done) return retryMs
          // A CR at the end may be half a line break.
          const lines = (rest + value).split(/\r\n|\n|\r(?!$)/)
          rest = lines.pop()!
          for (const line of lines) {
            const [, name, text] = /^([^:]*):? ?(.*)/s.exec(line) as unknown as [string, string, string]
            if (line) fields[name] = name === 'data' ? `${fields.data + text}\n` : text
            else {
              const { data, event, id = lastEventId, retry } = fields
              // Only now: an event that is cut off has not been seen.
              lastEventId = id
              retryMs = Number(retry) || retryMs
              if (data) onMessage({ data: data.slice(0, -1), event: event || 'message', lastEventId })
              fields = { data: '' }
            }
          }
        }
      }, onState)
    },

    webSocket(path, { protocols, onMessage, onState }) {
      let socket: WebSocket | undefined
      const stream = keepOpen(
        (opened, signal) =>
          new Promise<number>((resolve, reject) => {
            const current = new WebSocket(path, protocols)
            socket = current
            signal.onabort = () => current.close()
            current.onopen = opened
            current.onmessage = ({ data }) => onMessage(data)
            // Neither a refusal nor the end of the session can be told from other ends.
            current.onclose = ({ code }) =>
              code === 1000 ? resolve(-1) : requireSession().then(() => resolve(1e3), reject)
          }),
        onState,
      )
      return {
        ...stream,
        send(data) {
          if (socket?.readyState !== 1) return false
          socket.send(data)
          return true
        },
      }
    },

    signIn,
    async signOut({ returnTo = '/' } = {}) {
      const path = `${basePath}/logout?returnUrl=${encodeURIComponent(returnTo)}`
      const answer = await call(path, {}, { method: 'POST' })
      const { redirect } = (await answer.json()) as { redirect: string }
      await refresh()
      // The back button would show this page as it was left.
      location.replace(redirect)
    },
    refresh,
    extend: () => load({}),
    getSnapshot: () => snapshot,
    subscribe: (listener) => on('change', listener),
    on,
    close() {
      // Nothing is asked any more.
      loading = Promise.resolve(snapshot)
      clearTimeout(timer)
      channel?.close()
    },
  }
}
