import { jwtClaims } from '../../src/demo/scripted/signing.ts'
import type { Prospect } from './fuzz-oracle.ts'
import { listOf, type StrictRequest } from './fuzz-reader.ts'
import type { FuzzWorld } from './fuzz-world.ts'
import { HOST } from './hostile-bytes.ts'
import { valuesOf } from './http-message.ts'
import type { SeenRequest } from './recording-upstream.ts'

/** Fields of a client that never cross, by the spelling in which servers that fold names know them. */
const NEVER = new RegExp(
  `^(?:${[
    ...[
      'connection',
      'keep-alive',
      'proxy(?:-.*)?',
      'te',
      'trailer',
      'transfer-encoding',
      'upgrade',
      'http2-settings',
    ],
    ...[
      'host',
      'content-length',
      'expect',
      'authorization',
      'x-csrf',
      'forwarded',
      'x-forwarded',
      'x-forwarded-.*',
    ],
    ...[
      'x-request-id',
      'x-real-.*',
      'x-client-ip',
      'x-cluster-client-ip',
      'true-client-.*',
      'cf-connecting-ip.*',
    ],
    ...[
      'x-original-.*',
      'x-rewrite-url',
      'x-http-method',
      'x-http-method-override',
      'x-method-override',
      'x-ms-.*',
    ],
    ...[
      'x-amzn-oidc-.*',
      'x-auth-request-.*',
      'remote-.*',
      'x-remote-.*',
      'client-cert.*',
      'x-client-cert.*',
    ],
    'x-ssl(?:-.*)?',
    // Some routes add it, so no client may send it on any.
    'x-user-id',
  ].join('|')})$`,
)
const SESSION_COOKIE = '__host-http-cloakroom'

/** As the README has it: without case, and every sign is `-`. */
const folded = (name: string) => name.toLowerCase().replaceAll(/[^a-z0-9]/g, '-')

/** What is wrong with a request at the upstream, given what the client said. */
export function wrongHead(
  world: FuzzWorld,
  request: StrictRequest,
  prospect: Prospect,
  seen: SeenRequest,
): string[] {
  const faults = seen.faults.map((fault) => `upstream head: ${fault}`)
  if (seen.trailers.length > 0) faults.push(`upstream head: trailers ${seen.trailers}`)
  const ours = oursFor(world, prospect)
  for (const [name, rule] of Object.entries(ours)) {
    const values = seen.fields.filter(([one]) => folded(one) === name).map(([, value]) => value)
    if (values.length !== 1 || !rule.test(values[0]!)) faults.push(`upstream ${name}: ${values.join(' | ')}`)
  }
  faults.push(...wrongToken(world, prospect, seen), ...wrongCookie(request, seen))
  const rest = seen.fields.filter(([name]) => !(name.toLowerCase() in ours) && !isFraming(name))
  return [...faults, ...wrongRest(request, prospect, { rest, ours })]
}

type Rules = Readonly<Record<string, RegExp>>

function oursFor({ authority }: FuzzWorld, { route, isUpgrade }: Prospect): Rules {
  const user: Rules =
    route === 'api' ? { 'x-user-id': /^alice$/ } : route === 'rest' ? { 'x-user-id': /^nobody$/ } : {}
  return {
    ...user,
    host: new RegExp(`^${authority}$`),
    'x-forwarded-for': /^127\.0\.0\.1$/,
    'x-forwarded-host': new RegExp(`^${HOST}$`),
    'x-forwarded-proto': /^https$/,
    forwarded: new RegExp(`^for=127\\.0\\.0\\.1;host="${HOST}";proto=https$`),
    'x-request-id': /^[0-9a-f-]{36}$/,
    connection: isUpgrade ? /^upgrade$/i : /^(?:keep-alive|close)$/i,
    ...(isUpgrade ? { upgrade: /^websocket$/ } : {}),
    ...(route === 'rewritten' ? { 'x-forwarded-prefix': /^\/rewritten$/ } : {}),
    ...(hasToken(route) ? { authorization: /^Bearer [\w.-]+$/ } : {}),
  }
}

const hasToken = (route: Prospect['route']) => route === 'api' || route === 'download'

function isFraming(name: string): boolean {
  return /^(?:content-length|transfer-encoding|cookie|via)$/i.test(name)
}

function wrongToken(world: FuzzWorld, { route }: Prospect, seen: SeenRequest): string[] {
  if (!hasToken(route)) return []
  const token = valuesOf(seen, 'authorization')[0]?.replace(/^Bearer /, '') ?? ''
  const { aud, sub } = jwtClaims(token) ?? {}
  const isOurs = world.isToken(token) && aud === 'https://orders.test' && sub === 'alice'
  return isOurs ? [] : [`upstream token: of ${sub} for ${aud}`]
}

/** One field, with every cookie of the client's but ours, each byte for byte. */
function wrongCookie(request: StrictRequest, seen: SeenRequest): string[] {
  const split = (values: string[]) => values.flatMap((value) => value.split(';')).map((pair) => pair.trim())
  const isOurs = (pair: string) => {
    const name = pair.split('=', 1)[0]!.trim().toLowerCase()
    return name === SESSION_COOKIE || name.startsWith(`${SESSION_COOKIE}-login`)
  }
  const got = valuesOf(seen, 'cookie')
  const pairs = split(got).filter((pair) => pair !== '')
  const isNamed = listOf(request, 'connection').some((name) => folded(name) === 'cookie')
  const said = split(request.fields.filter(([name]) => folded(name) === 'cookie').map(([, value]) => value))
  const expected = isNamed ? [] : said.filter((pair) => pair !== '' && !isOurs(pair))
  if (got.length > 1) return [`upstream cookie: ${got.length} fields`]
  return JSON.stringify(pairs) === JSON.stringify(expected) ? [] : [`upstream cookie: ${got}`]
}

/** What is not ours is what the client said, in its order, without what never crosses and what `Connection` names. */
function wrongRest(
  request: StrictRequest,
  { isUpgrade }: Prospect,
  { rest, ours }: { rest: SeenRequest['fields']; ours: Rules },
): string[] {
  const named = new Set(listOf(request, 'connection').map(folded))
  const isOver = ([name]: readonly [string, string]) => {
    const plain = folded(name)
    if (plain === 'cookie' || plain === 'via' || plain in ours || plain === 'max-forwards') return false
    return !NEVER.test(plain) && !named.has(plain)
  }
  const expected = request.fields.filter(isOver).map(shown)
  const got = rest.filter(([name]) => folded(name) !== 'max-forwards').map(shown)
  // A handshake's fields are made into an object on their way: equal names stand together.
  if (isUpgrade) for (const list of [expected, got]) list.sort()
  const strange = got.filter((one) => !expected.includes(one))
  if (strange.length > 0) return [`upstream field: ${strange.join(' | ')}`]
  return isUpgrade || got.join('\n') === expected.join('\n') ? [] : [`upstream fields: ${got.join(' | ')}`]
}

function shown([name, value]: readonly [string, string]): string {
  return `${name.toLowerCase()}: ${value.trim()}`
}
