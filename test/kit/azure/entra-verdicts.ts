import assert from 'node:assert/strict'
import type { RawAnswer } from '../../../src/demo/azure/azure-policy.ts'
import type { FetchAnswer } from '../browsers/browser.ts'
import { verdict } from '../shops/shop.ts'
import type { AzureScene } from './azure-shop.ts'

/** What a script is told of a refusal: all members of the problem that say more than its code does. */
export type Told = {
  readonly status: number
  readonly code: string
  readonly reason?: string
  readonly loginUrl?: 'plain' | 'challenge'
  /** Most seconds of Retry-After; one less is as good. */
  readonly retryAfter?: number
}

const TITLES = ['type', 'title', 'status', 'code', 'detail', 'request_id']

/** The whole answer is `told`, and nothing else. */
export function assertTold(answer: FetchAnswer, told: Told): void {
  const { login_url: loginUrl, reason, ...rest } = answer.json()
  assert.deepEqual(verdict(answer), [told.status, told.code])
  assert.equal(answer.headers['cloakroom-error'], told.code)
  assert.equal(answer.headers['content-type'], 'application/problem+json')
  assert.equal(answer.headers['cache-control'], 'no-store')
  assert.equal(answer.headers['set-cookie'], undefined)
  assert.deepEqual(
    Object.keys(rest).filter((member) => !TITLES.includes(member)),
    [],
  )
  assert.equal(reason, told.reason)
  const wanted = { plain: /^\/bff\/login$/, challenge: /^\/bff\/login\?challenge=[\w-]{43}$/ }
  if (told.loginUrl) assert.match(loginUrl, wanted[told.loginUrl])
  else assert.equal(loginUrl, undefined)
  const seconds = answer.headers['retry-after']
  if (told.retryAfter === undefined) assert.equal(seconds, undefined)
  else assert.ok([told.retryAfter, told.retryAfter - 1].includes(Number(seconds)), `Retry-After: ${seconds}`)
}

/** Of what the provider said, no part of a text and no id is in anything that the browser ever got from us. */
export function assertNothingReachesBrowser({ browser }: AzureScene, raw: RawAnswer): void {
  const ours = browser.exchanges.filter(({ url }) => url.origin === browser.origin)
  const got = ours.map(({ rawHeaders, body }) => [...rawHeaders, body].join('\n')).join('\n')
  for (const part of tellingParts(raw)) assert.ok(!got.includes(part), `the browser got ${part}`)
  for (const { rawHeaders } of ours) for (const text of rawHeaders) assert.doesNotMatch(text, /[\r\n]/)
}

/** Each line of the log is one JSON object, and none holds a text of the provider but what its support asks for. */
export function assertLogIsWhole({ shop, azure }: AzureScene, raw: RawAnswer): void {
  const { correlation_id, trace_id, timestamp } = bodyOf(raw)
  const loggable: unknown[] = [correlation_id, trace_id, timestamp]
  const { logs } = shop.cloakroom
  assert.ok(logs.length > 0)
  for (const line of logs) {
    assert.match(line, /^\{[^\r\n\u0085\u2028\u2029]*\}\n$/u)
    const fields = JSON.parse(line)
    assert.equal(typeof fields.msg, 'string')
    for (const value of Object.values(fields)) assert.doesNotMatch(JSON.stringify(value), /\\[nru]/, line)
    for (const part of tellingParts(raw))
      if (!loggable.includes(part)) assert.ok(!line.includes(part), `the log has ${part}`)
    for (const secret of azure.issuedSecrets) assert.ok(!line.includes(secret))
  }
}

/** After the refusal of billing: still signed in, orders served, and billing too once the provider gives again. */
export async function assertSessionLives(at: AzureScene): Promise<void> {
  assert.equal((await at.browser.fetch('/bff/user')).status, 200)
  assert.deepEqual(verdict(await at.browser.fetch('/api/orders')), [200, at.orders])
  at.setBilling(undefined)
  // Past the longest pause that a refusal of these tells.
  at.advance(301)
  assert.deepEqual(verdict(await at.browser.fetch('/api/billing')), [200, at.billing])
}

/** Nothing is served any more, and the provider is not asked again, until the user has signed in. */
export async function assertSessionEnded(at: AzureScene): Promise<void> {
  const calls = at.azure.tokenRequests().length
  for (const path of ['/bff/user', '/api/orders', '/api/billing'])
    assert.deepEqual(verdict(await at.browser.fetch(path)), [401, 'session_required'], path)
  assert.equal(at.azure.tokenRequests().length, calls)
  at.setBilling(undefined)
  await at.browser.signIn()
  assert.deepEqual(verdict(await at.browser.fetch('/api/billing')), [200, at.billing])
}

function bodyOf({ body }: RawAnswer): Record<string, unknown> {
  try {
    return JSON.parse(body)
  } catch {
    return {}
  }
}

/** Every id, every three words of a text in a row, and every single word that is no plain English one. */
function tellingParts(raw: RawAnswer): string[] {
  const { error_description, trace_id, correlation_id, timestamp, error_uri, claims } = bodyOf(raw)
  const text = String(error_description ?? raw.body)
  const words = text.split(/[\s\u0085]+/u).filter(Boolean)
  const phrases = words.slice(2).map((_, index) => words.slice(index, index + 3).join(' '))
  const odd = words.filter((word) => /AADSTS|@|[^ -~]/u.test(word))
  const ids = [trace_id, correlation_id, timestamp, error_uri, claims].filter((id) => id !== undefined)
  return [text, ...phrases, ...odd, ...ids.map(String)]
}
