import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import { createThrottledWarning } from '../async/log-throttle.ts'
import { BffError, describeError } from '../errors.ts'
import type { LogFields, Logger } from '../log.ts'
import type { LoginUrlFor } from './endpoints/login.ts'
import { problemAnswer, statusOf } from './problem.ts'
import { type EndedRequest, endSpan, pathOf, type RequestLog } from './request-log.ts'
import type { SecurityHeaders } from './security-headers.ts'
import { endWithAnswer } from './server/raw-answer.ts'

export type UpgradeAnswersDeps = {
  readonly requestLog: Pick<RequestLog, 'factsOf' | 'upgraded'>
  readonly log: Logger
  readonly clientAddress: (req: IncomingMessage) => string
  readonly securityHeaders: Pick<SecurityHeaders, 'fields'>
  readonly loginUrlFor: LoginUrlFor
  /** Why a refused upgrade has no session. Never told to the browser. */
  readonly whyNoSession: (req: IncomingMessage) => string | undefined | Promise<string | undefined>
  /** Told of each answer to an upgrade. */
  readonly observe: (ended: Omit<EndedRequest, 'seconds'>) => void
}

/** Answers upgrades that are refused, which have no response object, and writes the one line of each upgrade. */
export function createUpgradeAnswers(deps: UpgradeAnswersDeps) {
  const { requestLog, log, clientAddress, securityHeaders } = deps
  const warnOfLimits = createThrottledWarning(
    log,
    'WebSockets refused: as many are open as limits.webSocketsPerSession or limits.webSocketsPerClient say',
  )

  return {
    /** Answers with the problem, and ends the connection: no second request is ever read from it. Returns the status. */
    refuse(
      socket: Socket,
      error: unknown,
      {
        headers,
        requestId,
      }: { readonly headers: Readonly<Record<string, string>>; readonly requestId: string },
    ): number {
      if (error instanceof BffError && error.code === 'rate_limited') warnOfLimits()
      const answer = problemAnswer(error, { requestId, loginUrl: deps.loginUrlFor() })
      const all = { ...securityHeaders.fields, ...headers, ...answer.headers, 'x-request-id': requestId }
      endWithAnswer(socket, { ...answer, headers: all })
      return answer.status
    },

    /** Writes the line of an upgrade that we refuse. */
    refused(req: IncomingMessage, error: unknown): void {
      const { id, traceparent, route, session } = requestLog.factsOf(req)
      const clientIp = clientAddress(req)
      const known = { request_id: id, traceparent, route, session, path: pathOf(req), clientIp }
      if (!(error instanceof BffError)) {
        log.error({ ...known, err: describeError(error) }, 'unexpected error')
        return
      }
      const { code, status = statusOf(code), details, cause } = error
      const { subject, ...logged } = (error.logged ?? {}) as LogFields
      const err = cause === undefined ? undefined : describeError(cause)
      const told = (reason: string | undefined) =>
        log.info({ ...known, code, status, err, reason, ...logged }, 'a WebSocket was refused')
      const reason = details?.reason === undefined ? undefined : String(details.reason)
      if (code === 'access_denied')
        log.audit?.(code, { request_id: id, route, session, subject, clientIp, reason, ...logged })
      const isUntold = code === 'session_required' && reason === undefined
      const found = isUntold ? deps.whyNoSession(req) : reason
      if (found instanceof Promise) found.then(told)
      else told(found)
    },

    /** Ends the upgrade's span: with 101 or the upstream's refusal, or with our own, which is `error`. */
    answered(req: IncomingMessage, status: number, error?: unknown): void {
      const known = requestLog.factsOf(req)
      const ofError = error instanceof BffError ? error.code : 'internal_error'
      const code = error === undefined ? undefined : ofError
      if (code === undefined) requestLog.upgraded(req, status)
      else endSpan(Object.assign(known, { code }), req, status)
      deps.observe({ route: known.route ?? 'none', method: 'UPGRADE', status, code })
    },
  }
}
