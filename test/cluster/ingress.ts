import { type ChildProcess, spawn } from 'node:child_process'
import { Agent, createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createInterface } from 'node:readline'
import type { Manifest } from './kube.ts'

/**
 * A reverse proxy in front of one Service, which does what ingress-nginx does: it watches the Service's EndpointSlices and
 * sends each request to the next address that is ready, over connections that it keeps. A request that fails is sent once
 * more, to another address: a GET when no byte of an answer has come (`proxy_next_upstream error timeout`, nginx's default),
 * any other only when its connection could not be made.
 */
export type Ingress = {
  /** Where clients ask. */
  readonly url: string
  /** Addresses that get requests now. */
  addresses(): readonly string[]
  /** What went wrong with requests at addresses since the start, by error code, whether sent once more or not. */
  readonly failedAttempts: Readonly<Record<string, number>>
  close(): void
}

/** What a client is told of the ingress' own errors. */
export const INGRESS_ERROR = 'x-ingress-error'

/** How long a change of the EndpointSlices takes to be acted on: ingress-nginx looks at them about once a second. */
const CHANGE_MS = 1_000
/** `proxy_connect_timeout` of ingress-nginx. */
const CONNECT_MS = 5_000
/** `proxy_read_timeout`. */
const READ_MS = 60_000
const CLIENTS_KEEP_ALIVE_MS = 60_000
const TRIES = 2

/** Watches a Service of a namespace and listens on a free port of 127.0.0.1. */
export async function startIngress(namespace: string, service: string): Promise<Ingress> {
  const failedAttempts: Record<string, number> = {}
  const agents = new Map<string, Agent>()
  let ready: readonly string[] = []
  let turn = 0
  const watch = watchAddresses(namespace, service, (addresses) => {
    ready = addresses
  })

  function next(but: readonly string[]): string | undefined {
    const others = ready.filter((address) => !but.includes(address))
    const choice = others.length > 0 ? others : ready
    turn += 1
    return choice[turn % choice.length]
  }

  async function serve(req: IncomingMessage, res: ServerResponse): Promise<void> {
    // Whole before it is sent on (`proxy_request_buffering on`), so that it can be sent again.
    const chunks: Buffer[] = []
    for await (const chunk of req) chunks.push(chunk)
    const body = Buffer.concat(chunks)
    const tried: string[] = []
    for (;;) {
      const address = next(tried)
      if (address === undefined) return refuse(res, 503, 'no address is ready')
      tried.push(address)
      const agent = agents.get(address) ?? new Agent({ keepAlive: true })
      agents.set(address, agent)
      const failure = await attempt(req, res, { address, agent, body })
      if (failure === undefined) return
      failedAttempts[failure.code] = (failedAttempts[failure.code] ?? 0) + 1
      if (failure.inAnswer) return void res.destroy()
      const mayRetry = req.method === 'GET' || !failure.wasSent
      if (!mayRetry || tried.length === TRIES) return refuse(res, 502, failure.code)
    }
  }

  const server = createServer((req, res) => void serve(req, res).catch(() => res.destroy()))
  server.keepAliveTimeout = CLIENTS_KEEP_ALIVE_MS
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    addresses: () => ready,
    failedAttempts,
    close() {
      watch.kill()
      server.close()
      server.closeAllConnections()
      for (const agent of agents.values()) agent.destroy()
    },
  }
}

function refuse(res: ServerResponse, status: number, code: string): void {
  res.writeHead(status, { [INGRESS_ERROR]: code }).end()
}

type Failure = { readonly code: string; readonly wasSent: boolean; readonly inAnswer: boolean }
type Target = { readonly address: string; readonly agent: Agent; readonly body: Buffer }

/** Sends a request to one address and its answer to the client; resolves with what went wrong. */
function attempt(
  req: IncomingMessage,
  res: ServerResponse,
  { address, agent, body }: Target,
): Promise<Failure | undefined> {
  const [host, port] = address.split(':')
  const headers = {
    ...req.headers,
    'x-forwarded-for': req.socket.remoteAddress,
    'x-forwarded-proto': 'https',
    'x-forwarded-host': req.headers.host,
    ...(body.length > 0 ? { 'content-length': String(body.length) } : {}),
  }
  return new Promise((resolve) => {
    let wasSent = false
    const outbound = request({
      host,
      port,
      method: req.method,
      path: req.url,
      headers,
      agent,
      timeout: READ_MS,
    })
    outbound.once('timeout', () => outbound.destroy(codeError('ETIMEDOUT')))
    const tooLate = setTimeout(() => outbound.destroy(codeError('ETIMEDOUT')), CONNECT_MS)
    const sent = () => {
      wasSent = true
      clearTimeout(tooLate)
    }
    outbound.once('socket', (socket) => (socket.connecting ? socket.once('connect', sent) : sent()))
    outbound.once('error', (error: NodeJS.ErrnoException) => {
      clearTimeout(tooLate)
      resolve({ code: error.code ?? 'error', wasSent, inAnswer: res.headersSent })
    })
    outbound.once('response', (answer) => {
      const { connection, 'keep-alive': _keepAlive, ...end } = answer.headers
      res.writeHead(answer.statusCode ?? 502, end)
      answer.pipe(res)
      answer.once('error', () => resolve({ code: 'cut off', wasSent, inAnswer: true }))
      answer.once('end', () => resolve(undefined))
    })
    outbound.end(body)
  })
}

const codeError = (code: string) => Object.assign(new Error(code), { code })

/** Tells the addresses that are ready, a while after each change. */
function watchAddresses(
  namespace: string,
  service: string,
  tell: (addresses: readonly string[]) => void,
): ChildProcess {
  const slices = new Map<string, Manifest>()
  const query = `labelSelector=kubernetes.io/service-name=${service}&watch=1`
  const path = `/apis/discovery.k8s.io/v1/namespaces/${namespace}/endpointslices?${query}`
  const child = spawn('kubectl', ['get', '--raw', path], { stdio: ['ignore', 'pipe', 'inherit'] })
  createInterface({ input: child.stdout }).on('line', (line) => {
    const { type, object } = JSON.parse(line)
    if (type === 'DELETED') slices.delete(object.metadata.name)
    else slices.set(object.metadata.name, object)
    const addresses = [...slices.values()].flatMap(readyAddresses)
    setTimeout(tell, CHANGE_MS, addresses)
  })
  return child
}

function readyAddresses({ endpoints, ports }: Manifest): string[] {
  return (endpoints ?? []).flatMap(({ addresses, conditions }: Manifest) =>
    // Not ready while it ends; `serving` would be for when none is ready, which the run has no use for.
    conditions.ready ? [`${addresses[0]}:${ports[0].port}`] : [],
  )
}
