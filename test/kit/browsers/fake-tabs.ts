import type { TestContext } from 'node:test'

/** What a fake server answers: a status with JSON, a refusal of Cloakroom's by its code, or a response of its own. */
export type Answer =
  | Response
  | { status: number; json?: unknown }
  | { code: string; status: number; more?: object }

/** Answers one request. Paths are without the origin. */
export type Serve = (request: { method: string; path: string; headers: Headers; body: string }) => Answer

export const ORIGIN = 'https://app.test'

/** As much of a browser's globals as the helper uses, for all tabs of one test, with a server that is a function. */
export function fakeBrowser(t: TestContext, serve: Serve) {
  const seen: { method: string; path: string; headers: Headers; body: string }[] = []
  const left: string[] = []
  const opened: { url: URL; closed: boolean }[] = []
  const listeners: [type: string, listener: () => void][] = []
  const focus = { isHere: true }
  const channels: BroadcastChannel[] = []
  const parts = {
    href: `${ORIGIN}/page?q=1#h`,
    origin: ORIGIN,
  }
  let blocksPopups = false

  class Channel extends BroadcastChannel {
    constructor(name: string) {
      super(name)
      channels.push(this)
    }
  }
  class AppRequest extends Request {
    constructor(input: string | URL | Request, init?: RequestInit) {
      super(typeof input === 'string' ? new URL(input, ORIGIN) : input, init)
    }
  }
  const timers: NodeJS.Timeout[] = []
  const { setTimeout, setInterval } = globalThis
  const globals = {
    // A second of the watch over a popup.
    setInterval(act: () => void, ms: number) {
      timers.push(setInterval(act, ms / 20))
      return timers.at(-1)
    },
    setTimeout(act: () => void, ms: number) {
      timers.push(setTimeout(act, ms))
      return timers.at(-1)
    },
    ...{ document: { hasFocus: () => focus.isHere }, BroadcastChannel: Channel, Request: AppRequest },
    location: {
      ...parts,
      assign: (url: string) => void left.push(url),
      replace: (url: string) => void left.push(url),
    },
    open(url: string) {
      if (blocksPopups) return null
      const popup = { url: new URL(url), closed: false }
      opened.push(popup)
      return popup
    },
    addEventListener: (type: string, listener: () => void) => void listeners.push([type, listener]),
  }
  const before = Object.keys(globals).map(
    (name) => [name, Object.getOwnPropertyDescriptor(globalThis, name)] as const,
  )
  for (const [name, value] of Object.entries(globals))
    Object.defineProperty(globalThis, name, { value, configurable: true, writable: true })
  t.after(() => {
    for (const channel of channels) channel.close()
    for (const timer of timers) clearTimeout(timer)
    for (const [name, descriptor] of before)
      if (descriptor) Object.defineProperty(globalThis, name, descriptor)
      else Reflect.deleteProperty(globalThis, name)
  })

  async function fetchFake(input: string | Request, init?: RequestInit): Promise<Response> {
    const request = new Request(typeof input === 'string' ? new URL(input, ORIGIN) : input, init)
    const { pathname, search } = new URL(request.url)
    const { method, headers } = request
    const one = { method, path: pathname + search, headers, body: await request.text() }
    seen.push(one)
    return responseOf(serve(one))
  }

  return {
    ...{ seen, left, opened, fetch: fetchFake },
    /** How often a path was asked for, without its query. */
    count: (path: string) => seen.filter((one) => one.path.split('?')[0] === path).length,
    blockPopups: () => {
      blocksPopups = true
    },
    /** Where the focus of the user is: a popup has it, or the page. */
    focus,
    dispatch: (wanted: string) => {
      for (const [type, listener] of listeners) if (type === wanted) listener()
    },
    /** What the page `B/done` does at the end of a popup's sign-in. */
    finishPopup(outcome: object = {}) {
      const { url } = opened.at(-1)!
      const done = new URL(String(url.searchParams.get('returnUrl')), ORIGIN).searchParams.get('id')
      const channel = new BroadcastChannel('cloakroom:/bff')
      channel.postMessage({ done, ...outcome })
      channel.close()
    },
  }
}

/** One request of the fake XMLHttpRequest. */
export type FakeUpload = { method: string; path: string; headers: Record<string, string>; body: unknown }

/** Replaces XMLHttpRequest, as far as the helper uses it. */
export function fakeUploads(t: TestContext, sent: FakeUpload[], serve: () => Answer): void {
  class Fake {
    readonly upload: { onprogress?: (event: object) => void } = {}
    readonly one: FakeUpload = { method: '', path: '', headers: {}, body: undefined }
    onloadend = () => {}
    status = 0
    response: Blob | undefined
    #fields = ''
    open(method: string, path: string) {
      Object.assign(this.one, { method, path })
    }
    setRequestHeader(name: string, value: string) {
      this.one.headers[name] = value
    }
    getAllResponseHeaders = () => this.#fields
    abort() {}
    send(body: string) {
      sent.push({ ...this.one, body })
      this.upload.onprogress?.({ loaded: body.length, total: body.length })
      const { status, headers } = responseOf(serve())
      if (status) headers.set('location', '/files/1')
      this.#fields = [...headers].map(([name, value]) => `${name}: ${value}\r\n`).join('')
      Object.assign(this, { status, response: new Blob(['stored']) })
      setImmediate(() => this.onloadend())
    }
  }
  Object.assign(globalThis, { XMLHttpRequest: Fake })
  t.after(() => Reflect.deleteProperty(globalThis, 'XMLHttpRequest'))
}

function responseOf(answer: Answer): Response {
  if (answer instanceof Response) return answer
  if (!('code' in answer)) return new Response(jsonOf(answer.json), { status: answer.status })
  const { code, status, more } = answer
  const headers = { 'cloakroom-error': code, 'content-type': 'application/problem+json' }
  return new Response(JSON.stringify({ code, status, login_url: '/bff/login', ...more }), { status, headers })
}

function jsonOf(value: unknown): string | null {
  return value === undefined ? null : JSON.stringify(value)
}

/** Resolves as soon as `check` holds; rejects after 3 s. */
export async function eventually(check: () => boolean): Promise<void> {
  for (let round = 0; round < 300; round += 1) {
    if (check()) return
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  throw new Error(`never: ${check}`)
}
