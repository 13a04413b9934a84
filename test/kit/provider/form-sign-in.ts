import type { SignIn } from '../../../src/demo/scripted/authorization-endpoint.ts'
import { escapeHtml, field, type RecordedRequest, sendHtml } from '../local-server.ts'

/**
 * Signs in at once, or by a form with a name and a password that are both taken as they are; asked at each request, so
 * that tests can switch.
 */
export function formSignIn({
  interactive,
  user,
}: {
  /** Show the form instead of redirecting at once. */
  readonly interactive: () => boolean
  /** Who is signed in when no form is shown, or when the form names nobody. */
  readonly user: () => string
}): SignIn {
  return function signIn(request, params) {
    const isForm = request.method === 'POST'
    if (interactive() && field(params, 'prompt') === 'none') return { error: 'login_required' }
    if (interactive() && !isForm) return { show: (res) => sendHtml(res, 200, formOf(request)) }
    if (isForm && field(params, 'action') === 'cancel') return { error: 'access_denied' }
    return { user: (isForm && field(params, 'username')) || user() }
  }
}

function formOf(request: RecordedRequest): string {
  const hidden = request.query.map(
    ([name, value]) => `<input type="hidden" name="${escapeHtml(name)}" value="${escapeHtml(value)}">`,
  )
  return `<form method="post" action="${escapeHtml(request.path)}">${hidden.join('')}
    <input type="text" name="username" value=""><input type="password" name="password" value="">
    <button type="submit" name="action" value="login">Sign in</button></form>`
}
