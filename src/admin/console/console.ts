import { readdirSync, readFileSync } from 'node:fs'
import type { ServerResponse } from 'node:http'
import { extname } from 'node:path'
import { type Clock, every } from '../../async/clock.ts'
import { BffError } from '../../errors.ts'
import type { AdminPage } from '../server.ts'
import { readGauges } from './readings.ts'
import { createReloads, type Reloads } from './reloads.ts'
import { readRouteQuery } from './route-states.ts'
import { createStatus, type StatusDeps } from './status.ts'
import { createTraffic, SAMPLE_MS } from './traffic.ts'

export type Console = {
  /** By path. */
  readonly pages: Readonly<Record<string, AdminPage>>
  /** To be told how each reload ended. */
  readonly reloads: Pick<Reloads, 'applied' | 'refused'>
  close(): void
}

export type ConsoleDeps = Omit<StatusDeps, 'traffic' | 'reloads' | 'clock'> & {
  readonly clock: Clock
  /** What becomes of a request; without values that an operator may keep secret. */
  readonly explain: (method: string, url: string) => object
}

const ALL_ROUTES = readRouteQuery(new URLSearchParams())
const LONGEST_URL = 8_192

/** Makes the console: one page and its two sources. It reads, and changes nothing. */
export function createConsole(deps: ConsoleDeps): Console {
  const { clock, inUse, metrics } = deps
  const reloads = createReloads(clock)
  const traffic = createTraffic({ metrics, clock, openCircuits: () => openCircuits(deps) })
  const status = createStatus({ ...deps, traffic, reloads })
  // Without a reader, too, so that the beginning of a problem is known.
  const watching = every(clock, SAMPLE_MS, () => void status(ALL_ROUTES).catch(() => undefined)).unref()

  return {
    pages: {
      ...createFiles(new URL('page/', import.meta.url)),
      '/api/status': async (res, query) => sendJson(res, await status(readRouteQuery(query))),
      '/api/explain': async (res, query) =>
        sendJson(res, deps.explain(...requestIn(query, inUse().config.publicUrl))),
    },
    reloads,
    close() {
      traffic.close()
      watching.cancel()
    },
  }
}

/** What goes through the circuits towards the provider. */
const CALLS = { tokens: 'refreshes', code: 'code grants', par: 'pushed authorization requests' } as const

/** The names of the circuits that are open now: one for each upstream, and those towards the provider. */
async function openCircuits({ inUse, metrics }: Pick<ConsoleDeps, 'inUse' | 'metrics'>): Promise<string[]> {
  const { circuits } = await readGauges(metrics)
  const { config, upstreams } = inUse()
  const open = upstreams.openCircuits()
  const ofUpstreams = config.routes.flatMap(({ id, upstream }) => (open.has(id) ? [upstream] : []))
  const ofProvider = Object.entries(circuits)
    .filter(([, state]) => state !== 'closed')
    .map(([call]) => `provider, ${CALLS[call as keyof typeof CALLS]}`)
  return [...new Set([...ofProvider, ...ofUpstreams])]
}

/** The method and the URL that are asked about; a method in small letters is meant in capitals. */
function requestIn(query: URLSearchParams, publicUrl: string): [method: string, url: string] {
  const method = (query.get('method') || 'GET').toUpperCase()
  const url = query.get('url') ?? ''
  if (!/^[!#$%&'*+.^_`|~\w-]{1,64}$/.test(method))
    throw new BffError('bad_request', 'method must be an HTTP method')
  if (!/^(?:\/|https?:\/\/)/i.test(url) || url.length > LONGEST_URL) {
    throw new BffError(
      'bad_request',
      `url must be a path such as /api/orders/42, or a URL such as ${publicUrl}/`,
    )
  }
  return [method, url]
}

function sendJson(res: ServerResponse, body: object): void {
  res.writeHead(200, { ...HEADERS, 'content-type': 'application/json' }).end(`${JSON.stringify(body)}\n`)
}

const HEADERS = {
  'cache-control': 'no-store',
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-resource-policy': 'same-origin',
}

/** Scripts and styles of this listener alone; no form, frame or base; and no text becomes markup (Trusted Types). */
const POLICY = [
  ...["default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'", "connect-src 'self'"],
  ...["base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"],
  ...["require-trusted-types-for 'script'", "trusted-types 'none'"],
].join('; ')

const CONTENT_TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
}

/** A page for each file of a flat folder; a request can then name nothing outside it. */
function createFiles(folder: URL): Record<string, AdminPage> {
  return Object.fromEntries(
    readdirSync(folder).map((name) => {
      const body = readFileSync(new URL(name, folder))
      const headers = {
        ...HEADERS,
        'content-type': CONTENT_TYPES[extname(name)] ?? 'application/octet-stream',
        'content-security-policy': POLICY,
        'cross-origin-opener-policy': 'same-origin',
      }
      const send: AdminPage = async (res) => void res.writeHead(200, headers).end(body)
      return [name === 'index.html' ? '/' : `/console/${name}`, send]
    }),
  )
}
