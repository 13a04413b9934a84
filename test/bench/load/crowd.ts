import type { Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { ask, opened, statusOf } from './connection.ts'
import type { CrowdOrder, CrowdResult } from './load-order.ts'

/** Many clients, each with a connection: opened first when all ask at once, so that none is late; else when its time comes. */
let clients: { readonly connect: () => Promise<Socket>; readonly request: string }[] = []
let reconnect: () => Promise<Socket>
let msBetween = 0
/** Stands for the answer when the connection was closed before one: the client tries again after a second. */
const CLOSED = 'HTTP/1.1 503 closed\r\nretry-after: 1\r\n"code":"closed"'
/** The kernel queues no more at a listening socket. */
const OPENED_AT_ONCE = 100

process.on('message', async (message: CrowdOrder | 'ask') => {
  if (message === 'ask') process.send!(await askAll())
  else await open(message)
})

async function open({ port, requests, perSecond }: CrowdOrder): Promise<void> {
  reconnect = () => opened(port)
  if (perSecond !== undefined) {
    msBetween = 1_000 / perSecond
    clients = requests.map((request) => ({ request, connect: () => opened(port) }))
  }
  for (let n = 0; perSecond === undefined && n < requests.length; n += OPENED_AT_ONCE) {
    const some = requests.slice(n, n + OPENED_AT_ONCE)
    const sockets = await Promise.all(some.map(() => opened(port)))
    clients.push(...some.map((request, i) => ({ request, connect: async () => sockets[i]! })))
  }
  process.send!('open')
}

async function askAll(): Promise<CrowdResult> {
  const startedAt = performance.now()
  const answers: Record<string, number> = {}
  let refusal: string | undefined
  const sockets: Socket[] = []
  await Promise.all(
    clients.map(async ({ connect, request }, n) => {
      if (msBetween > 0) await delay(n * msBetween)
      let socket = await connect()
      sockets.push(socket)
      for (;;) {
        // The kernel closes connections that did not fit into its queue.
        const answer = await ask(socket, request).catch(() => CLOSED)
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
        socket.destroy()
        await delay(Number(seconds) * 1_000)
        socket = await reconnect()
        sockets.push(socket)
      }
    }),
  )
  for (const socket of sockets) socket.destroy()
  clients = []
  return { elapsedMs: performance.now() - startedAt, answers, refusal }
}
