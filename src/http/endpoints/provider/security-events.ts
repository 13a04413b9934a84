import type { Request, RequestHandler, Response } from 'express'
import type { Secret } from '../../../config/secrets/secret.ts'
import { BffError } from '../../../errors.ts'
import type { Logger } from '../../../log.ts'
import { EventTokenError, type EventTokenFault } from '../../../oidc/events/event-token.ts'
import type { ReceiveSet } from '../../../oidc/events/signals-receiver.ts'
import type { FailureLimit } from '../../rate-limit.ts'
import type { RequestFacts } from '../../request-log.ts'
import { hasBody } from '../../server/request-guard.ts'
import { readSmallBody } from '../../small-body.ts'
import { isExpectedAuthorization } from './authorization.ts'

export type SecurityEventsDeps = {
  readonly receiveSet: ReceiveSet
  /** What the `Authorization` field of a push must be; absent: it is not looked at. */
  readonly authorization: Secret | undefined
  /** Counts what is refused of clients that do not bring the `authorization`. */
  readonly refusedPushes: FailureLimit
  readonly factsOf: (req: Request) => RequestFacts
  /** What the whole body may take, in ms. */
  readonly bodyWithinMs: number
  readonly log: Logger
}

/** A SET has one or a few events of some hundred bytes; some carry claims. */
const MAX_BYTES = 65_536

/** Why a push is refused, in the words of RFC 8935 §2.4. */
type Refusal = Pick<EventTokenError, 'message' | 'facts'> & {
  readonly fault: EventTokenFault | 'authentication_failed'
}

/**
 * Makes the push endpoint of RFC 8935: 202 once the event is acted on, 400 with the codes of its §2.4 when it is refused.
 * The `authorization` comes before everything else, so that only the transmitter can make us read bodies and check signatures. What is
 * no fault of the event (408, 413, 429, 503) is a problem like any other, and the transmitter sends the event again.
 */
export function createSecurityEvents(deps: SecurityEventsDeps): RequestHandler {
  const { authorization, receiveSet, refusedPushes, factsOf, log } = deps

  return async function securityEvents(req, res) {
    const isTransmitter = authorization && isExpectedAuthorization(req, authorization)
    if (!isTransmitter) refusedPushes.check(req)
    const refusal = isTransmitter === false ? NOT_AUTHENTICATED : await refusalOf(req, res)
    if (refusal) {
      if (!isTransmitter) await refusedPushes.failed(req)
      refuse(req, res, refusal)
    } else {
      res.status(202).setHeader('content-length', '0')
      res.end()
    }
  }

  /** Receives the event; why it is refused, if it is. */
  async function refusalOf(req: Request, res: Response): Promise<Refusal | undefined> {
    try {
      await receiveSet(await readSet(req, res, deps.bodyWithinMs))
      return undefined
    } catch (error) {
      if (error instanceof EventTokenError) return error
      throw error
    }
  }

  function refuse(req: Request, res: Response, { fault, message, facts }: Refusal): void {
    const known = factsOf(req)
    known.code = fault
    log.warn({ request_id: known.id, code: fault, ...facts }, `a security event was refused: ${message}`)
    // The rest of the body is not read, so the connection cannot serve another request.
    if (!req.complete && hasBody(req)) res.setHeader('connection', 'close')
    res.status(400)
    res.setHeader('content-type', 'application/json')
    res.setHeader('content-language', 'en')
    res.setHeader('cache-control', 'no-store')
    res.end(JSON.stringify({ err: fault, description: message }))
  }
}

const NOT_AUTHENTICATED: Refusal = {
  fault: 'authentication_failed',
  message: 'the Authorization field is not the one that was agreed on',
  facts: {},
}

/** RFC 8935 §2.1. A body that is no event by its type is refused in the words of §2.4. */
async function readSet(req: Request, res: Response, withinMs: number): Promise<string> {
  try {
    const rules = { types: ['application/secevent+jwt'], maxBytes: MAX_BYTES, withinMs }
    return (await readSmallBody(req, res, rules)).trim()
  } catch (error) {
    const isOfEvent = error instanceof BffError && error.code === 'bad_request' && error.status !== 408
    throw isOfEvent ? new EventTokenError('invalid_request', error.message) : error
  }
}
