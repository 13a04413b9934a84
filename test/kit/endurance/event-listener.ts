import { type ClientRequest, type IncomingMessage, request } from 'node:http'
import type { Measured } from './kit.ts'

/** Opens an event stream: the client's side of it. */
export function listen({ port, fields }: Measured, path: string, more: Record<string, string> = {}) {
  const headers = { ...fields, accept: 'text/event-stream', ...more }
  const req: ClientRequest = request({ port, host: '127.0.0.1', path, headers, agent: false })
  let text = ''
  let answer: IncomingMessage | undefined
  let isOver = false
  const arrivals = new Set<() => void>()
  const started = new Promise<IncomingMessage>((resolve, reject) => {
    req.once('error', reject).once('response', (res: IncomingMessage) => {
      answer = res
      res
        .on('error', () => undefined)
        .on('data', (chunk) => {
          text += chunk.toString('latin1')
          for (const look of arrivals) look()
        })
      resolve(res)
    })
  })
  const over = new Promise<void>((resolve) => {
    req
      .on('error', () => undefined)
      .once('close', () => {
        isOver = true
        resolve()
      })
  })
  req.end()
  return {
    headers: started,
    over,
    isOver: () => isOver,
    isWhole: () => answer?.complete === true,
    text: () => text,
    leave: () => void req.destroy(),
    /** Resolves with the moment at which the stream ended in these words, `performance.now()`. */
    saying: (words: string) =>
      new Promise<number>((resolve, reject) => {
        const look = () => {
          if (!text.endsWith(words)) return
          arrivals.delete(look)
          resolve(performance.now())
        }
        arrivals.add(look)
        void over.then(() => reject(new Error(`the stream ended before ${JSON.stringify(words)}`)))
        look()
      }),
  }
}
