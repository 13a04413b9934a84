import request, { type Test } from 'supertest'
import type { RunningCloakroom } from '../cloakroom.ts'

/** What a request may be made with. */
export type Method = 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE' | 'OPTIONS' | 'PROPFIND'

/** Begins one request; expectations and a body can be added until it is awaited. */
export type Ask = (method: Method, path: string, headers?: Record<string, string>) => Test

/** What a browser adds to a request of the application's own script, and what the script has to add. */
const SAME_ORIGIN = {
  accept: '*/*',
  'x-csrf': '1',
  'sec-fetch-site': 'same-origin',
  'sec-fetch-mode': 'cors',
  'sec-fetch-dest': 'empty',
}
/** An address that is typed into the address bar, by a client that asks for no page. */
const TYPED = {
  accept: '*/*',
  'sec-fetch-site': 'none',
  'sec-fetch-mode': 'navigate',
  'sec-fetch-dest': 'document',
}

/** Single requests of the application's script, with the cookies of the browser that it runs in. A header set to '' is left out. */
export function scriptOf(cloakroom: RunningCloakroom, browser?: { cookieHeader(): string }): Ask {
  return (method, path, headers = {}) => {
    const origin = method === 'GET' || method === 'HEAD' ? '' : cloakroom.publicUrl
    const all = { ...SAME_ORIGIN, origin, ...cookieOf(browser), ...headers }
    return ask(cloakroom, { method, path, headers: all })
  }
}

/** The same for addresses that a person types. */
export function addressBarOf(cloakroom: RunningCloakroom): Ask {
  return (method, path, headers = {}) => ask(cloakroom, { method, path, headers: { ...TYPED, ...headers } })
}

function ask(
  { listenUrl, publicUrl }: RunningCloakroom,
  { method, path, headers }: { method: Method; path: string; headers: Record<string, string> },
): Test {
  const given = Object.entries(headers).filter(([, value]) => value !== '')
  const begun = request(listenUrl)[method.toLowerCase() as Lowercase<Method>](path)
  return begun.set({ host: new URL(publicUrl).host, ...Object.fromEntries(given) })
}

function cookieOf(browser?: { cookieHeader(): string }): Record<string, string> {
  const cookie = browser?.cookieHeader() ?? ''
  return cookie === '' ? {} : { cookie }
}
