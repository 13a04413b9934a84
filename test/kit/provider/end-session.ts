import type { ServerResponse } from 'node:http'
import { field, type RecordedRequest, sendHtml } from '../local-server.ts'

/** An end-session endpoint (OpenID Connect RP-Initiated Logout 1.0 §2): back to the client when it says where, else a page. */
export function endSession(request: RecordedRequest, res: ServerResponse) {
  const params = request.method === 'POST' ? request.form : request.query
  const back = field(params, 'post_logout_redirect_uri')
  if (!back) return sendHtml(res, 200, '<p>You signed out of your account</p>')
  const location = new URL(back)
  const state = field(params, 'state')
  if (state !== undefined) location.searchParams.set('state', state)
  res.writeHead(302, { location: location.href })
  res.end()
}
