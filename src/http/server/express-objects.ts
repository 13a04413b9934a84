import { IncomingMessage, ServerResponse } from 'node:http'
import type { Express } from 'express'

/** The classes an HTTP server makes its requests and responses of. */
export type ServerObjects = {
  readonly IncomingMessage: typeof IncomingMessage
  readonly ServerResponse: typeof ServerResponse
}

/**
 * Classes whose objects are born with the prototypes of the app that `adopt` was last called with. Express gives these
 * to every request and response; on objects that have them already that changes nothing, on others V8 discards what it
 * has learnt about them. A request under way keeps its class, and with it sees the methods of the newest app.
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
