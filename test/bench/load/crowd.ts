import type { Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { ask, opened, statusOf } from './connection.ts'
import type { CrowdOrder, CrowdResult } from './load-order.ts'

/** Many clients, each with a connection: opened first, so that none is late when all ask. */
let clients: { readonly socket: Socket; readonly request: string }[] = []
let msBetween = 0
/** The kernel queues no more at a listening socket. */
const OPENED_AT_ONCE = 100

process.on('message', async (message: CrowdOrder | 'ask') => {
  if (message === 'ask') process.send!(await askAll())
  else await open(message)
})

async function open({ port, requests, perSecond }: CrowdOrder): Promise<void> {
  msBetween = perSecond === undefined ? 0 : 1_000 / perSecond
  for (let n = 0; n < requests.length; n += OPENED_AT_ONCE) {
    const some = requests.slice(n, n + OPENED_AT_ONCE)
    clients.push(
      ...(await Promise.all(some.map(async (request) => ({ request, socket: await opened(port) })))),
    )
  }
  process.send!('open')
}

async function askAll(): Promise<CrowdResult> {
  const startedAt = performance.now()
  const answers: Record<string, number> = {}
  let refusal: string | undefined
  await Promise.all(
    clients.map(async ({ socket, request }, n) => {
      if (msBetween > 0) await delay(n * msBetween)
      for (;;) {
        const answer = await ask(socket, request)
        const status = statusOf(answer)
        const [, code] = /"code":"(\w+)"/.exec(answer) ?? []
        const name = code ? `${status} ${code}` : status
        answers[name] = (answers[name] ?? 0) + 1
        if (status === '200') return
        const [, seconds] = /\r\nretry-after: (\d+)\r\n/i.exec(answer) ?? []
        if (status !== '503' || !seconds) {
          refusal ??= answer
          return
        }
        await delay(Number(seconds) * 1_000)
      }
    }),
  )
  for (const { socket } of clients) socket.destroy()
  clients = []
  return { elapsedMs: performance.now() - startedAt, answers, refusal }
}
