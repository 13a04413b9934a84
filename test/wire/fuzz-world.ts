import { setImmediate as turn } from 'node:timers/promises'
import { startCloakroom } from '../kit/cloakroom.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { COOKIE, type FuzzCase } from './fuzz.ts'
import { readStrictly, type StrictReading } from './fuzz-reader.ts'
import { HOST } from './hostile-bytes.ts'
import { inTime, openRawClient, parseAnswers, type RawClient, type Received } from './raw-kit.ts'
import { type SeenRequest, startRecordingUpstream } from './recording-upstream.ts'

/** What came of one case. */
export type FuzzOutcome = {
  readonly reading: StrictReading
  readonly received: Received
  /** Whole requests at the upstream, without the one that came after the case. */
  readonly requests: readonly SeenRequest[]
  /** Bytes of requests that never became whole. */
  readonly abandoned: readonly string[]
  /** How many answers there were when nothing more came for a while, and the client ended its side; else undefined. */
  readonly answersBeforeSilence: number | undefined
  /** What went wrong around it: a plain request afterwards, an unexpected error in the log. */
  readonly around: readonly string[]
}

/** A Cloakroom with a signed-in visitor, before an upstream that reads as leniently as it can. */
export type FuzzWorld = {
  readonly authority: string
  readonly cookie: string
  isToken(value: string): boolean
  /** Plays a case; a client whose connection says nothing for `silenceMs` ends its side. */
  play(one: FuzzCase, silenceMs?: number): Promise<FuzzOutcome>
  close(): Promise<void>
}

const ORDERS = 'https://orders.test'
/** What the upstream answers once to `/early`, as soon as it has the head. */
const EARLY = { reply: 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok', early: true }
/** Short, because nothing is found wrong for this reason alone without a second, more patient look. */
const SILENCE_MS = 120
const AFTER = `GET /api/after HTTP/1.1\r\nHost: ${HOST}\r\nX-CSRF: 1\r\nConnection: close\r\nCookie: `

export async function startFuzzWorld(): Promise<FuzzWorld> {
  const provider = await startRotatingProvider()
  const upstream = await startRecordingUpstream()
  const open = { upstream: upstream.origin, auth: 'anonymous' }
  const cloakroom = await startCloakroom({
    publicUrl: `https://${HOST}`,
    provider: { ...provider.settings },
    allowedOrigins: ['https://partner.example.test'],
    resources: { orders: { resource: ORDERS, audience: ORDERS } },
    routes: [
      {
        path: '/api',
        upstream: upstream.origin,
        resource: 'orders',
        headers: { 'x-user-id': '{claims.sub}' },
      },
      { ...open, path: '/rewritten', rewrite: '/v1' },
      { ...open, path: '/small', maxBody: '16B' },
      { ...open, path: '/socket', websocket: true },
      { path: '/download', upstream: upstream.origin, resource: 'orders', csrf: 'fetch-metadata' },
      { ...open, path: '/', headers: { 'x-user-id': 'nobody' } },
    ],
  })
  const browser = cloakroom.browser()
  await browser.signIn({ returnUrl: '/signed-in' })
  const cookie = browser.cookieHeader()
  // The sign-in ended with a request of its own.
  upstream.requests.length = 0
  const port = Number(new URL(cloakroom.listenUrl).port)
  const tokens = new Set(provider.issuedSecrets)

  async function play({ bytes, cuts }: FuzzCase, silenceMs = SILENCE_MS): Promise<FuzzOutcome> {
    const reading = readStrictly(filled(bytes))
    const methods = methodsOf(filled(bytes), reading)
    const client = openRawClient(port, () => methods)
    upstream.scripts.set('/early', EARLY)
    const edges = [0, ...cuts.map((cut) => besideCookie(bytes, cut)), bytes.length]
    for (let i = 1; i < edges.length && !client.isClosed(); i += 1) {
      client.write(filled(bytes.slice(edges[i - 1], edges[i])))
      // Two turns of the loop: Cloakroom, which lives in this process, reads this piece alone.
      if (i < edges.length - 1) await turn().then(() => turn())
    }
    const answersBeforeSilence = await settle(client, reading, silenceMs)
    const around = await lookAround()
    const { requests, abandoned } = await takeSeen()
    return {
      reading,
      received: receivedBy(client, methods),
      requests,
      abandoned,
      answersBeforeSilence,
      around,
    }
  }

  /** A plain request of somebody else: when it is answered, all of the case has reached the upstream. */
  async function lookAround(): Promise<string[]> {
    const client = openRawClient(port, () => ['GET'])
    client.write(`${AFTER}${cookie}\r\n\r\n`)
    await inTime(client.closed, () => 'a plain request afterwards').catch(() => client.leave('reset'))
    const [answer] = client.received().answers
    const isOwn = answer?.status === 200 && answer.body.includes('"target":"/api/after"')
    const errors = cloakroom.logs.filter((line) => /"level":(?:50|60|"error"|"fatal")/.test(line))
    cloakroom.logs.length = 0
    return [
      ...errors.map((line) => `log: ${line}`),
      ...(isOwn ? [] : [`afterwards: ${JSON.stringify(client.text().slice(0, 300))}`]),
    ]
  }

  /** What the upstream has seen since the last time; nothing of it is kept. */
  async function takeSeen() {
    const { requests: seen, connections } = upstream
    const abandoned: string[] = []
    for (const connection of connections) {
      const rest = connection.received.slice(connection.at)
      if (rest !== '') {
        await inTime(connection.closed, () => 'the end of half a request').catch(() =>
          abandoned.push('STUCK'),
        )
        abandoned.push(rest)
      }
      connection.received = ''
      connection.at = 0
    }
    const alive = connections.filter(({ isClosed }) => !isClosed)
    connections.splice(0, connections.length, ...alive)
    const requests = seen.splice(0).filter(({ startLine }) => startLine !== 'GET /api/after HTTP/1.1')
    return { requests, abandoned }
  }

  const filled = (text: string) => text.replaceAll(COOKIE, cookie)
  return {
    ...{ authority: upstream.authority, cookie, play },
    isToken: (value) => tokens.has(value) || provider.issuedSecrets.includes(value),
    close: async () => {
      await cloakroom.close()
      await Promise.all([upstream.close(), provider.close()])
    },
  }
}

/** A cut that does not go through what stands for the cookies. */
function besideCookie(bytes: string, cut: number): number {
  const start = bytes.lastIndexOf(COOKIE, cut)
  return start !== -1 && cut < start + COOKIE.length ? start : cut
}

/** Waits for all that can still come; when the client has to end its side after silence, gives the answers so far. */
async function settle(
  client: RawClient,
  { requests, end }: StrictReading,
  silenceMs: number,
): Promise<number | undefined> {
  const isSaid = () =>
    end !== 'fault' && end !== 'closed' && client.received().answers.length >= requests.length
  let timer: NodeJS.Timeout | undefined
  let heard = -1
  let isSilent = false
  const silence = new Promise<void>((resolve) => {
    timer = setInterval(() => {
      const length = client.text().length
      if (length === heard) {
        isSilent = true
        resolve()
      }
      heard = length
    }, silenceMs)
  })
  await Promise.race([client.until(isSaid), silence])
  clearInterval(timer)
  if (client.isClosed()) return undefined
  const answers = isSilent ? client.received().answers.length : undefined
  await turn()
  client.leave('end')
  await inTime(client.closed, () => 'the end of the connection').catch(() => client.leave('reset'))
  return answers
}

/** Of the requests as strictly read, and of what follows them. */
function methodsOf(bytes: string, { requests, at, half }: StrictReading): string[] {
  const [next = ''] = half ? [half.method] : (/^[A-Z]+/.exec(bytes.slice(at)) ?? [])
  return [...requests.map(({ method }) => method), next]
}

/** An answer to what is no request has a body even if its first word is HEAD. */
function receivedBy(client: RawClient, methods: readonly string[]): Received {
  const received = client.received()
  return received.rest === ''
    ? received
    : parseAnswers(client.text(), methods.slice(0, -1), client.isClosed())
}
