import { parseArgs } from 'node:util'
import {
  createExplain,
  type ExplainedRoute,
  type ExplainedTokenRequest,
  type Explanation,
  explanationJson,
} from '../../app/explanation.ts'
import type { LoadedConfig } from '../../config/load.ts'
import { type CommandIo, readStdin, usageError } from '../command.ts'
import { configFileName, EXIT_BAD_CONFIG, loadOrReport } from './config-file.ts'

const USAGE = `usage: cloakroom explain [--config FILE] [--json] METHOD URL…

Tells what becomes of requests, without network and without the secrets: route, upstream URL, token request, CSRF rule, timeouts, headers. Exit code 0; 1 when a request has no route or is refused before a session is looked at.

  METHOD           e.g. POST; default: GET
  URL              a path with its query, or an absolute URL; several, or - for one in each line of standard input ("METHOD URL" or "URL")
  --config FILE    default: $CLOAKROOM_CONFIG, else config/cloakroom.yaml
  --json           one JSON object; for several URLs a list of them
`

/** Explains what becomes of requests; resolves with 0, 1 when one has no route or the arguments are wrong, 78 for a bad config. */
export async function explainCommand(args: string[], io: CommandIo): Promise<number> {
  const options = readOptions(args, io)
  if (typeof options === 'number') return options
  const loaded = loadOrReport(configFileName(options.config, io.env), io, { requireSecrets: false })
  if (!loaded) return EXIT_BAD_CONFIG
  const explain = createExplain(loaded.config)
  const explanations = options.requests.map(([method, url]) => explain(method, url))
  io.stdout.write(
    options.json ? inJson(explanations, options.isList) : inWords(explanations, loaded, options.requests),
  )
  return explanations.some(({ kind }) => kind === 'refused') ? 1 : 0
}

type Request = readonly [method: string, url: string]

type Options = {
  readonly requests: readonly Request[]
  readonly isList: boolean
  readonly json: boolean
  readonly config?: string
}

/** The options, or the exit code for wrong ones. */
function readOptions(args: string[], io: CommandIo): Options | number {
  try {
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: {
        ...{ config: { type: 'string' }, json: { type: 'boolean' } },
        help: { type: 'boolean', short: 'h' },
      },
    })
    const { help, json = false, ...more } = values
    if (help) {
      io.stdout.write(USAGE)
      return 0
    }
    const [first = ''] = positionals
    const [method, urls] = isUrl(first) ? ['GET', positionals] : [first, positionals.slice(1)]
    if (urls.length === 0) throw new Error('name a METHOD and a URL, e.g. GET /api/orders/42')
    if (more.config === '-' && urls.includes('-'))
      throw new Error('standard input holds the config file or the URLs, not both')
    const requests = urls.flatMap((url): Request[] =>
      url === '-' ? requestsIn(readStdin(io), method) : [requestOf([method, url])],
    )
    if (requests.length === 0) throw new Error('standard input has no URL')
    return { requests, isList: urls.length > 1 || urls[0] === '-', json, ...more }
  } catch (error) {
    return usageError({ error, usage: USAGE }, io)
  }
}

function isUrl(text: string): boolean {
  return text === '-' || text.startsWith('/') || /^https?:\/\//i.test(text)
}

/** One in each line; empty lines and those that begin with # are passed over. */
function requestsIn(text: string, method: string): Request[] {
  return text.split(/\r?\n/).flatMap((line) => {
    const words = line.trim().split(/\s+/)
    if (words[0] === '' || words[0]?.startsWith('#')) return []
    return [requestOf(words.length > 1 ? [words[0]!, words[1]!] : [method, words[0]!])]
  })
}

/** RFC 9110 §9.1: methods are case-sensitive; those that everybody knows are meant by their small letters too. */
function requestOf([method, url]: Request): Request {
  if (!/^[!#$%&'*+.^_`|~\w-]+$/.test(method)) throw new Error(`${JSON.stringify(method)} is no HTTP method`)
  if (!isUrl(url) || url === '-') {
    throw new Error(
      `${JSON.stringify(url)} is no URL: write a path, e.g. /api/orders/42, or one with http:// or https://`,
    )
  }
  const known = /^(?:get|head|post|put|patch|delete|options)$/
  return [known.test(method) ? method.toUpperCase() : method, url]
}

function inJson(explanations: readonly Explanation[], isList: boolean): string {
  const objects = explanations.map(explanationJson)
  return `${JSON.stringify(isList ? objects : objects[0], null, 2)}\n`
}

function inWords(
  explanations: readonly Explanation[],
  loaded: LoadedConfig,
  requests: readonly Request[],
): string {
  return explanations
    .map((explanation, index) => linesOf(explanation, loaded, requests[index]![1]).join('\n'))
    .join('\n\n')
    .concat('\n')
}

function linesOf(explanation: Explanation, loaded: LoadedConfig, url: string): string[] {
  const { method, target } = explanation.request
  const head = printable(`${method} ${url}`)
  const sent = target === url || url.endsWith(target) ? [] : [line('is sent as', printable(target))]
  if (explanation.kind === 'refused') {
    const { status, code, detail, hint } = explanation.refusal
    return [head, ...sent, line('refused', `${status} ${code}: ${detail}`), ...(hint ? [line('', hint)] : [])]
  }
  if (explanation.kind === 'endpoint') {
    return [head, ...sent, line('answered by', `Cloakroom itself: ${explanation.endpoint} is an endpoint`)]
  }
  return [head, ...sent, ...linesOfRoute(explanation.routed, loaded)]
}

function linesOfRoute(route: ExplainedRoute, { problemAt, config }: LoadedConfig): string[] {
  const { file, line: at } = problemAt(['routes', route.index], '')
  const { timeout, csrf, maxBody } = route
  const rules = (name: string, value: unknown) =>
    value === undefined ? [] : [line(name, JSON.stringify(value))]
  return [
    line('route', `${route.id} (routes[${route.index}], path ${route.path}, ${file}:${at})`),
    line('upstream', printable(route.upstream)),
    line('auth', `${route.auth}; signed out: ${route.signedOut}`),
    line('resource', route.resource ?? 'none: no token is sent'),
    ...route.tokenRequests.flatMap((request) => linesOfTokens(request, config.provider.issuer)),
    line('csrf', csrf.rule),
    ...csrf.accepts.map((one) => line('', `${one}`)),
    ...rules('require', route.require),
    ...rules('bearer', route.bearer),
    ...rules('methods', route.methods),
    line(
      'timeouts',
      `connect ${time(timeout.connectMs)}, response ${time(timeout.responseMs)}, idle ${time(timeout.idleMs)}`,
    ),
    ...(maxBody === undefined ? [] : [line('max body', `${maxBody} bytes`)]),
    line('websocket', String(route.websocket)),
    ...route.headers.map(([name, value], index) => line(index === 0 ? 'adds' : '', `${name}: ${value}`)),
  ]
}

function linesOfTokens(
  { resource, endpoint, parameters, clientAuth, dpop }: ExplainedTokenRequest,
  issuer: string,
): string[] {
  const at = endpoint ?? `the token endpoint that ${issuer} names`
  const pairs = (record: Readonly<Record<string, string>>) =>
    Object.entries(record).map(([name, value]) => line('', `  ${name}=${value}`))
  return [
    line('token request', `for ${resource}: POST ${at}`),
    ...pairs(parameters),
    line('', `  client authentication ${clientAuth.method}:`),
    ...pairs(clientAuth.proof),
    ...(dpop === undefined ? [] : [line('', `  DPoP: ${dpop}, of the key that the token is bound to`)]),
  ]
}

function line(name: string, text: string): string {
  return `  ${name.padEnd(14)} ${text}`
}

function time(ms: number): string {
  if (ms > 0 && ms % 3_600_000 === 0) return `${ms / 3_600_000}h`
  if (ms > 0 && ms % 60_000 === 0) return `${ms / 60_000}m`
  return ms % 1000 === 0 ? `${ms / 1000}s` : `${ms}ms`
}

/** Text from a command line or standard input steers no terminal. */
function printable(text: string): string {
  return text.replaceAll(/\p{C}/gu, '?')
}
