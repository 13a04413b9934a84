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
  const socket = idle.pop() ?? (await opened(port))
  const sentAt = performance.now()
  const answer = await ask(socket, request)
  ms.push(performance.now() - sentAt)
  if (statusOf(answer) !== '200') refusal ??= answer
  idle.push(socket)
}
