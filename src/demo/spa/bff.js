// Cloakroom's interface as this page uses it. The X-CSRF header proves that the page's own script made the call.

/** What came back of one call; `body` is undefined when it was no JSON. */
async function call(method, path) {
  const startedAt = performance.now()
  const response = await fetch(path, { method, headers: { 'X-CSRF': '1', Accept: 'application/json' } })
  const body = await response.json().catch(() => undefined)
  return { status: response.status, body, durationMs: Math.round(performance.now() - startedAt) }
}

/** The answer says that nobody is signed in (any more), as opposed to an API's own 401. */
export function isSignedOut({ status, body }) {
  return status === 401 && (body?.code === 'session_required' || body?.code === 'reauthentication_required')
}

/** The signed-in user's claims; looking does not make the session longer. */
export function fetchUser() {
  return call('GET', '/bff/user?slide=false')
}

/** Calls an API through Cloakroom. */
export function callApi(path) {
  return call('GET', path)
}

/** Ends the session; resolves with the address where the identity provider's session ends too. */
export async function signOut() {
  const { status, body } = await call('POST', '/bff/logout')
  return status === 200 ? body.redirect : '/'
}
