import { createServer } from 'node:http'
import { whenListening } from '../process/child.ts'

/** An API that answers a request with a bearer token at once with 800 bytes of JSON, any other with 401. */
const BODY = Buffer.from(
  JSON.stringify({ order: 42, note: 'x'.repeat(800 - '{"order":42,"note":""}'.length) }),
)
const HEADERS = ['content-type', 'application/json; charset=utf-8', 'content-length', String(BODY.length)]

const server = createServer({ keepAliveTimeout: 75_000 }, (req, res) => {
  if (req.headers.authorization?.startsWith('Bearer ey')) res.writeHead(200, HEADERS).end(BODY)
  else res.writeHead(401, { 'content-length': '0' }).end()
})
whenListening(server)
