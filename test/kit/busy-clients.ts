import { Agent, type IncomingMessage, request } from 'node:http'
import { setTimeout as delay } from 'node:timers/promises'

/** Clients that ask for one path again and again, each over one kept connection. */
export type BusyClients = {
  /** How many whole answers have come. */
  answered(): number
  /** How many have been told that their connection ends. */
  closed(): number
  /** Resolves when all are gone: with the number of whole answers, and what went wrong how often. */
  gone(): Promise<{ answered: number; failures: Record<string, number> }>
}

/**
 * Starts them; each pauses for one of `pausesMs` between two requests. A client goes when an answer says that its
 * connection ends, or nobody listens any more: another replica has it then.
 */
export function startBusyClients(
  port: number,
  { clients, pausesMs, path = '/', headers = {} }: BusyClientsOptions,
): BusyClients {
  const failures: Record<string, number> = {}
  let answered = 0
  let closed = 0

  async function visit(pauseMs: number): Promise<void> {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 })
    for (;;) {
      const outcome = await askOnce({ host: '127.0.0.1', port, path, headers, agent })
      if (outcome === 'ECONNREFUSED') break
      if (outcome !== 'keep-alive' && outcome !== 'close') failures[outcome] = (failures[outcome] ?? 0) + 1
      else answered += 1
      if (outcome === 'close') closed += 1
      if (outcome !== 'keep-alive') break
      if (pauseMs > 0) await delay(pauseMs)
    }
    agent.destroy()
  }

  const visits = Array.from({ length: clients }, (_, n) => visit(pausesMs[n % pausesMs.length]!))
  return {
    answered: () => answered,
    closed: () => closed,
    async gone() {
      await Promise.all(visits)
      return { answered, failures }
    },
  }
}

/** How many there are, and what they do. Times in ms. */
export type BusyClientsOptions = {
  readonly clients: number
  readonly pausesMs: readonly number[]
  readonly path?: string
  readonly headers?: Readonly<Record<string, string>>
}

/** What a 200 said of its connection; otherwise its status, or the error's code. */
function askOnce(options: Parameters<typeof request>[1] & object): Promise<string> {
  return new Promise((resolve) => {
    const fail = ({ code = 'error' }: NodeJS.ErrnoException) => resolve(code)
    function read(answer: IncomingMessage): void {
      const outcome = answer.statusCode === 200 ? answer.headers.connection : answer.statusCode
      answer
        .resume()
        .on('error', fail)
        .on('end', () => resolve(String(outcome)))
    }
    request(options, read).on('error', fail).end()
  })
}
