import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { isIP } from 'node:net'
import { hostname } from 'node:os'
import { createThrottledWarning } from '../async/log-throttle.ts'
import { BffError, describeError } from '../errors.ts'
import type { ProblemAnswer } from '../http/problem.ts'
import type { Logger } from '../log.ts'

/** One page of the admin listener. Rejects with BffError for a query that it does not understand. */
export type AdminPage = (res: ServerResponse, query: URLSearchParams) => Promise<void>

/** What the admin listener shows, and to whom. */
export type AdminDeps = {
  readonly metrics: { render(): Promise<{ contentType: string; text: string }> }
  readonly readiness: () => Promise<Readiness>
  /** The console's, by path; none unless given. */
  readonly console?: { readonly pages: Readonly<Record<string, AdminPage>> }
  /** `admin.hosts`: other names of this listener, `host` or `host:port`, lower case. */
  readonly hosts: () => readonly string[]
  /** Makes the RFC 9457 answer to a refusal. */
  readonly problemAnswer: (error: BffError) => ProblemAnswer
  readonly log: Logger
  /** This machine's own name; default: what the system says. */
  readonly machineName?: string
}

/** `ready` decides the status. The rest says why, for a person. */
export type Readiness = {
  readonly ready: boolean
  readonly draining: boolean
  readonly dependencies: Readonly<Record<string, 'ok' | 'unavailable' | 'unknown'>>
  /** Why a dependency is not available, without secrets. */
  readonly reasons?: Readonly<Record<string, string>>
}

/** Probes, metrics and the console on a listener of their own (contract section 5). Nothing on it names a user. */
export function createAdminServer(deps: AdminDeps): Server {
  const { metrics, readiness, problemAnswer, log } = deps
  const pages: Readonly<Record<string, AdminPage>> = {
    ...deps.console?.pages,
    '/livez': async (res) => answer(res, 200, { status: 'ok' }),
    '/readyz': async (res) => {
      const state = await readiness()
      answer(res, state.ready ? 200 : 503, { status: state.ready ? 'ready' : 'not ready', ...state })
    },
    '/metrics': async (res) => {
      const { contentType, text } = await metrics.render()
      res.writeHead(200, { 'content-type': contentType, 'cache-control': 'no-store' }).end(text)
    },
  }
  const refusalOf = createHostCheck(deps)
  const warnOfHost = createThrottledWarning(
    log,
    'the admin listener was called by a name that is not its own; add it to admin.hosts if it is yours',
  )
  return createServer((req, res) => {
    const refusal = refusalOf(req)
    const [path = '', query] = splitOnce(req.url ?? '')
    const page = Object.hasOwn(pages, path) ? pages[path] : undefined
    if (refusal) {
      warnOfHost({
        code: refusal.code,
        host: req.headers.host?.slice(0, 100),
        clientIp: req.socket.remoteAddress,
      })
      refuse(res.setHeader('connection', 'close'), refusal)
    } else if (!page) {
      answer(res, 404, { status: 404, pages: Object.keys(pages) })
    } else if (req.method !== 'GET' && req.method !== 'HEAD') {
      answer(res.setHeader('allow', 'GET, HEAD'), 405, { status: 405 })
    } else {
      page(res, new URLSearchParams(query)).catch((error) => {
        if (error instanceof BffError) return refuse(res, error)
        log.error({ path, err: describeError(error) }, 'a page of the admin listener failed')
        answer(res, 500, { status: 500 })
      })
    }
  })

  function refuse(res: ServerResponse, error: BffError): void {
    const { status, headers, body } = problemAnswer(error)
    res.writeHead(status, headers).end(body)
  }
}

function splitOnce(target: string): [path: string, query: string] {
  const mark = target.indexOf('?')
  return mark === -1 ? [target, ''] : [target.slice(0, mark), target.slice(mark + 1)]
}

/** RFC 3986 §3.2 without user name and percent-encoding: an IPv6 address in brackets, or a name or IPv4 address. */
const AUTHORITY = /^(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(\d{1,5}))?$/

/**
 * The network alone decides who may read this listener, so a page in a browser inside that network must not: a page that
 * lets its own name point here (DNS rebinding) sends that name in `Host`. An address cannot be rebound, whatever its port.
 */
function createHostCheck({ hosts, machineName = hostname() }: AdminDeps) {
  const machine = machineName.toLowerCase()
  const ownNames = new Set([machine, machine.split('.', 1)[0]])

  function isOwn(host: string, port: string | undefined): boolean {
    const address = host.startsWith('[') ? host.slice(1, -1) : host
    if (isIP(address) !== 0 || /^(?:.+\.)?localhost$/.test(host) || ownNames.has(host)) return true
    return hosts().some((known) => {
      // A full name may be written with its dot at the end, as in the Host.
      const name = known.replace(/\.(?=$|:)/, '')
      return name === host || name === `${host}:${port ?? '80'}`
    })
  }

  return function refusalOf(req: IncomingMessage): BffError | undefined {
    // RFC 9112 §3.2: none, two or one that is no host is a 400, in HTTP/1.0 too.
    const lines = req.rawHeaders.filter((name, index) => index % 2 === 0 && name.toLowerCase() === 'host')
    const [, name, port] = AUTHORITY.exec((req.headers.host ?? '').toLowerCase()) ?? []
    const host = name?.replace(/(?<=.)\.$/, '')
    if (lines.length !== 1 || host === undefined) {
      return new BffError('bad_request', 'Host must be there once, a host with or without its port')
    }
    if (isOwn(host, port)) return undefined
    return new BffError(
      'misdirected_request',
      'the admin listener answers to an IP address, a loopback name, its own machine name and those in admin.hosts',
    )
  }
}

function answer(res: ServerResponse, status: number, body: object): void {
  if (res.headersSent) return
  res
    .writeHead(status, {
      'content-type': 'application/json',
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
    })
    .end(`${JSON.stringify(body)}\n`)
}
