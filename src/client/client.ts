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
  UploadOptions,
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
declare const location: Readonly<Record<'href' | 'origin' | 'pathname' | 'search' | 'hash', string>> & {
  assign(url: string): void
}
declare const document: object | undefined
declare function open(url: string, name: string, features: string): { readonly closed: boolean } | null
declare function addEventListener(type: 'focus', listener: () => void): void
declare const XMLHttpRequest: new () => {
  responseType: string
  readonly response: Blob
  readonly status: number
  readonly upload: { onprogress: ((event: { loaded: number; total: number }) => void) | null }
  onload: (() => void) | null
  onerror: (() => void) | null
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

  constructor(
    { code, reason, status, login_url: loginUrl, request_id: requestId, detail }: Problem,
    retryAfter?: number,
  ) {
    super(detail ?? reason ?? code)
    this.name = 'CloakroomError'
    const needsSignIn = status === 401
    Object.assign(this, { code, reason, status, loginUrl, requestId, retryAfter, needsSignIn })
  }
}

type Waiting = { resolve(value?: unknown): void; reject(error: unknown): void }
/** What `B/done` tells of a popup, and what tabs tell each other. */
type Message<Claims> =
  | ({ done: string } & Partial<Problem>)
  | { done?: undefined; status?: undefined }
  | (Snapshot<Claims> & { done?: undefined })

const ignore = () => {}
const signedOutError = (reason?: string) =>
  new CloakroomError({ code: 'session_required', status: 401, ...(reason && { reason }) })

/** Makes the helper. One for a page: what it knows of the session it tells to the other tabs, and hears from them. */
export function createCloakroom<Claims extends object = AnyClaims>({
  basePath = '/bff',
  warnBefore = 60,
  onSignInNeeded,
  fetch: send = (input, init) => fetch(input, init),
}: CloakroomOptions = {}): Cloakroom<Claims> {
  const listeners: Record<string, Set<(detail: never) => void>> = {}
  const waiting = new Set<Waiting>()
  const popups = new Map<string, Waiting & { popup: { readonly closed: boolean } }>()
  // Background calls that were refused are not sent again before a sign-in.
  const refused = new Map<string, unknown>()
  const warnMs = warnBefore * 1e3
  let snapshot: Snapshot<Claims> = { status: 'unknown', expiring: false }
  let person: string | undefined
  let signIns = 0
  let question: CloakroomError | undefined
  let timer: ReturnType<typeof setTimeout>
  let loading: Promise<Snapshot<Claims>> | undefined

  // A server that renders pages has many users in one process.
  const inBrowser = typeof document === 'object'
  const channel = inBrowser ? new BroadcastChannel(`cloakroom:${basePath}`) : undefined
  const tell = (message: Message<Claims>) => channel?.postMessage(message)

  function on(type: string, listener: (detail: never) => void) {
    listeners[type] ??= new Set()
    const set = listeners[type]
    set.add(listener)
    return () => void set.delete(listener)
  }
  // One by one and later, so that a listener that throws disturbs nothing.
  function emit(type: string, detail: unknown) {
    for (const listener of listeners[type] ?? []) Promise.resolve(detail as never).then(listener)
  }

  function apply(next: Snapshot<Claims>, isNews = true) {
    const was = snapshot
    const isIn = next.status === 'signed-in'
    const { iss, sub } = (next.user ?? {}) as Partial<Record<string, unknown>>
    const who = JSON.stringify([iss, sub])
    const hasMoved = Math.abs((next.expiresAt ?? 0) - (was.expiresAt ?? 0)) > 1500
    const isSameUser = JSON.stringify(next.user) === JSON.stringify(was.user)
    if (hasMoved || !isSameUser || next.status !== was.status || next.expiring !== was.expiring) {
      snapshot = isSameUser && was.user ? { ...next, user: was.user } : next
      if (isNews) tell(snapshot)
      emit('change', snapshot)
    }
    const isOther = isIn && person !== undefined && person !== who
    if (isIn) person = who
    if (isOther) emit('user-changed', snapshot)
    if (isIn && (isOther || was.status !== 'signed-in')) signedIn()
    if (!isIn && was.status === 'signed-in') emit('signed-out', snapshot)
    if (snapshot.expiring && !was.expiring) emit('expiring', snapshot)
    clearTimeout(timer)
    // Looks again at the time of the warning, and often after it: another tab may have extended the session.
    const left = (snapshot.expiresAt ?? 0) - Date.now()
    if (isIn) {
      const until = snapshot.expiring ? Math.min(left, 15e3) : left - warnMs
      timer = setTimeout(() => refresh().catch(ignore), Math.min(2 ** 31 - 1, Math.max(1e3, until)))
    }
  }

  function signedIn() {
    signIns++
    question = undefined
    refused.clear()
    for (const one of popups.values()) one.resolve(snapshot)
    popups.clear()
    emit('signed-in', snapshot)
    resume()
  }
  function resume() {
    for (const one of waiting) one.resolve()
    waiting.clear()
  }

  const own = async (path: string, method = 'GET') =>
    accepted(await send(basePath + path, { method, headers: { 'X-CSRF': '1' } }))

  /** An API's own 401 has no such header. */
  async function accepted(response: Response) {
    const { headers, status } = response
    const code = headers.get('Cloakroom-Error')
    if (!code) return response
    const problem = (await response.json().catch(ignore)) as Problem | undefined
    throw new CloakroomError(
      { ...problem, code: code as ProblemCode, status },
      Number(headers.get('Retry-After')) || undefined,
    )
  }

  async function load(slide = ''): Promise<Snapshot<Claims>> {
    const before = signIns
    const response = await own(`/user?anonymous=204${slide}`)
    const facts = response.status === 204 ? undefined : ((await response.json()) as Record<string, number>)
    // A sign-in overtook it.
    if (before !== signIns) return load(slide)
    if (facts) {
      const leftMs = facts['bff:session_expires_in']! * 1e3
      for (const name in facts) if (name.startsWith('bff:')) delete facts[name]
      const expiresAt = Date.now() + leftMs
      apply({ status: 'signed-in', user: facts as Claims, expiresAt, expiring: leftMs <= warnMs })
    } else apply({ status: 'signed-out', expiring: false })
    return snapshot
  }
  const refresh = () => {
    loading ??= load('&slide=false').finally(() => {
      loading = undefined
    })
    return loading
  }
  const isSignedOut = async () => (await refresh().catch(() => snapshot)).status === 'signed-out'

  function noteEnd({ code }: Partial<CloakroomError>) {
    if (code !== 'session_required' || snapshot.status === 'signed-out') return
    apply({ status: 'signed-out', expiring: false }, false)
    // The others look for themselves.
    tell({})
  }

  function ask(error: CloakroomError) {
    const isOpen = question
    // The newest has a challenge that is not used up.
    question = error
    if (isOpen) return
    emit('sign-in-needed', error)
    Promise.resolve(error)
      .then(onSignInNeeded)
      .then((answer) => {
        if (answer === false) throw answer
      })
      .catch(() => {
        if (!question) return
        question = undefined
        for (const one of waiting) one.reject(error)
        waiting.clear()
      })
  }

  /** Sends, and sends again after a sign-in. What was refused has not reached the API. */
  async function attempt(
    sendOnce: () => Promise<Response>,
    { whenSignedOut, background, signal, key = '' }: CloakroomInit & { key?: string },
  ): Promise<Response> {
    const sender = person
    for (;;) {
      const before = signIns
      if (background && refused.has(key)) throw refused.get(key)
      try {
        const response = await accepted(await sendOnce())
        if (snapshot.expiring && !background) refresh().catch(ignore)
        return response
      } catch (error) {
        if (!(error instanceof CloakroomError && error.needsSignIn)) throw error
        if (before === signIns) {
          noteEnd(error)
          if (background) {
            refused.set(key, error)
            throw error
          }
          ask(error)
          const isHeard = onSignInNeeded || listeners['sign-in-needed']?.size
          if (whenSignedOut !== 'wait' || !isHeard) throw error
          await new Promise((resolve, reject) => {
            waiting.add({ resolve, reject })
            signal?.addEventListener('abort', () => reject(signal.reason))
          })
        }
        // What one user wrote is not sent as another's. The server is asked, because news of another tab may be old.
        if (sender) await refresh()
        if (sender && sender !== person) throw error
      }
    }
  }

  async function signIn(options: SignInOptions = {}): Promise<Snapshot<Claims>> {
    const { mode, returnTo, loginUrl = question?.loginUrl, prompt, loginHint } = options
    const url = new URL(loginUrl ?? `${basePath}/login`, location.origin)
    if (url.origin !== location.origin) throw new TypeError('loginUrl')
    const query = url.searchParams
    const id = String(Math.random())
    const here = returnTo ?? location.pathname + location.search + location.hash
    query.set('returnUrl', mode === 'popup' ? `${basePath}/done?id=${id}` : here)
    if (prompt) query.set('prompt', prompt)
    if (loginHint) query.set('login_hint', loginHint)
    if (mode !== 'popup') {
      location.assign(url.href)
      return new Promise(ignore)
    }
    const popup = open(url.href, '', 'popup,width=500,height=700')
    if (!popup) throw signedOutError('popup_blocked')
    return new Promise((resolve, reject) => {
      popups.set(id, { popup, resolve, reject } as Waiting & { popup: typeof popup })
    })
  }

  function popupFailed(id: string, error: unknown) {
    popups.get(id)?.reject(error)
    // Its challenge is used up: those that wait are refused again with a new one.
    if (popups.delete(id) && question?.loginUrl?.includes('challenge=')) resume()
  }

  if (channel) {
    channel.onmessage = ({ data }: { data: Message<Claims> }) => {
      if (data.done) {
        const { done } = data
        if (data.code || data.reason)
          return popupFailed(done, new CloakroomError({ code: 'session_required', status: 401, ...data }))
        // A step-up changes nothing else.
        const before = ++signIns
        refresh()
          .then(({ status }) => {
            if (status !== 'signed-in') popupFailed(done, signedOutError())
            else if (before === signIns) signedIn()
          })
          .catch((error) => popupFailed(done, error))
      } else if (data.status) apply(data as Snapshot<Claims>, false)
      else refresh().catch(ignore)
    }
    // A popup that closes gives the focus back. Under COOP `closed` may be true before, and `B/done` may be about to tell.
    addEventListener('focus', () =>
      setTimeout(async () => {
        if (popups.size || snapshot.status === 'signed-out') await isSignedOut()
        for (const [id, { popup }] of popups)
          if (popup.closed) popupFailed(id, signedOutError('popup_closed'))
      }, 500),
    )
    refresh().catch(ignore)
  }

  /** Connects again and again; after a refusal that a sign-in cures, when there was one. */
  function keepOpen(
    /** Resolves with ms to wait, or with -1 when it ended for good. */
    connect: (opened: () => void, signal: AbortSignal) => Promise<number>,
    onState: (state: StreamState) => void = ignore,
  ) {
    const controller = new AbortController()
    const { signal } = controller
    const run = async () => {
      for (let failures = 0; !signal.aborted; ) {
        const before = signIns
        onState('connecting')
        const opened = () => {
          failures = 0
          onState('open')
        }
        let waitMs = 3e3
        try {
          waitMs = await connect(opened, signal)
        } catch (error) {
          const { needsSignIn, status = 500 } = error as Partial<CloakroomError>
          if (!needsSignIn && status < 500 && status !== 429) break
          if (needsSignIn && before === signIns && !signal.aborted) {
            noteEnd(error as CloakroomError)
            onState('signed-out')
            await until((resume) => on('signed-in', resume))
          }
          if (needsSignIn) continue
        }
        if (waitMs < 0 || signal.aborted) break
        const delay = Math.min(3e4, waitMs * 2 ** failures++) * (0.5 + Math.random() / 2)
        await until((resume) => setTimeout(resume, delay))
      }
      onState('closed')
    }
    const until = (start: (resume: () => void) => unknown) =>
      new Promise<void>((resolve) => {
        signal.addEventListener('abort', () => resolve())
        start(resolve)
      })
    run()
    return { close: () => controller.abort(), signal }
  }

  /** Fetched, because an EventSource tells no status, and a new one forgets its last event id (HTML §9.2.6). */
  function eventSource(path: string, { onMessage, onState }: Parameters<Cloakroom['eventSource']>[1]) {
    let lastEventId = ''
    let retryMs = 3e3
    return keepOpen(async (opened, signal) => {
      const headers = { Accept: 'text/event-stream', 'X-CSRF': '1', 'Cloakroom-Background': '1' }
      const known = lastEventId ? { 'Last-Event-ID': lastEventId } : undefined
      const response = await accepted(
        await send(path, { headers: { ...headers, ...known }, cache: 'no-store', signal }),
      )
      if (response.status !== 200) return response.status < 500 ? -1 : retryMs
      opened()
      const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader()
      let [rest, data, event] = ['', '', '']
      for (;;) {
        const { done, value } = await reader.read()
        if (done) return retryMs
        // A CR at the end may be half a line break.
        const lines = (rest + value).split(/\r\n|\n|\r(?!$)/)
        rest = lines.pop()!
        for (const line of lines) {
          const [, name, text = ''] = /^([^:]*):? ?(.*)/.exec(line)!
          if (name === 'data') data += `${text}\n`
          if (name === 'event') event = text
          if (name === 'id') lastEventId = text
          if (name === 'retry') retryMs = Number(text) || retryMs
          if (line) continue
          if (data) onMessage({ data: data.slice(0, -1), event: event || 'message', lastEventId })
          data = event = ''
        }
      }
    }, onState)
  }

  function webSocket(
    path: string,
    { protocols, onMessage, onState }: Parameters<Cloakroom['webSocket']>[1],
  ): ReturnType<Cloakroom['webSocket']> {
    let socket: WebSocket | undefined
    const { close } = keepOpen(
      (opened, signal) =>
        new Promise((resolve, reject) => {
          const current = new WebSocket(location.origin.replace('http', 'ws') + path, protocols)
          let mayBeSignedOut = true
          socket = current
          signal.addEventListener('abort', () => current.close())
          current.onopen = () => {
            mayBeSignedOut = false
            opened()
          }
          current.onmessage = ({ data }) => onMessage(data)
          current.onclose = async ({ code }) => {
            // 1008: its session has ended.
            if ((mayBeSignedOut || code === 1008) && (await isSignedOut())) reject(signedOutError())
            else resolve(code === 1000 ? -1 : 1e3)
          }
        }),
      onState,
    )
    return {
      close,
      send(data) {
        const isOpen = socket?.readyState === 1
        if (isOpen) socket!.send(data)
        return isOpen
      },
    }
  }

  /** A `fetch` tells no progress of what it sends. */
  async function sendFile(path: string, body: UploadBody, options: UploadOptions): Promise<Response> {
    const { method = 'POST', headers, onProgress = ignore, signal, whenSignedOut } = options
    // A refusal may end the connection while the file is still on its way, and is not seen then.
    if (whenSignedOut && (await isSignedOut())) throw signedOutError()
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest()
      request.open(method, path)
      request.responseType = 'blob'
      for (const [name, value] of Object.entries({ ...headers, 'X-CSRF': '1' }))
        request.setRequestHeader(name, value)
      request.upload.onprogress = ({ loaded, total }) => onProgress({ loaded, total })
      request.onload = () => {
        const { status, response } = request
        const lines = request.getAllResponseHeaders().trim().split('\r\n')
        const fields = lines.map((line) => line.split(/: (.*)/s, 2) as [string, string])
        resolve(new Response(response.size ? response : null, { status, headers: fields }))
      }
      request.onerror = async () =>
        reject((await isSignedOut()) ? signedOutError() : new TypeError('upload failed'))
      signal?.addEventListener('abort', () => {
        request.abort()
        reject(signal.reason)
      })
      request.send(body)
    })
  }

  return {
    async fetch(input, init = {}) {
      const request = new Request(input, init)
      request.headers.set('X-CSRF', '1')
      if (init.background) request.headers.set('Cloakroom-Background', '1')
      const key = request.method + request.url.split('?')[0]
      return attempt(() => send(request.clone()), { ...init, signal: request.signal, key })
    },
    upload: (path, body, options = {}) => attempt(() => sendFile(path, body, options), options),
    eventSource,
    webSocket,
    signIn,
    async signOut({ returnTo = '/' } = {}) {
      const answer = await own(`/logout?returnUrl=${encodeURIComponent(returnTo)}`, 'POST')
      const { redirect } = (await answer.json()) as { redirect: string }
      apply({ status: 'signed-out', expiring: false })
      location.assign(redirect)
    },
    refresh,
    extend: () => load(),
    getSnapshot: () => snapshot,
    subscribe: (listener) => on('change', listener),
    on,
  }
}
