import { wrongHead } from './fuzz-heads.ts'
import { type Prospect, prospectOf } from './fuzz-oracle.ts'
import { listOf, type StrictRequest } from './fuzz-reader.ts'
import type { FuzzOutcome, FuzzWorld } from './fuzz-world.ts'
import { valuesOf } from './http-message.ts'
import type { Answer } from './raw-kit.ts'

/** The codes of the contract with the statuses that they may come with. */
const CODES: Readonly<Record<string, readonly number[]>> = {
  path_rejected: [400],
  bad_request: [400, 408, 413, 414, 417, 431, 501, 505],
  invalid_callback: [400],
  invalid_return_url: [400],
  session_required: [401],
  csrf_required: [403],
  origin_forbidden: [403],
  route_not_found: [404],
  method_not_allowed: [405],
  body_too_large: [413],
  misdirected_request: [421],
  // A `Via` that names Cloakroom is a loop.
  upstream_unreachable: [502],
}

/** What is wrong with what came of a case; the part before a colon is the kind of fault. Empty when all is well. */
export function faultsOf(world: FuzzWorld, outcome: FuzzOutcome): string[] {
  const { reading, received, requests, around } = outcome
  const faults = [...around]
  const prospects = reading.requests.map((request) => prospectOf(request, world.cookie))
  const served = matchRequests(outcome, prospects, faults)
  requests.forEach((seen, i) => {
    const at = served[i]
    if (at !== undefined) faults.push(...wrongHead(world, reading.requests[at]!, prospects[at]!, seen))
  })
  faults.push(...wrongHalves(outcome, prospects, world.cookie))
  const answers = received.answers
  if (received.rest !== '') faults.push(`no answer: ${JSON.stringify(received.rest.slice(0, 100))}`)
  for (const [at, answer] of answers.entries())
    faults.push(
      ...(at === reading.requests.length && reading.half
        ? wrongEarly(answer, reading.half)
        : wrongAnswer(answer, reading.requests[at], prospects[at])),
    )
  return [
    ...faults,
    ...wrongNumber(outcome, prospects),
    ...missing(outcome, prospects, served),
    ...unclosed(outcome),
  ]
}

/** Half a request is that of a body which broke off, was too large or had its answer early, and of one only. */
function wrongHalves(
  { reading, abandoned }: FuzzOutcome,
  prospects: readonly Prospect[],
  cookie: string,
): string[] {
  if (abandoned.includes('STUCK')) return ['half a request stays open']
  // Of those that are too large, any number.
  const isSmall = (text: string) => /^[A-Z-]+ \/small[/? ]/.test(text)
  const rest = abandoned.filter((text) => !isSmall(text))
  if (rest.length > 1) return [`half requests: ${rest.length}`]
  const all = reading.half ? [...reading.requests, reading.half] : reading.requests
  const known = [...prospects, ...(reading.half ? [prospectOf(reading.half, cookie)] : [])]
  const isKnown = (line: string) =>
    known.some(({ target }, at) => line === `${all[at]!.method} ${target} HTTP/1.1`)
  return rest
    .filter((text) => !isKnown(text.split('\r\n', 1)[0]!))
    .map((text) => `half a request that nobody began: ${text.slice(0, 200)}`)
}

/** Each request at the upstream is the next of those that the strict reading gives; where it stands among them. */
function matchRequests(
  { reading, requests, received }: FuzzOutcome,
  prospects: readonly Prospect[],
  faults: string[],
): (number | undefined)[] {
  let next = 0
  return requests.map((seen) => {
    const isIt = ({ method, body }: StrictRequest, at: number) =>
      at >= next &&
      prospects[at]!.target !== undefined &&
      seen.startLine === `${method} ${prospects[at]!.target} HTTP/1.1` &&
      seen.body === body
    // Of two that are the same, the one that Cloakroom did not answer itself.
    const isServed = (one: StrictRequest, at: number) =>
      isIt(one, at) && received.answers[at]?.code === undefined
    const served = reading.requests.findIndex(isServed)
    const at = served === -1 ? reading.requests.findIndex(isIt) : served
    if (at === -1) {
      faults.push(`a request that nobody framed: ${JSON.stringify(seen.raw.slice(0, 400))}`)
      return undefined
    }
    next = at + 1
    return at
  })
}

function wrongAnswer(
  answer: Answer,
  request: StrictRequest | undefined,
  prospect: Prospect | undefined,
): string[] {
  const faults = answer.faults.map((fault) => `answer: ${fault}`)
  const { status, code, body } = answer
  if (!answer.isWhole) faults.push(`answer: half of a ${status}`)
  if (!/^HTTP\/1\.1 [2-5]\d\d [\x20-\x7e]*$/.test(answer.startLine))
    faults.push(`answer: ${answer.startLine}`)
  if (code !== undefined) return [...faults, ...wrongProblem(answer, code, request)]
  const isBff =
    prospect?.target === undefined && request !== undefined && /bff/i.test(decoded(request.target))
  if (isBff && ((status >= 200 && status < 400) || body.startsWith('<!'))) return faults
  if (prospect?.route === 'download' && status === 302) return faults
  if (status === 204 && request?.method === 'OPTIONS') return faults
  if (status !== 200 || request === undefined || prospect?.target === undefined)
    return [...faults, `answer: ${status} that is neither a problem nor the upstream's`]
  const isEarly = prospect.target === '/early' && body === 'ok'
  if (request.method === 'HEAD' || isEarly) return faults
  const isOwn = body.includes(`"method":"${request.method}","target":${JSON.stringify(prospect.target)},`)
  return isOwn ? faults : [...faults, `somebody else's answer: ${body.slice(0, 200)}`]
}

/** What answers half a request: a problem, or what needs no more of it than its head. */
function wrongEarly(answer: Answer, half: StrictRequest): string[] {
  const { status, code, body } = answer
  const isOwn = /bff|download/i.test(decoded(half.target)) || status === 204
  const isEarly =
    status === 200 && /\/early/.test(decoded(half.target)) && (body === 'ok' || half.method === 'HEAD')
  if (code === undefined && (isOwn || isEarly)) return []
  return wrongAnswer(answer, half, undefined)
}

function decoded(target: string): string {
  return target.replaceAll(/%([0-9a-f]{2})/gi, (_, hex) => String.fromCharCode(Number.parseInt(hex, 16)))
}

function wrongProblem(answer: Answer, code: string, request: StrictRequest | undefined): string[] {
  const { status, body } = answer
  const faults: string[] = []
  if (!CODES[code]?.includes(status)) faults.push(`problem: ${status} ${code}`)
  const [type] = valuesOf(answer, 'content-type')
  if (!type?.startsWith('application/problem+json')) {
    // A person who fails to sign in sees a page.
    if (!type?.startsWith('text/html') || !/bff/i.test(decoded(request?.target ?? '')))
      faults.push(`problem: in ${type}`)
  } else if (valuesOf(answer, 'content-length')[0] === '0') faults.push('problem: says nothing')
  // What answers a HEAD that is no request may have a body or none; half of one shows as that.
  else if (request?.method !== 'HEAD' && body !== '' && codeIn(body) !== code)
    faults.push(`problem: ${body.slice(0, 200)}`)
  if (valuesOf(answer, 'cache-control')[0] !== 'no-store') faults.push('problem: may be cached')
  return faults
}

function codeIn(body: string): unknown {
  try {
    return (JSON.parse(body) as { code?: unknown }).code
  } catch {
    return undefined
  }
}

/** No more answers than requests, and one refusal of what is none. */
function wrongNumber({ reading, received }: FuzzOutcome, prospects: readonly Prospect[]): string[] {
  const upgrade = prospects.findIndex(({ isUpgrade }) => isUpgrade)
  const most = upgrade === -1 ? reading.requests.length + (reading.end === 'whole' ? 0 : 1) : upgrade + 1
  if (received.answers.length > most) return [`answers: ${received.answers.length} to ${most} requests`]
  if (received.interim.some((status) => status !== 100)) return [`interim answers: ${received.interim}`]
  const asked = reading.requests.filter((one) => listOf(one, 'expect').includes('100-continue')).length
  const half = reading.end === 'incomplete' || reading.end === 'fault' ? 1 : 0
  return received.interim.length > asked + half
    ? [`interim answers: ${received.interim.length} to ${asked}`]
    : []
}

/** What is plain gets its answer from the upstream, if nothing before it on the connection ended it. */
function missing(outcome: FuzzOutcome, prospects: readonly Prospect[], served: readonly unknown[]): string[] {
  const { reading, received, requests } = outcome
  if (reading.end === 'fault' || reading.end === 'incomplete') return []
  for (const [at, prospect] of prospects.entries()) {
    const answer = received.answers[at]
    if (prospects.slice(at).some(({ isUpgrade }) => isUpgrade)) return []
    // One that breaks off in its body takes the answers with it that are still due.
    if (reading.requests.slice(at).some(({ hasAddenda }) => hasAddenda)) return []
    if (!answer) return prospect.isPlain ? [`unanswered: ${short(reading.requests[at]!)}`] : []
    if (
      prospect.isPlain &&
      (answer.code !== undefined || (!served.includes(at) && prospect.target !== '/early'))
    )
      return [`refused though plain: ${answer.status} ${answer.code} ${short(reading.requests[at]!)}`]
    if (
      answer.code === undefined &&
      answer.status === 200 &&
      prospect.target !== undefined &&
      prospect.target !== '/early' &&
      !served.includes(at)
    )
      return [`answered though never sent: ${short(reading.requests[at]!)} of ${requests.length}`]
    if (valuesOf(answer, 'connection').some((value) => /close/i.test(value))) return []
  }
  return []
}

/** Behind a refusal of a message's form nothing more is read: the connection ends with it. */
function unclosed({ received, answersBeforeSilence }: FuzzOutcome): string[] {
  const last = received.answers.at(-1)
  const says = received.answers.findIndex((answer) =>
    valuesOf(answer, 'connection').some((one) => /close/i.test(one)),
  )
  if (says !== -1 && says < received.answers.length - 1) return ['answers: one behind a last one']
  const mustClose =
    last !== undefined && (says !== -1 || last.code === 'bad_request' || last.code === 'misdirected_request')
  return mustClose && answersBeforeSilence === received.answers.length
    ? [`left open: after ${last.status} ${last.code}`]
    : []
}

function short({ method, target }: StrictRequest): string {
  return `${method} ${target.slice(0, 60)}`
}
