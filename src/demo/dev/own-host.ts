import type { IncomingMessage } from 'node:http'

const LOOPBACK = /^(?:localhost|(?:[a-z0-9-]+\.)+localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d{1,5})?$/i

/** Whether a `Host` names this machine. A name that was made to point here (DNS rebinding) does not. */
export function isLoopbackHost(host: string | undefined): boolean {
  return host !== undefined && LOOPBACK.test(host)
}

/** Why a request to the switches is refused. */
export type PanelRefusal = {
  readonly status: number
  readonly code: 'misdirected_request' | 'origin_forbidden' | 'csrf_required'
  readonly detail: string
}

/**
 * Whether a request may come in: the Host is one of ours, and no page of another origin asks, be it another site or another
 * port of this machine. A change needs the header that no such page can send, too. A program that is no browser sends
 * neither Origin nor Fetch Metadata and passes.
 */
export function refuseForeign(req: IncomingMessage, ownHosts: ReadonlySet<string>): PanelRefusal | undefined {
  const { host = '', origin, 'sec-fetch-site': site } = req.headers
  if (!ownHosts.has(host.toLowerCase())) {
    const detail = `the Host "${host.slice(0, 80)}" is not this panel's: open it by ${[...ownHosts].join(' or ')}`
    return { status: 421, code: 'misdirected_request', detail }
  }
  const isRead = req.method === 'GET' || req.method === 'HEAD'
  const isForeign = origin !== undefined && origin !== `http://${host}`
  const isCrossSite = site !== undefined && site !== 'same-origin' && !(isRead && site === 'none')
  // The page itself may be opened by a link from anywhere: it changes nothing and cannot be framed.
  const isPage = isRead && req.url === '/' && req.headers['sec-fetch-mode'] === 'navigate'
  if (isForeign || (isCrossSite && !isPage)) {
    const detail = 'a page of another origin asked; only the panel itself and programs may'
    return { status: 403, code: 'origin_forbidden', detail }
  }
  if (!isRead && req.headers['x-csrf'] !== '1') {
    const detail = 'the header "X-CSRF: 1" is missing'
    return { status: 403, code: 'csrf_required', detail }
  }
  return undefined
}
