import { AsyncLocalStorage } from 'node:async_hooks'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'

type Send = { isKnown: boolean; isSent: boolean }
/** Runs one `fetch`; `sent` is called before it settles, unless it is certain that not a byte of the request was sent. */
export type SendWatch = <T>(send: () => Promise<T>, sent: () => void) => Promise<T>

// What undici, the `fetch` of Node.js, tells of its requests: when it takes one on, and right before its first byte.
const CREATED = 'undici:request:create'
const SENDING = 'undici:client:sendHeaders'

/**
 * Makes a watch on what leaves this process. The code of a failure does not say it: a connection is reset in the middle
 * of the TLS handshake as well as after the request, and an answer that did not come in time may be that of a handshake.
 */
export function createSendWatch(): SendWatch {
  const sends = new AsyncLocalStorage<Send>()
  const requests = new WeakMap<object, Send>()
  let watched = 0

  const noteCreated = (message: unknown) => {
    const send = sends.getStore()
    if (!send) return
    send.isKnown = true
    const { request } = message as { request: { readonly method?: unknown } }
    // What opens the way through a proxy holds nothing of what is sent through it.
    if (request.method !== 'CONNECT') requests.set(request, send)
  }
  const noteSending = (message: unknown) => {
    const send = requests.get((message as { request: object }).request)
    if (send) send.isSent = true
  }
  // Only while somebody watches: requests to upstreams pass the same channels.
  function begin(): void {
    if (++watched > 1) return
    subscribe(CREATED, noteCreated)
    subscribe(SENDING, noteSending)
  }
  function end(): void {
    if (--watched > 0) return
    unsubscribe(CREATED, noteCreated)
    unsubscribe(SENDING, noteSending)
  }

  return async function watchSend(send, sent) {
    const noted: Send = { isKnown: false, isSent: false }
    begin()
    try {
      return await sends.run(noted, send)
    } finally {
      end()
      if (noted.isSent || !noted.isKnown) sent()
    }
  }
}
