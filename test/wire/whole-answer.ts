import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { request as httpRequest } from 'node:http'

/** One request, on a connection of its own. */
export type Ask = {
  readonly path: string
  /** GET unless given. */
  readonly method?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: Buffer
  readonly host?: string
}

/** An answer with everything that it was on the wire, but for its chunks. */
export type WholeAnswer = {
  readonly status: number
  readonly reason: string
  /** In order, names in lower case, each character of a value a byte. */
  readonly fields: [name: string, value: string][]
  readonly body: Buffer
  readonly location: string | undefined
}

/**
 * Asks 127.0.0.1 and reads the answer to its end. With `expect: 100-continue` the body waits for a 100, and is not sent
 * when there is another answer. Rejects when the answer is cut.
 */
export function ask(port: number, { path, method = 'GET', headers, body, host }: Ask): Promise<WholeAnswer> {
  return new Promise((resolve, reject) => {
    const req = httpRequest({
      ...{ host: '127.0.0.1', port, path, method, agent: false },
      headers: { ...headers, ...(host === undefined ? {} : { host }) },
    })
    let hasAnswered = false
    req.on('response', (res) => {
      hasAnswered = true
      const chunks: Buffer[] = []
      res.on('data', (chunk: Buffer) => chunks.push(chunk))
      res.on('error', reject)
      res.on('end', () => {
        const fields: [string, string][] = []
        for (let i = 0; i < res.rawHeaders.length; i += 2)
          fields.push([res.rawHeaders[i]!.toLowerCase(), res.rawHeaders[i + 1]!])
        const { statusCode: status = 0, statusMessage: reason = '' } = res
        resolve({ status, reason, fields, body: Buffer.concat(chunks), location: res.headers.location })
        // Of an early answer the rest of the request is of no use to anybody.
        req.destroy()
      })
    })
    req.on('error', (error) => {
      // A server may end the connection of a request that it refused.
      if (!hasAnswered) reject(error)
    })
    if (headers?.expect === undefined) req.end(body)
    else {
      req.flushHeaders()
      req.once('continue', () => req.end(body))
    }
  })
}

/** README: fields of one connection are the only ones that change. The date is that of the answer. */
const OF_ONE_HOP = ['connection', 'keep-alive', 'transfer-encoding', 'date']
/** Is Cloakroom's own on every answer. */
const REQUEST_ID = 'x-request-id'

/** Fails unless an answer through Cloakroom is the server's own, but for one hop's fields and those named as `changed`. */
export function assertSame(ours: WholeAnswer, own: WholeAnswer, changed: readonly string[] = []): void {
  const leftOut = [...OF_ONE_HOP, REQUEST_ID, ...changed]
  const view = ({ status, reason, fields, body }: WholeAnswer) => {
    const boundary = fields.flatMap(([, value]) => /boundary=(\S+)/.exec(value)?.[1] ?? [])[0]
    const kept = fields.filter(([name]) => !leftOut.includes(name))
    // A server makes a new boundary for each answer.
    const text = (value: string) => (boundary === undefined ? value : value.replaceAll(boundary, 'BOUNDARY'))
    return {
      status,
      // Where a server gives no reason phrase, Cloakroom may say the usual one (RFC 9112 §4: clients ignore it).
      reason: own.reason === '' ? '' : reason,
      fields: kept.map(([name, value]) => [name, text(value)]).sort(),
      digest: digest(text(body.toString('latin1'))),
    }
  }
  assert.deepEqual(view(ours), view(own))
  const requestIds = ours.fields.filter(([name]) => name === REQUEST_ID)
  assert.equal(requestIds.length, 1, 'every answer says which request it is for')
}

/** SHA-256, in hexadecimal. */
export function digest(content: Buffer | string): string {
  return createHash('sha256').update(content).digest('hex')
}
