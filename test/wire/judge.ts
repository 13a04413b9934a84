import { jwtClaims } from '../../src/demo/scripted/signing.ts'
import { valuesOf } from './http-message.ts'
import type { Answer } from './raw-kit.ts'
import type { SeenRequest } from './recording-upstream.ts'
import type { Observation } from './run-case.ts'
import type { AnswerRule, Outcome, RequestRule, Text, WireCase } from './wire-case.ts'
import { ADMIN, type World } from './world.ts'

/** What is wrong with what came of a case; empty when it is as it must be. */
export function findFaults(world: World, one: WireCase, seen: Observation): string[] {
  const outcomes = [one.expect].flat() as Outcome[]
  const found = outcomes.map((outcome) => [...wrongOutcome(world, outcome, seen), ...always(world, seen)])
  return found.reduce((best, faults) => (faults.length < best.length ? faults : best))
}

/** What no case may ever do. */
function always(world: World, { received, broken }: Observation): string[] {
  const faults = [...broken]
  if (world.decoy.connections > 0) faults.push('somebody else was called')
  for (const answer of received.answers) {
    faults.push(...answer.faults.map((fault) => `the answer has ${fault}`))
    if (answer.code !== undefined && valuesOf(answer, 'cache-control')[0] !== 'no-store')
      faults.push('a problem of ours may be cached')
    const text = answer.raw.replace(/^set-cookie:.*$/gim, '')
    if (world.secrets().some((secret) => text.includes(secret))) faults.push('the answer holds a secret')
  }
  return faults
}

function wrongOutcome(world: World, outcome: Outcome, seen: Observation): string[] {
  const { received, requests } = seen
  const faults: string[] = []
  const differs = (what: string, is: unknown, expected: unknown) => {
    if (String(is) !== String(expected)) faults.push(`${what}: ${is}, not ${expected}`)
  }
  differs('answers', received.answers.map(({ status }) => status).length, outcome.answers.length)
  differs('requests at the upstream', requests.length, outcome.requests.length)
  differs('interim answers', received.interim, outcome.interim ?? [])
  differs('half a request at the upstream', seen.abandoned.length > 0, outcome.isAbandoned ?? false)
  differs('down the tunnel', JSON.stringify(received.tunnel), JSON.stringify(outcome.tunnel?.down ?? ''))
  differs('up the tunnel', JSON.stringify(seen.tunnel), JSON.stringify(outcome.tunnel?.up ?? ''))
  if (outcome.connection) differs("the client's connection", seen.connection, outcome.connection)
  if (outcome.isUpstreamReused !== undefined)
    differs("the upstream's connection is used again", seen.isUpstreamReused, outcome.isUpstreamReused)
  outcome.answers.forEach((rule, index) => {
    const answer = received.answers[index]
    if (answer) faults.push(...wrongAnswer(rule, answer, seen))
  })
  outcome.requests.forEach((rule, index) => {
    const request = requests[index]
    if (request) faults.push(...wrongRequest(world, rule, request))
  })
  return faults
}

function wrongAnswer(rule: AnswerRule, answer: Answer, seen: Observation): string[] {
  const faults: string[] = []
  if (![rule.status].flat().includes(answer.status))
    faults.push(`status ${answer.status}, not ${rule.status}`)
  if (rule.code === null && answer.code !== undefined) faults.push(`a problem of ours: ${answer.code}`)
  if (rule.code && ![rule.code].flat().includes(String(answer.code)))
    faults.push(`code ${answer.code}, not ${rule.code}`)
  if (rule.isCut === true ? answer.isWhole && !seen.wasReset : !answer.isWhole && answer.status !== 101)
    faults.push(rule.isCut ? 'half an answer looks whole' : 'the answer is not whole')
  if (rule.body !== undefined && !matches(answer.body, rule.body))
    faults.push(`body ${JSON.stringify(answer.body.slice(0, 200))}, not ${rule.body}`)
  if (rule.echoes !== undefined && !isEcho(rule.echoes, answer.body)) faults.push("somebody else's answer")
  return [...faults, ...wrongFields(answer, rule.fields)]
}

function isEcho(line: string, body: string): boolean {
  const [method, target = ''] = line.split(' ')
  if (method === 'HEAD') return body === ''
  return body.includes(`"method":"${method}","target":${JSON.stringify(target)},`)
}

/** Framing, routing and identity are ours to say, each once. */
function wrongRequest(world: World, rule: RequestRule, request: SeenRequest): string[] {
  const faults = request.faults.map((fault) => `the upstream saw ${fault}`)
  if (!matches(request.startLine, rule.line))
    faults.push(`request line ${request.startLine}, not ${rule.line}`)
  if (rule.body !== undefined && request.body !== rule.body)
    faults.push(`body ${JSON.stringify(request.body.slice(0, 200))}, not ${JSON.stringify(rule.body)}`)
  if (rule.framing && request.framing !== rule.framing)
    faults.push(`framing ${request.framing}, not ${rule.framing}`)
  if (request.trailers.length > 0) faults.push('trailers')
  const client = rule.client ?? '127.0.0.1'
  const node = client.includes(':') ? `"[${client}]"` : client
  faults.push(
    ...wrongFields(request, {
      host: world.upstream.authority,
      'x-forwarded-for': client,
      'x-forwarded-proto': 'https',
      'x-forwarded-host': 'app.example.test',
      'x-forwarded-prefix': null,
      forwarded: `for=${node};host="app.example.test";proto=https`,
      via: /(^|, )1\.1 cloakroom-5b8c7308$/,
      'x-request-id': /^[0-9a-f-]{36}$/,
      connection: /^(keep-alive|close|upgrade)$/i,
      ...rule.fields,
    }),
    ...strangeFields(world, request, rule),
    ...wrongToken(world, request, rule),
  )
  return faults
}

/** Fields that never cross, under the spelling in which every server would know them. */
const NEVER =
  /^(te|trailer|keep-alive|proxy|proxy-.*|expect|http2-settings|x-csrf|x-forwarded|x-forwarded-(?!for$|proto$|host$|prefix$).*|x-real-ip|x-client-ip|x-cluster-client-ip|true-client-ip|cf-connecting-ip|x-original-.*|x-rewrite-url|x-http-method.*|x-method-override|x-ms-.*|x-amzn-oidc-.*|x-auth-request-.*|(x-)?remote-user|(x-)?client-cert.*|x-ssl-client-.*)$/

function strangeFields(world: World, request: SeenRequest, rule: RequestRule): string[] {
  const faults: string[] = []
  for (const [name, value] of request.fields) {
    const folded = name.toLowerCase().replaceAll(/[^a-z0-9]/g, '-')
    if (NEVER.test(folded)) faults.push(`the field ${name}`)
    if (/evil/i.test(name + value) && !rule.harmless?.includes(name.toLowerCase()))
      faults.push(`what an attacker wrote: ${name}: ${value.slice(0, 80)}`)
    if (folded === 'cookie' && value.includes(world.cloakroom.config.session.cookie.name))
      faults.push('a cookie of ours')
    if (folded !== name.toLowerCase() && folded in OURS) faults.push(`a second spelling of ours: ${name}`)
  }
  return faults
}

const OURS = {
  ...{ authorization: 1, host: 1, forwarded: 1, 'x-forwarded-for': 1, 'x-forwarded-proto': 1 },
  ...{
    'x-forwarded-host': 1,
    'x-forwarded-prefix': 1,
    'x-request-id': 1,
    'content-length': 1,
    'transfer-encoding': 1,
  },
  ...{ cookie: 1, connection: 1 },
}

function wrongToken(world: World, request: SeenRequest, rule: RequestRule): string[] {
  const values = valuesOf(request, 'authorization')
  if (rule.token === undefined) return values.length === 0 ? [] : ['an Authorization that nobody asked for']
  const [, token = ''] = /^Bearer (\S+)$/.exec(values[0] ?? '') ?? []
  if (values.length !== 1 || !world.secrets().includes(token)) return [`Authorization ${values}`]
  const { aud, sub } = jwtClaims(token) ?? {}
  return aud === ADMIN && sub === rule.token ? [] : [`a token of ${sub} for ${aud}`]
}

function wrongFields(
  message: Pick<SeenRequest, 'fields'>,
  expected: Readonly<Record<string, Text | null>> = {},
): string[] {
  return Object.entries(expected).flatMap(([name, rule]) => {
    const values = valuesOf(message, name)
    if (rule === null) return values.length === 0 ? [] : [`${name}: ${values.join(', ')}`]
    if (values.length === 0) return [`no ${name}`]
    return matches(values.join(', '), rule) ? [] : [`${name}: ${values.join(', ')}, not ${rule}`]
  })
}

function matches(text: string, rule: Text): boolean {
  return typeof rule === 'string' ? text === rule : rule.test(text)
}
