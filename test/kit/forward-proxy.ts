import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'

/** An HTTP proxy as a company has one on the way out. */
export type ForwardProxy = {
  readonly url: string
  /** What it was asked for, in order: `CONNECT host:port`, or method and absolute URL. */
  readonly asked: string[]
  /** The Proxy-Authorization of each of them. */
  readonly credentials: (string | undefined)[]
  /** Answers everything with this status. */
  refuseWith(status: number): void
  close(): Promise<void>
}

/** Starts one that knows these names beside what the system knows; values are ports of 127.0.0.1. */
export async function startForwardProxy(names: Record<string, number> = {}): Promise<ForwardProxy> {
  const asked: string[] = []
  const credentials: (string | undefined)[] = []
  const sockets = new Set<Socket>()
  let refusal: number | undefined

  function note(what: string, { headers }: IncomingMessage): void {
    asked.push(what)
    credentials.push(headers['proxy-authorization'])
  }
  const placeOf = (host: string, port: number) => ({ host: '127.0.0.1', port: names[host] ?? port })

  const server = createServer((req: IncomingMessage, res: ServerResponse) => {
    note(`${req.method} ${req.url}`, req)
    if (refusal !== undefined) return void res.writeHead(refusal).end()
    const url = new URL(req.url ?? '')
    const headers = { ...req.headers }
    delete headers['proxy-authorization']
    const outbound = request({
      ...placeOf(url.hostname, Number(url.port || 80)),
      ...{ method: req.method, path: url.pathname + url.search, headers, agent: false },
    })
    outbound.on('response', (answer) => {
      res.writeHead(answer.statusCode ?? 502, answer.headers)
      answer.pipe(res)
    })
    outbound.on('error', () => res.destroy())
    req.pipe(outbound)
  })
  server.on('connect', (req: IncomingMessage, client: Socket) => {
    note(`CONNECT ${req.url}`, req)
    client.on('error', () => client.destroy())
    if (refusal !== undefined) return void client.end(`HTTP/1.1 ${refusal} No\r\ncontent-length: 0\r\n\r\n`)
    const { hostname, port } = new URL(`http://${req.url}`)
    const upstream = connect(placeOf(hostname, Number(port || 80)), () => {
      client.write('HTTP/1.1 200 OK\r\n\r\n')
      upstream.pipe(client).pipe(upstream)
    })
    sockets.add(upstream)
    upstream.on('error', () => client.destroy())
    upstream.on('close', () => client.destroy())
    client.on('close', () => upstream.destroy())
  })
  server.on('connection', (socket: Socket) => sockets.add(socket))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}`,
    asked,
    credentials,
    refuseWith(status) {
      refusal = status
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        for (const socket of sockets) socket.destroy()
      }),
  }
}
