import assert from 'node:assert/strict'
import { test } from 'node:test'
import { skipWithout } from './foreign-servers.ts'
import type { HostileRequest } from './hostile-bytes.ts'
import { HOSTILE_REQUESTS } from './hostile-requests.ts'
import { type Played, playDirectly, playThroughCloakroom } from './play.ts'
import { decodedPath, LOGGED_FIELDS, type Sighting, type Understood } from './witnesses.ts'

for (const program of ['nginx', 'apache2'] as const) {
  test(`${program} is here to be asked`, { skip: skipWithout(program) }, () => undefined)
}

test('behind Cloakroom every server understands the same, or nobody sees the request at all', async (t) => {
  const { played, refused, expected } = await playThroughCloakroom(t, HOSTILE_REQUESTS)
  let forwarded = 0
  for (const [at, row] of HOSTILE_REQUESTS.entries()) {
    const sides = played.map(({ name, results }) => ({ name, ...results[at]! }))
    if (sides[0]!.sightings.length > 0) forwarded += 1
    await t.test(row.name, () => requireOneReading(row, sides, expected))
  }
  const total = `${HOSTILE_REQUESTS.length} requests through Cloakroom to ${played.map(({ version }) => version).join(', ')}`
  t.diagnostic(`${total}: ${forwarded} forwarded, ${HOSTILE_REQUESTS.length - forwarded} refused`)
  // A body is streamed: when it goes wrong halfway, a request that had begun never becomes whole.
  const unreadable = refused.filter((line) => !line.includes(' 400 POST /streamed '))
  assert.deepEqual(unreadable, [], 'no server is sent what it cannot read')
})

test('hit directly, the servers differ over the same requests: why Cloakroom refuses them', async (t) => {
  const played = await playDirectly(t, HOSTILE_REQUESTS)
  const readings = HOSTILE_REQUESTS.map((_, at) => played.map(({ results }) => readingOf(results[at]!)))
  const contradictory = HOSTILE_REQUESTS.filter(
    (_, at) => new Set(readings[at]!.filter((reading) => reading !== undefined)).size > 1,
  )
  const differing = readings.filter((all) => new Set(all).size > 1)
  const servers = played.map(({ version }) => version).join(', ')
  t.diagnostic(
    `${HOSTILE_REQUESTS.length} requests straight to ${servers}: ${differing.length} are understood differently; of ` +
      `these ${contradictory.length} are served with two or more meanings, the rest by some and refused by others`,
  )
  for (const { name } of contradictory) t.diagnostic(`more than one meaning: ${name}`)
  assert.ok(played.length === 1 || contradictory.length > 0)
})

const OURS = ['forwarded', 'via', 'x-forwarded-for', 'x-forwarded-host', 'x-forwarded-proto', 'x-user-id']

type Side = { readonly name: string } & Played

function requireOneReading(
  row: HostileRequest,
  sides: readonly Side[],
  expected: (method: string, target: string) => string | undefined,
): void {
  const [first] = sides
  for (const side of sides) {
    assert.deepEqual(viewsOf(side), viewsOf(first!), `${side.name} and ${first!.name}`)
    for (const sighting of side.sightings) {
      requireNoDoubt(sighting)
      requireOurWord(sighting)
    }
    requireCanary(side)
    requireAnswer(row, side)
  }
  if (!row.isFair) return
  const [method = '', target = ''] = row.bytes.replace(/^[\r\n]+/, '').split(' ', 2)
  const seen = viewsOf(first!).map((view) => `${view.method} ${view.target}`)
  assert.equal(seen.length, row.isPair ? 2 : 1)
  assert.ok(seen.includes(`${method} ${expected(method, target)}`), `${seen} is what was sent`)
}

/** By target: of two requests that came at once, Node begins the second before the first is answered. */
function viewsOf({ sightings }: Side): Understood[] {
  const views = sightings.map(({ passedOn }) => passedOn)
  return views.sort((a, b) => (a.target < b.target ? -1 : 1))
}

/** The server's own log says the same as what it passed on, and its path is the one that Cloakroom matched. */
function requireNoDoubt({ passedOn, read }: Sighting): void {
  if (!read) return
  const { body: _, fields, ...said } = passedOn
  const logged = Object.keys(read.fields).map((name) => [name, fields[name]])
  assert.deepEqual(read, { ...said, fields: Object.fromEntries(logged) })
  assert.equal(read.path, decodedPath(passedOn.target))
}

/** Who asks, and from where, is what Cloakroom says, whatever the client said. */
function requireOurWord({ passedOn: { target, fields } }: Sighting): void {
  const { cookie = '', ...said } = Object.fromEntries(LOGGED_FIELDS.map((name) => [name, fields[name]]))
  const isApi = target.startsWith('/api/')
  assert.deepEqual(said, {
    authorization: isApi ? 'ours' : undefined,
    forwarded: 'for=127.0.0.1;host="app.example.test";proto=https',
    'x-forwarded-for': '127.0.0.1',
    'x-forwarded-host': 'app.example.test',
    'x-forwarded-proto': 'https',
    'x-user-id': isApi ? 'alice' : target.startsWith('/v1') ? undefined : 'nobody',
  })
  assert.doesNotMatch(cookie, /cloakroom/)
}

/** The one in the same write may be lost with its connection; the one on a connection of its own may not. */
function requireCanary({ canaries, name }: Side): void {
  const seen = canaries.map(({ passedOn }) => passedOn)
  const again = seen.filter(({ target }) => target.endsWith('/again'))
  assert.equal(again.length, 1, `${name}: the next request is one request`)
  assert.ok(seen.length <= 2, `${name}: a canary came twice`)
  for (const { method, body, fields, target } of seen) {
    assert.match(target, /^\/canary\/\d+(?:\/again)?$/)
    assert.deepEqual([method, body], ['GET', ''])
    assert.deepEqual(Object.keys(fields).sort(), OURS, `${name}: the next request has its own fields`)
  }
}

/** Refused is what Cloakroom itself refuses, with a 4xx; a 502 would mean that it found out too late. */
function requireAnswer(row: HostileRequest, { statuses, sightings, name }: Side): void {
  const atMost = row.isPair ? 2 : 1
  assert.ok(sightings.length <= atMost, `${name}: ${sightings.length} requests out of ${atMost}`)
  const [status] = statuses
  const answers = statuses.filter((one) => one >= 200).length
  assert.ok(answers <= atMost + 1, `${name}: ${answers} answers, the canary's too`)
  if (row.leaves && status === undefined) return
  if (sightings.length === atMost)
    assert.equal(
      statuses.find((one) => one >= 200),
      200,
    )
  else
    assert.ok(
      status !== undefined && status >= 400 && (status < 500 || status === 501 || status === 505),
      `answer ${status}`,
    )
}

/** What a server would act on; undefined when it refused. */
function readingOf({ sightings }: Played): string | undefined {
  if (sightings.length === 0) return undefined
  return JSON.stringify(
    sightings.map(({ passedOn: { method, path, host, body, fields }, read }) => {
      const trusted = LOGGED_FIELDS.map((name) => fields[name])
      return { method, path: read?.path ?? path, host, body, trusted }
    }),
  )
}
