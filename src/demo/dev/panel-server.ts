import type { IncomingMessage, ServerResponse } from 'node:http'
import { describeError } from '../../errors.ts'
import { type LoopbackServer, listenOnLoopback } from '../loopback-server.ts'
import { loadStaticFiles, sendStaticFile } from '../static-files.ts'
import type { LiveEntry, LiveLog } from './live-log.ts'
import { refuseForeign } from './own-host.ts'
import { SwitchError, type Switches } from './switches.ts'

/** What the panel shows and changes. */
export type PanelOptions = {
  readonly port: number
  readonly switches: Switches
  readonly log: Pick<LiveLog, 'add' | 'since' | 'listen'>
  /** Facts that stay: where everything is. */
  readonly about: {
    readonly appUrl: string
    readonly provider: string
    readonly issuer: string
    readonly jwksUrl: string
  }
}

const HEADERS = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'cross-origin-resource-policy': 'same-origin',
  'cross-origin-opener-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
  'cache-control': 'no-store',
}
const MAX_BODY_BYTES = 4_096
const HEARTBEAT_MS = 15_000

/**
 * Serves the panel on 127.0.0.1, with its switches over HTTP: `GET /api/state`, `GET /api/log` (an event stream) and
 * `POST /api/switches/NAME` with a JSON object. No GET changes anything. Rejects when the port is taken.
 */
export function startPanel(options: PanelOptions): Promise<LoopbackServer> {
  const files = loadStaticFiles(new URL('./panel/', import.meta.url))
  return listenOnLoopback((origin) => {
    const { port } = new URL(origin)
    const hosts = new Set([`127.0.0.1:${port}`, `localhost:${port}`])
    return function panel(req, res) {
      for (const [name, value] of Object.entries(HEADERS)) res.setHeader(name, value)
      const refusal = refuseForeign(req, hosts)
      if (refusal) return sendProblem(res, refusal)
      const path = req.url?.split('?', 1)[0] ?? '/'
      const file = files.get(path === '/' ? 'index.html' : path.slice(1))
      const isRead = req.method === 'GET' || req.method === 'HEAD'
      const switchName = /^\/api\/switches\/([a-z-]+)$/.exec(path)?.[1]
      if (file && isRead) return sendStaticFile(res, file, {})
      if (path === '/api/state' && isRead) return void sendState(options, res)
      if (path === '/api/log' && req.method === 'GET') return streamLog(options, req, res)
      if (switchName !== undefined && req.method === 'POST')
        return void changeSwitch(options, { name: switchName, req, res })
      const isKnown = file !== undefined || switchName !== undefined || path.startsWith('/api/')
      if (switchName !== undefined) res.setHeader('allow', 'POST')
      const detail = isKnown
        ? `${req.method} is not for ${path}: a switch is changed by POST`
        : `no ${path} here`
      sendProblem(res, isKnown ? { ...NOT_ALLOWED, detail } : { ...NOT_FOUND, detail })
    }
  }, options.port)
}

const NOT_ALLOWED = { status: 405, code: 'method_not_allowed' }
const NOT_FOUND = { status: 404, code: 'route_not_found' }

async function sendState({ switches, about, log }: PanelOptions, res: ServerResponse): Promise<void> {
  try {
    sendJson(res, 200, { ...about, ...(await switches.state()), switches: switches.names })
  } catch (error) {
    sendDefect(res, { what: 'the state of the panel', error, log })
  }
}

/** What no input explains: told in the live log, which is for the person at this machine. */
function sendDefect(
  res: ServerResponse,
  { what, error, log }: { what: string; error: unknown; log: PanelOptions['log'] },
): void {
  const detail = `${what} failed: ${describeError(error).message}`
  log.add({ kind: 'notice', what: detail })
  sendProblem(res, { status: 500, code: 'internal_error', detail })
}

function streamLog({ log }: PanelOptions, req: IncomingMessage, res: ServerResponse): void {
  const send = (entry: LiveEntry) => void res.write(`id: ${entry.id}\ndata: ${JSON.stringify(entry)}\n\n`)
  res.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8' })
  res.write(': the newest lines first come again, then each as it happens\n\n')
  for (const entry of log.since(Number(req.headers['last-event-id']) || 0)) send(entry)
  const stop = log.listen(send)
  const heartbeat = setInterval(() => res.write(':\n\n'), HEARTBEAT_MS)
  heartbeat.unref()
  res.on('close', () => {
    stop()
    clearInterval(heartbeat)
  })
}

async function changeSwitch(
  { switches, log }: PanelOptions,
  { name, req, res }: { name: string; req: IncomingMessage; res: ServerResponse },
): Promise<void> {
  try {
    const input = await readJson(req)
    sendJson(res, 200, await switches.change(name, input))
  } catch (error) {
    if (error instanceof SwitchError)
      sendProblem(res, { status: 400, code: 'bad_request', detail: error.message })
    else sendDefect(res, { what: `the switch ${name}`, error, log })
  }
}

/** An empty body counts as an empty object. */
async function readJson(req: IncomingMessage): Promise<Record<string, unknown>> {
  let text = ''
  req.setEncoding('utf8')
  for await (const chunk of req) {
    text += chunk
    if (text.length > MAX_BODY_BYTES) throw new SwitchError(`the body is longer than ${MAX_BODY_BYTES} bytes`)
  }
  try {
    const value: unknown = text === '' ? {} : JSON.parse(text)
    if (typeof value === 'object' && value !== null && !Array.isArray(value))
      return value as Record<string, unknown>
  } catch {
    // Reported below.
  }
  throw new SwitchError('the body must be a JSON object, e.g. {"person":"ada"}')
}

function sendJson(res: ServerResponse, status: number, body: object): void {
  res.writeHead(status, { 'content-type': 'application/json; charset=utf-8' })
  res.end(JSON.stringify(body))
}

function sendProblem(
  res: ServerResponse,
  { status, code, detail }: { status: number; code: string; detail: string },
): void {
  const problem = { type: `urn:problem:cloakroom:${code}`, code, status, detail }
  res.writeHead(status, { 'content-type': 'application/problem+json' })
  res.end(JSON.stringify(problem))
}
