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
  const focusListeners: (() => void)[] = []
  const channels: BroadcastChannel[] = []
  const parts = {
    href: `${ORIGIN}/page?q=1#h`,
    origin: ORIGIN,
    pathname: '/page',
    search: '?q=1',
    hash: '#h',
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
  const { setTimeout } = globalThis
  const globals = {
    setTimeout(act: () => void, ms: number) {
      timers.push(setTimeout(act, ms))
      return timers.at(-1)
    },
    ...{ document: {}, BroadcastChannel: Channel, Request: AppRequest },
    location: { ...parts, assign: (url: string) => void left.push(url) },
    open(url: string) {
      if (blocksPopups) return null
      const popup = { url: new URL(url), closed: false }
      opened.push(popup)
      return popup
    },
    addEventListener: (_type: string, listener: () => void) => void focusListeners.push(listener),
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
    focus: () => {
      for (const listener of focusListeners) listener()
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
