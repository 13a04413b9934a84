import { createServer, type ServerResponse } from 'node:http'
import { connect } from 'node:net'
import { type Dispatcher, Pool } from 'undici'
import { whenListening } from '../process/child.ts'

/**
 * The yardstick: the least that a streaming reverse proxy on Node can do. No session, no checks, no log, one constant
 * bearer token. `UPSTREAM` is its upstream's origin, `BEARER` the token, `CHAT` the upstream of WebSockets.
 */
const { UPSTREAM = '', BEARER = '', CHAT = '' } = process.env
const pool = new Pool(UPSTREAM, { pipelining: 1 })
const authorization = `Bearer ${BEARER}`
const NOT_FORWARDED = new Set(['host', 'connection', 'authorization', 'cookie'])

const server = createServer({ keepAliveTimeout: 75_000 }, (req, res) => {
  const headers = ['authorization', authorization]
  const { rawHeaders } = req
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i]!
    if (!NOT_FORWARDED.has(name.toLowerCase())) headers.push(name, rawHeaders[i + 1]!)
  }
  const method = req.method as Dispatcher.HttpMethod
  const hasBody = method !== 'GET' && method !== 'HEAD'
  pool.dispatch({ path: req.url!, method, headers, body: hasBody ? req : null }, streamTo(res))
})

server.on('upgrade', ({ method, url, rawHeaders }, socket, head) => {
  const { port, hostname } = new URL(CHAT)
  const upstream = connect(Number(port), hostname)
  upstream.write(`${method} ${url} HTTP/1.1\r\n`)
  for (let i = 0; i < rawHeaders.length; i += 2) upstream.write(`${rawHeaders[i]}: ${rawHeaders[i + 1]}\r\n`)
  upstream.write('\r\n')
  upstream.write(head)
  socket.pipe(upstream).pipe(socket)
  socket.on('error', () => upstream.destroy())
  upstream.on('error', () => socket.destroy())
})
whenListening(server)

function streamTo(res: ServerResponse): Dispatcher.DispatchHandler {
  return {
    onRequestStart() {},
    onResponseStart(_controller, status, headers) {
      const { connection: _, 'keep-alive': __, ...kept } = headers
      res.writeHead(status, kept as Record<string, string>)
    },
    onResponseData(controller, chunk) {
      if (res.write(chunk)) return
      controller.pause()
      res.once('drain', () => controller.resume())
    },
    onResponseEnd: () => void res.end(),
    onResponseError: () => void res.destroy(),
  }
}
