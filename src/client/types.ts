/** Every code of a problem that Cloakroom answers with. */
export type ProblemCode =
  | 'path_rejected'
  | 'invalid_return_url'
  | 'invalid_callback'
  | 'bad_request'
  | 'session_required'
  | 'reauthentication_required'
  | 'csrf_required'
  | 'origin_forbidden'
  | 'access_denied'
  | 'route_not_found'
  | 'method_not_allowed'
  | 'body_too_large'
  | 'misdirected_request'
  | 'rate_limited'
  | 'upstream_unreachable'
  | 'provider_rejected'
  | 'store_unavailable'
  | 'provider_unavailable'
  | 'upstream_timeout'

/** Members of an RFC 9457 problem of Cloakroom's that the helper reads. */
export type Problem = {
  readonly code: ProblemCode
  readonly status: number
  readonly title?: string
  readonly detail?: string
  readonly reason?: string
  readonly login_url?: string
  readonly request_id?: string
}

/** Claims of the ID token that every provider sends, and whatever else this one does. */
export type AnyClaims = { readonly sub: string; readonly [name: string]: unknown }

/** What is known of the session. The same object until something changes. */
export type Snapshot<Claims = AnyClaims> = {
  readonly status: 'unknown' | 'signed-in' | 'signed-out'
  readonly user?: Claims
  /** Epoch ms. */
  readonly expiresAt?: number
  /** Fewer than `warnBefore` seconds are left. */
  readonly expiring: boolean
}

/** A refusal of Cloakroom's own, or why a sign-in came to nothing. */
export type CloakroomErrorFields = {
  readonly code: ProblemCode
  /** The reason of the problem, `popup_blocked`, `popup_closed`, or the `login_error` of the provider. */
  readonly reason?: string
  readonly status: number
  readonly loginUrl?: string
  readonly requestId?: string
  /** Seconds. */
  readonly retryAfter?: number
  /** A sign-in, or a step-up at `loginUrl`, cures it. */
  readonly needsSignIn: boolean
}

export type CloakroomOptions = {
  /** `/bff` unless given. */
  readonly basePath?: string
  /** Seconds before the end of the session at which `expiring` is told; 60 unless given. */
  readonly warnBefore?: number
  /**
   * Asks the user, once however many calls failed. Resolving with `false` or rejecting means no: the requests that wait
   * fail, and the next refused call asks again.
   */
  readonly onSignInNeeded?: (error: Error & CloakroomErrorFields) => unknown
  /** In place of the browser's. */
  readonly fetch?: (input: string | Request, init?: RequestInit) => Promise<Response>
}

export type WhenSignedOut = {
  /** `wait`: the request is sent again when the same user has signed in. `throw` unless given. */
  readonly whenSignedOut?: 'throw' | 'wait'
}

export type CloakroomInit = RequestInit &
  WhenSignedOut & {
    /** Neither extends the session nor asks the user. */
    readonly background?: boolean
  }

export type UploadOptions = WhenSignedOut & {
  /** `POST` unless given. */
  readonly method?: string
  readonly headers?: Readonly<Record<string, string>>
  /** In bytes; begins at 0 again when the upload is sent again. */
  readonly onProgress?: (progress: { loaded: number; total: number }) => void
  readonly signal?: AbortSignal
}

/** `signed-out`: it waits for a sign-in. `closed`: it does not come back. */
export type StreamState = 'connecting' | 'open' | 'signed-out' | 'closed'

export type StreamEvent = { readonly data: string; readonly event: string; readonly lastEventId: string }

export type SignInOptions = {
  /** `redirect` unless given. A popup must be opened by a click. */
  readonly mode?: 'redirect' | 'popup'
  /** Path on this origin; the current page unless given. */
  readonly returnTo?: string
  /** `loginUrl` of the error; that of the open question unless given. */
  readonly loginUrl?: string
  readonly prompt?: string
  readonly loginHint?: string
}

/** What the listeners of `on` are given. */
export type CloakroomEvents<Claims> = {
  'signed-in': Snapshot<Claims>
  'signed-out': Snapshot<Claims>
  expiring: Snapshot<Claims>
  'sign-in-needed': Error & CloakroomErrorFields
  'user-changed': Snapshot<Claims>
}

/** The browser helper (`createCloakroom`). */
export type Cloakroom<Claims = AnyClaims> = {
  /** `fetch` with the CSRF header. Rejects with CloakroomError for Cloakroom's own refusals only. */
  fetch(input: string | URL | Request, init?: CloakroomInit): Promise<Response>
  /** Sends a file or form, with progress. */
  upload(path: string, body: UploadBody, options?: UploadOptions): Promise<Response>
  /** An event stream that comes back after a sign-in, with its last event id. */
  eventSource(
    path: string,
    options: { onMessage: (event: StreamEvent) => void; onState?: (state: StreamState) => void },
  ): { close(): void }
  /** A WebSocket that comes back after a sign-in. `send` returns false while it is not open. */
  webSocket(
    path: string,
    options: {
      protocols?: string | string[]
      onMessage: (data: unknown) => void
      onState?: (state: StreamState) => void
    },
  ): { send(data: Parameters<WebSocket['send']>[0]): boolean; close(): void }
  /** With `redirect` it leaves the page. With `popup` it rejects with CloakroomError if the sign-in came to nothing. */
  signIn(options?: SignInOptions): Promise<Snapshot<Claims>>
  signOut(options?: { returnTo?: string }): Promise<void>
  /** Asks who is signed in, without extending the session. */
  refresh(): Promise<Snapshot<Claims>>
  /** Extends the session. */
  extend(): Promise<Snapshot<Claims>>
  getSnapshot(): Snapshot<Claims>
  subscribe(listener: () => void): () => void
  on<Type extends keyof CloakroomEvents<Claims>>(
    type: Type,
    listener: (detail: CloakroomEvents<Claims>[Type]) => void,
  ): () => void
  /** Forgets timers and the other tabs, as before a module is replaced while developing. Streams are closed by themselves. */
  close(): void
}

export type UploadBody = Blob | FormData | ArrayBuffer | URLSearchParams | string
