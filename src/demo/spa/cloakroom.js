// The browser helper, one for the page, and what it sends and gets: for the journal.
import { createCloakroom } from '/bff/client.js'
import { askToSignIn } from './sign-in-dialog.js'

const watchers = new Set()

export const cloakroom = createCloakroom({
  fetch: watchedFetch,
  onSignInNeeded: (error) => askToSignIn(cloakroom, error),
})

/** Calls `watcher` with each exchange: method, path, status, body (of JSON), durationMs, isBackground. */
export function watchExchanges(watcher) {
  watchers.add(watcher)
}

/** Tells those who watch of an exchange that was no `fetch`. */
export function tellExchange(exchange) {
  for (const watcher of watchers) watcher(exchange)
}

async function watchedFetch(input, init) {
  const request = new Request(input, init)
  const startedAt = performance.now()
  const response = await fetch(request)
  const isJson = /\bjson\b/.test(response.headers.get('Content-Type') ?? '')
  tellExchange({
    method: request.method,
    path: new URL(request.url).pathname,
    status: response.status,
    body: isJson
      ? await response
          .clone()
          .json()
          .catch(() => undefined)
      : undefined,
    durationMs: Math.round(performance.now() - startedAt),
    isBackground: request.headers.has('Cloakroom-Background'),
  })
  return response
}
