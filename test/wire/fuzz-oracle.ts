import { listOf, type StrictRequest, valuesOf } from './fuzz-reader.ts'
import { HOST } from './hostile-bytes.ts'

/** What may become of one well-formed request. */
export type Prospect = {
  /** Path and query as the upstream may see them; undefined when it must never see the request. */
  readonly target: string | undefined
  /** Nothing about it is unusual, so it must be served. */
  readonly isPlain: boolean
  /** The routes' own rules for it. */
  readonly route: 'api' | 'rewritten' | 'small' | 'socket' | 'download' | 'rest'
  /** A WebSocket is asked for, and what follows is no HTTP of this connection. */
  readonly isUpgrade: boolean
}

const PLAIN_METHODS = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'])
const PLAIN_TARGET = /^(?:\/[A-Za-z0-9_-]+)*\/?(?:\?[A-Za-z0-9_=&-]*)?$/
const PLAIN_FIELDS = new Set(['host', 'cookie', 'x-csrf', 'content-length', 'transfer-encoding', 'x-probe'])
const OUR_HOST = new RegExp(`^${HOST.replaceAll('.', '\\.')}(?::443)?$`, 'i')
const LOOPBACK = /^(?:localhost|[\w.-]+\.localhost|127\.\d+\.\d+\.\d+|\[::1\])(?::\d+)?$/i

/** What the README's rules make of a request: independent of the proxy's code, and narrower where it may be. */
export function prospectOf(request: StrictRequest, cookie: string): Prospect {
  const target = canonicalTarget(request)
  const path = target?.split('?', 1)[0] ?? ''
  const is = (prefix: string) => path === prefix || path.startsWith(`${prefix}/`)
  const route =
    (['api', 'rewritten', 'small', 'socket', 'download'] as const).find((one) => is(`/${one}`)) ?? 'rest'
  const isUpgrade =
    listOf(request, 'connection').includes('upgrade') && valuesOf(request, 'upgrade').join('') !== ''
  const mayPass =
    target !== undefined && !is('/bff') && !isDisguised(path) && mayCross(request, { route, isUpgrade })
  const isPlain = mayPass && !isUpgrade && isPlainRequest(request, { route, cookie })
  const rewritten = route === 'rewritten' ? target!.replace(/^\/rewritten/, '/v1') : target
  return { target: mayPass ? rewritten : undefined, isPlain, route, isUpgrade }
}

/** Another spelling of a route that asks for a session, at the upstream of all routes. */
function isDisguised(path: string): boolean {
  const guarded = /^\/(?:api|download)(?:\/|$)/
  return !guarded.test(path) && guarded.test(path.toLowerCase())
}

type Kind = Pick<Prospect, 'route' | 'isUpgrade'>

/** False for what every reader of the README expects to be refused. */
function mayCross(request: StrictRequest, { route, isUpgrade }: Kind): boolean {
  const { method, fields } = request
  const [host = ''] = valuesOf(request, 'host')
  if (!OUR_HOST.test(host) && !LOOPBACK.test(host)) return false
  if (method === 'TRACE' || method === 'CONNECT') return false
  if (fields.some(([name]) => /^(content_length|transfer_encoding)$/i.test(name))) return false
  if (fields.length > 100) return false
  if (isUpgrade && (route !== 'socket' || method !== 'GET' || request.body !== '')) return false
  const expectations = valuesOf(request, 'expect')
  if (!request.isHttp10 && expectations.some((one) => one.toLowerCase() !== '100-continue')) return false
  if (method === 'OPTIONS' && valuesOf(request, 'max-forwards').some((one) => Number(one) === 0)) return false
  return route !== 'small' || request.body.length <= 16
}

function isPlainRequest(
  request: StrictRequest,
  { route, cookie }: Pick<Kind, 'route'> & { cookie: string },
): boolean {
  const { method, target, fields } = request
  const names = fields.map(([name]) => name.toLowerCase())
  if (!PLAIN_METHODS.has(method) || !PLAIN_TARGET.test(target) || target.length > 1_000) return false
  if (new Set(names).size < names.length || !names.every(isPlainName)) return false
  if (!valuesOf(request, 'connection').every((one) => /^(?:keep-alive|close)$/.test(one))) return false
  if (!valuesOf(request, 'content-length').every((one) => /^(?:0|[1-9]\d*)$/.test(one))) return false
  if (JSON.stringify(fields).length > 10_000 || request.isHttp10 || request.hasAddenda) return false
  if (route === 'download') return false
  if (route !== 'api') return true
  return valuesOf(request, 'x-csrf')[0] === '1' && valuesOf(request, 'cookie')[0] === cookie
}

function isPlainName(name: string): boolean {
  return PLAIN_FIELDS.has(name) || name === 'connection'
}

/** Path and query in the one form that may cross; undefined for what the README refuses. */
function canonicalTarget({ target, fields }: StrictRequest): string | undefined {
  const { authority, rest = '' } = /^https?:\/\/(?<authority>[^/?]*)(?<rest>.*)$/i.exec(target)?.groups ?? {}
  if (authority !== undefined) {
    const withoutPort = (host = '') => host.toLowerCase().replace(/:(?:443|80)$/, '')
    if (withoutPort(authority) !== withoutPort(valuesOf({ fields }, 'host')[0])) return undefined
    return canonicalPath(rest.startsWith('/') ? rest : `/${rest}`)
  }
  return canonicalPath(target)
}

function canonicalPath(target: string): string | undefined {
  const mark = target.indexOf('?')
  const query = mark === -1 ? '' : target.slice(mark)
  const raw = mark === -1 ? target : target.slice(0, mark)
  if (!/^\/[\x21-\x7e]*$/.test(raw) || /[\\#;]/.test(raw) || query.includes('#')) return undefined
  if (/%(?![0-9a-f]{2})/i.test(raw)) return undefined
  if (/%(?:2f|3b|5c|[01][0-9a-f]|7f)/i.test(raw) || !isUtf8(raw)) return undefined
  const path = raw.replaceAll(/%(?:2[de]|3[0-9]|4[1-9a-f]|5[0-9af]|6[1-9a-f]|7[0-9ae])/gi, (octet) =>
    decodeURIComponent(octet),
  )
  if (/%25(?:25)*(?:2[ef]|3b|5c|[01][0-9a-f]|7f)/i.test(path)) return undefined
  return /\/\/|\/\.{1,2}(?:\/|$)/.test(path) ? undefined : path + query
}

function isUtf8(raw: string): boolean {
  try {
    decodeURIComponent(raw)
    return true
  } catch {
    return false
  }
}
