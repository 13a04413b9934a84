/**
 * Fragile. Relies on Express giving each request and response the prototypes `app.request` and `app.response`
 * (`Object.setPrototypeOf` in `express/lib/application.js`, `handle`), and on V8 discarding what it has learnt about an
 * object whose prototype changes. Pays 12 % of the CPU time of a proxied request: without this file 1.12 times as much
 * (median of 25 alternating rounds of `npm run bench` in the same run; against the bare proxy 1.57 with, 1.82 without).
 * `test/unit/http/server/express-objects.test.ts` fails when Express sets other prototypes.
 */
import { IncomingMessage, ServerResponse } from 'node:http'
import type { Express } from 'express'

/** The classes of an HTTP server's requests and responses. */
export type ServerObjects = {
  readonly IncomingMessage: typeof IncomingMessage
  readonly ServerResponse: typeof ServerResponse
}

/**
 * Makes classes whose objects have the prototypes of the app that `adopt` was last called with from the start, so that
 * Express changes nothing when it sets them. Requests in flight keep their class, and see the methods of the newest app.
 */
export function createServerObjects(): { objects: ServerObjects; adopt(app: Express): void } {
  class EdgeRequest extends IncomingMessage {}
  class EdgeResponse extends ServerResponse {}
  function adopt(app: Express): void {
    Object.setPrototypeOf(EdgeRequest.prototype, app.request)
    Object.setPrototypeOf(EdgeResponse.prototype, app.response)
    app.request = EdgeRequest.prototype as Express['request']
    app.response = EdgeResponse.prototype as Express['response']
  }
  return {
    objects: { IncomingMessage: EdgeRequest, ServerResponse: EdgeResponse as typeof ServerResponse },
    adopt,
  }
}
