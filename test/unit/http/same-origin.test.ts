import assert from 'node:assert/strict'
import type { IncomingMessage } from 'node:http'
import { test } from 'node:test'
import { BffError } from '../../../src/errors.ts'
import { createSameOriginGuard, type GuardedRoute } from '../../../src/http/origins.ts'

const guard = createSameOriginGuard({
  publicUrl: 'https://app.test',
  allowedOrigins: ['https://admin.test'],
})
const HEADER: GuardedRoute = { auth: 'required', csrf: 'header' }
const METADATA: GuardedRoute = { auth: 'required', csrf: 'fetch-metadata' }

function verdict(route: GuardedRoute, headers: Record<string, string>, method = 'GET'): string {
  try {
    guard({ method, headers } as unknown as IncomingMessage, route)
    return 'passes'
  } catch (error) {
    assert.ok(error instanceof BffError)
    return error.code
  }
}

const csrf = { 'x-csrf': '1' }
const navigation = { 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'document' }

const LINES: readonly [string, GuardedRoute, Record<string, string>, string][] = [
  ['the header alone, from a client that is no browser', HEADER, csrf, 'passes'],
  ['nothing at all', HEADER, {}, 'csrf_required'],
  ['another value of the header', HEADER, { 'x-csrf': '0' }, 'csrf_required'],
  ['the header twice', HEADER, { 'x-csrf': '1, 1' }, 'csrf_required'],
  [
    'same-origin script',
    HEADER,
    { ...csrf, origin: 'https://app.test', 'sec-fetch-site': 'same-origin' },
    'passes',
  ],
  ['same-origin without the header', HEADER, { 'sec-fetch-site': 'same-origin' }, 'csrf_required'],
  ['a sibling subdomain', HEADER, { ...csrf, 'sec-fetch-site': 'same-site' }, 'origin_forbidden'],
  ['another site', HEADER, { ...csrf, 'sec-fetch-site': 'cross-site' }, 'origin_forbidden'],
  ['an address typed by the user', HEADER, { ...csrf, 'sec-fetch-site': 'none' }, 'origin_forbidden'],
  ['Origin: null', HEADER, { ...csrf, origin: 'null' }, 'origin_forbidden'],
  ['our name as a prefix', HEADER, { ...csrf, origin: 'https://app.test.evil' }, 'origin_forbidden'],
  ['our name as a suffix', HEADER, { ...csrf, origin: 'https://evilapp.test' }, 'origin_forbidden'],
  ['http instead of https', HEADER, { ...csrf, origin: 'http://app.test' }, 'origin_forbidden'],
  ['another port', HEADER, { ...csrf, origin: 'https://app.test:8443' }, 'origin_forbidden'],
  [
    'an allowed origin',
    HEADER,
    { ...csrf, origin: 'https://admin.test', 'sec-fetch-site': 'same-site' },
    'passes',
  ],
  ['an allowed origin without the header', HEADER, { origin: 'https://admin.test' }, 'csrf_required'],
  [
    'an EventSource of ours',
    HEADER,
    { accept: 'text/event-stream', 'sec-fetch-site': 'same-origin' },
    'passes',
  ],
  ['an EventSource of nobody', HEADER, { accept: 'text/event-stream' }, 'csrf_required'],
  [
    'an EventSource of a sibling',
    HEADER,
    { accept: 'text/event-stream', 'sec-fetch-site': 'same-site' },
    'origin_forbidden',
  ],
  [
    'a navigation to a script-only route',
    HEADER,
    { ...navigation, 'sec-fetch-site': 'none' },
    'origin_forbidden',
  ],
  ['an image of ours', METADATA, { 'sec-fetch-site': 'same-origin' }, 'passes'],
  ['an image on a sibling', METADATA, { 'sec-fetch-site': 'same-site' }, 'origin_forbidden'],
  ['our Origin only', METADATA, { origin: 'https://app.test' }, 'passes'],
  ['nothing at all on a download', METADATA, {}, 'csrf_required'],
  ['the header on a download', METADATA, csrf, 'passes'],
  [
    'a download opened from another site',
    METADATA,
    { ...navigation, 'sec-fetch-site': 'cross-site' },
    'passes',
  ],
  [
    'a frame on another site',
    METADATA,
    { ...navigation, 'sec-fetch-dest': 'iframe', 'sec-fetch-site': 'cross-site' },
    'origin_forbidden',
  ],
  [
    'a prefetch from another site',
    METADATA,
    { ...navigation, 'sec-purpose': 'prefetch', 'sec-fetch-site': 'cross-site' },
    'origin_forbidden',
  ],
]

for (const [name, route, headers, expected] of LINES) {
  test(`on a csrf: ${route.csrf} route, ${name}: ${expected}`, () => {
    assert.equal(verdict(route, headers), expected)
  })
}

test('a cross-site POST that looks like a navigation is refused', () => {
  assert.equal(
    verdict(METADATA, { ...navigation, 'sec-fetch-site': 'cross-site' }, 'POST'),
    'origin_forbidden',
  )
})

test('a POST that claims to be an event stream needs the header', () => {
  const headers = { accept: 'text/event-stream', 'sec-fetch-site': 'same-origin' }
  assert.equal(verdict(HEADER, headers, 'POST'), 'csrf_required')
})

test('an anonymous route carries nothing of the user and is not guarded', () => {
  assert.equal(verdict({ auth: 'anonymous', csrf: 'header' }, { 'sec-fetch-site': 'cross-site' }), 'passes')
})
