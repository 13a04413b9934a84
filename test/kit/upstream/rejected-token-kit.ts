import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { TestContext } from 'node:test'
import type { RouteConfig } from '../../../src/config/config.ts'
import type { OnRejectedToken } from '../../../src/proxy/upstream/rejected-token.ts'
import type { Rejection, RejectionReaction } from '../../../src/tokens/rejected-token.ts'
import { open, proxyTo } from './sockets.ts'

export const INVALID_TOKEN = 'Bearer realm="x", error="invalid_token"'
export const FIRST = { value: 'at-1', expiresAt: 0, renewAt: 0 }
export const SECOND = { value: 'at-2', expiresAt: 0, renewAt: 0 }
export const RESEND: RejectionReaction = { kind: 'resend', token: SECOND }
export const RELAY: RejectionReaction = { kind: 'relay' }

/** A request as the upstream saw it. */
export type Seen = { line: string; authorization: string | undefined; body: Buffer; socket: unknown }

export type Upstream = { origin: string; seen: Seen[]; connections: number }

/** An upstream that answers when it has read the whole request, and remembers what it read. */
export async function upstreamOf(
  t: TestContext,
  answer: (req: IncomingMessage, res: ServerResponse) => void,
): Promise<Upstream> {
  const seen: Seen[] = []
  const server = createServer((req, res) => {
    const chunks: Buffer[] = []
    req.on('data', (chunk) => chunks.push(chunk))
    req.on('end', () => {
      const { authorization } = req.headers
      const line = `${req.method} ${req.url}`
      seen.push({ line, authorization, body: Buffer.concat(chunks), socket: req.socket })
      answer(req, res)
    })
  })
  const upstream = { origin: '', seen, connections: 0 }
  server.on('connection', () => upstream.connections++)
  upstream.origin = `http://127.0.0.1:${await open(t, server)}`
  return upstream
}

/** Refuses every token but the second. */
export function onlySecond(req: IncomingMessage, res: ServerResponse): void {
  if (req.headers.authorization === 'Bearer at-2') res.end('welcome')
  else refuse(res)
}

/** A 401 as resource servers send it. */
export function refuse(
  res: ServerResponse,
  challenge: string | string[] = INVALID_TOKEN,
  body = 'refused',
): void {
  res.writeHead(401, { 'www-authenticate': challenge, 'content-length': body.length }).end(body)
}

export type Asked = { session: string; resource: string; rejected: Rejection }

/** A proxy that sends the first token, and gives `reaction` each time it is asked about it. */
export async function proxyWithToken(
  t: TestContext,
  upstream: { origin: string },
  reaction: RejectionReaction | (() => Promise<RejectionReaction>) = RESEND,
  parts: Partial<RouteConfig> = {},
): Promise<Awaited<ReturnType<typeof proxyTo>> & { asked: Asked[] }> {
  const asked: Asked[] = []
  const onRejectedToken: OnRejectedToken = async (session, resource, rejected) => {
    asked.push({ session: session.hash, resource, rejected })
    return typeof reaction === 'function' ? reaction() : reaction
  }
  const sent = { accessToken: FIRST, onRejectedToken }
  const proxy = await proxyTo(t, { upstream: upstream.origin, resource: 'orders', ...parts }, sent)
  return { ...proxy, asked }
}

/** A head and a body with its length. */
export function request(line: string, body?: string): string {
  const length = body === undefined ? '' : `Content-Length: ${body.length}\r\n`
  return `${line} HTTP/1.1\r\nHost: a\r\n${length}\r\n${body ?? ''}`
}

/** Lets everything that is ready to run do so. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 20; i++) await new Promise(setImmediate)
}

/** A reaction that a test gives when it is time: `asked` resolves when an exchange waits for it. */
export function pending() {
  const asked = Promise.withResolvers<void>()
  const answer = Promise.withResolvers<RejectionReaction>()
  function reaction(): Promise<RejectionReaction> {
    asked.resolve()
    return answer.promise
  }
  return { reaction, asked: asked.promise, give: answer.resolve, fail: answer.reject }
}

/** A proxy whose exchange waits, after a refusal of its token, for the reaction that the test gives. */
export async function proxyThatWaits(
  t: TestContext,
  upstream: { origin: string },
  parts: Partial<RouteConfig> = {},
) {
  const { reaction, ...inHand } = pending()
  return { proxy: await proxyWithToken(t, upstream, reaction, parts), ...inHand }
}
