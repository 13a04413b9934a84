import { Agent, createServer } from 'node:http'
import { createProxyMiddleware } from 'http-proxy-middleware'
import { whenListening } from '../process/child.ts'

/** http-proxy-middleware by itself, with one constant bearer token. `UPSTREAM` is its upstream's origin, `BEARER` the token. */
const { UPSTREAM = '', BEARER = '' } = process.env
const proxy = createProxyMiddleware({
  target: UPSTREAM,
  agent: new Agent({ keepAlive: true }),
  headers: { authorization: `Bearer ${BEARER}` },
})
const unhandled = (error?: unknown) => {
  throw error
}
whenListening(createServer({ keepAliveTimeout: 75_000 }, (req, res) => void proxy(req, res, unhandled)))
