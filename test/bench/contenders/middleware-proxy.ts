import { Agent, createServer } from 'node:http'
import type { Socket } from 'node:net'
import { createProxyMiddleware } from 'http-proxy-middleware'
import { whenListening } from '../process/child.ts'

/**
 * http-proxy-middleware by itself, with one constant bearer token. `UPSTREAM` is its upstream's origin, `BEARER` the token,
 * `CHAT` the upstream of WebSockets.
 */
const { UPSTREAM = '', BEARER = '', CHAT = '' } = process.env
const proxy = createProxyMiddleware({
  target: UPSTREAM,
  agent: new Agent({ keepAlive: true }),
  headers: { authorization: `Bearer ${BEARER}` },
})
const unhandled = (error?: unknown) => {
  throw error
}
const chat = createProxyMiddleware({ target: CHAT, agent: new Agent({ keepAlive: false }) })
const server = createServer({ keepAliveTimeout: 75_000 }, (req, res) => void proxy(req, res, unhandled))
server.on('upgrade', (req, socket, head) => chat.upgrade(req, socket as Socket, head))
whenListening(server)
