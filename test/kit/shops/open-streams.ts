import { once } from 'node:events'
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Browser } from '../browsers/browser.ts'
import { steadyNow } from '../steady.ts'
import { eventually } from './deadline.ts'
import { APP, type Scope } from './shop.ts'

/** An upstream whose every answer is given by hand. */
export type HeldUpstream = {
  readonly url: string
  /** Resolves with the answer to the request of that path, once it is there. */
  asked(path: string): Promise<ServerResponse>
}

/** Starts one on a free port. */
export async function startHeldUpstream(t: Scope): Promise<HeldUpstream> {
  const answers = new Map<string, ServerResponse>()
  const server = createServer((req, res) => {
    answers.set(req.url!, res)
    req.resume()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked: (path) => eventually(`a request of ${path}`, () => answers.get(path)),
  }
}

/** One answer as a client sees it. */
export type OpenAnswer = {
  readonly head: Promise<IncomingMessage>
  /** What has come of the body. */
  text(): string
  /** How it ended, and when, by steadyNow(). */
  readonly over: Promise<{ readonly isWhole: boolean; readonly at: number }>
  isOver(): boolean
}

/** Asks for something that may take its time. */
export function ask(
  t: Scope,
  browser: Browser,
  listenUrl: string,
  { path, method = 'GET', ...more }: { path: string; method?: string; headers?: Record<string, string> },
): OpenAnswer {
  const host = new URL(APP).host
  const headers = { host, cookie: browser.cookieHeader(), 'x-csrf': '1', ...more.headers }
  const req = request(`${listenUrl}${path}`, { method, headers, agent: false })
  t.after(() => req.destroy())
  let text = ''
  let isOver = false
  const head = new Promise<IncomingMessage>((resolve, reject) => {
    req.once('response', resolve).on('error', reject)
  })
  head.catch(() => {})
  const over = head.then(async (res) => {
    res.setEncoding('latin1').on('data', (chunk: string) => {
      text += chunk
    })
    res.on('error', () => {})
    await new Promise((resolve) => res.once('close', resolve))
    isOver = true
    return { isWhole: res.complete, at: steadyNow() }
  })
  over.catch(() => {})
  req.end()
  return { head, text: () => text, over, isOver: () => isOver }
}
