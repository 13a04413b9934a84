import { type ClientRequest, request as httpRequest, type IncomingMessage } from 'node:http'
import type { Member } from './fleet.ts'
import { ASKED_BY, type ResourceName } from './guarded-apis.ts'
import { APP, type Visitor } from './visitors.ts'

/** How one request ended, as its client saw it. */
export type Asked = { readonly ms: number } & (
  | {
      readonly kind: 'answered'
      readonly status: number
      /** `Cloakroom-Error`, if the answer is Cloakroom's own. */
      readonly code: string | undefined
      readonly body: Record<string, unknown>
      readonly setsCookie: boolean
    }
  /** We hung up. */
  | { readonly kind: 'aborted' }
  /** No answer within the time, or half of one, or no connection. */
  | { readonly kind: 'broken'; readonly error: string }
)

/** One request of one visitor. */
export type Question = {
  readonly visitor: Visitor
  readonly resource: ResourceName
  readonly member: Member
  /** Hang up after this long. */
  readonly abortAfterMs?: number | undefined
  readonly timeoutMs: number
}

/** Asks as a script of the application does. Never rejects. */
export function ask({ visitor, resource, member, abortAfterMs, timeoutMs }: Question): Promise<Asked> {
  const { hostname, port } = new URL(member.replica.listenUrl)
  const startedAt = performance.now()
  const ms = () => performance.now() - startedAt
  return new Promise((resolve) => {
    const req = httpRequest({
      ...{ agent: member.agent, hostname, port, path: `/api/${resource}/1` },
      headers: {
        host: new URL(APP).host,
        cookie: visitor.cookie,
        'x-csrf': '1',
        'sec-fetch-site': 'same-origin',
        [ASKED_BY]: visitor.user,
      },
    })
    const timers = [
      setTimeout(() => finish(req, { kind: 'broken', error: 'no answer in time', ms: ms() }), timeoutMs),
      ...(abortAfterMs === undefined
        ? []
        : [setTimeout(() => finish(req, { kind: 'aborted', ms: ms() }), abortAfterMs)]),
    ]
    const done = (asked: Asked) => {
      for (const timer of timers) clearTimeout(timer)
      resolve(asked)
    }
    function finish(open: ClientRequest, asked: Asked): void {
      done(asked)
      open.destroy()
    }
    req.on('error', (error) => done({ kind: 'broken', error: error.message, ms: ms() }))
    req.on('response', (res) => {
      read(res).then(
        (answer) => done({ ...answer, ms: ms() }),
        (error) => done({ kind: 'broken', error: String(error), ms: ms() }),
      )
    })
    req.end()
  })
}

async function read(res: IncomingMessage) {
  const chunks: Buffer[] = []
  for await (const chunk of res) chunks.push(chunk as Buffer)
  const text = Buffer.concat(chunks).toString('utf8')
  const code = res.headers['cloakroom-error']
  return {
    kind: 'answered' as const,
    status: res.statusCode ?? 0,
    code: typeof code === 'string' ? code : undefined,
    body: jsonObject(text),
    setsCookie: res.headers['set-cookie'] !== undefined,
  }
}

function jsonObject(text: string): Record<string, unknown> {
  try {
    return JSON.parse(text)
  } catch {
    return {}
  }
}
