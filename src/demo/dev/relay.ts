import { Agent, request as httpRequest, type IncomingMessage, type ServerResponse } from 'node:http'
import { request as httpsRequest, Agent as TlsAgent } from 'node:https'
import { connect } from 'node:net'
import type { Duplex } from 'node:stream'
import { connect as tlsConnect } from 'node:tls'
import { type LoopbackServer, listenOnLoopback } from '../loopback-server.ts'
import { escapeHtml } from '../scripted/http-messages.ts'
import { isLoopbackHost } from './own-host.ts'

/** An answer in place of the upstream's. */
export type RelayAnswer = {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

/** A relay between Cloakroom and one upstream of the developer. */
export type RelayOptions = {
  /** Origin of the upstream. */
  readonly target: string
  /** Navigations wait on a page until the upstream is there; without it they fail as every other request does. */
  readonly waits: boolean
  /** Answers in place of the upstream. */
  readonly answerFirst: (req: IncomingMessage) => RelayAnswer | undefined
}

type Target = {
  readonly url: URL
  readonly host: string
  readonly port: number
  readonly isTls: boolean
  readonly agent: Agent
}

/**
 * Listens on 127.0.0.1 and passes each request and each WebSocket on as it is, but for its `Host`. What cannot be passed on
 * fails as it would have failed without the relay: the connection is cut.
 */
export function startRelay(options: RelayOptions): Promise<LoopbackServer> {
  const target = targetOf(options.target)
  return listenOnLoopback(
    (own) => (req, res) => pass({ ...options, target, ownHost: new URL(own).host }, req, res),
    0,
    (req, socket, head) => tunnel(target, req, { socket, head }),
  )
}

function targetOf(origin: string): Target {
  const url = new URL(origin)
  const isTls = url.protocol === 'https:'
  // A development server's certificate is its own; what is elsewhere has to have a real one.
  const rejectUnauthorized = !isLoopbackHost(url.host)
  const agent = isTls ? new TlsAgent({ keepAlive: true, rejectUnauthorized }) : new Agent({ keepAlive: true })
  const host = url.hostname.replace(/^\[|\]$/g, '')
  return { url, host, port: Number(url.port) || (isTls ? 443 : 80), isTls, agent }
}

type Passing = Omit<RelayOptions, 'target'> & { readonly target: Target; readonly ownHost: string }

function pass(
  { target, waits, answerFirst, ownHost }: Passing,
  req: IncomingMessage,
  res: ServerResponse,
): void {
  // The upstream's own check of the Host (DNS rebinding) is passed by, so it is made here.
  if (!isLoopbackHost(req.headers.host)) return void res.writeHead(421).end()
  const instead = answerFirst(req)
  if (instead) {
    req.resume()
    return void res.writeHead(instead.status, instead.headers).end(instead.body)
  }
  const send = target.isTls ? httpsRequest : httpRequest
  const sent = send({
    ...{ host: target.host, port: target.port, agent: target.agent },
    ...{ method: req.method, path: req.url },
    headers: headersFor(req, target, ownHost),
  })
  sent.on('response', (answer) => {
    res.writeHead(answer.statusCode ?? 502, answer.statusMessage, withoutHopByHop(answer.rawHeaders))
    answer.pipe(res)
    answer.on('error', () => res.destroy())
  })
  sent.on('error', (error) => {
    if (res.headersSent || !waits || !isNotThere(error) || !isNavigation(req)) return void res.destroy()
    const { status, headers, body } = waitingPage(target.url.origin)
    res.writeHead(status, headers).end(req.method === 'HEAD' ? undefined : body)
  })
  res.on('close', () => sent.destroy())
  req.pipe(sent)
}

function isNotThere(error: Error): boolean {
  const codes = [error, ...((error as AggregateError).errors ?? [])].map(
    (one) => (one as { code?: string }).code,
  )
  return codes.some((code) => code === 'ECONNREFUSED' || code === 'ENOTFOUND' || code === 'ECONNRESET')
}

function isNavigation({ method, headers }: IncomingMessage): boolean {
  return (method === 'GET' || method === 'HEAD') && (headers.accept ?? '').includes('text/html')
}

const HOP_BY_HOP = /^(?:connection|keep-alive|proxy-connection|te|trailer|upgrade|host)$/i

function withoutHopByHop(rawHeaders: readonly string[]): string[] {
  return rawHeaders.flatMap((name, index) =>
    index % 2 === 1 || HOP_BY_HOP.test(name) ? [] : [name, rawHeaders[index + 1] ?? ''],
  )
}

/** A Host that is not the relay's own is the public one, on a route with `preserveHost`. */
function headersFor(req: IncomingMessage, target: Target, ownHost: string): string[] {
  const { host = ownHost } = req.headers
  return ['Host', host === ownHost ? target.url.host : host, ...withoutHopByHop(req.rawHeaders)]
}

/** Connects a WebSocket: the handshake and all that follows go on byte for byte. */
function tunnel(
  target: Target,
  req: IncomingMessage,
  { socket, head }: { socket: Duplex; head: Buffer },
): void {
  if (!isLoopbackHost(req.headers.host)) return void socket.destroy()
  const { host, port, isTls } = target
  const upstream = isTls
    ? tlsConnect({ host, port, servername: host, rejectUnauthorized: !isLoopbackHost(target.url.host) })
    : connect({ host, port })
  const lines = req.rawHeaders.flatMap((name, index) =>
    index % 2 === 1 ? [] : [`${name}: ${/^host$/i.test(name) ? target.url.host : req.rawHeaders[index + 1]}`],
  )
  upstream.write(`GET ${req.url} HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n`)
  upstream.write(head)
  upstream.pipe(socket).pipe(upstream)
  for (const [one, other] of [
    [upstream, socket],
    [socket, upstream],
  ] as const) {
    one.on('error', () => other.destroy())
    one.on('close', () => other.destroy())
  }
}

/** A page that asks for itself until the development server is there. No script of it is left when the application comes. */
function waitingPage(origin: string): RelayAnswer {
  const body = `<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <meta name="color-scheme" content="light dark">
  <title>Waiting for ${escapeHtml(origin)}</title>
  <noscript><meta http-equiv="refresh" content="2"></noscript>
  <style>
    body { display: grid; place-content: center; min-height: 100vh; margin: 0; padding: 1.5rem; font: 1rem/1.5 system-ui, sans-serif;
      background: light-dark(#eef1f7, #10141c); color: light-dark(#1a2233, #e8ecf4); }
    code { font-size: 1.05em; }
    p { max-width: 32rem; margin: 0.5rem 0; color: light-dark(#4d5870, #a9b4ca); }
  </style>
</head>
<body>
  <main>
    <h1>Waiting for the development server</h1>
    <p role="status">Nothing answers at <code>${escapeHtml(origin)}</code> yet. This page goes on by itself as soon as something does.</p>
    <p>Start it, e.g. with <code>npm run dev</code>; or name another address: <code>cloakroom dev --app URL</code>.</p>
  </main>
  <script>
    async function look() {
      const answer = await fetch(location.href, { headers: { accept: 'text/html' }, cache: 'no-store' }).catch(() => undefined)
      if (answer && !answer.headers.has('cloakroom-dev-waiting')) location.reload()
      else setTimeout(look, 500)
    }
    setTimeout(look, 500)
  </script>
</body>
</html>
`
  return {
    status: 503,
    headers: {
      'content-type': 'text/html; charset=utf-8',
      'cache-control': 'no-store',
      ...{ 'retry-after': '1', 'cloakroom-dev-waiting': '1' },
    },
    body,
  }
}
