import type { IncomingMessage, ServerResponse } from 'node:http'
import { BffError } from '../../errors.ts'
import { type ProblemAnswer, problemAnswer } from '../problem.ts'
import type { RequestLog } from '../request-log.ts'
import { EVERY_METHOD, hasBody, type MessageCheck, originForm, type Refusal } from './message-checks.ts'
import { endWithAnswer } from './raw-answer.ts'

/** What every message of the public listener meets first, whatever it is for. */
export type Front = {
  /** False when the request was answered here. */
  admit(req: IncomingMessage, res: ServerResponse): boolean
  /** False when the upgrade or CONNECT was answered here; its connection then ends. */
  admitUpgrade(req: IncomingMessage): boolean
  /** The answer to bytes that are no request. */
  refusalOf(status: number, detail: string): ProblemAnswer
}

export type FrontDeps = {
  readonly check: MessageCheck
  readonly requestLog: RequestLog
  /** Set on every answer of our own. */
  readonly ownHeaders: Readonly<Record<string, string>>
  /** Told of each refusal that has no request of its own to be counted with. */
  readonly observe: (method: string, status: number) => void
}

const NO_PLAIN_GET: Refusal = {
  code: 'bad_request',
  status: 400,
  detail: 'an upgrade is asked for with GET and without a body',
}
const MAX_FORWARDS: Refusal = {
  code: 'bad_request',
  status: 400,
  detail: 'Max-Forwards must be a number',
}

/** Makes the front: refused messages are answered and their connections closed, the rest is brought into one form. */
export function createFront({ check, requestLog, ownHeaders, observe }: FrontDeps): Front {
  function problemOf(refusal: Refusal, requestId?: string): ProblemAnswer {
    const { code, status, detail, headers } = refusal
    const error = new BffError(code, detail, headers ? { headers } : {})
    const answer = problemAnswer(error, requestId === undefined ? { status } : { status, requestId })
    return { ...answer, headers: { ...ownHeaders, ...answer.headers } }
  }

  function refuse(req: IncomingMessage, res: ServerResponse, refusal: Refusal): false {
    const facts = requestLog.begin(req, res)
    facts.code = refusal.code
    const { status, headers, body } = problemOf(refusal, facts.id)
    res.writeHead(status, { ...headers, 'content-length': Buffer.byteLength(body), connection: 'close' })
    res.end(body)
    return false
  }

  /** RFC 9110 §7.6.2: this is as far as the request may go. */
  function answerAsLast(req: IncomingMessage, res: ServerResponse): false {
    requestLog.begin(req, res)
    res.writeHead(204, { ...ownHeaders, allow: EVERY_METHOD })
    res.end()
    return false
  }

  return {
    admit(req, res) {
      const refusal = check(req)
      // A refused URL too, so that no host of a client's making is written to the log.
      req.url = originForm(req.url!)
      if (refusal) return refuse(req, res, refusal)
      // RFC 9110 §10.1.1: to HTTP/1.0 nothing is promised before the answer.
      if (req.httpVersionMinor === 0) {
        delete req.headers.expect
        // RFC 9112 §9.3: `close` counts more than the `keep-alive` beside it; Node's parser has it the other way round.
        if (/(?:^|,)\s*close\s*(?:,|$)/i.test(req.headers.connection ?? '')) res.shouldKeepAlive = false
      }
      if (req.headers['max-forwards'] === undefined) return true
      // Of every other method it says nothing (RFC 9110 §7.6.2), and some servers refuse it there.
      if (req.method !== 'OPTIONS') return withoutMaxForwards(req.rawHeaders)
      const hops = String(req.headers['max-forwards'])
      if (!/^\d{1,9}$/.test(hops)) return refuse(req, res, MAX_FORWARDS)
      if (Number(hops) === 0) return answerAsLast(req, res)
      countDown(req.rawHeaders, Number(hops) - 1)
      return true
    },

    admitUpgrade(req) {
      const refusal = check(req) ?? (req.method !== 'GET' || hasBody(req) ? NO_PLAIN_GET : undefined)
      req.url = originForm(req.url!)
      if (!refusal) return withoutMaxForwards(req.rawHeaders)
      observe('UPGRADE', refusal.status)
      endWithAnswer(req.socket, problemOf(refusal), { withBody: req.method !== 'HEAD' })
      return false
    },

    refusalOf(status, detail) {
      observe('INVALID', status)
      return problemOf({ code: 'bad_request', status, detail })
    },
  }
}

function withoutMaxForwards(raw: string[]): true {
  for (let i = raw.length - 2; i >= 0; i -= 2) {
    if (raw[i]!.toLowerCase() === 'max-forwards') raw.splice(i, 2)
  }
  return true
}

/** Says in the fields that are forwarded how much further the request may go. */
function countDown(raw: string[], hops: number): void {
  for (let i = 0; i < raw.length; i += 2) {
    if (raw[i]!.toLowerCase() === 'max-forwards') raw[i + 1] = String(hops)
  }
}
