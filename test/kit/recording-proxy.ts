import { Agent, createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

/** One request to a token endpoint and its answer, as they crossed the wire. Holds live tokens: never to be printed. */
export type TokenExchange = {
  readonly grantType: string
  readonly form: URLSearchParams
  readonly status: number
  /** The JSON object of the answer; empty when it was none. */
  readonly answer: Readonly<Record<string, unknown>>
  /** Epoch ms. */
  readonly answeredAt: number
}

/** A proxy in front of a provider that this process cannot look into. */
export type RecordingProxy = {
  /** Where browsers and relying parties find the provider. */
  readonly origin: string
  readonly tokenExchanges: TokenExchange[]
  /** Sends everything to this port of 127.0.0.1 from now on. */
  forwardTo(port: number): void
  close(): Promise<void>
}

/** What the proxy changes on the way. */
export type RecordingProxyOptions = {
  /** Told every token answer before the client; what it returns is sent in its place. For lifetimes that a provider has no setting for. */
  readonly changeAnswer?: (answer: Readonly<Record<string, unknown>>) => Readonly<Record<string, unknown>>
}

/** Starts a proxy on a free port of 127.0.0.1 that hands on every request byte for byte and records those for tokens. */
export async function startRecordingProxy(options: RecordingProxyOptions = {}): Promise<RecordingProxy> {
  const tokenExchanges: TokenExchange[] = []
  const agent = new Agent({ keepAlive: false })
  let port = 0

  async function handle(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const body = await bytesOf(req)
    const form = new URLSearchParams(isForm(req) ? body.toString('utf8') : '')
    const grantType = req.method === 'POST' ? form.get('grant_type') : null
    const outbound = request({
      ...{ agent, host: '127.0.0.1', port, method: req.method, path: req.url },
      // The provider builds its URLs from the Host that it is asked for.
      headers: withoutFraming(req.headers, body),
    })
    const answered = new Promise<IncomingMessage>((resolve, reject) => {
      outbound.once('response', resolve)
      outbound.once('error', reject)
    })
    outbound.end(body)
    const answer = await answered
    const received = await bytesOf(answer)
    const sent = grantType === null ? received : recorded(grantType, form, answer, received)
    const headers = withoutFraming(answer.headers, sent)
    res.writeHead(answer.statusCode ?? 502, headers)
    res.end(req.method === 'HEAD' ? undefined : sent)
  }

  function recorded(grantType: string, form: URLSearchParams, { statusCode }: IncomingMessage, body: Buffer) {
    const json = jsonObject(body)
    const answer = json && options.changeAnswer ? options.changeAnswer(json) : json
    tokenExchanges.push({
      grantType,
      form,
      status: statusCode ?? 0,
      answer: answer ?? {},
      answeredAt: Date.now(),
    })
    return answer === json ? body : Buffer.from(JSON.stringify(answer))
  }

  const server = createServer((req, res) => {
    handle(req, res).catch(() => res.destroy())
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', resolve)
  })
  return {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    tokenExchanges,
    forwardTo: (to) => {
      port = to
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

/** Every access token and refresh token of the exchanges so far, for a leak scan. ID tokens go to the browser as hints. */
export function tokensOf(exchanges: readonly TokenExchange[]): string[] {
  const names = ['access_token', 'refresh_token']
  const secrets = exchanges.flatMap(({ form, answer }) => [
    ...names.map((name) => answer[name]),
    form.get('refresh_token'),
  ])
  return [
    ...new Set(
      secrets.filter((secret): secret is string => typeof secret === 'string' && secret.length >= 8),
    ),
  ]
}

async function bytesOf(message: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of message) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

function isForm(req: IncomingMessage): boolean {
  return /^application\/x-www-form-urlencoded/i.test(req.headers['content-type'] ?? '')
}

/** The body is whole on both sides, so its length replaces whatever framed it. */
function withoutFraming(headers: IncomingMessage['headers'], body: Buffer): IncomingMessage['headers'] {
  const { connection: _c, 'transfer-encoding': _t, 'content-length': length, ...rest } = headers
  return body.length > 0 || length !== undefined ? { ...rest, 'content-length': String(body.length) } : rest
}

function jsonObject(body: Buffer): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(body.toString('utf8'))
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined
  } catch {
    return undefined
  }
}
