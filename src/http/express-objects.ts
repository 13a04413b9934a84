import { IncomingMessage, ServerResponse } from 'node:http'
import type { Express } from 'express'

/** The classes an HTTP server makes its requests and responses of. */
export type ServerObjects = {
  readonly IncomingMessage: typeof IncomingMessage
  readonly ServerResponse: typeof ServerResponse
}

/**
 * Classes whose objects are born with an app's prototypes. Express gives these to every request and response; on
 * objects that have them already that changes nothing, on others V8 discards what it has learnt about them.
 */
export function objectsBornFor(app: Express): ServerObjects {
  class EdgeRequest extends IncomingMessage {}
  class EdgeResponse extends ServerResponse {}
  Object.setPrototypeOf(EdgeRequest.prototype, app.request)
  Object.setPrototypeOf(EdgeResponse.prototype, app.response)
  app.request = EdgeRequest.prototype as Express['request']
  app.response = EdgeResponse.prototype as Express['response']
  return { IncomingMessage: EdgeRequest, ServerResponse: EdgeResponse as typeof ServerResponse }
}
