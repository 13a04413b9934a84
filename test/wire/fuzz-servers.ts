import type { TestContext } from 'node:test'
import { isDeepStrictEqual } from 'node:util'
import { COOKIE, type FuzzCase } from './fuzz.ts'
import { prospectOf } from './fuzz-oracle.ts'
import { readStrictly, type StrictRequest, valuesOf } from './fuzz-reader.ts'
import type { HostileRequest } from './hostile-bytes.ts'
import { type Played, playThroughCloakroom } from './play.ts'
import { decodedPath, LOGGED_FIELDS, type Sighting, type Understood } from './witnesses.ts'

/** What several servers behind Cloakroom understood. */
export type ServersReport = {
  /** Faults by the bytes that show them. */
  readonly faults: readonly (readonly [bytes: string, ...faults: string[]])[]
  readonly servers: readonly string[]
  /** How many requests each of them understood. */
  readonly understood: readonly number[]
}

/**
 * True for what every server must make the same of: neither when which byte arrives matters, as it does for a request that
 * is cut because what is behind it is none, nor how long a cookie is, nor that the server is a proxy itself.
 */
export function isForServers({ bytes }: FuzzCase): boolean {
  const { requests, end } = readStrictly(bytes)
  const isOdd = requests.some(
    (one, at) =>
      one.body.includes(COOKIE[0]!) ||
      (at > 0 && (one.hasAddenda || one.method === 'CONNECT')) ||
      (one.method === 'OPTIONS' && valuesOf(one, 'max-forwards').length > 0) ||
      prospectOf(one, '').isUpgrade ||
      repeatsSingleton(one),
  )
  return (end === 'whole' || end === 'closed') && requests.length > 0 && !isOdd
}

/** Of these fields a second one is refused by nginx, and by nobody else. */
function repeatsSingleton(request: StrictRequest): boolean {
  const names = ['if-none-match', 'if-match', 'range', 'if-range', 'content-type', 'user-agent', 'referer']
  return names.some((name) => valuesOf(request, name).length > 1)
}

/** Sends cases through Cloakroom to Node, nginx and Apache, as far as they are here, and compares what they understood. */
export async function askServers(t: TestContext, cases: readonly FuzzCase[]): Promise<ServersReport> {
  const rows = cases.map(({ bytes }, at): HostileRequest => ({ name: `case ${at}`, bytes }))
  const { played, refused } = await playThroughCloakroom(t, rows)
  const faults = rows.map(({ bytes }, at): [string, ...string[]] => {
    const sides = played.map(({ name, results }) => ({ name, ...results[at]! }))
    return [bytes, ...sides.flatMap((side) => wrongSide(bytes, side)), ...difference(sides)]
  })
  // A body that breaks off takes its request with it; the server's log may have a line about that.
  const unreadable = refused.filter((line) => !/ (?:400|408|499) /.test(line))
  return {
    faults: [
      ...faults.filter(({ length }) => length > 1),
      ...unreadable.map((line): [string, string] => ['', line]),
    ],
    servers: played.map(({ version }) => version),
    understood: played.map(({ results }) =>
      results.reduce((sum, { sightings }) => sum + sightings.length, 0),
    ),
  }
}

type Side = { readonly name: string } & Played

/** One server alone: it understood nothing but what the client framed, and its log says the same as what it passed on. */
function wrongSide(bytes: string, { name, sightings, canaries }: Side): string[] {
  const strict = readStrictly(bytes).requests
  const prospects = strict.map((request) => prospectOf(request, ''))
  const faults: string[] = []
  let next = 0
  for (const { passedOn, read } of sightings) {
    const { method, target, body } = passedOn
    const at = strict.findIndex(
      (one, i) => i >= next && one.method === method && prospects[i]!.target === target && one.body === body,
    )
    if (at === -1) faults.push(`${name} understood ${method} ${target} ${JSON.stringify(body.slice(0, 100))}`)
    else next = at + 1
    if (read && !isSaid({ passedOn, read }))
      faults.push(`${name} says another thing: ${JSON.stringify(read)}`)
    const token = passedOn.fields.authorization
    const isApi = target === '/api' || /^\/api[/?]/.test(target)
    if (token !== (isApi ? 'ours' : undefined)) faults.push(`${name}: Authorization ${token}`)
  }
  if (canaries.filter(({ passedOn }) => passedOn.target.endsWith('/again')).length !== 1)
    faults.push(`${name}: the next request is not one request`)
  return faults
}

function isSaid({ passedOn, read }: Required<Pick<Sighting, 'passedOn' | 'read'>>): boolean {
  const { body: _, fields, ...said } = passedOn
  const logged = LOGGED_FIELDS.filter((name) => name in read.fields).map((name) => [name, fields[name]])
  return (
    isDeepStrictEqual(read, { ...said, fields: Object.fromEntries(logged) }) &&
    read.path === decodedPath(said.target)
  )
}

/** All servers understood the same. */
function difference(sides: readonly Side[]): string[] {
  const views = sides.map(({ sightings }) => sightings.map(({ passedOn }) => withoutSession(passedOn)))
  return sides
    .slice(1)
    .flatMap(({ name }, i) =>
      isDeepStrictEqual(views[i + 1], views[0])
        ? []
        : [
            `${name}, not as ${sides[0]!.name}: ${JSON.stringify(views[i + 1])}, not ${JSON.stringify(views[0])}`,
          ],
    )
}

/** Under a name of the client's own making its session crosses; each side has one of its own. */
function withoutSession(understood: Understood): Understood {
  const fields = Object.entries(understood.fields).map(([name, value]) => {
    // A list whose last member is empty may keep its blank or not.
    return [name, value.replaceAll(/s%3A[\w.%-]+/g, COOKIE).trimEnd()]
  })
  return { ...understood, fields: Object.fromEntries(fields) }
}
