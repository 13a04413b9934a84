import { Agent, type IncomingMessage, request } from 'node:http'
import { setTimeout as delay } from 'node:timers/promises'
import { createBrowser } from '../kit/browsers/browser.ts'
import { INGRESS_ERROR } from './ingress.ts'

/** What was answered while one thing happened. */
export type Tally = {
  requests: number
  /** How often, by status and the code of Cloakroom's or the ingress' error; 200 aside. */
  readonly failed: Record<string, number>
  /** Longest time in which a session that asked was not served, in ms; what an answer takes by itself not counted. */
  longestGapMs: number
  /** Sessions that were refused with 401 and do not exist any more. */
  lost: number
  /** 401 to sessions that exist. */
  spuriousSignOuts: number
  /** Refusals that set a cookie. */
  cookiesTouched: number
}

/** Signed-in users who ask for one path, about once a second each. */
export type Crowd = {
  /** Counts anew; the tally that is given back goes on until the next one begins. */
  begin(): Tally
  stop(): Promise<void>
}

/** How the users get in. */
export type CrowdOptions = {
  readonly sessions: number
  /** The origin that browsers see. */
  readonly origin: string
  /** Where the ingress listens. */
  readonly url: string
  /** The provider's origin as browsers see it, and where it is. */
  readonly provider: readonly [origin: string, url: string]
}

type User = { cookie: string; turn: number }
type Answer = { readonly status: number; readonly code: string; readonly setsCookie: boolean }

const PAUSE_MS = 1_000
/** Of each user's requests, one in so many is a POST, and one takes long. */
const POST_EACH = 7
const SLOW_EACH = 23
const SLOW_MS = 2_000
const SIGN_INS_AT_A_TIME = 4

/** Signs them in and begins. */
export async function startCrowd(options: CrowdOptions): Promise<Crowd> {
  const agent = new Agent({ keepAlive: true })
  let tally = newTally()
  let isOver = false

  const signIn = async (): Promise<string> => {
    const browser = createBrowser({
      origin: options.origin,
      connect: { [options.origin]: options.url, [options.provider[0]]: options.provider[1] },
    })
    await browser.signIn()
    const cookie = browser.cookieHeader()
    browser.close()
    return cookie
  }

  const ask = (user: User, path: string, method = 'GET') =>
    send(`${options.url}${path}`, { agent, method, origin: options.origin, cookie: user.cookie })

  async function use(user: User): Promise<void> {
    // Not all at the same moment.
    await delay(Math.random() * PAUSE_MS)
    let unservedSince: number | undefined
    for (; !isOver; user.turn += 1) {
      const isSlow = user.turn % SLOW_EACH === 0
      const method = user.turn % POST_EACH === 0 && !isSlow ? 'POST' : 'GET'
      unservedSince ??= performance.now()
      const answer = await ask(user, isSlow ? `/api/orders?delay=${SLOW_MS}` : '/api/orders', method)
      // Of the tally that counts when the answer has come.
      const counted = tally
      counted.requests += 1
      if (answer.status === 200) {
        const gap = performance.now() - unservedSince - (isSlow ? SLOW_MS : 0)
        counted.longestGapMs = Math.max(counted.longestGapMs, gap)
        unservedSince = undefined
      } else {
        const key = `${answer.status} ${answer.code}`
        counted.failed[key] = (counted.failed[key] ?? 0) + 1
        if (answer.setsCookie) counted.cookiesTouched += 1
        if (answer.status === 401) await comeBack(user, counted)
      }
      await delay(PAUSE_MS * (0.75 + Math.random() / 2))
    }
  }

  /** Looks whether a session that was refused exists; if it does not, its user signs in again. */
  async function comeBack(user: User, counted: Tally): Promise<void> {
    const there = await ask(user, '/bff/user')
    const again = await ask(user, '/api/orders')
    if (there.status === 200 && again.status !== 401) {
      counted.spuriousSignOuts += 1
      return
    }
    counted.lost += 1
    user.cookie = await signIn().catch(() => user.cookie)
  }

  const users: User[] = []
  const joining = Array.from({ length: SIGN_INS_AT_A_TIME }, async () => {
    while (users.length < options.sessions) {
      const user = { cookie: '', turn: users.length }
      users.push(user)
      user.cookie = await signIn()
    }
  })
  await Promise.all(joining)
  const using = users.map(use)
  return {
    begin() {
      tally = newTally()
      return tally
    },
    async stop() {
      isOver = true
      await Promise.all(using)
      agent.destroy()
    },
  }
}

function newTally(): Tally {
  return { requests: 0, failed: {}, longestGapMs: 0, lost: 0, spuriousSignOuts: 0, cookiesTouched: 0 }
}

type Ask = {
  readonly agent: Agent
  readonly method: string
  readonly origin: string
  readonly cookie: string
}

/** One script's request, as a browser sends it; a connection that breaks is status 0. */
function send(url: string, { agent, method, origin, cookie }: Ask): Promise<Answer> {
  const headers: Record<string, string> = {
    ...{ host: new URL(origin).host, cookie, 'x-csrf': '1', accept: 'application/json' },
    ...{ 'sec-fetch-site': 'same-origin', 'sec-fetch-mode': 'cors', 'sec-fetch-dest': 'empty' },
    ...(method === 'POST' ? { origin, 'content-type': 'application/json' } : {}),
  }
  return new Promise((resolve) => {
    const broken = ({ code = 'error' }: NodeJS.ErrnoException) =>
      resolve({ status: 0, code, setsCookie: false })
    const read = (answer: IncomingMessage) => {
      const { headers: fields, statusCode: status = 0 } = answer
      const code = String(fields['cloakroom-error'] ?? fields[INGRESS_ERROR] ?? 'of the API')
      answer.resume().on('error', broken)
      answer.once('end', () => resolve({ status, code, setsCookie: fields['set-cookie'] !== undefined }))
    }
    request(url, { agent, method, headers })
      .once('error', broken)
      .once('response', read)
      .end(method === 'POST' ? '{"item":"umbrella"}' : undefined)
  })
}
