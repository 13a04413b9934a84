import type { Socket } from 'node:net'
import { ask, opened, statusOf } from './connection.ts'
import type { SteadyOrder } from './load-order.ts'

/** A request each few milliseconds: an answer that takes long holds no other one up, so that all who would wait are seen. */
const idle: Socket[] = []
let [ms, refusal]: [number[], string | undefined] = [[], undefined]

process.on('message', (message: SteadyOrder | 'look') => {
  if (message === 'look') {
    process.send!({ ms, refusal })
    ms = []
  } else begin(message)
})

function begin({ port, requests, perSecond }: SteadyOrder): void {
  let sent = 0
  setInterval(() => askOnce(port, requests[sent++ % requests.length]!), 1_000 / perSecond)
}

async function askOnce(port: number, request: string): Promise<void> {
  const askedAt = performance.now()
  try {
    const { answer, socket } = await answered(port, request)
    ms.push(performance.now() - askedAt)
    if (statusOf(answer) !== '200') refusal ??= answer
    idle.push(socket)
  } catch (error) {
    refusal ??= `no answer: ${error}`
  }
}

/** A connection that was idle may end in the moment it is used again: then the request is sent on a new one (RFC 9110 §9.2.2). */
async function answered(port: number, request: string): Promise<{ answer: string; socket: Socket }> {
  for (let used = idle.pop(); used; used = idle.pop()) {
    if (used.destroyed) continue
    const answer = await ask(used, request).catch(() => undefined)
    if (answer !== undefined) return { answer, socket: used }
  }
  const socket = await opened(port)
  return { answer: await ask(socket, request), socket }
}
